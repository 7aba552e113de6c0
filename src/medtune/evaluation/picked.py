"""Some samples of many, without a copy of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

from medtune.types import Sample

__all__ = ["PickedSamples"]


class PickedSamples(Sequence[Sample]):
    """Samples of a sequence by their numbers; where that one reads from disk, so does this. Holds 8 bytes a sample."""

    def __init__(self, samples: Sequence[Sample], numbers: Iterable[int]) -> None:
        self._samples = samples
        self._numbers = array("q", numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._samples[number] for number in self._numbers[index]]
        return self._samples[self._numbers[index]]
