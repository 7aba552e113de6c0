"""Pairs of 64-bit hashes that differ in few bits, found without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012,
arXiv:1307.2982): cut each hash into four bands of 16 bits. Two hashes that differ in at most seven bits differ in at most one
bit in some band, because 4 * 2 = 8; so it is enough to compare hashes whose values of one band are equal or one bit apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RADIUS", "NearPairs"]

RADIUS = 7
"""The most bits in which two hashes of a pair differ; all such pairs are found where no bucket is too full."""

_BANDS = 4
_BITS = 16


@dataclass
class NearPairs:
    """Searches pairs of near hashes.

    Pictures that look alike crowd into one bucket, where comparing all with all would take the square of their number: a bucket
    of more than ``max_bucket`` is searched only among neighbours in the order of the whole hashes, ``max_bucket`` of them for
    each. ``num_crowded`` counts the hashes that stood in such a bucket: among them pairs may have been missed.

    Args:
        hashes: (N,) uint64.
        max_bucket: The most comparisons for each hash and bucket.
    """

    hashes: NDArray[np.uint64]
    max_bucket: int = 64
    crowded: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.crowded = np.zeros(len(self.hashes), np.bool_)

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Batches of pairs (first, second): positions in ``hashes``. A pair that several bands show comes several times."""
        for band in range(_BANDS):
            values = (self.hashes >> np.uint64(band * _BITS)).astype(np.uint16)
            # Within a band's value by the whole hash, so that the nearest stand side by side.
            order = np.lexsort((self.hashes, values))
            values, ranked = values[order], self.hashes[order]
            starts = np.searchsorted(values, np.arange(2**_BITS + 1))
            sizes = np.diff(starts)
            self.crowded[order[np.repeat(sizes > self.max_bucket, sizes)]] = True
            for first, second in self._candidates(values, starts):
                near = np.bitwise_count(ranked[first] ^ ranked[second]) <= RADIUS
                if near.any():
                    yield order[first[near]], order[second[near]]

    def _candidates(
        self, values: NDArray[np.uint16], starts: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Pairs of positions in the band's order: of one value, then of values one bit apart."""
        everywhere = np.arange(len(values))
        first = everywhere
        ends = starts[values.astype(np.intp) + 1]
        for step in range(1, self.max_bucket + 1):
            first = first[first + step < ends[first]]
            if not len(first):
                break
            yield first, first + step
        for bit in range(_BITS):
            # Each pair from the side where the bit is 0.
            first = everywhere[values & np.uint16(1 << bit) == 0]
            other = values[first].astype(np.intp) | (1 << bit)
            begin, end = starts[other], starts[other + 1]
            for step in range(self.max_bucket):
                open_ = begin + step < end
                first, begin, end = first[open_], begin[open_], end[open_]
                if not len(first):
                    break
                yield first, begin + step
