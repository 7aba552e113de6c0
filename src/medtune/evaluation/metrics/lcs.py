"""The length of the longest common subsequence."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

__all__ = ["lcs_length"]


def lcs_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """How many items the two have in common in the same order, not necessarily side by side.

    A row of the usual table differs from one cell to the next by 0 or 1, so the row is one integer of len(first) bits, and a step
    is an addition (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"). The table of the rouge-chinese package took
    0.3 s for two texts of 160 words; with this, all of ROUGE takes 4 ms.
    """
    places: dict[Hashable, int] = {}
    for index, item in enumerate(first):
        places[item] = places.get(item, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for item in second:
        matched = row & places.get(item, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(first) - row.bit_count()
