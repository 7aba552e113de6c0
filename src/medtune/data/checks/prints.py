"""The fingerprints of all pictures in columns: 21 bytes of memory and 1 KiB of disk for each."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtune.data.checks.check import PictureFacts, PictureUse
from medtune.data.checks.fingerprint import SIDE
from medtune.data.checks.keys import as_numpy
from medtune.data.split import SPLITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLANK", "NO_ROW", "Prints", "chunks"]

NO_ROW = 2**32 - 1
"""Stands where a picture cannot be compared: unreadable, blank, or shown by no row."""

BLANK = 1.0
"""Spread of the grey values (0 to 255) of a thumbnail under which nothing can be seen. A judgement."""

_BYTES = SIDE * SIDE
_CHUNK = 4096
"""Pairs that are correlated at a time: 32 MiB of 32-bit numbers."""


class Prints:
    """Collects the fingerprints in the order of ``images.jsonl``; position in a column = number of the picture."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "thumbnails"
        self._writing = self._file.open("wb")
        self._hashes = array("Q")
        self._pixels = array("Q")
        self._rows = array("I")
        self._masks = array("B")

    def __len__(self) -> int:
        return len(self._masks)

    def add(self, facts: PictureFacts, use: PictureUse) -> None:
        """Note a picture. One that cannot be read, is blank or belongs to no row is kept as such: it equals nothing."""
        found = facts.measured.get("fingerprint")
        if found is None or found["spread"] < BLANK or use.row is None:
            for column, value in ((self._hashes, 0), (self._pixels, 0), (self._rows, NO_ROW), (self._masks, 0)):
                column.append(value)
            self._writing.write(bytes(_BYTES))
            return
        self._hashes.append(found["hash"])
        self._pixels.append(found["pixels"])
        self._rows.append(use.row)
        self._masks.append(sum(1 << SPLITS.index(split) for split in use.splits))
        self._writing.write(found["thumbnail"])

    def conclude(self) -> None:
        """All pictures are noted; now columns and thumbnails can be read."""
        self._writing.close()

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """(N,) perceptual hashes; 0 where there is none."""
        return as_numpy(self._hashes)

    @property
    def pixels(self) -> NDArray[np.uint64]:
        """(N,) keys of the decoded pixels; 0 where there is none."""
        return as_numpy(self._pixels)

    @property
    def rows(self) -> NDArray[np.uint32]:
        """(N,) number of the first row that shows the picture; :data:`NO_ROW` where it cannot be compared."""
        return as_numpy(self._rows)

    @property
    def masks(self) -> NDArray[np.uint8]:
        """(N,) the splits that show the picture, bit 0 for the first; 0 where it cannot be compared."""
        return as_numpy(self._masks)

    def correlations(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.float32]:
        """(P,) Pearson correlation of the thumbnails of each pair, -1 to 1; 0 where one has no contrast."""
        found = np.zeros(len(first), np.float32)
        if len(self):
            thumbnails = np.memmap(self._file, np.uint8, "r", shape=(len(self), _BYTES))
            for start in range(0, len(first), _CHUNK):
                part = slice(start, start + _CHUNK)
                found[part] = np.einsum("ij,ij->i", _unit(thumbnails[first[part]]), _unit(thumbnails[second[part]]))
        return found

    def neighbours(self) -> NDArray[np.float32]:
        """(N - 1,) correlation of each picture with the next."""
        numbers = np.arange(len(self))
        return self.correlations(numbers[:-1], numbers[1:])


def _unit(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rows of mean 0 and length 1; rows without contrast stay 0."""
    centred = thumbnails.astype(np.float32)
    centred -= centred.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    return unit


def chunks(
    first: NDArray[np.intp], second: NDArray[np.intp], size: int = 1 << 16
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs a part at a time."""
    for start in range(0, len(first), size):
        yield first[start : start + size], second[start : start + size]
