"""Cluster bootstrap: 95 % intervals for numbers whose samples are not independent.

Slices of one patient resemble each other, so whole groups are drawn, never single samples (Field & Welsh 2007,
doi:10.1111/j.1467-9868.2007.00593.x). A draw of G groups with replacement is a vector of multinomial counts; with the
statistics summed per group beforehand, all resamples are one matrix product: (resamples, G) @ (G, k).

The ends are BCa percentiles (bias-corrected and accelerated: Efron 1987, doi:10.1080/01621459.1987.10478410; Efron & Tibshirani
1993, chapter 14), the acceleration from leaving out one group at a time. With z = Phi^-1(level), z0 = Phi^-1(share of resamples
below the number) and a the acceleration, an end is the percentile Phi(z0 + (z0 + z) / (1 - a (z0 + z))). The level is not 0.025
but Phi(-sqrt(G / (G - 1)) t), t being Student's 0.975 quantile with G - 1 degrees of freedom: resamples of G groups vary less than
the groups do, and the percentiles of Efron take their variance for known (the "expanded" percentiles of Hesterberg 2015,
doi:10.1080/00031305.2015.1089789, section 4). G is the *effective* number of groups (:func:`effective_number`): where a few groups
hold most samples it is they who decide, and 100 groups are no more than 20 (Carter, Schnepel & Steigerwald 2017,
doi:10.1162/REST_a_00639). What the plain percentile interval, which is known to be too narrow with few groups (Cameron, Gelbach &
Miller 2008, doi:10.1162/rest.90.3.414), and this one really cover is simulated in ``tests/invariants/test_interval_coverage.py``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.student import t_quantile

__all__ = [
    "MOST_UNDEFINED",
    "Aggregate",
    "GroupSums",
    "Groups",
    "apart",
    "bootstrap_sums",
    "bound_without_exceptions",
    "cluster_bootstrap",
    "draw_counts",
    "effective_number",
    "forget_draws",
    "reach_without_exceptions",
    "sum_by_group",
]

Aggregate = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""(..., k) summed statistics -> (...) numbers, NaN where undefined."""

Groups = NDArray[Any] | Sequence[str] | Sequence[int]

_NORMAL = NormalDist()
_BLOCK_CELLS = 250_000
"""Of the matrix of counts that are turned into floating-point numbers at once: 2 MB, which stay near the processor. With 8 MB each
use of kept draws of 30,000 groups took ten times as long."""
_KEPT_BYTES = 50_000_000
"""Of the matrices of counts that are kept, half a byte a cell: 2000 draws of 30,000 groups are 30 MB."""
_DRAWN_SINGLY = 4_000
"""Groups from which drawing them one by one and counting is used. It is five times as fast as a multinomial draw, which costs about
as much for a group that is not drawn."""

MOST_UNDEFINED = 0.05
"""Share of resamples in which a number may be undefined (no finding in any drawn group, say) before its interval is not given.
Where K of many groups define it, e ** -K of the resamples do not: 0.05 is three groups. What is left would be the interval of data
sets that happen to have the finding: of an F1 with few positives it held the truth in 69 of 100 simulated data sets."""


def cluster_bootstrap(
    statistics: NDArray[np.float64],
    groups: Groups,
    aggregate: Aggregate,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    limits: tuple[float, float] | None = None,
) -> tuple[float, float | None, float | None]:
    """A number over all samples, with its 95 % interval.

    Args:
        statistics: (n, k) additive statistics of the samples.
        groups: (n,) the group of each sample, strings or integers.
        aggregate: From summed statistics to the number.
        num_resamples: Draws of the groups.
        seed: The same seed and groups give the same interval, in whatever order the samples come.
        limits: The ends of the number's range. Where all groups are alike (all answers right, all wrong, or no answer changed)
            resampling knows no uncertainty; the interval then reaches as far as a share of exceptions at the other end of the range
            would take it that these groups may well have missed (:func:`bound_without_exceptions`). Not given: it has no width.

    Returns:
        The number and the lower and upper end: None where there are fewer than two groups. NaN is a number that is not
        defined; resamples in which it is not defined are left out, and where these are more than :data:`MOST_UNDEFINED` both
        ends are NaN. The interval always holds the number.

    Raises:
        ValueError: The shapes do not fit, or there is no sample.
    """
    sums = sum_by_group([statistics], groups)
    return bootstrap_sums(sums, aggregate, num_resamples=num_resamples, seed=seed, limits=limits)


