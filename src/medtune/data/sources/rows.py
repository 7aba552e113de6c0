"""Rows of the files that data sets come in: JSON, JSON lines, CSV, Parquet, Arrow. Lazily, and with their place.

Parquet and Arrow are read a record batch at a time, so that a shard larger than memory is no trouble: what is held is one
Parquet page, as it lies in the file and decompressed. Arrow's writer closes a page after 1024 values at the earliest
(``write_batch_size``), so row groups of 1000 pictures of 100 kB come as pages of 100 MB; the datasets library writes 100
pictures a group. A JSON file is one value and is read whole. A damaged JSON line is a row with a fault; a damaged file is an
error.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import glob
import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from medtune.data.sources.hub import hub_address, hub_files, open_data
from medtune.errors import DataError
from medtune.language import msg
from medtune.types import Fault, Part, Picture, Record, SplitName

__all__ = [
    "SUFFIXES",
    "RecordFault",
    "Row",
    "data_files",
    "faulty",
    "parts_of",
    "picture_group",
    "picture_of",
    "read_rows",
    "split_of",
]

_BATCH_ROWS = 16
"""Rows turned into Python values at a time; larger batches were measured to be no faster where rows hold pictures."""

_BUFFER_BYTES = 1 << 20
"""Read from a Parquet file at a time. Without it a whole column of a row group is read at once, and with Arrow's default
(``pre_buffer``) the file's columns stay in memory until it is closed: 600 MB for 400 MB of pictures."""

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


def _native(file: Path) -> contextlib.AbstractContextManager[Path | BinaryIO]:
    """What pyarrow reads without a detour through Python, where there is such a thing: a file on this machine."""
    return contextlib.nullcontext(file) if hub_address(file) is None else open_data(file)


def _json(file: Path) -> Iterator[Row]:
    try:
        content = json.loads(_read(file).decode("utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            msg("This is not valid JSON: {error}", error=str(error)),
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
                    Fault("not-json", msg("The line is not valid JSON: {error}", error=str(error)), msg("Correct the line.")),
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
    with io.TextIOWrapper(open_data(file), encoding="utf-8-sig", newline="") as text:
        try:
            for number, values in enumerate(csv.DictReader(text, strict=True), start=1):
                yield Row(file, number, values)
        except csv.Error as error:
            raise DataError(
                msg("This is not valid CSV: {error}", error=str(error)),
                file=file,
                remedy=msg("Quote fields that hold commas or line ends."),
            ) from error


def _parquet(file: Path, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with _native(file) as native, pyarrow.parquet.ParquetFile(native, pre_buffer=False, buffer_size=_BUFFER_BYTES) as table:
            wanted = None if columns is None else [name for name in table.schema_arrow.names if name in columns]
            groups, number = _row_groups(_group_sizes(table), start, stop)
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=groups, columns=wanted, use_threads=False):
                if stop is not None and number >= stop:
                    return
                skipped = min(max(start - number, 0), batch.num_rows)
                rows = batch.slice(skipped, None if stop is None else stop - number - skipped).to_pylist()
                for place, values in enumerate(rows, start=number + skipped + 1):
                    yield Row(file, place, values)
                number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


def parts_of(files: Sequence[Path], rows_per_part: int = 4096) -> list[Part]:
    """The files as parts that can be read apart: Parquet by whole row groups, at least ``rows_per_part`` rows each but for the
    last, found from the file's footer; other kinds a file each.

    Raises:
        DataError: A Parquet file is damaged.
    """
    return [part for file in files for part in (_parquet_parts(file, rows_per_part) if _is_parquet(file) else [Part(file)])]


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


def _parquet_parts(file: Path, rows_per_part: int) -> list[Part]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with _native(file) as native, pyarrow.parquet.ParquetFile(native, pre_buffer=False) as table:
            sizes = _group_sizes(table)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error
    parts, start, stop = [], 0, 0
    for size in sizes:
        stop += size
        if stop - start >= rows_per_part:
            parts.append(Part(file, start, stop))
            start = stop
    return [*parts, Part(file, start, stop)] if stop > start else parts


def _group_sizes(table: Any) -> list[int]:
    return [table.metadata.row_group(index).num_rows for index in range(table.metadata.num_row_groups)]


def _row_groups(sizes: Sequence[int], start: int, stop: int | None) -> tuple[list[int], int]:
    """The row groups that hold rows ``start`` to ``stop``, and how many rows lie before the first of them."""
    ends = list(itertools.accumulate(sizes))
    groups = [
        index for index, end in enumerate(ends) if end > start and (stop is None or end - sizes[index] < stop) and sizes[index]
    ]
    return groups, ends[groups[0]] - sizes[groups[0]] if groups else 0


def _arrow(file: Path) -> Iterator[Row]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) if hub_address(file) is None else pa.PythonFile(open_data(file)) as mapped:
            # The datasets library writes the stream format under this suffix; the file format begins with a magic word.
            stream = pa.ipc.open_stream(mapped) if bytes(mapped.read(6)) != b"ARROW1" and not mapped.seek(0) else None
            if stream is None:
                table = pa.ipc.open_file(mapped)
                batches: Iterator[Any] = (table.get_batch(index) for index in range(table.num_record_batches))
            else:
                batches = iter(stream)
            number = 0
            for batch in batches:
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    for values in batch.slice(start, _BATCH_ROWS).to_pylist():
                        number += 1
                        yield Row(file, number, values)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(
        msg("The data file is damaged: {error}", error=(str(error) or type(error).__name__).splitlines()[0]),
        file=file,
        remedy=msg("Was the download cut short? Fetch the file again."),
    )


SUFFIXES: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""Reader of each kind of file."""
