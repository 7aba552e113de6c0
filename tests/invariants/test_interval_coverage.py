"""Statistics held against simulated data whose truth is known: coverage of the intervals, false positives of the tests.

Each figure is a share of 1,000 simulated data sets (error of the share itself: 0.7 points at 95 %), seeds fixed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from medtune.evaluation.bootstrap import apart, bootstrap_sums, cluster_bootstrap, sum_by_group
from medtune.evaluation.measure import ScoreTable
from medtune.evaluation.metrics.additive import mean_of
from medtune.evaluation.permutation import mcnemar_exact, paired_cluster_permutation
from medtune.evaluation.several_runs import averaged_difference
from medtune.types import MetricValue, Prediction, Sample, Score

Numbers = NDArray[np.float64]
Simulation = Callable[[np.random.Generator, int], tuple[Numbers, NDArray[np.int64]]]
"""(generator, number of groups) -> (groups, k) statistics summed by group, and (groups,) numbers of samples."""

NUM_SETS = 1000


def f1_of(totals: Numbers) -> Numbers:
    hits, extra, missed = np.moveaxis(totals, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * hits / (2 * hits + extra + missed))


def bleu_of(totals: Numbers) -> Numbers:
    """Corpus BLEU of (length, length of the references, matched and possible n-grams of the orders 1 to 4)."""
    length, wanted, matched, possible = totals[..., 0], totals[..., 1], totals[..., 2::2], totals[..., 3::2]
    return np.asarray(np.exp(np.log(matched / possible).mean(axis=-1) + np.minimum(1 - wanted / length, 0)))


def some(rng: np.random.Generator, num: int) -> NDArray[np.int64]:
    """One sample of a patient, four on average."""
    return 1 + rng.poisson(3, num)


def very_unequal(rng: np.random.Generator, num: int) -> NDArray[np.int64]:
    """One or two samples of most patients, a hundred of some: 100 patients tell as much as 22 with equally many."""
    return np.maximum(1, np.exp(rng.normal(0.5, 1.5, num)).round()).astype(np.int64)


def scores_of_patients(rng: np.random.Generator, num: int) -> tuple[Numbers, NDArray[np.int64]]:
    """2 to 6 samples of each patient around the patient's own mean; the truth is 0."""
    sizes = rng.integers(2, 7, size=num)
    return np.stack([sizes * rng.normal(0, 1, num) + np.sqrt(sizes) * rng.normal(0, 0.5, num), sizes], axis=1), sizes


def right_answers(share: float, sizes_of: Callable[[np.random.Generator, int], NDArray[np.int64]] = some) -> Simulation:
    """Right or wrong, the patients' shares beta distributed with mean ``share`` (correlation within a patient: 1 in 4)."""

    def draw(rng: np.random.Generator, num: int) -> tuple[Numbers, NDArray[np.int64]]:
        sizes = sizes_of(rng, num)
        own = rng.beta(3 * share, 3 * (1 - share), num)
        return np.stack([rng.binomial(sizes, own), sizes], axis=1).astype(np.float64), sizes

    return draw


def findings(present_in: float) -> Simulation:
    """True positives, false positives, misses: for F1, a ratio that is no mean."""

    def draw(rng: np.random.Generator, num: int) -> tuple[Numbers, NDArray[np.int64]]:
        sizes, skill = 2 + some(rng, num), rng.beta(2, 2, num)
        present = rng.binomial(sizes, present_in)
        hits = rng.binomial(present, skill)
        invented = rng.binomial(sizes - present, (1 - skill) * present_in)
        return np.stack([hits, invented, present - hits], axis=1).astype(np.float64), sizes

    return draw


def texts(rng: np.random.Generator, num: int) -> tuple[Numbers, NDArray[np.int64]]:
    """Answers of some 20 words, a little shorter than their references, of patients who are described more or less well."""
    sizes, skill = some(rng, num), 0.3 + 0.5 * rng.beta(4, 4, num)
    length, wanted = 4 * sizes + rng.poisson(20 * sizes), 4 * sizes + rng.poisson(22 * sizes)
    columns = [length, wanted]
    for order in range(4):
        possible = length - order * sizes
        columns += [rng.binomial(possible, skill ** (order + 1)), possible]
    return np.stack(columns, axis=1).astype(np.float64), sizes


