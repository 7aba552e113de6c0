"""Is a difference more than luck? Paired cluster permutation, McNemar's exact test, and Holm's adjustment for many tests.

If the second model were no other than the first, then which answer is called whose would not matter. So the two models' answers
are exchanged, for whole groups at once since the samples of a group resemble each other, and the p-value is the share of such
exchanges that give a difference at least as large, in either direction, as the one that was found (Fisher 1935; for text metrics
"approximate randomisation", Noreen 1989; by clusters, Gail et al. 1996, Statistics in Medicine 15:1069-1092). It assumes nothing of
the scores' distribution and works for any metric of summed statistics.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.bootstrap import Aggregate, Groups, GroupSums, sum_by_group
from medtune.types import Difference, MetricValue

__all__ = [
    "EXACT_GROUPS",
    "adjust",
    "forget_exchanges",
    "holm",
    "mcnemar_exact",
    "paired_cluster_permutation",
    "permutation_of_sums",
]

EXACT_GROUPS = 12
"""Up to so many groups all 2 ** G exchanges are tried (4096 at most); with more they are drawn."""

MORE = 10
"""Times as many exchanges are drawn where few were extreme."""
FEW_EXTREME = 10

_MAX_CELLS = 8_000_000
"""Of the exchanges that are drawn at once, at one byte a cell."""
_BLOCK_CELLS = 500_000
"""Of those that are turned into floating-point numbers at once: 4 MB."""
_MOST_CELLS = 60_000_000
"""Groups times exchanges for one p-value, about a second on a core: 2000 exchanges become ten times as many up to 3,000 groups."""
_KEPT_DRAWS = 32
"""Matrices of exchanges of :data:`_MAX_CELLS` that are kept, at one bit a cell: 32 MB at the very most."""

Key = TypeVar("Key", bound=Hashable)


def paired_cluster_permutation(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    groups: Groups,
    aggregate: Aggregate,
    *,
    num_permutations: int = 2000,
    seed: int = 0,
) -> float | None:
    """The two-sided p-value of ``second`` minus ``first`` on the same samples.

    With at most :data:`EXACT_GROUPS` groups it is exact, and cannot be smaller than 2 / 2 ** G: five groups cannot be significant
    at 5 %. With more it is (b + 1) / (m + 1), b of m drawn exchanges being as extreme, which never is 0 and keeps the error rate
    (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585). While b is below :data:`FEW_EXTREME`, up to :data:`MORE` times as many are
    drawn: a p-value that is adjusted for a hundred others must be able to be smaller than 1 / 2000 (to stop by b is the rule of
    Besag & Clifford 1991, doi:10.1093/biomet/78.2.301).

    Args:
        first: (n, k) additive statistics; row i of ``first`` and of ``second`` are the same sample.
        second: The same of the other model.
        groups: (n,) the group of each sample.
        aggregate: From summed statistics to the number.
        num_permutations: Exchanges that are drawn at first. Those in which the number is not defined are left out: among the
            others all are as likely as before.
        seed: Of the draws.

    Returns:
        None with fewer than two groups, or where the difference is not defined.

    Raises:
        ValueError: The shapes do not fit, or there is no sample.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"statistics of shape {np.shape(first)} and {np.shape(second)} cannot be paired")
    return permutation_of_sums(sum_by_group([first, second], groups), aggregate, num_permutations=num_permutations, seed=seed)


def permutation_of_sums(sums: GroupSums, aggregate: Aggregate, *, num_permutations: int, seed: int) -> float | None:
    """As :func:`paired_cluster_permutation`, of what is summed already."""
    one, other = sums.of
    change = other - one
    before, after = one.sum(axis=0), other.sum(axis=0)
    found = abs(float(np.asarray(aggregate(after) - aggregate(before))))
    if len(one) < 2 or not math.isfinite(found):
        return None
    extreme = tried = 0
    for stage in range(MORE):
        for exchanged in _exchanges(len(one), num_permutations, seed, stage):
            moved = exchanged @ change
            values = np.abs(aggregate(after - moved) - aggregate(before + moved))
            values = values[np.isfinite(values)]
            tried += len(values)
            # Sums in another order differ in the last digits: those are ties.
            extreme += int(np.count_nonzero(values >= found - 1e-9 * max(found, 1e-3)))
        if len(one) <= EXACT_GROUPS:
            return extreme / tried
        if extreme >= FEW_EXTREME or (stage + 2) * len(one) * num_permutations > _MOST_CELLS:
            break
    return (extreme + 1) / (tried + 1)


