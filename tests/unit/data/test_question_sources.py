"""VQA-RAD in its other forms, SLAKE, PathVQA: what is particular about each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import source_files
from medtune.data.sources.path_vqa import PathVqa
from medtune.data.sources.questions import is_yes_or_no
from medtune.data.sources.slake import Slake
from medtune.data.sources.vqa_rad import VqaRad
from medtune.errors import DataError


@pytest.mark.parametrize(
    ("answer", "closed"), [("Yes", True), (" no. ", True), ("没有", True), ("no effusion", False), ("abnormal", False), (0, False)]
)
def test_only_a_bare_yes_or_no_counts_as_closed(answer: Any, closed: bool) -> None:
    assert is_yes_or_no(answer) is closed


def test_public_vqa_rad_has_its_test_rows_by_phrase_type(tmp_path: Path) -> None:
    folder = source_files.write_vqa_rad_public(tmp_path / "osf")
    for path in (folder, folder / "VQA_RAD Dataset Public.json"):
        records = list(VqaRad(path=path, split="official").samples())
        assert Counter(record.split for record in records) == {"train": 6, "test": 3}
        assert all(record.pictures[0].path and record.pictures[0].path.is_file() for record in records)
    assert {record.split for record in VqaRad(path=folder).samples()} == {None}


def test_a_link_that_rows_share_becomes_the_id_of_the_first(tmp_path: Path) -> None:
    records = {record.id: record for record in VqaRad(path=source_files.write_vqa_rad_public(tmp_path / "osf")).samples()}
    assert "linked_id" not in records["1"].metadata
    assert records["2"].metadata["linked_id"] == "1"
    assert "linked_id" not in records["3"].metadata, "the published files write NULL"


def test_bare_vqa_rad_knows_a_picture_by_its_bytes(tmp_path: Path) -> None:
    records = list(VqaRad(path=source_files.write_bare_questions(tmp_path / "hf"), split="official").samples())
    assert [(record.split, record.task) for record in records] == [
        ("test", "open-vqa"),
        ("test", "closed-vqa"),
        ("train", "open-vqa"),
        ("train", "closed-vqa"),
        ("train", "open-vqa"),
    ]
    groups = {split: {record.group for record in records if record.split == split} for split in ("train", "test")}
    assert len(groups["train"] & groups["test"]) == 1


def test_vqa_rad_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No form of VQA-RAD"):
        list(VqaRad(path=tmp_path).samples())


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "a/../../secret.png", "..\\secret.png", " "])
def test_a_picture_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    folder = source_files.write_vqa_rad(tmp_path / "rad", changes={1: {"image_name": name}})
    fault = next(iter(VqaRad(path=folder).samples())).fault
    assert fault is not None
    assert fault.reason == "picture-outside"


@pytest.mark.parametrize(("language", "number"), [("en", 6), ("zh", 6), ("both", 12)])
def test_slake_languages(tmp_path: Path, language: Any, number: int) -> None:
    records = list(Slake(path=source_files.write_slake(tmp_path / "slake"), language=language).samples())
    assert len(records) == number
    assert {record.metadata["language"] for record in records} == ({"en", "zh"} if language == "both" else {language})


def test_slake_maps_a_record(tmp_path: Path) -> None:
    record = next(iter(Slake(path=source_files.write_slake(tmp_path / "slake"), language="zh").samples()))
    assert (record.id, record.task, record.target, record.group, record.split) == (
        "train-2",
        "closed-vqa",
        "没有",
        "xmlab0",
        "train",
    )
    assert record.metadata == {
        "answer_type": "closed",
        "base_type": "vqa",
        "image": "xmlab0/source.jpg",
        "language": "zh",
        "modality": "MR",
        "organ": "Abdomen",
        "question_type": "Organ",
    }


def test_slake_under_its_old_file_name(tmp_path: Path) -> None:
    records = list(Slake(path=source_files.write_slake(tmp_path / "slake", validation="validate.json")).samples())
    assert Counter(record.split for record in records) == {"train": 2, "validation": 2, "test": 2}


def test_slake_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No file of SLAKE"):
        Slake(path=tmp_path).parts()
    source_files.write_json(tmp_path / "train.json", [])
    with pytest.raises(DataError, match=r"imgs.zip"):
        Slake(path=tmp_path).parts()


def test_slake_in_an_unknown_language_is_not_dropped(tmp_path: Path) -> None:
    folder = source_files.write_slake(tmp_path / "slake")
    source_files.write_json(
        folder / "train.json", [{"img_name": "xmlab0/source.jpg", "question": "?", "answer": "x", "answer_type": "OPEN"}, 3]
    )
    records = [record for record in Slake(path=folder).samples() if record.place.endswith("train.json:1") or record.fault]
    assert [(record.task, record.fault and record.fault.reason) for record in records] == [
        ("open-vqa", None),
        ("", "not-an-object"),
    ]


def test_path_vqa(tmp_path: Path) -> None:
    records = list(PathVqa(path=source_files.write_bare_questions(tmp_path / "path")).samples())
    assert Counter((record.split, record.task) for record in records) == {
        ("test", "open-vqa"): 1,
        ("test", "closed-vqa"): 1,
        ("train", "open-vqa"): 2,
        ("train", "closed-vqa"): 1,
    }


def test_path_vqa_faults(tmp_path: Path) -> None:
    image = {"bytes": source_files.jpeg(), "path": None}
    rows = [{"image": None, "question": "?", "answer": "x"}, {"image": image, "question": None, "answer": "x"}]
    source_files.write_parquet(tmp_path / "test.parquet", rows)
    faults = [record.fault.reason for record in PathVqa(path=tmp_path).samples() if record.fault]
    assert faults == ["picture-missing", "key-missing"]
