"""Rows of a part of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

import source_files
from medtune.data.sources import columnar
from medtune.data.sources.rows import parts_of, read_rows
from medtune.errors import DataError
from medtune.types import Part


def parquet(file: Path, num_rows: int, row_group: int) -> Path:
    table = pa.Table.from_pylist([{"n": n, "picture": b"x" * n} for n in range(num_rows)])
    pyarrow.parquet.write_table(table, file, row_group_size=row_group)
    return file


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 0), (3, 40), (20, 20), (21, 63), (99, None), (100, None), (0, 1000), (500, 600)]
)
def test_a_stretch_of_a_parquet_file(tmp_path: Path, start: int, stop: int | None) -> None:
    file = parquet(tmp_path / "a.parquet", 100, 21)
    found = [(row.number, row.values["n"]) for row in read_rows(file, start, stop)]
    assert found == [(n + 1, n) for n in range(100)[start:stop]]


def test_row_groups_outside_are_not_read(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", 400, 100)
    content = bytearray(file.read_bytes())
    with pyarrow.parquet.ParquetFile(file) as table:
        column = table.metadata.row_group(0).column(1)
    begin = column.dictionary_page_offset or column.data_page_offset
    content[begin : begin + column.total_compressed_size] = bytes(column.total_compressed_size)
    file.write_bytes(content)
    assert [row.number for row in read_rows(file, 100, 200)] == list(range(101, 201))
    assert len(list(read_rows(file, columns=["n"]))) == 400, "nor columns that nobody asked for"
    with pytest.raises(DataError, match="damaged"):
        list(read_rows(file, 99, 200))


def test_only_the_columns_asked_for_that_are_there(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", 2, 2)
    assert [row.values for row in read_rows(file, columns=["nobody", "n"])] == [{"n": 0}, {"n": 1}]


def test_a_stretch_of_json_lines_keeps_the_line_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"n": n}) + "\n\n" for n in range(5)))
    assert [(row.number, row.values["n"]) for row in read_rows(file, 1, 3)] == [(3, 1), (5, 2)]


def test_parts_end_where_row_groups_end(tmp_path: Path) -> None:
    file, lines = parquet(tmp_path / "a.parquet", 100, 21), tmp_path / "b.jsonl"
    lines.write_text("{}\n")
    parts = parts_of([file, lines], rows_per_part=40)
    assert parts == [Part(file, 0, 42), Part(file, 42, 84), Part(file, 84, 100), Part(lines)]
    together = [row.number for part in parts[:-1] for row in read_rows(part.file, part.start, part.stop)]
    assert together == list(range(1, 101))


def test_parts_of_an_empty_and_of_a_damaged_file(tmp_path: Path) -> None:
    empty, damaged = parquet(tmp_path / "a.parquet", 0, 1), tmp_path / "b.parquet"
    assert parts_of([empty]) == []
    assert list(read_rows(empty)) == []
    damaged.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="damaged"):
        parts_of([damaged])


def test_parts_are_found_without_reading_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = source_files.write_parquet(tmp_path / "a.parquet", [{"n": n} for n in range(10)])
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", None)
    monkeypatch.setattr(columnar, "_BATCH_ROWS", 0)
    assert parts_of([file]) == [Part(file, 0, 10)]