def bootstrap_sums(
    sums: GroupSums,
    number: Callable[..., NDArray[np.float64]],
    *,
    num_resamples: int,
    seed: int,
    limits: tuple[float, float] | None = None,
) -> tuple[float, float | None, float | None]:
    """As :func:`cluster_bootstrap`, of what is summed already, and of several conditions on the same samples.

    All conditions are resampled with the *same* draws: in a difference (``number`` = :func:`apart`) what makes a sample hard for
    both cancels out.

    Args:
        number: From the summed statistics of each condition, (..., k) of every one of ``sums.of``, to the number.
        limits: Those of the number: of a difference of shares -1 and 1.
    """
    totals = [part.sum(axis=0) for part in sums.of]
    value = float(np.asarray(number(*totals)))
    if len(sums.sizes) < 2:
        return value, None, None
    draws = [number(*(counts @ part for part in sums.of)) for counts in draw_counts(len(sums.sizes), num_resamples, seed)]
    rows = max(_BLOCK_CELLS // sums.of[0].shape[1], 1)
    left_out = [
        number(*(total - part[start : start + rows] for total, part in zip(totals, sums.of, strict=True)))
        for start in range(0, len(sums.sizes), rows)
    ]
    num_groups = sums.effective_groups
    low, high = _interval(value, np.concatenate(draws), np.concatenate(left_out), num_groups)
    if low == high and limits is not None:
        low, high = reach_without_exceptions(value, limits, num_groups)
    return value, low, high


def apart(aggregate: Aggregate) -> Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    """The number of the second summed statistics minus that of the first."""
    return lambda first, second: np.asarray(aggregate(second) - aggregate(first))


@dataclass(frozen=True, slots=True)
class GroupSums:
    """Statistics summed by group: what resampling groups and exchanging them needs to know.

    Attributes:
        of: (G, k) sums of each condition, the groups in sorted order.
        sizes: (G,) samples of each group.
    """

    of: tuple[NDArray[np.float64], ...]
    sizes: NDArray[np.int64]

    @property
    def effective_groups(self) -> float:
        """See :func:`effective_number`. A group that adds nothing (no finding in it, and none claimed) is none of those that the
        uncertainty comes from."""
        return effective_number(self.sizes[np.logical_or.reduce([part.any(axis=1) for part in self.of])])


def sum_by_group(statistics: Sequence[NDArray[np.float64]], groups: Groups) -> GroupSums:
    """The sums of the (n, k) statistics of each condition; row i of all is the same sample.

    Raises:
        ValueError: The shapes do not fit, or there is no sample.
    """
    tables = [np.asarray(table, dtype=np.float64) for table in statistics]
    if any(table.ndim != 2 or len(table) != len(groups) or not len(table) for table in tables):
        raise ValueError(
            f"statistics of shape {' and '.join(str(table.shape) for table in tables)} do not fit {len(groups)} groups"
        )
    known, codes, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    sums = [[np.bincount(codes, weights=column, minlength=len(known)) for column in table.T] for table in tables]
    return GroupSums(tuple(np.stack(columns, axis=1) for columns in sums), sizes)


def effective_number(sizes: NDArray[np.int64] | Sequence[int]) -> float:
    """How many groups of one size would tell as much as groups with ``sizes`` samples: (sum n) ** 2 / sum(n ** 2), from 1 to the
    number of groups (Kish 1965, Survey Sampling, section 11.7); 0 for none."""
    numbers = np.asarray(sizes, dtype=np.float64)
    return float(numbers.sum() ** 2 / (numbers**2).sum()) if len(numbers) else 0.0


def bound_without_exceptions(num_groups: float) -> float:
    """How large the share of groups with an exception may be when none of ``num_groups`` has one: 1 - 0.025 ** (1 / G), 0 to 1.

    The upper end of the exact 95 % interval of Clopper & Pearson (1934, doi:10.1093/biomet/26.4.404) for 0 of G, near 3.7 / G
    ("if nothing goes wrong, is everything all right?", Hanley & Lippman-Hand 1983, doi:10.1001/jama.1983.03510370031029). With G
    the effective number of groups a share of samples is hardly further from its end than the share of groups.
    """
    return float(1 - 0.025 ** (1 / max(num_groups, 1)))


def reach_without_exceptions(value: float, limits: tuple[float, float], num_groups: float) -> tuple[float, float]:
    """Both ends of an interval of groups that are all alike: as far as a share of exceptions at the other end of the range would
    take ``value`` that these groups may well have missed (:func:`bound_without_exceptions`)."""
    reach = bound_without_exceptions(num_groups)
    return value - reach * (value - limits[0]), value + reach * (limits[1] - value)


def draw_counts(num_groups: int, num_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each group is drawn, (rows, num_groups) at a time, num_resamples rows in all.

    A report asks for the same draws for every metric, task and difference, and drawing takes far longer than using them: what
    fits into :data:`_KEPT_BYTES` is drawn once and kept.
    """
    rows = max(_BLOCK_CELLS // num_groups, 1)
    if (kept := _kept.get((num_groups, num_resamples, seed))) is not None:
        _kept.move_to_end((num_groups, num_resamples, seed))
        for start in range(0, num_resamples, rows):
            yield _unpacked(kept[start : start + rows], num_groups)
        return
    rng = np.random.default_rng(seed)
    keeps = num_groups * num_resamples <= 2 * _KEPT_BYTES
    blocks = []
    for start in range(0, num_resamples, rows):
        block = _draw(rng, num_groups, min(rows, num_resamples - start))
        # Seldom is a group drawn more than 15 times in a resample; such draws are not kept.
        keeps = keeps and int(block.max()) <= _MOST_PACKED
        if keeps:
            blocks.append(_packed(block))
        yield block.astype(np.float64)
    if keeps:
        _kept[num_groups, num_resamples, seed] = np.concatenate(blocks)
        while sum(matrix.nbytes for matrix in _kept.values()) > _KEPT_BYTES:
            _kept.popitem(last=False)


def forget_draws() -> None:
    """Give back what is kept, where no more numbers over the same groups are wanted."""
    _kept.clear()


_kept: OrderedDict[tuple[int, int, int], NDArray[np.uint8]] = OrderedDict()
_MOST_PACKED = 15


def _packed(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Two counts of up to :data:`_MOST_PACKED` in a byte: the left half of the columns beside the right half."""
    half = -(-counts.shape[1] // 2)
    low = counts[:, :half].astype(np.uint8)
    low[:, : counts.shape[1] - half] |= counts[:, half:].astype(np.uint8) << 4
    return low


def _unpacked(packed: NDArray[np.uint8], num_groups: int) -> NDArray[np.float64]:
    half = packed.shape[1]
    counts = np.empty((len(packed), num_groups))
    counts[:, :half] = packed & 0xF
    counts[:, half:] = packed[:, : num_groups - half] >> 4
    return counts


def _draw(rng: np.random.Generator, num_groups: int, num_rows: int) -> NDArray[np.int64]:
    if num_groups < _DRAWN_SINGLY:
        return rng.multinomial(num_groups, np.full(num_groups, 1.0 / num_groups), size=num_rows)
    drawn = [np.bincount(rng.integers(num_groups, size=num_groups), minlength=num_groups) for _ in range(num_rows)]
    return np.stack(drawn)


def _interval(value: float, draws: NDArray[np.float64], left_out: NDArray[np.float64], num_groups: float) -> tuple[float, float]:
    """The expanded BCa interval.

    Args:
        draws: The number of each resample.
        left_out: The number without one group at a time.
        num_groups: Effective number of groups.
    """
    known, left_out = draws[np.isfinite(draws)], left_out[np.isfinite(left_out)]
    if len(known) < (1 - MOST_UNDEFINED) * len(draws) or not math.isfinite(value):
        return float("nan"), float("nan")
    draws = known
    # Draws that equal the number count half, or a number with few possible values would be taken for biased.
    below = (np.count_nonzero(draws < value) + 0.5 * np.count_nonzero(draws == value)) / len(draws)
    half_draw = 0.5 / len(draws)
    bias = _NORMAL.inv_cdf(min(max(below, half_draw), 1 - half_draw))
    influence = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = float((influence**2).sum())
    # Differences in the last digit are no skewness.
    acceleration = float((influence**3).sum()) / (6 * spread**1.5) if math.sqrt(spread) > 1e-12 * max(abs(value), 1e-300) else 0.0
    # One group that outweighs all others together leaves less than one degree of freedom: then the interval is nearly everything.
    degrees = max(num_groups - 1, 0.5)
    reach = math.sqrt(1 + 1 / degrees) * t_quantile(0.975, degrees)
    levels = []
    for z in (bias - reach, bias + reach):
        scale = 1 - acceleration * z
        # The transformation has a pole; behind it there is nothing further out than the outermost draw.
        levels.append(_NORMAL.cdf(bias + z / scale) if scale > 0 else float(z > 0))
    low, high = np.quantile(draws, levels)
    return min(float(low), value), max(float(high), value)
