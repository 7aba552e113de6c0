"""Tests of differences: values worked by hand or published."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from medtune.evaluation import permutation
from medtune.evaluation.metrics.additive import mean_of
from medtune.evaluation.permutation import EXACT_GROUPS, adjust, holm, mcnemar_exact, paired_cluster_permutation
from medtune.evaluation.student import t_quantile, t_two_sided
from medtune.types import Difference, Direction, MetricValue


def statistics(values: list[float]) -> np.ndarray:
    return np.stack([np.array(values, dtype=np.float64), np.ones(len(values))], axis=1)


def test_all_exchanges_of_three_groups_by_hand() -> None:
    """Differences 3, 2 and 1: of the eight signs of them only +++ and --- reach a sum of 6, and ++- and --+ one of 4."""
    groups = ["a", "b", "c"]
    assert paired_cluster_permutation(statistics([0, 0, 0]), statistics([3, 2, 1]), groups, mean_of) == 2 / 8
    assert paired_cluster_permutation(statistics([0, 0, 1]), statistics([3, 2, 0]), groups, mean_of) == 4 / 8
    assert paired_cluster_permutation(statistics([1, 1, 1]), statistics([1, 1, 1]), groups, mean_of) == 1.0


def test_whole_groups_are_exchanged() -> None:
    """Twelve answers of two patients are two exchanges that can go either way, not twelve."""
    groups = ["a"] * 6 + ["b"] * 6
    first, second = statistics([0] * 12), statistics([1] * 12)
    assert paired_cluster_permutation(first, second, groups, mean_of) == 2 / 4
    assert paired_cluster_permutation(first, second, [str(number) for number in range(12)], mean_of) == 2 / 2**12


def test_drawn_exchanges_come_near_the_exact_ones_and_are_never_zero() -> None:
    rng = np.random.default_rng(1)
    first, second = statistics(list(rng.normal(0, 1, EXACT_GROUPS))), statistics(list(rng.normal(0.5, 1, EXACT_GROUPS)))
    names = np.arange(EXACT_GROUPS)
    exact = paired_cluster_permutation(first, second, names, mean_of)
    # A further patient whose answers are the same under both changes no difference, but makes the exchanges drawn.
    more = np.append(names, EXACT_GROUPS)
    one, other = (np.concatenate([table, [[0.0, 0.0]]]) for table in (first, second))
    drawn = paired_cluster_permutation(one, other, more, mean_of, num_permutations=20_000, seed=2)
    assert exact is not None
    assert drawn == pytest.approx(exact, abs=0.015)
    sure = paired_cluster_permutation(statistics([0] * 40), statistics([1] * 40), np.arange(40), mean_of, num_permutations=999)
    assert sure == 1 / 9991, "ten times as many are drawn when none is as extreme"


def test_a_difference_that_is_not_there_has_no_p() -> None:
    assert paired_cluster_permutation(statistics([1]), statistics([2]), ["a"], mean_of) is None
    assert paired_cluster_permutation(np.zeros((3, 2)), np.zeros((3, 2)), ["a", "b", "c"], mean_of) is None
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_cluster_permutation(np.zeros((3, 2)), np.zeros((2, 2)), ["a", "b", "c"], mean_of)


@pytest.mark.parametrize(
    ("counts", "p"), [((0, 0), 1.0), ((5, 5), 1.0), ((0, 5), 0.0625), ((1, 9), 22 / 1024), ((3, 9), 598 / 4096)]
)
def test_mcnemar_by_hand(counts: tuple[int, int], p: float) -> None:
    """(1, 9): twice (1 + 10) of 2 ** 10. (3, 9): twice (1 + 12 + 66 + 220) of 2 ** 12."""
    assert mcnemar_exact(*counts) == pytest.approx(p, rel=1e-12)
    assert mcnemar_exact(*reversed(counts)) == pytest.approx(p, rel=1e-12)


def test_mcnemar_of_many_answers_neither_overflows_nor_takes_long() -> None:
    assert mcnemar_exact(50_000, 50_000) == 1.0
    # The normal approximation with continuity correction: z = 599 / sqrt(100600).
    assert mcnemar_exact(50_000, 50_600) == pytest.approx(math.erfc(599 / math.sqrt(100_600) / math.sqrt(2)), rel=1e-3)


def test_holm_by_hand() -> None:
    """Sorted .01, .02, .03, .04 times 4, 3, 2, 1 is .04, .06, .06, .04; none may be smaller than the one before it."""
    assert holm({"d": 0.04, "a": 0.01, "c": 0.03, "b": 0.02}) == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def entry(metric: str, task: str | None, p: float | None) -> Difference:
    return Difference(metric=metric, task=task, first=0, second=0, difference=0, num_samples=1, num_groups=1, p_value=p)


def known(metric: str, direction: Direction) -> MetricValue:
    return MetricValue(name=metric, title=metric, direction=direction, low=0, high=1)


def test_a_family_is_one_level_of_one_pair() -> None:
    entries = [entry("a", None, 0.02), entry("a", "x", 0.03), entry("b", None, 0.5), entry("c", None, None), entry("a", "y", 0.01)]
    values = {name: known(name, "higher") for name in "abc"}
    assert [found.p_adjusted for found in adjust(entries, values)] == [0.04, 0.03, 0.5, None, 0.02]


def test_a_metric_without_a_better_end_enlarges_no_family() -> None:
    values = {"a": known("a", "higher"), "b": known("b", "neither")}
    first, second = adjust([entry("a", None, 0.04), entry("b", None, 0.001)], values)
    assert (first.p_adjusted, second.p_value, second.p_adjusted) == (0.04, 0.001, None)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062047364), (2, 4.3026527297), (5, 2.5705818356), (30, 2.0422724563), (1e9, 1.9599639845)]
)
def test_students_quantiles_are_the_tables(degrees: float, quantile: float) -> None:
    """Abramowitz & Stegun (1964), table 26.10, with more digits."""
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=1e-9)
    assert t_two_sided(quantile, degrees) == pytest.approx(0.05, abs=1e-9)


def test_students_distribution_between_whole_degrees() -> None:
    assert t_quantile(0.975, 2) > t_quantile(0.975, 2.5) > t_quantile(0.975, 3)
    assert t_two_sided(0.0, 2.5) == 1.0
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="degrees"):
            t_two_sided(1.0, wrong)
    with pytest.raises(ValueError, match="quantile"):
        t_quantile(0.5, 3)


def test_a_clear_difference_survives_the_adjustment_for_hundreds_of_others() -> None:
    """2000 exchanges alone give no less than 1 / 2001, and 125 times that is 0.06: nothing could ever be called better."""
    before, after = np.stack([np.zeros(60), np.ones(60)], axis=1), np.ones((60, 2))
    p = paired_cluster_permutation(before, after, np.arange(60), mean_of, num_permutations=2000)
    assert p is not None
    assert p == pytest.approx(1 / 20_001)
    assert holm({place: p if place == 0 else 0.5 for place in range(125)})[0] < 0.05


def test_an_unclear_difference_is_not_drawn_for_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[int] = []
    exchanges = permutation._exchanges

    def count(num_groups: int, num_permutations: int, seed: int, stage: int) -> Iterator[NDArray[np.float64]]:
        stages.append(stage)
        return exchanges(num_groups, num_permutations, seed, stage)

    monkeypatch.setattr(permutation, "_exchanges", count)
    rng = np.random.default_rng(0)
    first, second = (np.stack([rng.normal(0, 1, 40), np.ones(40)], axis=1) for _ in range(2))
    p = paired_cluster_permutation(first, second, np.arange(40), mean_of, num_permutations=2000)
    assert p is not None
    assert p > 0.005
    assert stages == [0]


def test_exchanges_are_kept_as_bits_and_used_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.default_rng([3, 1]).integers(0, 2, (50, 37), dtype=np.uint8)
    monkeypatch.setattr(permutation, "_BLOCK_CELLS", 7 * 37)
    for _ in range(2):
        blocks = list(permutation._exchanges(37, 50, 3, 0))
        assert [len(block) for block in blocks] == [7] * 7 + [1]
        assert np.array_equal(np.concatenate(blocks), drawn)
    assert permutation._kept_exchanges(37, 50, 3, 0).nbytes == -(-50 * 37 // 8)
    monkeypatch.setattr(permutation, "_MAX_CELLS", 37 * 20)
    pieces = list(permutation._exchanges(37, 50, 3, 0))
    rng = np.random.default_rng([3, 1])
    fresh = [rng.integers(0, 2, (rows, 37), dtype=np.uint8) for rows in (20, 20, 10)]
    assert np.array_equal(np.concatenate(pieces), np.concatenate(fresh))
