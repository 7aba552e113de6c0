"""The scores of one condition as columns of numbers, in a file without a name: one column is in memory while it is measured.

``scores.jsonl`` keeps the explanations; here are the values and statistics, which measurements are made from.
"""

from __future__ import annotations

import sys
import tempfile
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.bootstrap import GroupSums, sum_by_group
from medtune.types import Score

__all__ = ["Part", "SampleNumbers", "ScoreColumn", "ScoreColumns", "parts_of", "sums_together"]


@dataclass(frozen=True, slots=True)
class Part:
    """Some scores on one metric value.

    Attributes:
        places: (n,) numbers of the samples; ascending in a :class:`ScoreColumn`.
        values: (n,), NaN where unscored.
        statistics: (n, k); zeros where unscored. k = 0 while none is scored. A row of statistics that stand at places
            (:attr:`medtune.types.Score.places`) is their width, their number, they themselves and their places, filled with zeros.
            In a :class:`ScoreColumn`, counts take one or two bytes each where these hold them.
        placed: Whether the rows are such rows.
    """

    places: NDArray[np.int32]
    values: NDArray[np.float64]
    statistics: NDArray[np.float64] | NDArray[np.unsignedinteger[Any]]
    placed: bool = False


def parts_of(scores: Iterable[tuple[int, Score]]) -> dict[str, Part]:
    """Metric value -> its scores, of (number of the sample, score)."""
    by_metric: dict[str, list[tuple[int, Score]]] = {}
    for place, score in scores:
        by_metric.setdefault(score.metric, []).append((place, score))
    found = {}
    for metric, entries in by_metric.items():
        width = max(len(_statistics(score)) for _, score in entries)
        found[metric] = Part(
            np.array([place for place, _ in entries], dtype=np.int32),
            np.array([np.nan if score.value is None else score.value for _, score in entries], dtype=np.float64),
            np.array([_filled(_statistics(score), width) for _, score in entries], dtype=np.float64).reshape(len(entries), width),
            any(score.width for _, score in entries),
        )
    return found


def _statistics(score: Score) -> tuple[float, ...]:
    if score.value is None:
        return ()
    if score.width:
        return (float(score.width), float(len(score.places)), *score.statistics, *map(float, score.places))
    return score.statistics or (score.value, 1.0)


def _filled(row: tuple[float, ...], width: int) -> tuple[float, ...]:
    return row + (0.0,) * (width - len(row))


def _widened(statistics: NDArray[Any], width: int) -> NDArray[Any]:
    missing = width - statistics.shape[1]
    return np.pad(statistics, ((0, 0), (0, missing))) if missing else statistics


