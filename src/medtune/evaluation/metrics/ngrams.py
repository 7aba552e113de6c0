"""How many n-grams two sequences have in common, each as often as it stands in both ("clipped", Papineni et al. 2002).

Counting them one by one is most of what BLEU costs. Above a few dozen items this sorts instead: the n-grams of all orders become
integers without collisions, one array is sorted, and runs of equal numbers are the counts. The result is an integer, so both ways
agree exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["matched_ngrams", "number_of_ngrams"]

_SORTED_FROM = 100
"""Items of both sides together from which sorting is faster than counting: the two are level between 80 and 120."""
_LARGEST_KEY = 2**62
_TABLE = 1024
"""Latin, Greek and Cyrillic characters are numbered by a table, others by sorting."""


def number_of_ngrams(length: int, order: int) -> int:
    """N-grams of ``order`` in a sequence of ``length`` items; 0 for a shorter sequence."""
    return max(length - order + 1, 0)


def matched_ngrams(written: Sequence[Hashable], wanted: Sequence[Hashable], max_order: int) -> tuple[int, ...]:
    """For each order from 1 to ``max_order``: the sum over n-grams of the smaller of its two counts."""
    if len(written) + len(wanted) < _SORTED_FROM:
        return _counted(written, wanted, max_order)
    keys = _keys(written, wanted, max_order)
    return _counted(written, wanted, max_order) if keys is None else _sorted(*keys, max_order)


def _counted(written: Sequence[Hashable], wanted: Sequence[Hashable], max_order: int) -> tuple[int, ...]:
    sides = [side if isinstance(side, (str, tuple)) else tuple(side) for side in (written, wanted)]
    found = []
    for order in range(1, max_order + 1):
        first, second = (Counter(side[start : start + order] for start in range(len(side) - order + 1)) for side in sides)
        found.append(sum(min(count, second[ngram]) for ngram, count in first.items() if ngram in second))
    return tuple(found)


def _keys(written: Sequence[Hashable], wanted: Sequence[Hashable], max_order: int) -> tuple[NDArray[Any], NDArray[Any], int] | None:
    """The items as numbers from 0, and how many there are; None where n-grams of them would not fit into 64 bits."""
    import numpy as np

    if isinstance(written, str) and isinstance(wanted, str):
        codes = np.frombuffer((written + wanted).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        if codes.max() < _TABLE:
            present = np.zeros(_TABLE, dtype=np.int32)
            present[codes] = 1
            numbered = np.cumsum(present)
            items, size = numbered[codes] - 1, int(numbered[-1])
        else:
            distinct, items = np.unique(codes, return_inverse=True)
            size = len(distinct)
    else:
        numbers: dict[Hashable, int] = {}
        items = np.array([numbers.setdefault(item, len(numbers)) for side in (written, wanted) for item in side])
        size = len(numbers)
    # Twice: the lowest bit of a sorted key says from which side it is. Times the orders: each has a range of its own.
    largest = 2 * (max_order + 1) * size**max_order
    if largest >= _LARGEST_KEY:
        return None
    items = items.astype(np.int32 if largest < 2**31 else np.int64)
    return items[: len(written)], items[len(written) :], size


def _sorted(first: NDArray[Any], second: NDArray[Any], num_items: int, max_order: int) -> tuple[int, ...]:
    import numpy as np

    parts = []
    for side, items in enumerate((first, second)):
        ngrams = items
        for order in range(1, max_order + 1):
            if order > 1:
                ngrams = ngrams[:-1] * num_items + items[order - 1 :] if len(items) >= order else items[:0]
            parts.append(2 * (ngrams + _range_of(order, num_items)) + side)
    keys = np.sort(np.concatenate(parts))
    # The last place of each run of equal keys, and how long the run is.
    ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]), len(keys) - 1)
    counts = ends.copy()
    counts[0] += 1
    counts[1:] -= ends[:-1]
    ngrams_of = keys[ends] >> 1
    both = np.flatnonzero(ngrams_of[1:] == ngrams_of[:-1])
    smaller = np.minimum(counts[both], counts[both + 1])
    limits = np.searchsorted(ngrams_of[both], [_range_of(order, num_items) for order in range(1, max_order + 2)])
    total = np.concatenate(([0], np.cumsum(smaller)))
    return tuple(int(count) for count in total[limits[1:]] - total[limits[:-1]])


@lru_cache(maxsize=1024)
def _range_of(order: int, num_items: int) -> int:
    """Where the numbers of n-grams of ``order`` begin: behind all of the shorter ones."""
    return sum(num_items**shorter for shorter in range(1, order))
