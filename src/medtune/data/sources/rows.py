"""Rows of the files that data sets come in: JSON, JSON lines, CSV, Parquet, Arrow. Lazily, and with their place.

Parquet and Arrow are read a few rows at a time (:mod:`medtune.data.sources.columnar`). A JSON file is one value and is read whole.
A damaged JSON line is a row with a fault; a damaged file is an error.
"""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from medtune.data.sources.columnar import arrow_rows, parquet_rows, parts_of
from medtune.data.sources.hub import hub_address, hub_files, open_data
from medtune.errors import DataError
from medtune.language import msg
from medtune.schema import read_fault
from medtune.types import Fault, Picture, Record, SplitName

__all__ = [
    "SUFFIXES",
    "RecordFault",
    "Row",
    "allow_long_fields",
    "data_files",
    "faulty",
    "file_state",
    "metadata_value",
    "not_csv",
    "parts_of",
    "picture_group",
    "picture_of",
    "read_rows",
    "split_of",
]

_SPLIT_NAME = re.compile(r"^(train|validation|validate|valid|val|dev|test)(?![a-z])", re.IGNORECASE)
_SPLITS: dict[str, SplitName] = {
    "train": "train",
    "validation": "validation",
    "validate": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


class RecordFault(Exception):
    """Raised while one record is read; the source yields the record with the fault and goes on."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values, or why it could not be read. ``number`` counts from 1 (in JSON lines, the line)."""

    file: Path
    number: int
    values: Mapping[str, Any]
    fault: Fault | None = None

    @property
    def place(self) -> str:
        """``file:number``."""
        return f"{self.file}:{self.number}"

    @property
    def id(self) -> str:
        """An id for rows that bring none: the file's name and the row's number."""
        return f"{self.file.stem}-{self.number}"


def data_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files that ``path`` names, sorted: a file, a folder's files with one of ``suffixes``, or a pattern with ``*``; on this
    machine, or on a hub (:mod:`medtune.data.sources.hub`).

    Raises:
        DataError: There is no such file.
    """
    address = hub_address(path)
    if address is not None:
        return hub_files(address, suffixes)
    path = path.expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [entry for entry in path.rglob("*") if entry.is_file() and entry.name.lower().endswith(tuple(suffixes))]
    else:
        found = [Path(entry) for entry in glob.glob(str(path), recursive=True) if Path(entry).is_file()]
    if not found:
        raise DataError(
            msg("No data file is there (looked for {suffixes}).", suffixes=", ".join(suffixes)),
            file=path,
            key="data.sources.options.path",
            remedy=msg("Give the path of a file, of a folder that holds such files, or a pattern in quotes."),
        )
    return sorted(found)


def metadata_value(name: str, value: Any) -> JsonValue:
    """What a column becomes in a row's metadata under ``name``.

    A CSV has text only, and metrics want numbers: ``box`` (``[12, 30, 60, 90]`` or ``12 30 60 90``) becomes a list of four,
    ``area_percent`` a number, ``normal`` true or false. What cannot be read so, and everything else, stays text.
    """
    if name == "box":
        parts = re.split(r"[,;\s]+", value.strip().strip("[]()").strip()) if isinstance(value, str) else value
        try:
            numbers = [float(part) for part in parts]
        except (TypeError, ValueError):
            return str(value)
        return [*numbers] if len(numbers) == 4 and all(map(math.isfinite, numbers)) else str(value)
    if name == "area_percent" and isinstance(value, str):
        number = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%?", value.strip())
        return float(number[1]) if number else value
    if name == "normal" and isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def split_of(file: Path) -> SplitName | None:
    """The split that a file's name begins with (``test-00000-of-00001.parquet``), the usage of the Hugging Face hub."""
    match = _SPLIT_NAME.match(file.name)
    return _SPLITS[match.group(1).lower()] if match else None


def read_rows(file: Path, start: int = 0, stop: int | None = None, *, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of a file, by its suffix: .json, .jsonl, .csv, .parquet, .arrow.

    Args:
        start: First row, from 0. Parquet row groups before it are not read. ``Row.number`` counts from the file's first row
            all the same.
        stop: Row to stop before; None = to the end.
        columns: Read only these columns of a Parquet file, those of them that it has. Other kinds give every column.

    Raises:
        DataError: The file is missing, damaged, of another kind, or does not hold rows.
    """
    reader = SUFFIXES.get(file.suffix.lower())
    if reader is None:
        raise DataError(
            msg("Files of the kind {suffix} are not read.", suffix=file.suffix or "?"),
            file=file,
            remedy=msg("Known: {known}.", known=", ".join(SUFFIXES)),
        )
    if hub_address(file) is None and not file.is_file():
        raise DataError(msg("The data file is missing."), file=file, remedy=msg("Check the path in the recipe."))
    try:
        if reader is _parquet:
            yield from _parquet(file, start, stop, columns)
        else:
            yield from itertools.islice(reader(file), start, stop)
    except UnicodeDecodeError as error:
        raise DataError(msg("The file is not UTF-8 text."), file=file, remedy=msg("Save it as UTF-8.")) from error


def file_state(file: Path) -> tuple[str, int, int]:
    """Name, bytes and time of change (ns): tells a file that changed since something was found out about it. Reads no contents;
    an address on a hub has its commit in it."""
    if hub_address(file) is not None:
        return str(file), 0, 0
    state = file.stat()
    return file.name, state.st_size, state.st_mtime_ns


def faulty(row: Row, fault: Fault, *, record_id: str | None = None) -> Record:
    """The record that stands for a row which could not be read."""
    placed = Fault(fault.reason, fault.message, fault.remedy, fault.file or row.place)
    return Record(id=record_id or row.id, task="", pictures=(), target="", group=row.id, fault=placed)


def picture_of(value: Any, *, name: str, base: Path | None = None) -> Picture:
    """A picture as data files hold it: a path, bytes, the Hugging Face image struct ``{"bytes", "path"}``, or a ``data:`` address
    with base64 (RFC 2397).

    A relative path is joined to ``base``, unless only the path as it stands names a file (LLaMA-Factory's rule for
    ``media_dir``).

    Raises:
        RecordFault: It is none of these, or lies on another machine.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value.startswith("data:"):
        value = _inline(value)
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        raise RecordFault(
            Fault(
                "picture-missing",
                msg("The picture lies at {address}; only files on this machine are read.", address=value),
                msg("Download it and write its path in place of the address."),
            )
        )
    if isinstance(value, bytes) and value:
        return Picture(data=value, name=name)
    if isinstance(value, str) and value:
        joined = base / value if base is not None else Path(value)
        if hub_address(joined) is not None:
            return Picture(data=_read(joined), name=name)
        return Picture(path=Path(value) if Path(value).is_file() and not joined.is_file() else joined, name=name)
    raise RecordFault(
        Fault("picture-missing", msg("The record has no picture."), msg("Complete the record in the source, or leave it out."))
    )


def _inline(address: str) -> bytes | None:
    head, _, body = address.partition(",")
    try:
        return base64.b64decode(body, validate=True) if head.endswith(";base64") else None
    except ValueError:
        return None


def picture_group(picture: Picture, base: Path | None = None) -> str:
    """A group name for records whose only known unit is the picture: its path below ``base``, or the hash of its bytes."""
    if picture.data is not None:
        return hashlib.sha256(picture.data).hexdigest()[:16]
    assert picture.path is not None
    if base is not None and picture.path.absolute().is_relative_to(base.absolute()):
        return picture.path.absolute().relative_to(base.absolute()).as_posix()
    return picture.path.as_posix()


def _read(file: Path) -> bytes:
    with open_data(file) as stream:
        return stream.read()


def _json(file: Path) -> Iterator[Row]:
    try:
        content = json.loads(_read(file).decode("utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            msg("The file cannot be read: {error}", error=read_fault(error)),
            file=file,
            remedy=msg("Was the download cut short? Files with one JSON object a line must be named .jsonl."),
        ) from error
    if not isinstance(content, list):
        raise DataError(
            msg("The JSON file holds one {kind}; a list of records is expected.", kind=type(content).__name__),
            file=file,
            remedy=msg("Put the records into one list: [record, record, ...]."),
        )
    for number, values in enumerate(content, start=1):
        yield _object(file, number, values)


def _jsonl(file: Path) -> Iterator[Row]:
    with io.TextIOWrapper(open_data(file), encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                yield Row(
                    file,
                    number,
                    {},
                    Fault("not-json", msg("The line cannot be read: {error}", error=read_fault(error)), msg("Correct the line.")),
                )
                continue
            yield _object(file, number, values)


def _object(file: Path, number: int, values: Any) -> Row:
    if isinstance(values, dict):
        return Row(file, number, values)
    fault = Fault(
        "not-an-object", msg("The record is not a JSON object, but {kind}.", kind=type(values).__name__), msg("Correct the record.")
    )
    return Row(file, number, {}, fault)


def _csv(file: Path) -> Iterator[Row]:
    allow_long_fields()
    with io.TextIOWrapper(open_data(file), encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        try:
            yield from (Row(file, number, values) for number, values in enumerate(reader, start=1))
        except csv.Error as error:
            raise not_csv(file, reader.line_num, error) from error


def allow_long_fields() -> None:
    """Let the csv module read fields up to 16 MiB instead of 128 KiB: one long text is a fault of its row, not of the file."""
    csv.field_size_limit(max(csv.field_size_limit(), 16 * 2**20))


def not_csv(file: Path, line: int, error: csv.Error) -> DataError:
    """What is said of a file that the csv module cannot read on after ``line``."""
    return DataError(
        msg("This is not valid CSV, in line {line} or before: {error}", line=line, error=str(error)),
        file=file,
        remedy=msg("Quote fields that hold commas or line ends, and close every quote."),
    )


def _parquet(file: Path, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None) -> Iterator[Row]:
    return (Row(file, number, values) for number, values in parquet_rows(file, start, stop, columns))


def _arrow(file: Path) -> Iterator[Row]:
    return (Row(file, number, values) for number, values in arrow_rows(file))


SUFFIXES: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""Reader of each kind of file."""