def _shortened(numbers: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in one or two bytes each, where all are whole and small enough."""
    for kind in (np.uint8, np.uint16):
        if numbers.size and numbers.min() >= 0 and numbers.max() <= np.iinfo(kind).max and (numbers.astype(kind) == numbers).all():
            return numbers.astype(kind)
    return numbers


_TOGETHER = 8192
"""Scores that are objects at a time while they become columns."""


def _ascending(part: Part) -> Part:
    """In the order of the samples, the last score of each."""
    _, last = np.unique(part.places[::-1], return_index=True)
    rows = len(part.places) - 1 - last
    return Part(part.places[rows], part.values[rows], part.statistics[rows], part.placed)


@dataclass(frozen=True, slots=True)
class SampleNumbers:
    """Samples numbered in the order in which they came first. Conditions of the same samples share one.

    Attributes:
        ids: Number -> sample id.
        of: Sample id -> number.
    """

    ids: list[str] = field(default_factory=list)
    of: dict[str, int] = field(default_factory=dict)

    def add(self, sample_id: str) -> int:
        """The number of a sample, a new one where it has none."""
        if (number := self.of.get(sample_id)) is None:
            number = len(self.ids)
            self.ids.append(sys.intern(sample_id))
            self.of[self.ids[-1]] = number
        return number


_IN_MEMORY = 4_000_000
"""Bytes of the columns of one condition that need no file: a few hundred reports."""
_KEPT_COLUMNS = 2
"""That are in memory at a time. All of a condition are some 3 kB a report; what is measured goes through one after the other."""


class ScoreColumns(Mapping[str, "ScoreColumn"]):
    """Metric value -> sample id -> score; the samples in the order of their numbers.

    A column is read from the file when it is asked for: ask once for what is used often.

    Args:
        numbers: Of the samples, where others share them.
        folder: Where the file lies, of which nothing is seen or left; the system's folder for such files when not given.
    """

    def __init__(self, numbers: SampleNumbers | None = None, folder: Path | None = None) -> None:
        self.numbers = SampleNumbers() if numbers is None else numbers
        place = None if folder is None else str(folder)
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=place)  # noqa: SIM115 - closed in the next line
        weakref.finalize(self, self._file.close)
        self._parts: dict[str, array[int]] = {}
        """Metric value -> of one part after the other: where it begins, its rows, the width of its statistics, the letter of their
        type, and whether they are placed."""
        self._end = 0
        self._recent: OrderedDict[str, ScoreColumn] = OrderedDict()

    @classmethod
    def of(cls, scores: Iterable[Score]) -> ScoreColumns:
        """The columns of ``scores``, which come in any order; of two scores of one sample on one metric value the later counts."""
        columns = cls()
        left = iter(scores)
        while some := list(islice(left, _TOGETHER)):
            ids = {name: place for place, name in enumerate(dict.fromkeys(score.sample_id for score in some))}
            columns.add(list(ids), parts_of((ids[score.sample_id], score) for score in some))
        return columns

    @property
    def sample_ids(self) -> Sequence[str]:
        """By number; a sample that shares its number with other conditions may have no score here."""
        return self.numbers.ids

    def add(self, sample_ids: Sequence[str], parts: Mapping[str, Part]) -> None:
        """Take some scores; the places of ``parts`` are those of ``sample_ids``."""
        numbers = np.fromiter((self.numbers.add(name) for name in sample_ids), dtype=np.int32, count=len(sample_ids))
        self._file.seek(self._end)
        for metric, part in parts.items():
            statistics = _shortened(part.statistics)
            entry = (self._end, *statistics.shape, ord(statistics.dtype.char), part.placed)
            self._parts.setdefault(metric, array("q")).extend(entry)
            for content in (numbers[part.places], part.values, statistics):
                self._end += self._file.write(content.tobytes())
            self._recent.pop(metric, None)

    def __getitem__(self, metric: str) -> ScoreColumn:
        if metric not in self._recent:
            entries = self._parts[metric]
            parts = [self._read(*entries[start : start + 5]) for start in range(0, len(entries), 5)]
            width = max(part.statistics.shape[1] for part in parts)
            whole = Part(
                np.concatenate([part.places for part in parts]),
                np.concatenate([part.values for part in parts]),
                np.concatenate([_widened(part.statistics, width) for part in parts]),
                any(part.placed for part in parts),
            )
            if (whole.places[1:] <= whole.places[:-1]).any():
                whole = _ascending(whole)
            self._recent[metric] = ScoreColumn(metric, self.numbers, whole)
            if len(self._recent) > _KEPT_COLUMNS:
                self._recent.popitem(last=False)
        self._recent.move_to_end(metric)
        return self._recent[metric]

    def _read(self, offset: int, count: int, width: int, kind: int, placed: int) -> Part:
        self._file.seek(offset)
        places, values, statistics = (
            np.frombuffer(self._file.read(number * np.dtype(letter).itemsize), dtype=letter)
            for number, letter in ((count, "i"), (count, "d"), (count * width, chr(kind)))
        )
        return Part(places, values, statistics.reshape(count, width), bool(placed))

    def __contains__(self, metric: object) -> bool:
        return metric in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


@dataclass(frozen=True, slots=True)
class ScoreColumn(Mapping[str, Score]):
    """The scores on one metric value, without explanations: sample id -> score, in the order of the samples."""

    metric: str
    numbers: SampleNumbers
    whole: Part

    def _row(self, sample_id: object) -> int | None:
        """The row of a sample: found by bisection, since the places ascend."""
        row = int(self.rows([sample_id])[0]) if isinstance(sample_id, str) else -1
        return None if row < 0 else row

    def rows(self, sample_ids: Sequence[str]) -> NDArray[np.int64]:
        """(n,) the row of each sample in :attr:`whole`, -1 for one without a score."""
        numbers = np.fromiter((self.numbers.of.get(name, -1) for name in sample_ids), dtype=np.int64, count=len(sample_ids))
        rows = np.searchsorted(self.whole.places, numbers)
        rows[rows == len(self.whole.places)] = 0  # behind the last: that of the first is another number
        return np.where(self.whole.places[rows] == numbers, rows, -1)

    def values_of(self, sample_ids: Sequence[str]) -> NDArray[np.float64]:
        """(n,) the value of each sample, NaN for one that is unscored or has no score."""
        rows = self.rows(sample_ids)
        return np.where(rows < 0, np.nan, self.whole.values[rows])

    def __getitem__(self, sample_id: str) -> Score:
        row = self._row(sample_id)
        if row is None:
            raise KeyError(sample_id)
        value = float(self.whole.values[row])
        if np.isnan(value):
            return Score(sample_id=sample_id, metric=self.metric, value=None)
        statistics = tuple(map(float, self.whole.statistics[row].tolist()))
        if not self.whole.placed:
            return Score(sample_id=sample_id, metric=self.metric, value=value, statistics=statistics)
        count = int(statistics[1])
        return Score(
            sample_id=sample_id,
            metric=self.metric,
            value=value,
            statistics=statistics[2 : 2 + count],
            places=tuple(map(int, statistics[2 + count : 2 + 2 * count])),
            width=int(statistics[0]),
        )

    def __contains__(self, sample_id: object) -> bool:
        return self._row(sample_id) is not None

    def __iter__(self) -> Iterator[str]:
        return map(self.numbers.ids.__getitem__, self.whole.places.tolist())

    def __len__(self) -> int:
        return len(self.whole.places)


def sums_together(columns: Sequence[ScoreColumn], sample_ids: Sequence[str], groups: NDArray[np.int64]) -> GroupSums:
    """The additive statistics of scored samples in each of ``columns``, with the same k and the same meaning of each, by group.

    What :func:`medtune.evaluation.metrics.additive.statistics_of` makes of the scores and
    :func:`medtune.evaluation.bootstrap.sum_by_group` of these. No row of a sample is filled with zeros: 100,000 reports have some
    200 numbers each, nearly all of them 0.

    Args:
        groups: (n,) the group of each sample.
    """
    parts = [column.whole.statistics[column.rows(sample_ids)] for column in columns]
    if not any(column.whole.placed for column in columns):
        width = max(part.shape[1] for part in parts)
        return sum_by_group([_widened(part, width) for part in parts], groups)
    known, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    width = max(int(part[:, 0].max(initial=1)) for part in parts)
    entries = [_entries(part) for part in parts]
    blocks = np.unique(np.concatenate([places // width for _, places, _ in entries]))
    num_columns = width * max(len(blocks), 1)
    found: list[NDArray[np.float64]] = []
    for rows, places, numbers in entries:
        cells = codes[rows] * num_columns + np.searchsorted(blocks, places // width) * width + places % width
        sums = np.bincount(cells, weights=numbers, minlength=len(known) * num_columns).astype(np.float64, copy=False)
        found.append(sums.reshape(len(known), num_columns))
    return GroupSums(tuple(found), sizes)


def _entries(part: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The statistics of rows that hold them with their places: their row, place and number."""
    counts = part[:, 1].astype(np.int64)
    rows = np.repeat(np.arange(len(part)), counts)
    each = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, part[rows, 2 + counts[rows] + each].astype(np.int64), part[rows, 2 + each]
