"""Which rows and splits show a picture: 12 bytes for each picture of a row, sorted once."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from medtune.data.checks.check import PictureUse
from medtune.data.checks.keys import as_numpy, key, runs_of_equal
from medtune.data.checks.row_table import RowTable
from medtune.data.split import SPLITS
from medtune.types import ImageRef, Sample

__all__ = ["PictureUses"]

_BATCH = 1024


class PictureUses:
    """Collects the pictures of the rows, then tells of each picture who uses it."""

    def __init__(self, rows: RowTable) -> None:
        self._rows = rows
        self._keys = array("Q")
        self._numbers = array("I")

    def add(self, sample: Sample, number: int) -> None:
        """Note the pictures of row ``number``."""
        for image in sample.images:
            self._keys.append(key(image.path))
            self._numbers.append(number)

    def of(self, refs: Iterable[ImageRef]) -> Iterator[tuple[ImageRef, PictureUse]]:
        """Each picture with its use, in the order given."""
        order, starts, _ = runs_of_equal(as_numpy(self._keys))
        known = as_numpy(self._keys)[order[starts]]
        numbers = as_numpy(self._numbers)
        first = numbers[order[starts]]
        borders = [self._rows.starts.get(split, len(self._rows)) for split in SPLITS]
        bits = np.left_shift(np.uint8(1), np.searchsorted(borders, numbers, side="right").astype(np.uint8) - 1)
        masks = np.bitwise_or.reduceat(bits[order], starts) if len(starts) else np.zeros(0, np.uint8)
        named = [tuple(split for place, split in enumerate(SPLITS) if mask >> place & 1) for mask in range(2 ** len(SPLITS))]
        rest, number = iter(refs), 0
        while batch := list(islice(rest, _BATCH)):
            keys = np.fromiter((key(ref.path) for ref in batch), np.uint64, len(batch))
            places = np.searchsorted(known, keys)
            for ref, wanted, place in zip(batch, keys.tolist(), places.tolist(), strict=True):
                used = place < len(known) and int(known[place]) == wanted
                row, mask = (int(first[place]), int(masks[place])) if used else (None, 0)
                yield ref, PictureUse(number, row, named[mask])
                number += 1
