"""Rows of Parquet and Arrow files, lazily and in stretches.

A shard larger than memory is no trouble: what is held is one Parquet page, as it lies in the file and decompressed. Arrow's writer
closes a page after 1024 values at the earliest (``write_batch_size``), so row groups of 1000 pictures of 100 kB come as pages of
100 MB; the datasets library writes 100 pictures a group.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from medtune.data.sources.hub import hub_address, open_data
from medtune.errors import DataError
from medtune.language import msg
from medtune.types import Part

__all__ = ["arrow_rows", "column_names", "parquet_rows", "parts_of"]

_BATCH_ROWS = 16
"""Rows turned into Python values at a time; larger batches were measured to be no faster where rows hold pictures."""

_BUFFER_BYTES = 1 << 20
"""Read from a Parquet file at a time. Without it a whole column of a row group is read at once, and with Arrow's default
(``pre_buffer``) the file's columns stay in memory until it is closed: 600 MB for 400 MB of pictures."""


def parquet_rows(
    file: Path, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, values) of the rows from ``start`` (from 0) to before ``stop``. Row groups outside are not read.

    Raises:
        DataError: The file is damaged.
    """
    with _opened(file) as table:
        wanted = None if columns is None else [name for name in table.schema_arrow.names if name in columns]
        groups, number = _row_groups(_group_sizes(table), start, stop)
        for batch in table.iter_batches(_BATCH_ROWS, row_groups=groups, columns=wanted, use_threads=False):
            if stop is not None and number >= stop:
                return
            skipped = min(max(start - number, 0), batch.num_rows)
            rows = batch.slice(skipped, None if stop is None else stop - number - skipped).to_pylist()
            yield from enumerate(rows, start=number + skipped + 1)
            number += batch.num_rows


def arrow_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, values) of all rows of an Arrow file, of its stream format or its file format.

    Raises:
        DataError: The file is damaged.
    """
    number = 0
    with _opened_arrow(file) as (_, batches):
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                for values in batch.slice(start, _BATCH_ROWS).to_pylist():
                    number += 1
                    yield number, values


def column_names(file: Path) -> tuple[str, ...]:
    """The columns of a Parquet or Arrow file, from its schema: no row is read.

    Raises:
        DataError: The file is damaged.
    """
    if not _is_parquet(file):
        with _opened_arrow(file) as (schema, _):
            return tuple(schema.names)
    with _opened(file) as table:
        return tuple(table.schema_arrow.names)


def parts_of(files: Sequence[Path], rows_per_part: int = 256) -> list[Part]:
    """The files as parts that can be read apart: Parquet by whole row groups, at least ``rows_per_part`` rows each but for the
    last, found from the file's footer; other kinds a file each.

    Raises:
        DataError: A Parquet file is damaged.
    """
    return [part for file in files for part in (_parquet_parts(file, rows_per_part) if _is_parquet(file) else [Part(file)])]


def _parquet_parts(file: Path, rows_per_part: int) -> list[Part]:
    with _opened(file) as table:
        sizes = _group_sizes(table)
    parts, start, stop = [], 0, 0
    for size in sizes:
        stop += size
        if stop - start >= rows_per_part:
            parts.append(Part(file, start, stop))
            start = stop
    return [*parts, Part(file, start, stop)] if stop > start else parts


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


def _group_sizes(table: Any) -> list[int]:
    return [table.metadata.row_group(index).num_rows for index in range(table.metadata.num_row_groups)]


def _row_groups(sizes: Sequence[int], start: int, stop: int | None) -> tuple[list[int], int]:
    """The row groups that hold rows ``start`` to ``stop``, and how many rows lie before the first of them."""
    ends = list(itertools.accumulate(sizes))
    groups = [
        index for index, end in enumerate(ends) if end > start and (stop is None or end - sizes[index] < stop) and sizes[index]
    ]
    return groups, ends[groups[0]] - sizes[groups[0]] if groups else 0


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with (
        _damage_told(file),
        _native(file) as native,
        pyarrow.parquet.ParquetFile(native, pre_buffer=False, buffer_size=_BUFFER_BYTES) as table,
    ):
        yield table


@contextlib.contextmanager
def _opened_arrow(file: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema and the record batches."""
    import pyarrow as pa

    with (
        _damage_told(file),
        pa.memory_map(str(file)) if hub_address(file) is None else pa.PythonFile(open_data(file)) as mapped,
    ):
        # The datasets library writes the stream format under this suffix; the file format begins with a magic word.
        if bytes(mapped.read(6)) != b"ARROW1":
            mapped.seek(0)
            stream = pa.ipc.open_stream(mapped)
            yield stream.schema, iter(stream)
        else:
            table = pa.ipc.open_file(mapped)
            yield table.schema, (table.get_batch(index) for index in range(table.num_record_batches))


@contextlib.contextmanager
def _damage_told(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            msg("The data file is damaged: {error}", error=(str(error) or type(error).__name__).splitlines()[0]),
            file=file,
            remedy=msg("Was the download cut short? Fetch the file again."),
        ) from error


def _native(file: Path) -> contextlib.AbstractContextManager[Path | BinaryIO]:
    """What pyarrow reads without a detour through Python, where there is such a thing: a file on this machine."""
    return contextlib.nullcontext(file) if hub_address(file) is None else open_data(file)
