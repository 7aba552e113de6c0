"""Ids, tasks and the notes of the sources."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from medtune import plugins
from medtune.data.checks.check import Check, Context, Place
from medtune.data.checks.keys import as_numpy, key, runs_of_equal
from medtune.data.findings import CORRECT_SOURCE
from medtune.language import Text, msg
from medtune.types import Sample

__all__ = ["Rows", "SourceNotes"]


class Rows(Check):
    """Ids are unique and tasks are known. Keeps 12 bytes a row."""

    names = ("rows",)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._tasks = frozenset(plugins.names("task"))
        self._ids = array("Q")
        self._numbers = array("I")

    def row(self, sample: Sample, place: Place) -> None:
        self._ids.append(key(sample.id))
        self._numbers.append(place.number)
        if sample.task not in self._tasks and ":" not in sample.task:
            self.findings.add(
                "unknown-task",
                "error",
                msg("There is no task named {task!r}.", task=sample.task),
                msg("Known: {known}.", known=", ".join(sorted(self._tasks))),
                split=place.split,
                sample=sample.id,
                file=str(place),
            )

    def conclude(self) -> Mapping[str, Text]:
        order, starts, sizes = runs_of_equal(as_numpy(self._ids))
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
            for member in order[start + 1 : start + size].tolist():
                place = self.context.rows.place(self._numbers[member])
                self.findings.add(
                    "duplicate-id",
                    "error",
                    msg("Another row has the same id."),
                    CORRECT_SOURCE,
                    split=place.split,
                    sample=self.context.rows.id(place.number),
                    file=str(place),
                )
        return {}


class SourceNotes(Check):
    """What a source put right while it read a record (``metadata["source_notes"]``). Keeps nothing."""

    names = ("source-notes",)

    def row(self, sample: Sample, place: Place) -> None:
        notes = sample.metadata.get("source_notes")
        for note in notes if isinstance(notes, list) else ():
            if isinstance(note, str):
                self.findings.add(
                    f"source-{note}",
                    "warning",
                    _noted(note),
                    msg("Put right while reading; the source is as published."),
                    split=place.split,
                    sample=sample.id,
                    file=str(place),
                )


def _noted(note: str) -> Text:
    known = {
        "answer-not-text": msg("The answer is a number in the source, not text."),
        "answer-blanks": msg("The answer begins or ends with a blank in the source."),
        "question-blanks": msg("The question begins or ends with a blank in the source."),
        "answer-type-blanks": msg("The answer type begins or ends with a blank in the source."),
        "location-tokens-differ": msg("Location tokens and box of the source are not the same place."),
    }
    return known.get(note) or msg("The source notes: {note}.", note=note)
