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
    """What a source noted about a record while it read it (``metadata["source_notes"]``). Keeps nothing."""

    names = ("source-notes",)

    def row(self, sample: Sample, place: Place) -> None:
        notes = sample.metadata.get("source_notes")
        for note in notes if isinstance(notes, list) else ():
            if isinstance(note, str):
                self.findings.add(
                    f"source-{note}",
                    # A part of a caption that was not read makes no row wrong: its tag is absent, its words are all there.
                    "info" if note.startswith(_UNREAD) else "warning",
                    _noted(note),
                    msg("Put right while reading; the source is as published.")
                    if note in _PUT_RIGHT
                    else msg("The row is as the note says; correct the source, or leave the record out, where that will not do."),
                    split=place.split,
                    sample=sample.id,
                    file=str(place),
                )


_PUT_RIGHT = frozenset({"answer-not-text", "answer-blanks", "question-blanks", "answer-type-blanks"})
"""Notes about something that is no longer so in the row. The others say what is."""

_UNREAD = "caption-unread-"


def _noted(note: str) -> Text:
    known = {
        "answer-not-text": msg("The answer is a number in the source, not text."),
        "answer-blanks": msg("The answer begins or ends with a blank in the source."),
        "question-blanks": msg("The question begins or ends with a blank in the source."),
        "answer-type-blanks": msg("The answer type begins or ends with a blank in the source."),
        "location-tokens-differ": msg("Location tokens and box of the source are not the same place."),
        "box-from-location-tokens": msg("The box is that of the location tokens; the source has none in pixels."),
        "deidentified-xxxx": msg("Words that were taken out to hide identities stand as XXXX in the text."),
        "deidentified-blanks": msg("Words that were taken out to hide identities stand as ___ in the text."),
    }
    if note.startswith(_UNREAD):
        return msg("The caption does not say in known words: {part}. The row has no such tag.", part=note.removeprefix(_UNREAD))
    return known.get(note) or msg("The source notes: {note}.", note=note)