def truth_of(draw: Simulation, aggregate: Callable[[Numbers], Numbers]) -> float:
    return float(aggregate(draw(np.random.default_rng(99), 400_000)[0].sum(axis=0)))


COMMON, RARE = findings(0.4), findings(0.05)


def coverage(
    draw: Simulation, aggregate: Callable[[Numbers], Numbers], truth: float, num_groups: int, *, limits: tuple[float, float] | None
) -> tuple[float, float]:
    """(share of the intervals that hold the truth, share of the data sets that have no interval)."""
    rng = np.random.default_rng(5)
    held = without = 0
    for number in range(NUM_SETS):
        sums, sizes = draw(rng, num_groups)
        groups = np.repeat(np.arange(num_groups), sizes)
        _, low, high = cluster_bootstrap(
            (sums / sizes[:, None])[groups], groups, aggregate, num_resamples=1000, seed=number % 8, limits=limits
        )
        assert low is not None
        assert high is not None
        without += bool(np.isnan(low))
        held += low <= truth <= high
    return held / max(NUM_SETS - without, 1), without / NUM_SETS


@pytest.mark.parametrize("num_groups", [30, 50, 100])
@pytest.mark.parametrize(
    ("draw", "aggregate", "truth", "limits"),
    [
        pytest.param(scores_of_patients, mean_of, 0.0, None, id="mean"),
        pytest.param(right_answers(0.7), mean_of, 0.7, (0.0, 1.0), id="accuracy"),
        pytest.param(COMMON, f1_of, truth_of(COMMON, f1_of), (0.0, 1.0), id="f1"),
    ],
)
def test_intervals_hold_the_truth_95_times_in_100(
    draw: Simulation,
    aggregate: Callable[[Numbers], Numbers],
    truth: float,
    limits: tuple[float, float] | None,
    num_groups: int,
) -> None:
    held, without = coverage(draw, aggregate, truth, num_groups, limits=limits)
    assert 0.93 <= held <= 0.97
    assert without == 0


@pytest.mark.parametrize(
    ("draw", "aggregate", "truth", "limits"),
    [
        pytest.param(right_answers(0.95), mean_of, 0.95, (0.0, 1.0), id="accuracy near 1"),
        pytest.param(texts, bleu_of, truth_of(texts, bleu_of), None, id="corpus BLEU"),
    ],
)
def test_so_do_those_of_shares_near_one_and_of_corpus_bleu(
    draw: Simulation, aggregate: Callable[[Numbers], Numbers], truth: float, limits: tuple[float, float] | None
) -> None:
    held, without = coverage(draw, aggregate, truth, 50, limits=limits)
    assert 0.93 <= held <= 0.97
    assert without == 0


@pytest.mark.parametrize(("share", "num_groups"), [(0.7, 30), (0.9, 100)])
def test_groups_of_very_different_size_do_not_make_intervals_too_sure(share: float, num_groups: int) -> None:
    """Counting patients alone they held the truth in 88 of 100 data sets; by their effective number in 92 to 94."""
    held, _ = coverage(right_answers(share, very_unequal), mean_of, share, num_groups, limits=(0.0, 1.0))
    assert 0.905 <= held <= 0.97


@pytest.mark.parametrize("num_groups", [10, 30])
def test_a_rare_finding_has_an_interval_that_holds_or_none(num_groups: int) -> None:
    """In ten patients it is often in one or two: what interval there would be held the truth in 69 of 100."""
    held, without = coverage(RARE, f1_of, truth_of(RARE, f1_of), num_groups, limits=(0.0, 1.0))
    assert held >= 0.93
    assert (0.15 < without < 0.4) if num_groups == 10 else without < 0.01


