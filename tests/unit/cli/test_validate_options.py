"""``medtune validate``: the page, the cleaned copy, and options that contradict each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import source_files
from medtune.cli import main
from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset
from medtune.data.prepare import prepare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rad = source_files.write_vqa_rad(tmp_path / "rad", num_images=8)
    chosen = DataSettings.model_validate({"sources": [{"source": "vqa-rad", "options": {"path": str(rad)}}]})
    prepare(chosen, name="try", folder=tmp_path / "data")
    file = tmp_path / "data" / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[0]["target"] = rows[0]["messages"][-1]["content"] = "Yes "
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path / "data"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(main([str(argument) for argument in ("validate", *arguments)]))
    return int(stopped.value.code or 0)


def test_the_page_stands_beside_the_data_unless_told_otherwise(folder: Path, tmp_path: Path) -> None:
    run(folder, "--no-html")
    assert not (folder / "validation.html").exists()
    run(folder, "--html", tmp_path / "page.html")
    assert not (folder / "validation.html").exists()
    assert "stray-blanks" in (tmp_path / "page.html").read_text(encoding="utf-8")
    run(folder)
    assert "stray-blanks" in (folder / "validation.html").read_text(encoding="utf-8")


def test_a_cleaned_copy(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, "--no-html", "--fix", tmp_path / "copy")
    copy = Dataset.open(tmp_path / "copy")
    assert copy.changed_files() == []
    assert next(iter(copy.rows("train"))).target == "Yes"
    assert run(folder, "--no-html", "--fix", tmp_path / "copy") == 2  # it exists
    capsys.readouterr()
    assert run(tmp_path / "copy", "--no-html", "--fix", tmp_path / "again") == 0
    output = capsys.readouterr()
    assert "Nothing to put right" in output.out + output.err
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("options", [("--html", "a.html", "--no-html"), ("--fix-terms",)])
def test_options_that_contradict_each_other(folder: Path, options: tuple[str, ...]) -> None:
    assert run(folder, *options) == 2
