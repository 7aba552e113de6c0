"""The source ``dicom`` over synthetic series: order, grouping, what is left out, how texts are joined."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from pydicom.dataset import Dataset

from dicom_files import (
    CT,
    ENHANCED_CT,
    SECONDARY_CAPTURE,
    SEGMENTATION,
    dicom_dataset,
    uid,
    write_ct_series,
    write_dicom,
)
from medtune.data.sources.dicom import Dicom
from medtune.errors import DataError
from medtune.imaging.child import Child, ChildDiedError
from medtune.imaging.pseudonym import Pseudonyms, load_key
from medtune.imaging.read import open_picture
from medtune.language import msg
from medtune.types import Record

IN_CHILD = "test_ids_are_pseudonyms_and_nothing_repeats_an_identifier"
"""The test that runs with the real child process, which takes a second to start; so do those of the contract."""


@pytest.fixture(autouse=True)
def _without_child(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Any, function: str, *arguments: Any) -> Iterator[Any]:  # noqa: ARG001
        module, _, name = function.partition(":")
        return iter(json.loads(json.dumps(list(getattr(importlib.import_module(module), name)(*arguments)))))

    if request.node.name != IN_CHILD:
        monkeypatch.setattr(Child, "run", run)


DX = "1.2.840.10008.5.1.4.1.1.1.1"


def table(folder: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"path": str(file)}


def records(folder: Path, rows: Sequence[dict[str, Any]], *, key: str = "series", **options: Any) -> list[Record]:
    source = Dicom(
        **{
            "path": folder / "images",
            "texts": {**table(folder, rows), "key": key, **options.pop("texts", {})},
            "slices": {"kind": "all"},
            "key_file": folder / "keys" / "key",
            **options,
        }
    )
    return list(source.samples())


def test_a_table_of_texts_in_another_encoding(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", patient=1)
    file = tmp_path / "报告.csv"
    file.write_bytes(f"series;报告\n{uid(1, 1)};未见异常\n".encode("gb18030"))
    options = {"path": str(file), "answer": "报告"}
    with pytest.raises(DataError) as caught:
        records(tmp_path, [], texts=options)
    assert (caught.value.key, "gb18030" in caught.value.render("en")) == ("data.sources.options.texts.encoding", True)
    found = records(tmp_path, [], texts={**options, "encoding": "gb18030"})
    assert {record.target for record in found} == {"未见异常"}
    with pytest.raises(ValidationError, match="no encoding"):
        records(tmp_path, [], texts={**options, "encoding": "gb18031"})


def test_a_folder_without_any_dicom_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "study.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="None of the 1 files there is DICOM") as caught:
        records(tmp_path, [])
    assert "Unpack" in caught.value.render("en")


def units(record: Record) -> list[int]:
    """Hounsfield units of the made-up slices, whose greys a window of 256 from -0.5 shows one to one."""
    return [
        int(np.asarray(open_picture(one.path, view=one.view))[-1, -1, 0])  # type: ignore[arg-type]
        for one in record.pictures
    ]


def faults(found: Sequence[Record]) -> Counter[str]:
    return Counter(record.fault.reason for record in found if record.fault)


ONE_TO_ONE = {"windows": [[128, 256]]}
REPORT = [{"series": uid(1, 1), "answer": "A made-up report."}]


def test_slices_come_in_spatial_order_whatever_the_files_are_called(tmp_path: Path) -> None:
    files = write_ct_series(tmp_path / "images", places=[-10.0, -5.0, 0.0, 5.0, 10.0])
    first = records(tmp_path, REPORT, **ONE_TO_ONE)
    in_order = [[0], [10], [20], [30], [40]]
    assert [units(record) for record in first] == in_order
    assert [record.metadata["slice"] for record in first] == [0, 1, 2, 3, 4]
    names = [file.name for file in files]
    random.Random(3).shuffle(names)
    for file, name in zip(files, names, strict=True):
        file.rename(file.with_name(f"{name}.x"))
    second = records(tmp_path, REPORT, **ONE_TO_ONE)
    assert [record.id for record in second] == [record.id for record in first]
    assert [units(record) for record in second] == in_order


def test_the_order_follows_the_normal_of_the_slices(tmp_path: Path) -> None:
    # Coronal: rows run to the left, columns to the feet; row x column = (1, 0, 0) x (0, 0, -1) = (0, 1, 0): towards the back.
    for number, depth in enumerate([30.0, 10.0, 20.0]):
        write_dicom(
            tmp_path / "images" / f"{number}",
            np.full((4, 4), int(depth), np.uint16),
            SOPInstanceUID=uid(1, 1, number + 1),
            InstanceNumber=number,
            ImagePositionPatient=[0, depth, 100 - depth],
            ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        )
    assert [units(record) for record in records(tmp_path, REPORT, **ONE_TO_ONE)] == [[10], [20], [30]]


def test_ids_are_pseudonyms_and_nothing_repeats_an_identifier(tmp_path: Path) -> None:
    canary = "Canary"
    write_ct_series(
        tmp_path / "images" / "Canary^Planted",
        PatientID="CanaryID",
        PatientName="Canary^Planted",
        BodyPartExamined="CANARY",
        ViewPosition="CANARY",
        Modality="CANARY",
        StudyDescription="Canary",
    )
    write_dicom(tmp_path / "images" / "Canary-sr", None, sop_class="1.2.840.10008.5.1.4.1.1.88.11", SOPInstanceUID=uid(9))
    (tmp_path / "images" / "Canary.txt").write_text("Canary")
    damaged = (tmp_path / "images" / "Canary^Planted" / "IM0001").read_bytes()[:200]
    (tmp_path / "images" / "Canary-damaged").write_bytes(damaged)
    found = records(tmp_path, [*REPORT, {"series": "Canary", "answer": "?"}])
    assert len(found) == 4 + 4
    for record in found:
        shown = [
            record.id,
            record.group,
            str(record.metadata),
            record.place,
            *(one.name + str(one.modality) for one in record.pictures),
        ]
        if record.fault:
            shown += [str(record.fault.message), str(record.fault.remedy), str(record.fault.file)]
        assert canary.lower() not in " ".join(shown).lower()
        assert "7301" not in " ".join(shown)  # of the UIDs
    key = Pseudonyms(load_key(tmp_path / "keys" / "key", create=False))
    sound = [record for record in found if record.fault is None]
    assert {record.group for record in sound} == {key.name("patient", "CanaryID")}
    assert {record.metadata["series"] for record in sound} == {key.name("series", uid(1, 1))}
    assert faults(found) == {"not-dicom": 1, "structured-report": 1, "unreadable": 1, "text-unmatched": 1}


def test_public_data_has_the_same_ids_everywhere(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images")
    first = records(tmp_path, REPORT, already_deidentified=True)
    assert not (tmp_path / "keys").exists()
    assert first[0].group == hashlib.sha256(b"patient\0MADE-UP-1").hexdigest()[:16]
    assert first[0].group != records(tmp_path, REPORT)[0].group


def test_a_key_inside_the_data_is_refused(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images")
    with pytest.raises(DataError, match="inside the data"):
        records(tmp_path, REPORT, key_file=tmp_path / "images" / "key")


def test_tags_are_taken_where_they_are_the_standards_terms(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", BodyPartExamined="HEAD ")
    record = records(tmp_path, REPORT)[0]
    assert record.metadata["organ"] == "HEAD"
    assert record.metadata["tags_modality"] == record.metadata["modality"] == record.pictures[0].modality == "CT"


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("derived", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
        ("secondary-capture", {"sop_class": SECONDARY_CAPTURE}),
    ],
)
def test_what_is_no_original_is_left_out_unless_asked_for(tmp_path: Path, reason: str, changes: dict[str, Any]) -> None:
    write_ct_series(tmp_path / "images")
    pixels = np.zeros((4, 4), np.uint16)
    write_dicom(tmp_path / "images" / "other", pixels, SOPInstanceUID=uid(1, 2, 1), SeriesInstanceUID=uid(1, 2), **changes)
    rows = [*REPORT, {"series": uid(1, 2), "answer": "Another."}]
    found = records(tmp_path, rows)
    assert faults(found) == {reason: 1, "text-unmatched": 1}
    assert sum(record.fault is None for record in found) == 4
    (fault,) = [record.fault for record in found if record.fault and record.fault.reason == reason]
    assert reason in str(fault.remedy)
    asked = records(tmp_path, rows, include=[reason])
    assert faults(asked) == {}
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("sop_class", "reason"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.59", "key-object-selection"),
        ("1.2.840.10008.5.1.4.1.1.88.22", "structured-report"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "presentation-state"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "radiotherapy"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "no-picture"),
    ],
)
def test_objects_without_a_picture_are_listed(tmp_path: Path, sop_class: str, reason: str) -> None:
    write_ct_series(tmp_path / "images", places=[0.0])
    write_dicom(tmp_path / "images" / "object", None, sop_class=sop_class, SOPInstanceUID=uid(7))
    assert faults(records(tmp_path, REPORT)) == {reason: 1}


def test_a_dicomdir_is_passed_over(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", places=[0.0])
    write_dicom(tmp_path / "images" / "DICOMDIR", None, sop_class="1.2.840.10008.1.3.10")
    assert faults(records(tmp_path, REPORT)) == {}


def test_a_file_copied_twice_is_read_once(tmp_path: Path) -> None:
    files = write_ct_series(tmp_path / "images")
    shutil.copy(files[0], tmp_path / "images" / "copy")
    found = records(tmp_path, REPORT)
    assert faults(found) == {"instance-repeated": 1}
    assert len(found) == 5


@pytest.mark.parametrize(
    ("places", "notes"),
    [
        ([0.0, 5.0, 10.0, 15.0], None),
        ([0.0, 5.0, 15.0, 20.0, 25.0], ["positions-missing"]),
        ([0.0, 5.0, 15.0], ["positions-missing"]),
        ([0.0, 5.0, 5.0, 10.0], ["positions-repeated"]),
    ],
)
def test_odd_positions_are_noted(tmp_path: Path, places: list[float], notes: list[str] | None) -> None:
    write_ct_series(tmp_path / "images", places=places)
    for record in records(tmp_path, REPORT):
        assert record.metadata.get("source_notes") == notes


def test_a_tilted_gantry_is_noted_in_degrees(tmp_path: Path) -> None:
    for number in range(3):
        write_dicom(
            tmp_path / "images" / f"{number}",
            np.zeros((4, 4), np.uint16),
            SOPInstanceUID=uid(1, 1, number + 1),
            ImagePositionPatient=[0, -number * 1.0, number * 2.0],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
    for record in records(tmp_path, REPORT):
        assert record.metadata["gantry_tilt"] == 26.6  # atan(1 / 2)
        assert record.metadata["source_notes"] == ["gantry-tilt"]


def test_slices_of_another_orientation_are_a_volume_of_their_own(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images")
    write_dicom(
        tmp_path / "images" / "coronal",
        np.zeros((4, 4), np.uint16),
        SOPInstanceUID=uid(1, 1, 99),
        ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
    )
    found = records(tmp_path, REPORT)
    assert sorted(Counter(record.metadata["volume"] for record in found).values()) == [1, 4]
    assert all(record.metadata["source_notes"] == ["orientations-mixed"] for record in found)
    assert len({record.metadata["series"] for record in found}) == 1


def test_pixels_that_are_not_square_are_noted_and_stay(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", places=[0.0], PixelSpacing=[1.0, 0.5])
    (record,) = records(tmp_path, REPORT)
    assert record.metadata["pixel_aspect"] == 2.0
    assert record.metadata["source_notes"] == ["pixels-not-square"]
    assert open_picture(record.pictures[0].path).size == (16, 16)  # type: ignore[arg-type]


def test_slices_without_positions_are_ordered_by_number_and_noted(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", ImagePositionPatient=None)
    found = records(tmp_path, REPORT, **ONE_TO_ONE)
    assert [units(record) for record in found] == [[30], [20], [10], [0]]
    assert found[0].metadata["source_notes"] == ["positions-unknown"]


def enhanced(folder: Path) -> Path:
    groups = []
    for place in (20.0, 0.0, 10.0):
        group, position, orientation = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient, orientation.ImageOrientationPatient = [0, 0, place], [1, 0, 0, 0, 1, 0]
        group.PlanePositionSequence, group.PlaneOrientationSequence = [position], [orientation]
        groups.append(group)
    pixels = np.stack([np.full((4, 4), value, np.uint16) for value in (20, 0, 10)])
    return write_dicom(folder / "enhanced", pixels, sop_class=ENHANCED_CT, PerFrameFunctionalGroupsSequence=groups)


def test_frames_of_an_enhanced_file_are_ordered_by_place(tmp_path: Path) -> None:
    enhanced(tmp_path / "images")
    found = records(tmp_path, REPORT, **ONE_TO_ONE)
    assert [units(record) for record in found] == [[0], [10], [20]]
    assert [record.pictures[0].view.index for record in found if record.pictures[0].view] == [1, 2, 0]
    assert len({record.id for record in found}) == 3


def test_a_film_is_a_volume_of_its_own(tmp_path: Path) -> None:
    for number in (1, 2):
        pixels = np.zeros((5, 4, 4), np.uint8)
        write_dicom(tmp_path / "images" / f"{number}", pixels, Modality="US", SOPInstanceUID=uid(1, 1, number))
    found = records(tmp_path, REPORT, slices={"kind": "middle"})
    assert [record.pictures[0].view.index for record in found if record.pictures[0].view] == [2, 2]
    assert all("source_notes" not in record.metadata for record in found)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"kind": "all"}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"kind": "uniform", "count": 2}, [2, 6]),
        ({"kind": "uniform", "count": 20}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"kind": "middle"}, [4]),
        ({"kind": "explicit", "indices": [-1, 0]}, [0, 7]),
    ],
)
def test_the_choice_of_slices(tmp_path: Path, choice: dict[str, Any], expected: list[int]) -> None:
    write_ct_series(tmp_path / "images", places=[5.0 * n for n in range(8)])
    assert [record.metadata["slice"] for record in records(tmp_path, REPORT, slices=choice)] == expected


def test_a_slice_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images")
    assert faults(records(tmp_path, REPORT, slices={"kind": "explicit", "indices": [9]})) == {"slice-missing": 1}


@pytest.mark.parametrize("by_instance", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_the_slice_with_the_largest_mask(tmp_path: Path, by_instance: bool, apart: bool) -> None:
    write_ct_series(tmp_path / "images", places=[0.0, 5.0, 10.0, 15.0])
    masks = np.zeros((3, 16, 16), bool)
    masks[0, :2, :2], masks[1, :5, :5], masks[2, :3, :3] = True, True, True  # of the slices 0, 2 and 3
    groups = []
    for index in (0, 2, 3):
        group, derivation, source, position = Dataset(), Dataset(), Dataset(), Dataset()
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = CT, uid(1, 1, index + 1)
        derivation.SourceImageSequence = [source]
        position.ImagePositionPatient = [0, 0, 5.0 * index]
        if by_instance:
            group.DerivationImageSequence = [derivation]
        else:
            group.PlanePositionSequence = [position]
        groups.append(group)
    series = Dataset()
    series.SeriesInstanceUID = uid(1, 1)
    folder = tmp_path / ("masks" if apart else "images")
    write_dicom(
        folder / "mask",
        np.zeros((3, 16, 16), np.uint8),
        sop_class=SEGMENTATION,
        Modality="SEG",
        SOPInstanceUID=uid(1, 5, 1),
        SeriesInstanceUID=uid(1, 5),
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelData=np.packbits(masks.ravel(), bitorder="little").tobytes(),
        PerFrameFunctionalGroupsSequence=groups,
        ReferencedSeriesSequence=[series],
    )
    choice = {"kind": "largest-mask", "masks": str(folder) if apart else None}
    found = records(tmp_path, REPORT, slices=choice)
    assert [record.metadata["slice"] for record in found if record.fault is None] == [2]
    assert faults(found) == ({} if apart else {"segmentation": 1})


def test_no_mask_is_a_fault(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images")
    assert faults(records(tmp_path, REPORT, slices={"kind": "largest-mask"})) == {"mask-missing": 1}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("patient", "MADE-UP-1", 4),
        ("study", uid(1), 4),
        ("series", uid(1, 1), 4),
        ("instance", uid(1, 1, 3), 1),
        ("file", "IM0002", 1),
        ("file", "head/IM0002", 1),
    ],
)
def test_texts_are_joined_by_each_key(tmp_path: Path, key: str, value: str, expected: int) -> None:
    write_ct_series(tmp_path / "images" / "head")
    found = records(tmp_path, [{key: value, "answer": "A."}, {key: "nobody", "answer": "B."}], key=key)
    sound = [record for record in found if record.fault is None]
    assert len(sound) == expected
    assert {record.target for record in sound} == {"A."}
    assert faults(found)["text-unmatched"] == 1
    assert faults(found)["text-missing"] == (3 if expected == 1 else 0)
    if key in ("instance", "file"):
        assert sound[0].metadata["slice"] == 2  # in the series; file IM0002 is the third of four from the foot


def test_a_name_that_two_files_have_joins_no_text(tmp_path: Path) -> None:
    for patient in (1, 2):
        write_ct_series(tmp_path / "images" / f"{patient}", patient=patient, places=[0.0])
    found = records(tmp_path, [{"file": "IM0001", "answer": "Of one of the two."}], key="file")
    assert faults(found) == {"text-missing": 2, "text-unmatched": 1}
    found = records(tmp_path, [{"file": "2/IM0001", "answer": "Of the second."}], key="file")
    assert [record.place for record in found if record.fault is None] == ["file 2"]


@pytest.mark.parametrize(
    ("sop_class", "image_type", "expected"),
    [
        (DX, ["DERIVED", "PRIMARY"], {}),  # a detector's picture for presentation
        ("1.2.840.10008.5.1.4.1.1.1.2", ["DERIVED", "PRIMARY", "", "LEFT"], {}),
        (DX, ["DERIVED", "SECONDARY"], {"derived": 1, "text-unmatched": 1}),
        (CT, ["DERIVED", "PRIMARY", "AXIAL"], {"derived": 1, "text-unmatched": 1}),
    ],
)
def test_a_radiograph_for_presentation_is_a_picture(
    tmp_path: Path, sop_class: str, image_type: list[str], expected: dict[str, int]
) -> None:
    write_dicom(tmp_path / "images" / "one", np.zeros((4, 4), np.uint16), sop_class=sop_class, ImageType=image_type)
    assert faults(records(tmp_path, REPORT)) == expected


def test_columns_of_the_table(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", places=[0.0])
    row = {"uid": uid(1, 1), "q": "Is it made up?", "a": " Yes ", "t": "closed-vqa", "s": "test", "l": "en"}
    options = {"column": "uid", "question": "q", "answer": "a", "task": "t", "split": "s", "metadata": {"language": "l"}}
    found = records(tmp_path, [row, {**row, "q": "Again?", "t": "", "s": ""}], texts=options)
    assert [(one.question, one.target, one.task, one.split) for one in found] == [
        ("Is it made up?", "Yes", "closed-vqa", "test"),
        ("Again?", "Yes", "report", None),
    ]
    assert found[0].metadata["language"] == "en"
    assert len({one.id for one in found}) == 2


def test_a_series_without_text_and_rows_that_are_wrong_are_faults(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", places=[0.0])
    write_ct_series(tmp_path / "images" / "b", patient=2, places=[0.0])
    rows = [{**REPORT[0], "split": "exam"}, {**REPORT[0], "split": ""}, {"series": "", "answer": "?", "split": ""}]
    found = records(tmp_path, rows, texts={"split": "split"})
    assert faults(found) == {"text-missing": 1, "unknown-split": 1, "key-missing": 1}


@pytest.mark.parametrize(
    ("patient", "written", "remedy"),
    [
        ("0012345", "12345", "has taken the zeros off"),
        ("123456789012", "1.23457E+11", "has rounded this number"),
        ("123456789012", "12345", "Correct the key"),
    ],
)
def test_what_a_spreadsheet_does_to_numbers_is_named(tmp_path: Path, patient: str, written: str, remedy: str) -> None:
    write_ct_series(tmp_path / "images", places=[0.0], PatientID=patient)
    found = records(tmp_path, [{"patient": written, "answer": "A."}], key="patient")
    assert faults(found) == {"text-missing": 1, "text-unmatched": 1}
    (fault,) = [record.fault for record in found if record.fault and record.fault.reason == "text-unmatched"]
    assert remedy in str(fault.remedy)
    assert patient not in str(fault)
    assert written not in str(fault)


def test_zeros_at_the_beginning_of_a_number_are_kept(tmp_path: Path) -> None:
    for number, patient in enumerate(["0012", "12"], 1):
        write_ct_series(tmp_path / "images" / f"{number}", patient=number, places=[0.0], PatientID=patient)
    (tmp_path / "texts.csv").write_text("patient,answer\n0012,With zeros.\n12,Without.\n", encoding="utf-8")
    found = records(tmp_path, [], key="patient", texts={"path": str(tmp_path / "texts.csv")})
    assert sorted((record.place, record.target) for record in found) == [("file 1", "With zeros."), ("file 2", "Without.")]


def test_a_table_without_the_column_is_an_error(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", places=[0.0])
    with pytest.raises(DataError, match="no column 'answer'"):
        records(tmp_path, [{"series": uid(1, 1), "text": "A."}])


def test_slices_together_in_one_record(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images")
    write_ct_series(tmp_path / "images" / "second", series=2)
    (first, second) = records(tmp_path, [*REPORT, {"series": uid(1, 2), "answer": "B."}], record="series", **ONE_TO_ONE)
    assert units(first) == units(second) == [0, 10, 20, 30]
    (whole,) = records(tmp_path, [{"study": uid(1), "answer": "C."}], key="study", record="study", **ONE_TO_ONE)
    assert units(whole) == [0, 10, 20, 30] * 2
    assert "slice" not in whole.metadata
    with pytest.raises(ValidationError, match="cannot be the answer"):
        records(tmp_path, REPORT, record="study")


def test_the_views_of_a_chest_study_are_one_record(tmp_path: Path) -> None:
    for number, view in ((1, "PA"), (2, "LL")):
        write_dicom(
            tmp_path / "images" / f"{number}",
            np.zeros((4, 4), np.uint16),
            sop_class=DX,
            Modality="DX",
            ViewPosition=view,
            SOPInstanceUID=uid(1, number, 1),
            SeriesInstanceUID=uid(1, number),
        )
    (record,) = records(tmp_path, [{"study": uid(1), "answer": "A."}], key="study", record="study")
    assert len(record.pictures) == 2
    assert record.metadata["view_position"] == "PA, LL"


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([], ()),
        (["brain"], ((40, 80),)),
        ([[1, 2]], ((1, 2),)),
        (["brain", "subdural", [480, 2500]], ((40, 80), (75, 215), (480, 2500))),
        (["medgemma-1.5"], ((0, 2048), (40, 350), (40, 80))),
    ],
)
def test_windows_by_name_and_number(tmp_path: Path, windows: list[Any], expected: tuple[Any, ...]) -> None:
    write_ct_series(tmp_path / "images", places=[0.0])
    (record,) = records(tmp_path, REPORT, windows=windows)
    assert record.pictures[0].view is not None
    assert record.pictures[0].view.windows == expected


@pytest.mark.parametrize("windows", [["no-such"], ["brain", "bone"], [[40, 0]]])
def test_windows_that_make_no_sense_are_refused(tmp_path: Path, windows: list[Any]) -> None:
    with pytest.raises(ValidationError):
        Dicom(path=tmp_path, texts={"path": tmp_path}, windows=windows)  # type: ignore[arg-type]


def test_a_ct_preset_is_not_for_mr_nor_for_colours(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", places=[0.0], Modality="MR")
    found = records(tmp_path, REPORT, windows=["brain"])
    assert faults(found) == {"window-not-for-modality": 1}
    assert faults(records(tmp_path, REPORT, windows=[[40, 80]])) == {}
    write_dicom(tmp_path / "images" / "IM0001", np.zeros((4, 4, 3), np.uint8), Modality="US")
    assert faults(records(tmp_path, REPORT, windows=[[40, 80]])) == {"window-on-colour": 1}


def test_without_a_patient_the_study_is_the_group(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "images", PatientID=None)
    source = Dicom(path=tmp_path / "images", texts=table(tmp_path, REPORT), key_file=tmp_path / "key")  # type: ignore[arg-type]
    assert source.card.group_kind == "study"
    (record,) = source.samples()
    assert record.group == record.metadata["study"]
    assert "patient" not in record.metadata


def test_a_header_that_ends_its_process_costs_one_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_ct_series(tmp_path / "images")
    real = Child.run

    def run(self: Child, function: str, batch: list[str], limits: Any) -> Iterator[Any]:
        for path in batch:
            if path.endswith("IM0002"):
                raise ChildDiedError("crash", msg("The decoder ended its process ({signal}).", signal="SIGABRT"))
            yield from real(self, function, [path], limits)

    monkeypatch.setattr(Child, "run", run)
    found = records(tmp_path, REPORT)
    assert faults(found) == {"decoder-crash": 1}
    assert len(found) == len(files)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="No file is there"):
        records(tmp_path, REPORT)


def test_the_writer_of_these_files_makes_sound_ones() -> None:
    assert dicom_dataset(np.zeros((2, 3), np.int16)).pixel_array.shape == (2, 3)
