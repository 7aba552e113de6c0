"""IU X-ray and MIMIC-CXR-JPG: forms, views, sections, and the marks of de-identification."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

import source_files
from medtune.data.sources.iu_xray import IuXray
from medtune.data.sources.mimic_cxr import MimicCxrJpg
from medtune.data.sources.reports import deidentified_words, report_text, sections
from medtune.errors import DataError
from medtune.imaging.read import open_picture
from medtune.types import Record


def whole(records: list[Record]) -> dict[str, Record]:
    return {record.id: record for record in records if record.fault is None}


def reasons(records: list[Record]) -> dict[str, str]:
    return {record.id: record.fault.reason for record in records if record.fault is not None}


# ------------------------------------------------------------------------------------------------------------------ texts


def test_sections_are_those_with_headings() -> None:
    report = "EXAM: CHEST\n\nFINDINGS:  One.\n Two: a ratio of 1:2.\n\n IMPRESSION:\n 1. Three.\n\n RECOMMENDATION(S): Four."
    assert sections(report) == {"findings": "One. Two: a ratio of 1:2.", "impression": "1. Three."}
    assert sections("The lungs are clear.\nfindings: lower case is prose") == {}
    assert sections("FINDINGS AND IMPRESSION: Both.") == {"findings": "Both."}
    assert sections("CONCLUSION: C.\nFINDINGS: a\nCOMPARISON: None.\nFINDINGS: b") == {"findings": "a b", "impression": "C."}
    assert sections("FINDINGS:\n\nIMPRESSION: only") == {"impression": "only"}


def test_deidentified_words() -> None:
    assert deidentified_words("seen in XXXX by Dr. ___") == ("deidentified-xxxx", "deidentified-blanks")
    assert deidentified_words("XXX a_b") == ()


def test_report_text_heads_sections_only_when_there_are_several() -> None:
    assert report_text({"findings": "a", "impression": ""}) == "a"
    assert report_text({"findings": "a", "impression": "b"}) == "Findings: a\nImpression: b"


# --------------------------------------------------------------------------------------------------------------- IU X-ray


def test_iu_r2gen(tmp_path: Path) -> None:
    folder = source_files.write_iu_r2gen(tmp_path)
    records = list(IuXray(path=folder).samples())
    assert Counter(record.split for record in records) == {"train": 2, "validation": 1, "test": 1}
    first = records[0]
    assert (first.id, first.group, first.target) == ("CXR0_IM-0000", "CXR0", "made-up report 0 of XXXX .")
    assert first.metadata["source_notes"] == ["deidentified-xxxx"]
    assert [picture.path for picture in first.pictures] == [folder / "images" / "CXR0_IM-0000" / f"{n}.png" for n in range(2)]
    assert [len(record.pictures) for record in IuXray(path=folder / "annotation.json", views="frontal").samples()] == [1] * 4


def test_iu_medevalkit(tmp_path: Path) -> None:
    folder = source_files.write_iu_medevalkit(tmp_path)
    first, second = IuXray(path=folder).samples()
    assert (first.group, first.target) == ("CXR0", "Findings: Made-up finding 0.\nImpression: None.")
    assert (first.metadata["findings"], first.metadata["impression"]) == ("Made-up finding 0.", "None.")
    assert [record.target for record in IuXray(path=folder, sections="impression").samples()] == ["None.", "None."]
    assert second.split is None


def test_iu_kaggle_puts_frontal_first_and_names_what_is_missing(tmp_path: Path) -> None:
    folder = source_files.write_iu_kaggle(tmp_path)
    records = list(IuXray(path=folder).samples())
    assert reasons(records) == {"CXR3": "picture-missing", "CXR4": "report-empty"}
    first = whole(records)["CXR1"]
    assert [picture.name for picture in first.pictures] == ["1_IM-0001-4001.dcm.png", "1_IM-0001-3001.dcm.png"]
    assert first.metadata["view_position"] == "frontal, lateral"
    assert all(open_picture(picture.path or Path(), name="p").mode == "RGB" for picture in first.pictures)
    assert [len(record.pictures) for record in whole(list(IuXray(path=folder, views="frontal").samples())).values()] == [1, 1]


def test_iu_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="known forms"):
        list(IuXray(path=tmp_path).samples())
    for value in ({"train": {}}, "text", 5):
        with pytest.raises(DataError):
            list(IuXray(path=source_files.write_json(tmp_path / "annotation.json", value)).samples())
    records = list(IuXray(path=source_files.write_json(tmp_path / "annotation.json", [1, {"id": "a"}])).samples())
    assert list(reasons(records).values()) == ["not-an-object", "picture-missing"]


# ------------------------------------------------------------------------------------------------------------------ MIMIC


def test_mimic_maps_a_study(tmp_path: Path) -> None:
    source = MimicCxrJpg(path=source_files.write_mimic(tmp_path), labels="chexpert")
    assert source.card.local_only
    assert source.card.group_kind == "patient"
    records = list(source.samples())
    assert [(record.id, record.group, record.split) for record in records] == [
        ("s50000001", "p10000001", "train"),
        ("s50000002", "p10000001", "train"),
        ("s50000003", "p10000002", "validation"),
        ("s50000004", "p11000003", "test"),
    ]
    first = records[0]
    assert first.target == "The made-up lungs are clear. There is no made-up effusion."
    assert first.metadata["view_position"] == "PA, AP, LATERAL"
    assert [picture.path.name for picture in first.pictures if picture.path] == [
        "50000001-2.jpg",
        "50000001-1.jpg",
        "50000001-0.jpg",
    ]
    assert first.metadata["labels"] == {"Edema": -1, "Pneumonia": 1}
    assert "source_notes" not in first.metadata


def test_mimic_views_sections_and_labels(tmp_path: Path) -> None:
    folder = source_files.write_mimic(tmp_path)
    frontal = next(iter(MimicCxrJpg(path=folder, views="frontal", sections="impression", labels="negbio").samples()))
    assert (len(frontal.pictures), frontal.target) == (2, "No made-up process at ___.")
    assert frontal.metadata["source_notes"] == ["deidentified-blanks"]
    assert frontal.metadata["labels"] == {"Edema": 0, "Pneumonia": 1}
    one = next(iter(MimicCxrJpg(path=folder, views="one-frontal").samples()))
    assert [picture.name for picture in one.pictures] == ["s50000001/50000001-2"]


def test_mimic_reports_that_lack_something_are_counted_by_reason(tmp_path: Path) -> None:
    reports = {"50000001": None, "50000002": " FINAL REPORT\n All is well.\n", "50000003": " IMPRESSION: Fine.\n"}
    folder = source_files.write_mimic(tmp_path, reports=reports)
    records = list(MimicCxrJpg(path=folder).samples())
    assert reasons(records) == {"s50000001": "report-missing", "s50000002": "section-missing", "s50000003": "section-missing"}
    both = whole(list(MimicCxrJpg(path=folder, sections="both").samples()))
    assert both["s50000003"].metadata["source_notes"] == ["findings-missing"]
    assert both["s50000004"].target.startswith("Findings: The made-up lungs")


def test_mimic_reports_in_a_folder_of_their_own(tmp_path: Path) -> None:
    folder = source_files.write_mimic(tmp_path / "jpg")
    for report in (folder / "files").rglob("s*.txt"):
        target = tmp_path / "reports" / report.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        report.rename(target)
    with pytest.raises(DataError, match=r"mimic-cxr-reports\.zip"):
        list(MimicCxrJpg(path=folder).samples())
    assert len(whole(list(MimicCxrJpg(path=folder, reports=tmp_path / "reports").samples()))) == 4


def test_mimic_tables_that_are_missing_or_damaged(tmp_path: Path) -> None:
    folder = source_files.write_mimic(tmp_path)
    table = folder / "mimic-cxr-2.0.0-split.csv.gz"
    sound = table.read_bytes()
    for damaged in (
        sound[:-9],
        b"no gzip",
        gzip.compress(b"dicom_id,study_id\n1,2\n"),
        gzip.compress(gzip.decompress(sound) + b"1,2\n"),
    ):
        table.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            list(MimicCxrJpg(path=folder).samples())
    table.unlink()
    with pytest.raises(DataError, match="missing"):
        list(MimicCxrJpg(path=folder).samples())
    table.with_suffix("").write_bytes(gzip.decompress(sound))  # unpacked by the user
    assert len(list(MimicCxrJpg(path=folder).samples())) == 4