def _exchanges(num_groups: int, num_permutations: int, seed: int, stage: int) -> Iterator[NDArray[np.float64]]:
    """Which groups are exchanged, (rows, num_groups) of 0 and 1 at a time; other ones at each ``stage``."""
    if num_groups <= EXACT_GROUPS:
        yield ((np.arange(2**num_groups)[:, None] >> np.arange(num_groups)) & 1).astype(np.float64)
        return
    for drawn in _drawn(num_groups, num_permutations, seed, stage):
        rows = max(_BLOCK_CELLS // num_groups, 1)
        for start in range(0, len(drawn), rows):
            yield drawn[start : start + rows].astype(np.float64)


def _drawn(num_groups: int, num_permutations: int, seed: int, stage: int) -> Iterator[NDArray[np.uint8]]:
    if num_groups * num_permutations <= _MAX_CELLS:
        kept = _kept_exchanges(num_groups, num_permutations, seed, stage)
        yield np.unpackbits(kept, count=num_groups * num_permutations).reshape(num_permutations, num_groups)
        return
    rng = np.random.default_rng([seed, 1 + stage])
    rows = max(_MAX_CELLS // num_groups, 1)
    for start in range(0, num_permutations, rows):
        yield rng.integers(0, 2, (min(rows, num_permutations - start), num_groups), dtype=np.uint8)


@lru_cache(maxsize=_KEPT_DRAWS)
def _kept_exchanges(num_groups: int, num_permutations: int, seed: int, stage: int) -> NDArray[np.uint8]:
    drawn = np.random.default_rng([seed, 1 + stage]).integers(0, 2, (num_permutations, num_groups), dtype=np.uint8)
    return np.packbits(drawn)


def forget_exchanges() -> None:
    """Give back what is kept, where no more differences over the same groups are wanted."""
    _kept_exchanges.cache_clear()


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """McNemar's test in its exact, two-sided form (McNemar 1947, doi:10.1007/BF02295996; the binomial form: Fagerland, Lydersen &
    Laake 2013, doi:10.1186/1471-2288-13-91).

    Of the samples that only one model answered rightly, each is as likely to be the one's as the other's: twice the binomial tail,
    at most 1. It takes samples for independent. Where several belong to one patient it is too sure of itself; the permutation of
    whole groups is then the one to read.

    Args:
        first_only: Samples that only the first answered rightly.
        second_only: The same of the second.

    Raises:
        ValueError: A count is negative.
    """
    if first_only < 0 or second_only < 0:
        raise ValueError("counts of samples are not negative")
    count, fewer = first_only + second_only, min(first_only, second_only)
    if count == 0:
        return 1.0
    logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log - count * math.log(2)) for log in logs))


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Holm's adjusted p-values (Holm 1979, Scandinavian Journal of Statistics 6:65-70, jstor.org/stable/4615733).

    In ascending order the i-th of m is multiplied by m - i + 1, and none is smaller than the one before it or larger than 1.
    Calling what is below 0.05 a difference errs anywhere in the family in at most 5 of 100 cases, however the tests depend on each
    other.
    """
    adjusted: dict[Key, float] = {}
    least = 0.0
    for place, (key, p) in enumerate(sorted(p_values.items(), key=lambda entry: entry[1])):
        least = max(least, min(1.0, (len(p_values) - place) * p))
        adjusted[key] = least
    return adjusted


def adjust(differences: Iterable[Difference], values: Mapping[str, MetricValue]) -> list[Difference]:
    """The differences of one pair of conditions with Holm's ``p_adjusted``, in their order.

    A family is everything that one pair of conditions is compared on at one level: all metrics over all samples are one, all
    metrics by task another. It holds every metric with a better end and not only those of the short table, since a reader may
    pick any. A metric of which neither end is better, such as the share of answers that are yes, is never called better or worse:
    it is no hypothesis of the family, makes the others' no larger, and has no ``p_adjusted``. A metric that one task alone has
    stands in both levels; by task it is one more of that family.

    Args:
        values: What is known of each metric value, by name.
    """
    entries: Sequence[Difference] = list(differences)
    found: dict[int, float] = {}
    for by_task in (False, True):
        found.update(
            holm(
                {
                    place: entry.p_value
                    for place, entry in enumerate(entries)
                    if entry.p_value is not None
                    and (entry.task is not None) == by_task
                    and values[entry.metric].direction != "neither"
                }
            )
        )
    return [
        entry.model_copy(update={"p_adjusted": found[place]}) if place in found else entry for place, entry in enumerate(entries)
    ]
