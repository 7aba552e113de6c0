"""Statistics held against simulated data whose truth is known: coverage of the intervals, false positives of the tests.

Each figure is a share of 1,000 simulated data sets (error of the share itself: 0.7 points at 95 %), seeds fixed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from medtune.evaluation.bootstrap import cluster_bootstrap, paired_cluster_bootstrap
from medtune.evaluation.measure import ScoreTable
from medtune.evaluation.metrics.additive import mean_of
from medtune.evaluation.permutation import mcnemar_exact, paired_cluster_permutation
from medtune.evaluation.several_runs import averaged_difference
from medtune.types import MetricValue, Prediction, Sample, Score

Numbers = NDArray[np.float64]
Simulation = Callable[[np.random.Generator, int], Numbers]
"""(generator, number of groups) -> (groups, k) statistics summed by group."""

NUM_SETS = 1000


def f1_of(totals: Numbers) -> Numbers:
    hits, extra, missed = np.moveaxis(totals, -1, 0)
    return np.asarray(2 * hits / np.maximum(2 * hits + extra + missed, 1e-9))


def scores_of_patients(rng: np.random.Generator, num: int) -> Numbers:
    """2 to 6 samples of each patient around the patient's own mean; the truth is 0."""
    sizes = rng.integers(2, 7, size=num)
    return np.stack([sizes * rng.normal(0, 1, num) + np.sqrt(sizes) * rng.normal(0, 0.5, num), sizes], axis=1)


def right_answers(share: float) -> Simulation:
    """Right or wrong, the patients' shares beta distributed with mean ``share`` (correlation within a patient: 1 in 4)."""

    def draw(rng: np.random.Generator, num: int) -> Numbers:
        sizes = 1 + rng.poisson(3, num)
        own = rng.beta(3 * share, 3 * (1 - share), num)
        return np.stack([rng.binomial(sizes, own), sizes], axis=1).astype(np.float64)

    return draw


def findings(rng: np.random.Generator, num: int) -> Numbers:
    """True positives, false positives, misses: for F1, a ratio that is no mean."""
    sizes, skill = 2 + rng.poisson(4, num), rng.beta(2, 2, num)
    present = rng.binomial(sizes, 0.4)
    hits = rng.binomial(present, skill)
    return np.stack([hits, rng.binomial(sizes - present, (1 - skill) * 0.4), present - hits], axis=1).astype(np.float64)


F1_TRUTH = float(f1_of(findings(np.random.default_rng(99), 400_000).sum(axis=0)))


def coverage(draw: Simulation, aggregate: Callable[[Numbers], Numbers], truth: float, num_groups: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    names = np.arange(num_groups)
    held = 0
    for number in range(NUM_SETS):
        _, low, high = cluster_bootstrap(draw(rng, num_groups), names, aggregate, num_resamples=1000, seed=number % 8)
        assert low is not None
        assert high is not None
        held += low <= truth <= high
    return held / NUM_SETS


@pytest.mark.parametrize("num_groups", [30, 50, 100])
@pytest.mark.parametrize(
    ("draw", "aggregate", "truth"),
    [
        pytest.param(scores_of_patients, mean_of, 0.0, id="mean"),
        pytest.param(right_answers(0.7), mean_of, 0.7, id="accuracy"),
        pytest.param(findings, f1_of, F1_TRUTH, id="f1"),
    ],
)
def test_intervals_hold_the_truth_95_times_in_100(
    draw: Simulation, aggregate: Callable[[Numbers], Numbers], truth: float, num_groups: int
) -> None:
    assert 0.93 <= coverage(draw, aggregate, truth, num_groups, seed=5) <= 0.97


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
        _, low, high = paired_cluster_bootstrap(*paired(rng, 40), np.arange(40), mean_of, num_resamples=1000, seed=number % 8)
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
        _, low, high = paired_cluster_bootstrap(flat[0], flat[1], np.arange(120), mean_of, num_resamples=400, seed=number % 8)
        pooled += low is not None and high is not None and low <= 0 <= high
    assert 0.92 <= held / num_sets <= 1.0
    assert pooled / num_sets < 0.6