def test_drawing_samples_instead_of_groups_would_not_hold_it() -> None:
    """Or the test above could not tell them apart."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    held = 0
    for number in range(300):
        values = rng.normal(0, 1, 40)[groups] + rng.normal(0, 0.5, len(groups))
        statistics = np.stack([values, np.ones(len(groups))], axis=1)
        _, low, high = cluster_bootstrap(statistics, np.arange(len(groups)), mean_of, num_resamples=400, seed=number % 8)
        held += low is not None and high is not None and low <= 0 <= high
    assert held / 300 < 0.7


def paired(rng: np.random.Generator, num_groups: int) -> tuple[Numbers, Numbers]:
    """Two models that are equally good, on the same patients: what is hard for one is hard for the other."""
    sizes = 1 + rng.poisson(3, num_groups)
    hard, own = rng.normal(0, 1, num_groups), rng.normal(0, 0.4, (2, num_groups))
    return tuple(  # type: ignore[return-value]
        np.stack([sizes * (hard + part) + np.sqrt(sizes) * rng.normal(0, 0.5, num_groups), sizes], axis=1) for part in own
    )


def test_intervals_of_differences_hold_the_truth() -> None:
    rng, held = np.random.default_rng(2), 0
    for number in range(NUM_SETS):
        sums = sum_by_group(paired(rng, 40), np.arange(40))
        _, low, high = bootstrap_sums(sums, apart(mean_of), num_resamples=1000, seed=number % 8)
        held += low is not None and high is not None and low <= 0 <= high
    assert 0.93 <= held / NUM_SETS <= 0.97


@pytest.mark.parametrize("num_groups", [8, 40], ids=["every exchange", "drawn"])
def test_the_permutation_test_is_wrong_5_times_in_100(num_groups: int) -> None:
    rng, found = np.random.default_rng(3), 0
    num_sets = 4 * NUM_SETS  # error of the share: 0.34 points
    for number in range(num_sets):
        p = paired_cluster_permutation(
            *paired(rng, num_groups), np.arange(num_groups), mean_of, num_permutations=999, seed=number % 8
        )
        assert p is not None
        found += p <= 0.05
    assert 0.04 <= found / num_sets <= 0.06


def test_mcnemar_is_too_sure_of_answers_that_belong_together() -> None:
    """Equally good models, five answers a patient that are nearly alike: why the clustered test is the one to read."""
    rng, alone, clustered = np.random.default_rng(4), 0, 0
    for number in range(NUM_SETS):
        skill = rng.beta(0.3, 0.3, (2, 40))
        right = rng.binomial(5, skill).astype(np.float64)
        answers = (rng.random((2, 40, 5)) < skill[:, :, None]).reshape(2, -1)
        alone += mcnemar_exact(int((answers[0] & ~answers[1]).sum()), int((answers[1] & ~answers[0]).sum())) <= 0.05
        first, second = (np.stack([counts, np.full(40, 5.0)], axis=1) for counts in right)
        p = paired_cluster_permutation(first, second, np.arange(40), mean_of, num_permutations=499, seed=number % 8)
        clustered += p is not None and p <= 0.05
    assert alone / NUM_SETS > 0.2
    assert 0.03 <= clustered / NUM_SETS <= 0.065


class _Mean:
    name = "m"
    values: tuple[MetricValue, ...] = (MetricValue(name="m/v", title="Value", direction="higher", low=-9, high=9),)

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        raise NotImplementedError

    def aggregate(self, name: str, totals: Numbers) -> Numbers:
        assert name == "m/v"
        return mean_of(totals)


def test_runs_with_other_seeds_are_averaged_and_their_spread_counts() -> None:
    """Three runs an arm whose seeds matter: the interval holds the truth; that of the answers pooled would not."""
    rng, held, pooled = np.random.default_rng(5), 0, 0
    names = [f"s{number}" for number in range(40)]
    num_sets = 300
    for number in range(num_sets):
        hard = rng.normal(0, 1, 40)
        arms = [[hard + rng.normal(0, 0.3) + rng.normal(0, 0.3, 40) for _ in range(3)] for _ in range(2)]

        def table(values: Numbers, seed: int = number % 8) -> ScoreTable:
            scores = [Score(sample_id=name, metric="m/v", value=value) for name, value in zip(names, values, strict=True)]
            return ScoreTable.build(
                scores, dict.fromkeys(names, "t"), {name: name for name in names}, {"m/v": _Mean()}, num_resamples=400, seed=seed
            )

        found = averaged_difference([table(run) for run in arms[0]], [table(run) for run in arms[1]], "m/v")
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
        flat = [np.stack([np.concatenate(arm), np.ones(120)], axis=1) for arm in arms]
        sums = sum_by_group([flat[0], flat[1]], np.arange(120))
        _, low, high = bootstrap_sums(sums, apart(mean_of), num_resamples=400, seed=number % 8)
        pooled += low is not None and high is not None and low <= 0 <= high
    assert 0.92 <= held / num_sets <= 1.0
    assert pooled / num_sets < 0.6
