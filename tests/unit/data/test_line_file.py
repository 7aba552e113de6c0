"""Lines by where they begin, from a file that is opened once."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medtune.data.line_file import LineFile


def test_lines_of_any_length_are_read_from_one_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [b"x" * length for length in (0, 1, 4095, 4096, 4097, 20_000)] + [b"without an end"]
    file = tmp_path / "lines"
    file.write_bytes(b"\n".join(lines))
    offsets = [sum(len(line) + 1 for line in lines[:number]) for number in range(len(lines))]
    opened = []
    real = os.open

    def count(*arguments: object) -> int:
        opened.append(arguments)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", count)
    read = LineFile(file)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read.line_at, offsets * 20)) == lines * 20
        monkeypatch.delattr(os, "pread")  # as on Windows
        assert list(threads.map(read.line_at, offsets * 20)) == lines * 20
    assert len(opened) == 1
    file.unlink()
    assert read.line_at(offsets[-1]) == lines[-1], "the file stays open"


def test_a_long_line_is_read_in_few_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lines").write_bytes(b"x" * 5_000_000 + b"\nnext\n")
    pieces = []
    real = os.pread

    def count(descriptor: int, size: int, offset: int) -> bytes:
        pieces.append(size)
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", count)
    assert len(LineFile(tmp_path / "lines").line_at(0)) == 5_000_000
    assert len(pieces) < 20


def test_it_can_be_sent_to_another_process(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"one\ntwo\n")
    read = LineFile(tmp_path / "lines")
    assert read.line_at(4) == b"two"
    assert pickle.loads(pickle.dumps(read)).line_at(0) == b"one"
