"""What validate found is kept beside the data set, and believed as long as the data set is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import source_files
from medtune.data import validation_file
from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset
from medtune.data.prepare import prepare
from medtune.data.validate import validate
from medtune.types import ValidationReport


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rad = source_files.write_vqa_rad(tmp_path / "rad", num_images=8)
    chosen = DataSettings.model_validate({"sources": [{"source": "vqa-rad", "options": {"path": str(rad)}}]})
    prepare(chosen, name="try", folder=tmp_path / "out")
    return Dataset.open(tmp_path / "out")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often the data set is really checked."""
    seen: list[str] = []

    def counted(dataset: Dataset, **settings: object) -> ValidationReport:
        seen.append(dataset.manifest.name)
        return validate(dataset, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(validation_file, "validate", counted)
    return seen


def test_the_second_time_nothing_is_decoded(dataset: Dataset, runs: list[str]) -> None:
    first = validation_file.validated(dataset)
    second = validation_file.validated(Dataset.open(dataset.folder))
    assert len(runs) == 1
    assert second == first == validate(dataset)


def test_a_moved_data_set_is_still_checked_and_its_findings_name_the_new_place(dataset: Dataset, runs: list[str]) -> None:
    image = next(iter(dataset.images.values()))
    file = dataset.image_path(image)
    file.write_bytes(file.read_bytes()[:-40])
    (before,) = [issue.file for issue in validation_file.validated(dataset).issues if issue.code == "image-unreadable"]
    assert before == str(file)
    text = (dataset.folder / validation_file.NAME).read_text()
    assert str(dataset.folder) not in text
    moved = dataset.folder.rename(dataset.folder.parent / "elsewhere")
    (after,) = [issue.file for issue in validation_file.validated(Dataset.open(moved)).issues if issue.code == "image-unreadable"]
    assert after == str(moved / image.path)
    assert len(runs) == 1


@pytest.mark.parametrize("change", ["picture", "missing picture", "left out", "settings", "torn file"])
def test_what_changed_is_checked_again(dataset: Dataset, runs: list[str], change: str) -> None:
    validation_file.validated(dataset)
    stored = dataset.folder / validation_file.NAME
    picture = dataset.image_path(next(iter(dataset.images.values())))
    if change == "picture":
        picture.write_bytes(picture.read_bytes() + b"\0")
    elif change == "missing picture":
        picture.unlink()
    elif change == "left out":
        with (dataset.folder / "left_out.jsonl").open("a") as file:
            line = {
                "source": "vqa-rad",
                "id": "x",
                "reason": "answer-empty",
                "message": "",
                "text": {"template": "The answer is empty."},
            }
            file.write(json.dumps(line) + "\n")
    elif change == "torn file":
        stored.write_text(stored.read_text()[:100])
    report = validation_file.validated(
        Dataset.open(dataset.folder), faulty_records="leave-out" if change == "settings" else "error"
    )
    assert len(runs) == 2
    assert (report.num_errors > 0) == (change in ("picture", "missing picture", "left out"))


def test_a_changed_row_file_is_never_believed(dataset: Dataset, runs: list[str]) -> None:
    validation_file.validated(dataset)
    with (dataset.folder / "train.jsonl").open("a") as file:
        file.write("{}\n")
    for _ in range(2):
        assert validation_file.validated(Dataset.open(dataset.folder)).num_errors > 0
    assert len(runs) == 3


def test_lengths_are_a_models_and_are_not_kept(dataset: Dataset, runs: list[str]) -> None:
    validation_file.keep(dataset, validate(dataset, count_tokens=lambda _: 5000, max_tokens=10))
    report = validation_file.validated(dataset)
    assert not runs
    assert report.num_errors == 0
    assert "row-length" in report.skipped
    assert report == validate(dataset)
