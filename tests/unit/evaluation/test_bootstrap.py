"""The cluster bootstrap: exact where it can be checked exactly. Its coverage is simulated in ``tests/invariants``."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from medtune.evaluation import bootstrap
from medtune.evaluation.bootstrap import apart, bootstrap_sums, cluster_bootstrap, sum_by_group
from medtune.evaluation.metrics.additive import mean_of
from medtune.evaluation.student import t_quantile


def clustered(rng: np.random.Generator, num_groups: int, *, spread: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Samples around their group's own mean; the true mean is 0. Returns statistics (n, 2) and groups (n,)."""
    groups = np.repeat(np.arange(num_groups), rng.integers(2, 7, size=num_groups))
    values = rng.normal(0, spread, num_groups)[groups] + rng.normal(0, 0.5, len(groups))
    return np.stack([values, np.ones(len(values))], axis=1), groups


def difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    groups: ArrayLike,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    limits: tuple[float, float] | None = None,
) -> tuple[float, float | None, float | None]:
    """``second`` minus ``first``, as a report asks for it."""
    sums = sum_by_group([first, second], np.asarray(groups))
    return bootstrap_sums(sums, apart(mean_of), num_resamples=num_resamples, seed=seed, limits=limits)


def by_hand(statistics: NDArray[np.float64], groups: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """The expanded BCa interval of the mean, group by group, from the formulas of Efron (1987) and Hesterberg (2015)."""
    normal = NormalDist()
    num = counts.shape[1]
    drawn = []
    for row in counts:
        picked = np.concatenate([np.tile(np.flatnonzero(groups == group), times) for group, times in enumerate(row)])
        drawn.append(statistics[picked.astype(int), 0].sum() / statistics[picked.astype(int), 1].sum())
    mean = statistics[:, 0].sum() / statistics[:, 1].sum()
    z0 = normal.inv_cdf(np.mean(np.array(drawn) < mean))
    without = np.array([statistics[groups != group, 0].sum() / statistics[groups != group, 1].sum() for group in range(num)])
    away = without.mean() - without
    a = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    sizes = [int((groups == group).sum()) for group in range(num)]
    effective = sum(sizes) ** 2 / sum(size**2 for size in sizes)
    z = t_quantile(0.975, effective - 1) * math.sqrt(effective / (effective - 1))
    levels = [normal.cdf(z0 + (z0 + sign * z) / (1 - a * (z0 + sign * z))) for sign in (-1, 1)]
    low, high = np.quantile(drawn, levels)
    return float(low), float(high)


def test_it_is_the_bootstrap_of_a_loop() -> None:
    """The matrix product against drawing groups one by one with the same counts."""
    statistics, groups = clustered(np.random.default_rng(1), 7)
    counts = np.random.default_rng(5).multinomial(7, np.full(7, 1 / 7), size=100)
    value, low, high = cluster_bootstrap(statistics, groups, mean_of, num_resamples=100, seed=5)
    assert value == pytest.approx(statistics[:, 0].mean())
    assert (low, high) == pytest.approx(by_hand(statistics, groups, counts))


def test_the_interval_is_wider_than_that_of_percentiles_and_holds_the_number() -> None:
    statistics, groups = clustered(np.random.default_rng(1), 9)
    value, low, high = cluster_bootstrap(statistics, groups, mean_of, num_resamples=2000)
    counts = next(bootstrap.draw_counts(9, 2000, 0))
    plain = np.percentile(mean_of(counts @ bootstrap.sum_by_group([statistics], groups).of[0]), [2.5, 97.5])
    assert low is not None
    assert high is not None
    assert low < value < high
    assert 1.1 < (high - low) / (plain[1] - plain[0]) < 1.7


def test_the_same_seed_gives_the_same_interval_in_any_order() -> None:
    statistics, groups = clustered(np.random.default_rng(2), 12)
    names = np.array([f"patient-{group}" for group in groups])
    first = cluster_bootstrap(statistics, names, mean_of, num_resamples=200, seed=3)
    order = np.random.default_rng(9).permutation(len(groups))
    assert cluster_bootstrap(statistics[order], names[order], mean_of, num_resamples=200, seed=3) == pytest.approx(first)
    assert cluster_bootstrap(statistics, names, mean_of, num_resamples=200, seed=3) == first
    assert cluster_bootstrap(statistics, names, mean_of, num_resamples=200, seed=4) != first


def test_one_group_has_no_interval() -> None:
    statistics = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert cluster_bootstrap(statistics, ["a", "a"], mean_of) == (0.5, None, None)
    assert difference(statistics, statistics, ["a", "a"]) == (0.0, None, None)


def test_an_undefined_number_is_nan() -> None:
    value, low, high = cluster_bootstrap(np.zeros((4, 2)), [1, 2, 3, 4], mean_of, num_resamples=100)
    assert all(np.isnan(number) for number in (value, low, high) if number is not None)


def test_a_number_that_many_resamples_do_not_define_has_no_interval() -> None:
    """Ten groups: what one of them defines 35 of 100 resamples do not, what five define 1 in 1000 does not."""
    groups = np.arange(10)
    rare, enough = np.zeros((10, 2)), np.zeros((10, 2))
    rare[0] = 1.0
    enough[:5, 1], enough[:3, 0] = 1.0, 1.0
    value, low, high = cluster_bootstrap(rare, groups, mean_of, num_resamples=400, limits=(0.0, 1.0))
    assert value == 1.0
    assert low is not None
    assert np.isnan(low)
    value, low, high = cluster_bootstrap(enough, groups, mean_of, num_resamples=400)
    assert low is not None
    assert high is not None
    assert 0 <= low < value < high <= 1


def test_groups_that_say_nothing_of_a_number_lend_it_no_certainty() -> None:
    """A finding in 8 of 30 patients: its recall is as sure as from 8 patients."""
    statistics = np.zeros((30, 2))
    statistics[:8, 1], statistics[:5, 0] = 1.0, 1.0
    alone = cluster_bootstrap(statistics[:8], np.arange(8), mean_of, num_resamples=2000)
    _, low, high = cluster_bootstrap(statistics, np.arange(30), mean_of, num_resamples=2000)
    assert low is not None
    assert high is not None
    assert alone[1] is not None
    assert alone[2] is not None
    assert high - low > 0.95 * (alone[2] - alone[1])


@pytest.mark.parametrize(("right", "low", "high"), [(1.0, 1 - 0.308, 1.0), (0.0, 0.0, 0.308)])
def test_where_all_groups_are_alike_the_interval_is_not_a_point(right: float, low: float, high: float) -> None:
    """10 of 10 right: Clopper and Pearson give 0.692 to 1."""
    statistics = np.stack([np.full(10, right), np.ones(10)], axis=1)
    assert cluster_bootstrap(statistics, np.arange(10), mean_of, limits=(0.0, 1.0)) == pytest.approx((right, low, high), abs=1e-3)
    assert cluster_bootstrap(statistics, np.arange(10), mean_of) == (right, right, right)


def test_where_no_answer_changed_the_difference_is_not_known_to_be_nothing() -> None:
    statistics = np.stack([np.tile([0.0, 1.0], 10), np.ones(20)], axis=1)
    found = difference(statistics, statistics, np.arange(20), limits=(-1.0, 1.0))
    assert found == pytest.approx((0.0, -0.168, 0.168), abs=1e-3)
    # Ten answers, all changed from wrong to right: of another ten some might have gone the other way.
    wrong, right = np.stack([np.zeros(10), np.ones(10)], axis=1), np.ones((10, 2))
    found = difference(wrong, right, np.arange(10), limits=(-1.0, 1.0))
    assert found == pytest.approx((1.0, 1 - 2 * 0.308, 1.0), abs=2e-3)


def test_the_effective_number_of_groups() -> None:
    assert bootstrap.effective_number([3, 3, 3, 3]) == pytest.approx(4)
    assert bootstrap.effective_number([100, 1, 1, 1]) == pytest.approx(103**2 / 10003)
    assert bootstrap.effective_number([]) == 0


def test_one_group_that_holds_nearly_all_samples_makes_the_interval_wide() -> None:
    """60 patients, one of whom has most of the questions: the interval must not be that of 60 patients."""
    rng = np.random.default_rng(3)
    right = rng.integers(0, 2, 60).astype(float)
    one_each = np.stack([right, np.ones(60)], axis=1)
    names = np.concatenate([np.arange(60), np.zeros(540, dtype=int)])
    uneven = np.concatenate([one_each, np.stack([rng.integers(0, 2, 540).astype(float), np.ones(540)], axis=1)])
    _, low, high = cluster_bootstrap(one_each, np.arange(60), mean_of)
    _, wide_low, wide_high = cluster_bootstrap(uneven, names, mean_of)
    assert low is not None
    assert high is not None
    assert wide_low is not None
    assert wide_high is not None
    assert wide_high - wide_low > 1.5 * (high - low)


def test_pairing_takes_out_what_both_share() -> None:
    rng = np.random.default_rng(4)
    first, groups = clustered(rng, 30, spread=5.0)
    second = first.copy()
    second[:, 0] += 0.2 + rng.normal(0, 0.1, len(groups))
    found, low, high = difference(first, second, groups, num_resamples=500)
    assert found == pytest.approx(second[:, 0].mean() - first[:, 0].mean())
    assert low is not None
    assert high is not None
    assert 0 < low < found < high < 0.4
    _, low_alone, high_alone = cluster_bootstrap(second, groups, mean_of, num_resamples=500)
    assert low_alone is not None
    assert high_alone is not None
    assert high_alone - low_alone > 10 * (high - low)


def test_identical_conditions_differ_by_nothing() -> None:
    statistics, groups = clustered(np.random.default_rng(6), 9)
    assert difference(statistics, statistics, groups, num_resamples=100) == (0.0, 0.0, 0.0)


def test_large_sets_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics, groups = clustered(np.random.default_rng(7), 10)
    sizes: list[int] = []

    def aggregate(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        if totals.ndim == 2:
            sizes.append(len(totals))
        return mean_of(totals)

    whole = cluster_bootstrap(statistics, groups, aggregate, num_resamples=25, seed=1)
    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", 100)
    pieces = cluster_bootstrap(statistics, groups, aggregate, num_resamples=25, seed=1)
    # All draws at once, and the number without each of the ten groups; then the draws in pieces.
    assert sizes == [25, 10, 10, 10, 5, 10]
    assert pieces == pytest.approx(whole)


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError):
        cluster_bootstrap(np.zeros((3, 2)), [1, 2], mean_of)
    with pytest.raises(ValueError):
        cluster_bootstrap(np.zeros((0, 2)), [], mean_of)
    with pytest.raises(ValueError):
        difference(np.zeros((3, 2)), np.zeros((2, 2)), [1, 2, 3])


def test_the_same_draws_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report asks for them for every metric, task and difference; what it gets must be what a fresh draw gives."""
    statistics, groups = clustered(np.random.default_rng(8), 11)
    fresh = np.random.default_rng(6).multinomial(11, np.full(11, 1 / 11), size=70)
    expected = by_hand(statistics, groups, fresh)
    drawn: list[tuple[int, int]] = []
    draw = bootstrap._draw

    def count(rng: np.random.Generator, num_groups: int, num_rows: int) -> NDArray[np.int64]:
        drawn.append((num_groups, num_rows))
        return draw(rng, num_groups, num_rows)

    monkeypatch.setattr(bootstrap, "_draw", count)
    bootstrap._kept.clear()
    for _ in range(3):
        assert cluster_bootstrap(statistics, groups, mean_of, num_resamples=70, seed=6)[1:] == pytest.approx(expected)
        difference(statistics, statistics, groups, num_resamples=70, seed=6)
    assert drawn == [(11, 70)]
    cluster_bootstrap(statistics, groups, mean_of, num_resamples=71, seed=6)
    cluster_bootstrap(statistics, groups, mean_of, num_resamples=70, seed=7)
    assert drawn == [(11, 70), (11, 71), (11, 70)]


@pytest.mark.parametrize("number", [11, 12])
def test_draws_are_kept_at_half_a_byte_and_not_at_all_where_that_does_not_hold_them(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap._kept.clear()
    drawn = np.random.default_rng(0).integers(0, 16, (50, number))
    monkeypatch.setattr(bootstrap, "_draw", lambda *_: drawn)
    for _ in range(2):
        assert np.array_equal(np.concatenate(list(bootstrap.draw_counts(number, 50, 0))), drawn)
    assert len(bootstrap._kept) == 1
    drawn[7, 3] = 16
    for _ in range(2):
        assert np.array_equal(np.concatenate(list(bootstrap.draw_counts(number, 50, 1))), drawn)
    assert len(bootstrap._kept) == 1
    bootstrap._kept.clear()


def test_many_groups_are_drawn_one_by_one_and_kept_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    number = bootstrap._DRAWN_SINGLY
    monkeypatch.setattr(bootstrap, "_KEPT_BYTES", 3 * 40 * number // 4)
    bootstrap._kept.clear()
    first = np.concatenate(list(bootstrap.draw_counts(number, 40, 0)))
    assert first.shape == (40, number)
    assert (first.sum(axis=1) == number).all()
    # Binomial(G, 1 / G): variance 1 - 1 / G; 160,000 draws put the estimate within 0.02 of it.
    assert first.var() == pytest.approx(1 - 1 / number, abs=0.02)
    assert np.array_equal(first, np.concatenate(list(bootstrap.draw_counts(number, 40, 0))))
    other = np.concatenate(list(bootstrap.draw_counts(number, 40, 1)))
    assert not np.array_equal(first, other)
    assert list(bootstrap._kept) == [(number, 40, 1)]  # there is room for one and a half
    assert bootstrap._kept[number, 40, 1].nbytes == 40 * number // 2
    assert np.array_equal(first, np.concatenate(list(bootstrap.draw_counts(number, 40, 0))))
