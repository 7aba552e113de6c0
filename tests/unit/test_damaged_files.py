"""What medtune says of its own damaged files: which field, or where, in the reader's language; no English of a library."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from medtune.data.dataset import Dataset, RowError, sample_of
from medtune.errors import MedtuneError
from medtune.evaluation.evaluate import read_report
from medtune.evaluation.predictions import read_asked, read_index, read_scores
from medtune.evaluation.reading import Marks
from medtune.evaluation.review_key import read_key
from medtune.hpo.report import read_report as read_sweep
from medtune.models.contract import read_contract
from medtune.models.hub import read_config
from medtune.runs import Run
from medtune.schema import read_fault
from medtune.training.job import read_job

_READERS: dict[str, Callable[[Path], Any]] = {
    "report.json": read_report,
    "asked.json": read_asked,
    "samples.jsonl": lambda folder: read_index(folder / "samples.jsonl"),
    "scores.jsonl": lambda folder: list(read_scores(folder / "scores.jsonl")),
    "review/key.json": read_key,
    "run.json": lambda folder: Run(folder).record,
    "job.json": lambda folder: read_job(Run(folder)),
    "contract.json": read_contract,
    "config.json": read_config,
    "sweep.json": read_sweep,
    "manifest.json": Dataset.open,
}

_LIBRARY = re.compile(r"validation error|Field required|Input should|Extra inputs|Invalid JSON|type=|Expecting|codec|column \d+:")


@pytest.mark.parametrize("name", _READERS)
@pytest.mark.parametrize("content", [b'{"format_version": ', b'{"format_version": "x", "tasks": 3}', b"\xff\xfe", b"[3]"])
def test_damaged_files_are_described_in_both_languages(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with pytest.raises(MedtuneError) as caught:
        _READERS[name](tmp_path)
    for language in ("en", "zh"):
        text = caught.value.render(language)  # type: ignore[arg-type]
        assert not _LIBRARY.search(text), text
        assert name.rpartition("/")[2] in text


def _fault(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises((ValueError, OSError)) as caught:
        call()
    found = read_fault(caught.value)
    return found.render("en"), found.render("zh")


def test_the_first_faulty_field_is_named_and_the_faults_are_counted() -> None:
    marks = {"format": "medtune-review", "version": 1, "review": "r", "reader": "a", "cases": {"c1": {"preference": "both"}}}
    with pytest.raises(ValidationError):
        Marks.model_validate(marks)
    english, chinese = _fault(lambda: Marks.model_validate(marks))
    assert "cases.c1.preference: 'both' is not one of a, b, tie" in english
    assert "cases.c1.preference：" in chinese
    english, chinese = _fault(lambda: Marks.model_validate({}))
    assert re.fullmatch(r"\d faults, the first: format is missing", english)
    assert "缺少 format" in chinese


def test_a_place_in_json_is_named() -> None:
    for call in (lambda: Marks.model_validate_json('{"a": 1,\n ]'), lambda: json.loads('{"a": 1,\n ]')):
        english, chinese = _fault(call)
        assert "line 2, column 2" in english
        assert "第 2 行第 2 列" in chinese


def test_a_system_reason_is_translated(tmp_path: Path) -> None:
    assert _fault(lambda: (tmp_path / "absent").read_text()) == ("there is no such file or folder", "没有这个文件或目录")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "JSON"),
        ("{}", "缺少 id"),
        ("[]", "类型"),
        ('{"id": "a", "metadata": "{}", "images": [], "messages": [{}]}', "缺少 role"),
    ],
)
def test_damaged_rows_are_described_in_chinese(row: str, said: str) -> None:
    with pytest.raises(RowError) as caught:
        sample_of(row, {})
    text = caught.value.message.render("zh")
    assert said in text
    assert not _LIBRARY.search(text)
