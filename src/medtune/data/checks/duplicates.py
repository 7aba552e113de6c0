"""Rows that say the same of the same pictures."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from medtune.data.checks.check import Check, Context, Place
from medtune.data.checks.keys import as_numpy, key, runs_of_equal
from medtune.data.findings import CORRECT_SOURCE
from medtune.language import Text, msg
from medtune.types import Sample

__all__ = ["Duplicates"]


class Duplicates(Check):
    """The same pictures and words. Keeps 12 bytes a row."""

    names = ("duplicates",)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._keys = array("Q")
        self._numbers = array("I")

    def row(self, sample: Sample, place: Place) -> None:
        turns = (part for message in sample.messages for part in (message.role, message.content))
        self._keys.append(key(*turns, *(image.path for image in sample.images)))
        self._numbers.append(place.number)

    def conclude(self) -> Mapping[str, Text]:
        rows = self.context.rows
        order, starts, sizes = runs_of_equal(as_numpy(self._keys))
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
            first = rows.id(self._numbers[order[start]])
            for member in order[start + 1 : start + size].tolist():
                place = rows.place(self._numbers[member])
                self.findings.add(
                    "duplicate-row",
                    "warning",
                    msg("The same pictures and words as row {first}.", first=first),
                    CORRECT_SOURCE,
                    split=place.split,
                    sample=rows.id(place.number),
                    file=str(place),
                )
        return {}
