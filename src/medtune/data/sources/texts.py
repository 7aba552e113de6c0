"""Questions and answers that lie in a table beside the pictures, joined to them by a key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from medtune.data.sources.delimited import Encoding, read_delimited
from medtune.data.sources.rows import Row, data_files, metadata_value, read_rows
from medtune.errors import DataError
from medtune.language import Text, msg
from medtune.types import Fault, Record, Settings, SplitName

__all__ = ["TextKey", "TextRow", "TextTable", "Texts"]

TextKey = Literal["patient", "study", "series", "instance", "file"]
"""What a row speaks of: the id of the patient, the UID of a study, series or SOP instance, or the name of a file."""

_ROUNDED = re.compile(r"\d([.,]\d+)?[eE]\+\d+")
"""What Excel and its like make of a number of more than eleven digits: 1.23457E+11."""
_SPLITS: dict[str, SplitName] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")


class Texts(Settings):
    """A table of texts: CSV with a head line, a JSON list of objects, or JSON lines; one row for each question."""

    path: Path
    """The table."""
    key: TextKey = "series"
    """What a row speaks of. The values are those of the pictures' files, not pseudonyms."""
    column: str | None = None
    """The column with the key; left out, it is named as `key`."""
    answer: str = "answer"
    """The column with the reference answer or report."""
    question: str | None = None
    """The column with the question; left out, the task's own instruction is asked."""
    task: str | None = None
    """The column with the task; left out, the source's task."""
    split: str | None = None
    """The column with the split (train, validation, test)."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Further columns: name in the row's metadata -> column."""
    encoding: Encoding | None = None
    """Of a CSV, e.g. gb18030; left out: UTF-8, or what its byte order mark says."""
    delimiter: str | None = None
    """Of a CSV; left out: that of comma, tab, semicolon and bar which cuts the head line into most columns."""


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row of the table. ``task`` and ``split`` are None where the table names none."""

    key: str
    question: str
    answer: str
    task: str | None
    split: SplitName | None
    metadata: dict[str, JsonValue]
    place: str
    number: int


@dataclass(slots=True)
class TextTable:
    """The rows of a table by their key; it remembers which were asked for, so that the others can be listed.

    Attributes:
        faults: Rows that could not be read, as records.
    """

    texts: Texts
    faults: list[Record] = field(default_factory=list)
    _rows: dict[str, list[TextRow]] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _without_zeros: set[str] = field(default_factory=set)
    """Values asked for and not found, without the zeros that they begin with."""

    @classmethod
    def read(cls, texts: Texts) -> TextTable:
        """Read the whole table.

        Raises:
            DataError: The file is missing, damaged, or lacks a column that the options name.
        """
        table = cls(texts)
        (file,) = data_files(texts.path, _SUFFIXES)[:1]
        for row in _read(file, texts):
            if row.fault is not None:
                table.faults.append(_faulty(row, row.fault))
            else:
                table._add(row)
        return table

    def rows_of(self, value: str) -> Sequence[TextRow]:
        """The rows whose key is ``value``, in the order of the file; they count as used."""
        value = value.strip()
        if value in self._rows:
            self._used.add(value)
            return self._rows[value]
        if value.startswith("0"):
            self._without_zeros.add(value.lstrip("0"))
        return ()

    def unmatched(self) -> Iterator[Record]:
        """A faulty record for each row that was never asked for. Call it when all pictures have been seen."""
        for key, rows in self._rows.items():
            if key in self._used:
                continue
            for row in rows:
                # The key may name a patient: the place says which row it is.
                fault = Fault(
                    "text-unmatched",
                    msg("No picture has the {key} that this row of the table names.", key=self.texts.key),
                    self._remedy(key),
                    row.place,
                )
                yield Record(id=f"text-{row.number}", task="", pictures=(), target="", group=f"text-{row.number}", fault=fault)

    def _remedy(self, key: str) -> Text:
        if _ROUNDED.fullmatch(key):
            return msg("A spreadsheet program has rounded this number: give its column the format text, and export it again.")
        if key in self._without_zeros:
            return msg(
                "A spreadsheet program has taken the zeros off this number: give its column the format text, and export it again."
            )
        return msg("Correct the key of the row, or add the pictures.")

    def _add(self, row: Row) -> None:
        texts, column = self.texts, self.texts.column or self.texts.key
        wanted = [column, texts.answer, texts.question, texts.task, texts.split, *texts.metadata.values()]
        for name in wanted:
            if name is not None and name not in row.values:
                raise DataError(
                    msg("The table has no column {column!r}; it has {columns}.", column=name, columns=", ".join(row.values)),
                    file=row.place,
                    key="data.sources.options.texts",
                    remedy=msg("Name the columns of the table in the options, or complete the row."),
                )
        key, split = _text(row.values[column]), _text(row.values[texts.split]).lower() if texts.split else ""
        if not key:
            self.faults.append(
                _faulty(row, Fault("key-missing", msg("The row has no {column}.", column=column), msg("Complete the row.")))
            )
            return
        if split and split not in _SPLITS:
            self.faults.append(
                _faulty(
                    row,
                    Fault(
                        "unknown-split",
                        msg("{split!r} is not the name of a split.", split=split),
                        msg("Write train, validation or test, or leave it empty."),
                    ),
                )
            )
            return
        self._rows.setdefault(key, []).append(
            TextRow(
                key=key,
                question=_text(row.values[texts.question]) if texts.question else "",
                answer=_text(row.values[texts.answer]),
                task=_text(row.values[texts.task]) or None if texts.task else None,
                split=_SPLITS[split] if split else None,
                metadata={
                    name: metadata_value(name, value) if isinstance(value, str) else value
                    for name, source in texts.metadata.items()
                    if (value := row.values[source]) not in (None, "")
                },
                place=row.place,
                number=row.number,
            )
        )


def _read(file: Path, texts: Texts) -> Iterator[Row]:
    if file.suffix.lower() not in (".csv", ".tsv"):
        return read_rows(file)
    return read_delimited(file, encoding=texts.encoding, delimiter=texts.delimiter, options="options.texts")


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _faulty(row: Row, fault: Fault) -> Record:
    placed = Fault(fault.reason, fault.message, fault.remedy, row.place)
    identity = f"text-{row.number}"
    return Record(id=identity, task="", pictures=(), target="", group=identity, fault=placed)
