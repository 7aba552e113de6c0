"""validate finds what is wrong, names it, and finds nothing where nothing is wrong."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import source_files
from dicom_files import uid, write_dicom, write_dicom_folder
from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset, file_sha256
from medtune.data.findings import MAX_NAMED, Findings
from medtune.data.prepare import prepare
from medtune.data.validate import CHECKS, validate
from medtune.errors import ModelError
from medtune.language import msg
from medtune.types import Issue, Sample, ValidationReport


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rad = source_files.write_vqa_rad(tmp_path / "rad", num_images=40)
    chosen = DataSettings.model_validate({"sources": [{"source": "vqa-rad", "options": {"path": str(rad)}}]})
    prepare(chosen, name="try", folder=tmp_path / "out")
    return Dataset.open(tmp_path / "out")


def change(dataset: Dataset, alter: Callable[[list[dict[str, Any]]], Any], split: str = "train") -> Dataset:
    """Alter the rows of a split and name the new file in the manifest."""
    file = dataset.folder / f"{split}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    alter(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((dataset.folder / "manifest.json").read_text())
    manifest["files"][file.name] = file_sha256(file)
    (dataset.folder / "manifest.json").write_text(json.dumps(manifest))
    return Dataset.open(dataset.folder)


def say(row: dict[str, Any], answer: str) -> None:
    row["target"] = row["messages"][-1]["content"] = answer


def found(report: ValidationReport, code: str) -> Issue:
    issues = [issue for issue in report.issues if issue.code == code]
    assert issues, f"{code} is not among {sorted({issue.code for issue in report.issues})}"
    return issues[0]


def test_a_sound_data_set(dataset: Dataset) -> None:
    report = validate(dataset)
    assert report.num_errors == 0
    assert {issue.code for issue in report.issues} == {"no-patient-ids", "source-card", "closed-majority", "question-only"}
    assert sum(report.num_rows.values()) == 100
    assert set(report.checks) | set(report.skipped) == set(CHECKS)
    assert set(report.skipped) == {
        "row-length", "normal-share", "linked-overlap", "paraphrase-overlap", "patient-overlap", "study-overlap", "volume-overlap",
        "box-convention", "box-words", "burned-in-text",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("alter", "code", "severity"),
    [
        (lambda row: say(row, ""), "answer-empty", "error"),
        (lambda row: say(row, "N/A"), "answer-placeholder", "error"),
        (lambda row: say(row, "0"), "answer-is-number", "info"),
        (lambda row: say(row, "yes "), "stray-blanks", "warning"),
        (lambda row: row.update(target="something else"), "target-differs", "error"),
        (lambda row: row.update(task="juggling"), "unknown-task", "error"),
        (lambda row: row.update(images=[]), "image-marks", "error"),
        (lambda row: row["messages"][0].update(content="no mark"), "image-marks", "error"),
        (lambda row: row.update(images=["images/no/where.png"]), "image-unknown", "error"),
        (lambda row: row["messages"].reverse(), "role-order", "error"),
        (lambda row: row["messages"].pop(), "role-order", "error"),
        (lambda row: row["messages"][0].update(role="robot"), "row-malformed", "error"),
        (lambda row: row.pop("metadata"), "row-malformed", "error"),
        (lambda row: row.update(metadata={"a": 1}), "row-malformed", "error"),
        (lambda row: row.update(metadata="[1]"), "row-malformed", "error"),
        (lambda row: row.update(metadata=json.dumps({"box": [0, 0, 65, 10]})), "box-outside", "error"),
        (lambda row: row.update(metadata=json.dumps({"box": "left"})), "box-outside", "error"),
        (lambda row: row.update(metadata=json.dumps({"source_notes": ["odd"]})), "source-odd", "warning"),
    ],
)
def test_a_row_at_fault(dataset: Dataset, alter: Callable[[dict[str, Any]], None], code: str, severity: str) -> None:
    issue = found(validate(change(dataset, lambda rows: alter(rows[2]))), code)
    assert issue.severity == severity
    assert str(issue.file).endswith("train.jsonl:3")
    assert issue.split == "train"
    assert issue.sample
    assert issue.remedy is not None


@pytest.mark.parametrize(
    ("note", "severity", "says", "mended"),
    [
        ("answer-blanks", "warning", "begins or ends with a blank", True),
        ("deidentified-xxxx", "warning", "stand as XXXX in the text", False),
        ("deidentified-blanks", "warning", "stand as ___ in the text", False),
        ("box-from-location-tokens", "warning", "that of the location tokens", False),
        ("caption-unread-area", "info", "does not say in known words: area", False),
    ],
)
def test_what_the_source_noted(dataset: Dataset, note: str, severity: str, says: str, mended: bool) -> None:
    def alter(rows: list[dict[str, Any]]) -> None:
        rows[2]["metadata"] = json.dumps({"source_notes": [note]})

    issue = found(validate(change(dataset, alter)), f"source-{note}")
    assert issue.severity == severity
    assert says in issue.message.render("en")
    assert (issue.remedy is not None and "Put right" in issue.remedy.render("en")) == mended


@pytest.mark.parametrize("kind", ["study", "volume", "image", "row"])
def test_whatever_is_no_patient_is_said(dataset: Dataset, kind: str) -> None:
    file = dataset.folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "group_kind": kind}))
    issue = found(validate(Dataset.open(dataset.folder)), "no-patient-ids")
    assert issue.severity == "warning"
    assert f"keeps each {'picture' if kind == 'image' else kind} together" in issue.message.render("en")


def test_answers_that_only_look_odd_are_left_alone(dataset: Dataset) -> None:
    def alter(rows: list[dict[str, Any]]) -> None:
        for row, answer in zip(rows, ["none", "No.", "unknown", "T2", "4 cm", "x-ray", "?!", "XR", "[]"], strict=False):
            say(row, answer)

    assert not {issue.code for issue in validate(change(dataset, alter)).issues} & {
        "answer-placeholder",
        "answer-is-number",
        "answer-empty",
    }


def test_a_line_that_is_not_json(dataset: Dataset) -> None:
    file = dataset.folder / "train.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], lines[1][:40] + "\n", *lines[2:]]))
    report = validate(dataset)
    assert str(found(report, "row-not-json").file).endswith("train.jsonl:2")
    assert str(found(report, "file-changed").file).endswith("train.jsonl")
    assert report.num_rows["train"] == len(lines)


def test_duplicates(dataset: Dataset) -> None:
    def alter(rows: list[dict[str, Any]]) -> None:
        rows.append({**rows[0], "id": "again"})
        rows.append({**rows[1], "messages": [{"role": "user", "content": "<image>other"}, rows[1]["messages"][1]]})

    report = validate(change(dataset, alter))
    assert found(report, "duplicate-row").sample == "again"
    assert found(report, "duplicate-id").severity == "error"


def test_pictures(dataset: Dataset) -> None:
    pictures = [dataset.image_path(row.images[0]) for row in dataset.sequence("train")[::2]][:4]
    assert len(set(pictures)) >= 3
    missing, cut, changed = list(dict.fromkeys(pictures))[:3]
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:600])
    changed.write_bytes(source_files.jpeg(999))
    report = validate(dataset)
    for code, path in (("image-missing", missing), ("image-unreadable", cut), ("image-changed", changed)):
        issue = found(report, code)
        assert (issue.file, issue.severity) == (str(path), "error")
        assert issue.sample


def test_a_picture_too_large_to_read(dataset: Dataset) -> None:
    path = dataset.image_path(dataset.sequence("train")[0].images[0])
    path.write_bytes(source_files.png(0, (300, 1)))
    assert "aspect ratio" in str(found(validate(dataset), "image-unreadable").message)


def test_a_damaged_index_of_pictures(dataset: Dataset) -> None:
    (dataset.folder / "images.jsonl").write_text("{\n")
    report = validate(Dataset.open(dataset.folder))
    assert str(found(report, "images-index").file).endswith("images.jsonl:1")
    assert "rows" in report.skipped
    assert "rows" not in report.checks


def test_an_index_damaged_behind_a_path(dataset: Dataset) -> None:
    file = dataset.folder / "images.jsonl"
    lines = file.read_text().splitlines()
    lines[3] = lines[3][: lines[3].index("sha256")]
    file.write_text("\n".join(lines) + "\n")
    report = validate(Dataset.open(dataset.folder))
    assert found(report, "images-index").severity == "error"
    assert sum(report.num_rows.values()) == 100
    assert "pictures" in report.skipped


def test_a_missing_file(dataset: Dataset) -> None:
    (dataset.folder / "test.jsonl").unlink()
    assert "missing" in str(found(validate(dataset), "file-changed").message)


def test_overlap_across_splits(dataset: Dataset) -> None:
    stolen = json.loads((dataset.folder / "train.jsonl").read_text().splitlines()[0])
    report = validate(change(dataset, lambda rows: rows.append({**stolen, "id": "stolen"}), "test"))
    group, image = found(report, "group-overlap"), found(report, "image-overlap")
    assert (group.severity, group.count, group.split) == ("error", 1, "test")
    assert stolen["group"] in str(group.message)
    assert image.count == 1
    assert found(report, "duplicate-row").split == "test"


def test_rephrasings_across_splits(dataset: Dataset) -> None:
    named = json.loads((dataset.folder / "train.jsonl").read_text().splitlines()[0])["id"]
    changed = change(dataset, lambda rows: rows[0].update(metadata=json.dumps({"linked_id": named})), "test")
    report = validate(changed)
    assert (found(report, "linked-overlap").count, found(report, "linked-overlap").split) == (1, "test")
    assert "linked-overlap" in report.checks


def test_rephrasings_in_one_split_are_fine(dataset: Dataset) -> None:
    named = json.loads((dataset.folder / "train.jsonl").read_text().splitlines()[0])["id"]
    report = validate(change(dataset, lambda rows: rows[1].update(metadata=json.dumps({"linked_id": named}))))
    assert "linked-overlap" not in {issue.code for issue in report.issues}


def test_rows_longer_than_the_context(dataset: Dataset) -> None:
    first, other = dataset.sequence("train")[0].id, dataset.sequence("train")[1].id

    def count(sample: Sample) -> int:
        if sample.id == other:
            raise ModelError(msg("The answer is empty."))
        return 3000 if sample.id == first else 2048

    report = validate(dataset, count_tokens=count, max_tokens=2048)
    too_long = [issue for issue in report.issues if issue.code == "row-too-long"]
    assert [issue.sample for issue in too_long] == [first]
    assert "3000" in str(too_long[0].message)
    assert "row-length" in report.checks
    assert found(report, "not-encodable").sample == other


def test_rows_that_training_leaves_out_are_no_errors(dataset: Dataset) -> None:
    report = validate(dataset, count_tokens=lambda _: 3000, max_tokens=2048, too_long="leave-out")
    assert {issue.severity for issue in report.issues if issue.code == "row-too-long"} == {"warning"}
    assert "train.too_long=leave-out" in str(found(report, "row-too-long").remedy)


def test_only_the_context_limits_rows_that_are_not_trained_on(dataset: Dataset) -> None:
    asked = {sample.id for sample in dataset.rows("test")}
    report = validate(dataset, count_tokens=lambda sample: 3000 if sample.id in asked else 10, max_tokens=2048, context=4096)
    assert "row-too-long" not in {issue.code for issue in report.issues}
    report = validate(dataset, count_tokens=lambda _: 5000, max_tokens=8192, context=4096, too_long="leave-out")
    assert {issue.severity for issue in report.issues if issue.code == "row-too-long" and issue.split == "test"} == {"error"}
    assert "4096 fit" in str(found(report, "row-too-long").message)


def test_closed_answers_that_are_nearly_all_the_same(dataset: Dataset) -> None:
    report = validate(dataset)
    majority = found(report, "closed-majority")
    assert majority.severity == "warning"
    assert "100.0%" in str(majority.message)


def test_left_out_records_are_findings(tmp_path: Path) -> None:
    rad = source_files.write_vqa_rad(
        tmp_path / "rad", changes={1: {"answer": " "}, 2: {"image_name": "nobody.jpg"}, 11: {"question": 7}}
    )
    chosen = DataSettings.model_validate({"sources": [{"source": "vqa-rad", "options": {"path": str(rad)}}]})
    prepare(chosen, name="try", folder=tmp_path / "out")
    report = validate(Dataset.open(tmp_path / "out"))
    assert (found(report, "left-out-answer-empty").sample, found(report, "left-out-answer-empty").severity) == ("1", "error")
    missing = found(report, "left-out-unreadable-image")
    assert missing.file == str(rad / "images" / "nobody.jpg")
    assert found(report, "left-out-key-missing").severity == "warning"


def test_what_a_dicom_folder_always_holds_is_no_fault(tmp_path: Path) -> None:
    options = write_dicom_folder(tmp_path)
    images = tmp_path / "images"
    made_up = {"StudyInstanceUID": uid(1), "SeriesInstanceUID": uid(1, 9), "PatientID": "MADE-UP-1"}
    pixels = np.zeros((16, 16), np.uint16)
    for number, kind in enumerate(("LOCALIZER", "MPR"), 1):
        image_type = ["DERIVED" if kind == "MPR" else "ORIGINAL", "PRIMARY", kind]
        write_dicom(images / kind, pixels, ImageType=image_type, SOPInstanceUID=uid(1, 9, number), **made_up)
    (images / "letter.txt").write_text("no DICOM")
    cut = sorted((images / "patient-2").iterdir())[1]
    cut.write_bytes(cut.read_bytes()[:-300])
    (images / "zz").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    prepare(DataSettings.model_validate({"sources": [{"source": "dicom", "options": options}]}), name="ct", folder=tmp_path / "out")
    report = validate(Dataset.open(tmp_path / "out"))
    left_out = {issue.code: issue.severity for issue in report.issues if issue.code.startswith("left-out-")}
    assert left_out == {
        "left-out-localizer": "info",
        "left-out-derived": "info",
        "left-out-not-dicom": "info",
        "left-out-unreadable": "error",
        "left-out-unreadable-image": "error",
    }
    files = sorted(entry for entry in images.rglob("*") if entry.is_file())
    assert found(report, "left-out-unreadable-image").file == f"file {files.index(cut) + 1}"


def test_a_stored_finding_is_read_in_both_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rad = source_files.write_vqa_rad(tmp_path / "rad", changes={1: {"answer": " "}})
    chosen = DataSettings.model_validate({"sources": [{"source": "vqa-rad", "options": {"path": str(rad)}}]})
    prepare(chosen, name="try", folder=tmp_path / "out")
    monkeypatch.setenv("MEDTUNE_LANG", "en")
    report = ValidationReport.model_validate_json(validate(Dataset.open(tmp_path / "out")).model_dump_json())
    monkeypatch.setenv("MEDTUNE_LANG", "zh")
    for code in ("left-out-answer-empty", "no-patient-ids"):
        issue = found(report, code)
        sentences = f"{issue.message} {issue.remedy}".replace("vqa-rad", "").replace("--overwrite", "")
        words = re.findall("[A-Za-z]{4,}", sentences.replace("data.faulty_records=leave-out", ""))
        assert not words, sentences


def test_vqa_rad_with_its_official_split(shared: Path, tmp_path: Path) -> None:
    chosen = {
        "sources": [{"source": "vqa-rad", "options": {"path": str(shared / "data" / "vqa-rad"), "split": "official"}}],
        "split": {"kind": "official"},
    }
    prepare(DataSettings.model_validate(chosen), name="rad", folder=tmp_path / "out")
    report = validate(Dataset.open(tmp_path / "out"))
    image = found(report, "image-overlap")
    assert (image.count, image.split, image.severity) == (203, "test", "warning")
    assert "203 of the 203 pictures of test" in image.message.render("en")
    assert found(report, "group-overlap").count == 203
    # The JSON has no qid_linked_id; 143 of its test rows call themselves rephrasings ("phrase_type": "para").
    rephrased = {
        issue.split: (issue.count, issue.message.fields["total"]) for issue in report.issues if issue.code == "paraphrase-overlap"
    }
    assert rephrased["test"] == (127, 143)
    assert found(report, "question-overlap").count == 16
    assert "linked-overlap" in report.skipped
    counts = Counter(issue.code for issue in report.issues)
    assert counts["source-answer-not-text"] == 10
    assert counts["source-answer-type-blanks"] == 2
    assert found(report, "no-patient-ids")
    assert report.num_errors == 0


def test_vqa_rad_split_by_picture(shared: Path, tmp_path: Path) -> None:
    chosen = {"sources": [{"source": "vqa-rad", "options": {"path": str(shared / "data" / "vqa-rad")}}]}
    manifest = prepare(DataSettings.model_validate(chosen), name="rad", folder=tmp_path / "out")
    assert sum(manifest.num_samples.values()) == 3515
    codes = {issue.code for issue in validate(Dataset.open(tmp_path / "out")).issues}
    assert not codes & {"image-overlap", "group-overlap", "linked-overlap"}


def test_many_findings_of_a_kind_are_counted() -> None:
    findings = Findings()
    for number in range(MAX_NAMED + 7):
        findings.add("a", "error", msg("The answer is empty."), sample=str(number))
    issues = findings.issues()
    assert len(issues) == MAX_NAMED + 1
    assert sum(issue.count for issue in issues) == MAX_NAMED + 7
    assert "7 more" in issues[-1].message.render("en")
