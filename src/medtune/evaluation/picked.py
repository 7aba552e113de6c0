"""Samples that stay on disk: some of many, and what is kept of all."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import overload

from medtune.evaluation.score_columns import SampleNumbers
from medtune.types import Sample

__all__ = ["PickedSamples", "SampleIndex"]


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


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """What is kept of the evaluated samples, in their order: samples are read from disk each time that they are gone through.

    Attributes:
        tasks: Sample id -> task.
        groups: Sample id -> group.
        known: Ids of the whole split.
        numbers: Of the evaluated samples, for the scores of all conditions.
    """

    tasks: dict[str, str]
    groups: dict[str, str]
    known: Collection[str]
    numbers: SampleNumbers

    @classmethod
    def of(cls, samples: Sequence[Sample], pool: Sequence[Sample]) -> SampleIndex:
        tasks: dict[str, str] = {}
        groups: dict[str, str] = {}
        numbers = SampleNumbers()
        for sample in samples:
            name = numbers.ids[numbers.add(sample.id)]
            tasks[name], groups[name] = sys.intern(sample.task), sys.intern(sample.group)
        return cls(tasks, groups, tasks if pool is samples else {sample.id for sample in pool}, numbers)
