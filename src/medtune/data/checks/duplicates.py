"""Rows that say, ask or answer the same of the same pictures."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medtune.data.checks.check import Check, Context, Place
from medtune.data.checks.keys import as_numpy, key, normalised, runs_of_equal
from medtune.data.findings import CORRECT_SOURCE
from medtune.data.split import SPLITS
from medtune.language import Text, msg
from medtune.types import IMAGE_MARK, Sample, Severity

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Duplicates"]

_EXAMPLES = 3


class Duplicates(Check):
    """The same pictures with the same words; or with the same question, told apart by its letters and digits only.

    Keeps 29 bytes a row.
    """

    names = ("duplicates", "repeated-questions", "question-overlap")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._words = array("Q")
        self._questions = array("Q")
        self._answers = array("Q")
        self._closed = array("B")
        self._numbers = array("I")

    def row(self, sample: Sample, place: Place) -> None:
        pictures = [image.path for image in sample.images]
        turns = (part for message in sample.messages for part in (message.role, message.content))
        self._words.append(key(*turns, *pictures))
        asked = (normalised(message.content.replace(IMAGE_MARK, " ")) for message in sample.prompt)
        self._questions.append(key(*asked, *pictures))
        self._answers.append(key(normalised(sample.target)))
        self._closed.append(sample.task == "closed-vqa" or sample.metadata.get("answer_type") == "closed")
        self._numbers.append(place.number)

    def conclude(self) -> Mapping[str, Text]:
        self._same_words()
        if len(self._numbers):
            self._same_questions()
        return {}

    def _same_words(self) -> None:
        rows = self.context.rows
        order, starts, sizes = runs_of_equal(as_numpy(self._words))
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
            first = rows.id(self._numbers[order[start]])
            for member in order[start + 1 : start + size].tolist():
                message = msg("The same pictures and words as row {first}.", first=first)
                self._add("duplicate-row", "warning", message, self._numbers[member])

    def _same_questions(self) -> None:
        questions, answers, words = as_numpy(self._questions), as_numpy(self._answers), as_numpy(self._words)
        numbers, closed = as_numpy(self._numbers), as_numpy(self._closed)
        order, starts, sizes = runs_of_equal(questions)
        starts_of_splits = [self.context.rows.starts.get(split, 0) for split in SPLITS]
        shared: dict[int, list[int]] = {place: [] for place in range(len(SPLITS))}
        again: list[int] = []
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
            members = order[start : start + size]
            places = np.searchsorted(starts_of_splits, numbers[members], side="right") - 1
            for place, member in zip(places.tolist(), members.tolist(), strict=True):
                if place > places[0]:
                    shared[place].append(member)
            other = members[answers[members] != answers[members[0]]]
            for member in other.tolist():
                message = msg(
                    "The same question about the same pictures has another answer in row {first}.",
                    first=self.context.rows.id(int(numbers[members[0]])),
                )
                self._add("contradicting-answers", "warning" if closed[member] else "info", message, int(numbers[member]))
            again += members[1:][(answers[members[1:]] == answers[members[0]]) & (words[members[1:]] != words[members[0]])].tolist()
        if again:
            self.findings.add(
                "repeated-question",
                "info",
                msg(
                    "{count} rows ask what another row asks of the same pictures, in other dress and with the same answer, "
                    "e.g. {examples}.",
                    count=len(again),
                    examples=self._examples(numbers[again]),
                ),
                count=len(again),
            )
        for place, later in shared.items():
            if later:
                split = SPLITS[place]
                self.findings.add(
                    "question-overlap",
                    "warning" if self.context.official else "error",
                    msg(
                        "{count} rows of {split} ask what a row of another split asks of the same pictures, e.g. {examples}.",
                        count=len(later),
                        split=split,
                        examples=self._examples(np.sort(numbers[later])),
                    ),
                    msg("Split by group (data.split.kind: group-hash); numbers measured on such a split are too good."),
                    split=split,
                    count=len(later),
                )

    def _examples(self, numbers: NDArray[np.unsignedinteger[Any]]) -> str:
        return ", ".join(self.context.rows.id(number) for number in numbers[:_EXAMPLES].tolist())

    def _add(self, code: str, severity: Severity, message: Text, number: int) -> None:
        place = self.context.rows.place(number)
        row_id = self.context.rows.id(number)
        self.findings.add(code, severity, message, CORRECT_SOURCE, split=place.split, sample=row_id, file=str(place))
