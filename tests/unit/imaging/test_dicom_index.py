"""The headers of a folder, read by several child processes at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_files import write_ct_series
from medtune.imaging import dicom_index
from medtune.imaging.child import Child, ChildDiedError
from medtune.imaging.dicom_index import Instance, Unread, index_files, read_headers
from medtune.language import msg


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Six files, two a batch."""
    monkeypatch.setattr(dicom_index, "_BATCH", 2)
    return sorted(write_ct_series(tmp_path, places=[float(place) for place in range(6)]))


def test_children_work_at_once_and_results_keep_the_order_of_the_files(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=120.0)  # broken, and so an error, when the first batch ends before the second begins
    second_done = threading.Event()

    def run(self: Child, function: str, batch: list[str], limits: Any) -> Iterator[Any]:  # noqa: ARG001
        first = batch[0] == str(files[0])
        if first or batch[0] == str(files[2]):
            together.wait()
        if first:
            assert second_done.wait(120.0)
        yield from read_headers(batch, limits)
        if batch[0] == str(files[2]):
            second_done.set()

    monkeypatch.setattr(Child, "run", run)
    assert [result.path for result in index_files(files, processes=2)] == files


def test_a_child_that_a_file_ends_costs_that_file_only(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Child, function: str, batch: list[str], limits: Any) -> Iterator[Any]:  # noqa: ARG001
        for path in batch:
            if path == str(files[2]):
                raise ChildDiedError("timeout", msg("It was still at work after {seconds} seconds.", seconds="1"))
            yield from read_headers([path], limits)

    monkeypatch.setattr(Child, "run", run)
    results = list(index_files(files, processes=3))
    assert [result.path for result in results] == files
    assert [place for place, result in enumerate(results) if isinstance(result, Unread)] == [2]


def test_nothing_is_begun_when_nobody_listens_any_longer(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def run(self: Child, function: str, batch: list[str], limits: Any) -> Iterator[Any]:  # noqa: ARG001
        begun.extend(batch)
        yield from read_headers(batch, limits)

    monkeypatch.setattr(Child, "run", run)
    monkeypatch.setattr(dicom_index, "_BATCH", 1)
    results = index_files(files, processes=1)
    assert isinstance(next(results), Instance)
    results.close()  # type: ignore[attr-defined]
    assert len(begun) < len(files)
