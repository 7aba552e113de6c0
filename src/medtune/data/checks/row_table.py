"""The rows of a data set by number: 12 bytes each, from which the row itself is found again."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medtune.data.dataset import Dataset
from medtune.data.split import SPLITS
from medtune.types import SplitName

__all__ = ["Place", "RowTable"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: its number over all splits, from 0; its split; its file and line, from 1."""

    number: int
    split: SplitName
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class RowTable:
    """Reads the rows once and keeps byte offset (8 bytes) and line number (4) of each."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.starts: dict[SplitName, int] = {}
        """The number of a split's first row."""
        self._offsets = array("Q")
        self._lines = array("I")

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, split: SplitName) -> Iterator[tuple[Place, bytes]]:
        """The rows of a split as they stand in the file; nothing when there is no such file."""
        file = self.dataset.split_file(split)
        self.starts[split] = len(self)
        if not file.is_file():
            return
        offset = 0
        with file.open("rb") as lines:
            for line, content in enumerate(lines, start=1):
                if content.strip():
                    number = len(self._offsets)
                    self._offsets.append(offset)
                    self._lines.append(line)
                    yield Place(number, split, str(file), line), content
                offset += len(content)

    def split(self, number: int) -> SplitName:
        """The split of a row."""
        return SPLITS[bisect_right([self.starts.get(split, len(self)) for split in SPLITS], number) - 1]

    def place(self, number: int) -> Place:
        """Where a row stands."""
        split = self.split(number)
        return Place(number, split, str(self.dataset.split_file(split)), self._lines[number])

    def raw(self, number: int) -> dict[str, Any]:
        """A row's JSON object, read again; empty when it is none."""
        with self.dataset.split_file(self.split(number)).open("rb") as file:
            file.seek(self._offsets[number])
            try:
                values = json.loads(file.readline())
            except ValueError:
                return {}
        return values if isinstance(values, dict) else {}

    def id(self, number: int) -> str:
        """A row's id, read again."""
        return str(self.raw(number).get("id", ""))
