"""Predictions that stay in their file: two numbers and an entry of a dict are kept of each, and a line is read when asked for."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from medtune.types import Prediction

__all__ = ["PredictionLines"]


class PredictionLines(Mapping[str, Prediction]):
    """Sample id -> prediction, in the order of the file's lines.

    The file may grow behind the lines that were added. It is opened when the first line is asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, int] = {}
        self._offsets = array("q")
        self._lengths = array("q")
        self._file: BinaryIO | None = None

    def among(self, sample_ids: Collection[str]) -> PredictionLines:
        """Those of ``sample_ids``; itself where these are all."""
        if all(sample_id in sample_ids for sample_id in self._places):
            return self
        found = PredictionLines(self.path)
        for sample_id, place in self._places.items():
            if sample_id in sample_ids:
                found.add(sample_id, self._offsets[place], self._lengths[place])
        return found

    def add(self, sample_id: str, offset: int, length: int) -> None:
        """Name the line of a prediction: ``length`` bytes from ``offset`` on."""
        self._places[sys.intern(sample_id)] = len(self._offsets)  # several conditions have the same samples
        self._offsets.append(offset)
        self._lengths.append(length)

    def lines(self, sample_ids: Iterable[str]) -> Iterator[bytes | None]:
        """The line of each sample as it stands in the file, None for one without a prediction."""
        for sample_id in sample_ids:
            place = self._places.get(sample_id)
            yield None if place is None else self._read(place)

    def _read(self, place: int) -> bytes:
        # Held open: the file that was read at first, also where another has taken its name since.
        if self._file is None:
            self._file = self.path.open("rb")
        self._file.seek(self._offsets[place])
        return self._file.read(self._lengths[place])

    def __getitem__(self, sample_id: str) -> Prediction:
        return Prediction.model_validate_json(self._read(self._places[sample_id]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._places
