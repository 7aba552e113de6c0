"""The source of NIfTI volumes: grouping, texts, slices, masks, pseudonyms. Volumes and names are synthetic."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydantic import ValidationError

from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset
from medtune.data.prepare import prepare
from medtune.data.sources.nifti import Nifti
from medtune.types import Record


def volume(path: Path, shape: tuple[int, ...] = (8, 9, 10), seed: int = 0, codes: tuple[int, int] = (2, 1)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.random.default_rng(seed).integers(0, 100, shape).astype(np.int16), np.eye(4))
    image.set_sform(np.eye(4), code=codes[0])
    image.set_qform(np.eye(4), code=codes[1])
    nibabel.save(image, path)
    return path


def table(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Three subjects, the first with two sessions, and a table by session."""
    root = tmp_path / "bids"
    volume(root / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T1w.nii.gz", seed=1)
    volume(root / "sub-01" / "ses-b" / "anat" / "sub-01_ses-b_T1w.nii.gz", seed=2)
    volume(root / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.nii.gz", seed=3)
    table(
        tmp_path / "texts.csv",
        {"study": "sub-01/ses-a", "answer": "first"},
        {"study": "sub-01/ses-b", "answer": "second"},
        {"study": "sub-02/ses-a", "answer": "third"},
        {"study": "sub-09/ses-a", "answer": "nobody"},
    )
    return root


def source(path: Path, texts: dict[str, Any], **options: Any) -> Nifti:
    return Nifti(**{"path": path, "texts": texts, "already_deidentified": True, **options})


def sound(records: list[Record]) -> list[Record]:
    return [record for record in records if record.fault is None]


def faults(records: list[Record]) -> list[str]:
    return [record.fault.reason for record in records if record.fault is not None]


def test_bids_names_give_patient_and_session(bids: Path, tmp_path: Path) -> None:
    made = source(bids, {"path": tmp_path / "texts.csv", "key": "study"}, modality="MR")
    records = list(made.samples())
    assert faults(records) == ["text-unmatched"]
    first, second, third = sound(records)
    assert [record.target for record in (first, second, third)] == ["first", "second", "third"]
    assert first.group == second.group != third.group
    assert first.metadata["patient"] == first.group
    assert first.metadata["study"] != second.metadata["study"] != third.metadata["study"]
    assert first.metadata["slice"] == 5
    assert made.card.group_kind == "patient"
    assert first.pictures[0].modality == "MR"
    assert [record for part in made.parts() for record in made.samples_of(part)] == records


def test_a_table_by_patient_or_file(bids: Path, tmp_path: Path) -> None:
    by_patient = table(tmp_path / "p.csv", {"patient": "01", "answer": "one"}, {"patient": "sub-02", "answer": "two"})
    records = list(source(bids, {"path": by_patient, "key": "patient"}).samples())
    assert [record.target for record in records] == ["one", "one", "two"]
    by_file = table(tmp_path / "f.csv", {"file": "sub-01_ses-b_T1w.nii.gz", "answer": "b"})
    records = list(source(bids, {"path": by_file, "key": "file"}).samples())
    assert [record.target for record in sound(records)] == ["b"]
    assert faults(records) == ["text-missing", "text-missing"]


def test_a_name_that_two_folders_share_joins_nothing(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        volume(tmp_path / "scans" / folder / "t1.nii.gz")
    texts = table(tmp_path / "t.csv", {"file": "t1.nii.gz", "answer": "whose?"}, {"file": "two/t1.nii.gz", "answer": "two's"})
    records = list(source(tmp_path / "scans", {"path": texts, "key": "file"}).samples())
    assert [record.target for record in sound(records)] == ["two's"]
    assert faults(records) == ["text-missing", "text-unmatched"]


def test_slices_of_any_axis_and_all_volumes(tmp_path: Path) -> None:
    volume(tmp_path / "scans" / "a.nii.gz", (8, 9, 10, 3))
    texts = {"path": table(tmp_path / "t.csv", {"series": "a", "answer": "x"})}
    made = source(tmp_path / "scans", texts, axis="coronal", slices={"kind": "uniform", "count": 3}, volume="all")
    records = list(made.samples())
    views = [record.pictures[0].view for record in records]
    assert [(view.index, view.volume) for view in views if view] == [(place, time) for time in range(3) for place in (1, 4, 7)]
    assert len({record.id for record in records}) == 9
    assert made.card.group_kind == "volume"
    assert {record.group for record in records} == {records[0].metadata["volume"]}
    together = list(source(tmp_path / "scans", texts, slices={"kind": "all"}, record="volume").samples())
    assert [len(record.pictures) for record in together] == [10]
    assert "slice" not in together[0].metadata
    beyond = source(tmp_path / "scans", texts, slices={"kind": "explicit", "indices": [99]})
    assert faults(list(beyond.samples())) == ["slice-missing"]


def test_the_slice_with_the_largest_mask(tmp_path: Path) -> None:
    path = volume(tmp_path / "scans" / "a.nii.gz")
    mask = np.zeros((8, 9, 10), np.uint8)
    mask[2:4, 3:5, 6], mask[1, 1, 2] = 1, 1
    # The same place, stored with its axes the other way round.
    turned = nibabel.Nifti1Image(mask, np.eye(4)).as_reoriented(np.array([[2, -1], [1, -1], [0, 1]]))
    nibabel.save(turned, path.with_name("a_mask.nii.gz"))
    texts = {"path": table(tmp_path / "t.csv", {"series": "a", "answer": "x"})}
    records = list(source(tmp_path / "scans", texts, slices={"kind": "largest-mask"}).samples())
    assert [record.metadata["slice"] for record in records] == [6]
    masks = tmp_path / "masks"
    masks.mkdir()
    path.with_name("a_mask.nii.gz").rename(masks / "a.nii.gz")
    choice = {"kind": "largest-mask", "masks": str(masks)}
    assert [record.metadata["slice"] for record in source(tmp_path / "scans", texts, slices=choice).samples()] == [6]
    volume(masks / "a.nii.gz", (8, 9, 11))
    assert faults(list(source(tmp_path / "scans", texts, slices=choice).samples())) == ["mask-differs"]
    (masks / "a.nii.gz").unlink()
    assert faults(list(source(tmp_path / "scans", texts, slices=choice).samples())) == ["mask-missing"]


def test_the_patient_by_pattern_or_table(tmp_path: Path) -> None:
    for name in ("P7-1", "P7-2", "P8-1", "odd"):
        volume(tmp_path / "scans" / f"{name}.nii")
    rows = [{"series": name, "answer": name} for name in ("P7-1", "P7-2", "P8-1", "odd")]
    texts = {"path": table(tmp_path / "t.csv", *rows)}
    records = list(source(tmp_path / "scans", texts, patient_pattern=r"(P\d+)-").samples())
    assert faults(records) == ["patient-missing"]
    assert [record.group == records[0].group for record in sound(records)] == [True, True, False]
    patients = table(tmp_path / "p.csv", *[{"file": f"{row['series']}.nii", "patient": row["series"][:2]} for row in rows])
    by_table = sound(list(source(tmp_path / "scans", texts, patients=patients).samples()))
    assert [record.group for record in by_table[:3]] == [record.group for record in sound(records)]


def test_left_and_right_are_not_guessed(tmp_path: Path) -> None:
    volume(tmp_path / "scans" / "a.nii", codes=(0, 0))
    texts = {"path": table(tmp_path / "t.csv", {"series": "a", "answer": "x"})}
    assert faults(list(source(tmp_path / "scans", texts).samples())) == ["orientation-unstated"]
    assert not faults(list(source(tmp_path / "scans", texts, trust_orientation=True).samples()))
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), None)
    image.set_sform(np.eye(4), code=1)
    image.set_qform(np.diag([-1, 1, 1, 1]), code=1)
    nibabel.save(image, tmp_path / "scans" / "a.nii")
    assert faults(list(source(tmp_path / "scans", texts).samples())) == ["orientation-contradicts"]


def test_damaged_files_cost_their_own_records_only(tmp_path: Path) -> None:
    volume(tmp_path / "scans" / "a.nii.gz")
    (tmp_path / "scans" / "b.nii.gz").write_bytes(b"\x1f\x8b no volume")
    texts = {"path": table(tmp_path / "t.csv", {"series": "a", "answer": "x"}, {"series": "b", "answer": "y"})}
    records = list(source(tmp_path / "scans", texts).samples())
    assert [record.target for record in sound(records)] == ["x"]
    assert faults(records) == ["unreadable-image"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"windows": ["brian"]}, "no window 'brian'; known are soft-tissue"),
        ({"windows": ["brain", "bone"]}, "one window, or three"),
        ({"windows": ["brain"], "modality": "MR"}, "is for CT, but the modality is MR"),
        ({"windows": [[40, 0.5]]}, "width at least 1"),
        ({"patient_pattern": "sub-"}, "needs a group"),
        ({"patient_pattern": "("}, "not a regular expression"),
        ({"patient_pattern": "(a)", "patients": "p.csv"}, "not both"),
        ({"texts": {"path": "t.csv", "key": "instance"}}, "no instances"),
    ],
)
def test_options_that_contradict(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Nifti(**{"path": tmp_path, "texts": {"path": tmp_path / "t.csv"}, **options})


def test_windows_by_name_by_triple_and_by_number(bids: Path, tmp_path: Path) -> None:
    texts = {"path": tmp_path / "texts.csv", "key": "study"}
    for windows, expected in (
        (["brain"], ((40, 80),)),
        ([[35, 70.5]], ((35, 70.5),)),
        (["lung", [50, 350], "brain"], ((-600, 1500), (50, 350), (40, 80))),
        (["medgemma-1.5"], ((0, 2048), (40, 350), (40, 80))),
    ):
        record = next(source(bids, texts, windows=windows).samples())
        assert record.pictures[0].view is not None
        assert record.pictures[0].view.windows == expected


def test_no_name_of_a_file_leaves_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hospital's file names are identifiers: a canary in each of them is in no row, id, group, message or file name."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    scans = tmp_path / "scans"
    volume(scans / "sub-CANARYDOE" / "CANARYDOE_T1.nii.gz", seed=1)
    volume(scans / "sub-CANARYROE" / "CANARYROE_T1.nii.gz", seed=2)
    volume(scans / "sub-CANARYPOE" / "CANARYPOE_T1.nii.gz", codes=(0, 0))
    (scans / "sub-CANARYNOE").mkdir()
    (scans / "sub-CANARYNOE" / "CANARYNOE_T1.nii.gz").write_bytes(b"no volume")
    rows = [{"patient": f"CANARY{name}OE", "answer": "normal"} for name in "DRPN"]
    texts = table(tmp_path / "t.csv", *rows, {"patient": "CANARYLOST", "answer": "nobody"})
    options: dict[str, Any] = {"path": str(scans), "texts": {"path": str(texts), "key": "patient"}}
    made = Nifti(**options)
    assert sorted(faults(list(made.samples()))) == ["orientation-unstated", "text-unmatched", "unreadable-image"]
    key = tmp_path / "config" / "medtune" / "pseudonym.key"
    assert key.stat().st_mode & 0o777 == 0o600
    settings = DataSettings.model_validate({"sources": [{"source": "nifti", "options": options}], "num_workers": 1})
    folder = tmp_path / "dataset"
    prepare(settings, name="canary", folder=folder)
    dataset = Dataset.open(folder)
    assert sum(dataset.manifest.num_samples.values()) == 2
    assert dataset.manifest.group_kind == "patient"
    for base, _, names in os.walk(folder):
        for name in names:
            assert "CANARY" not in name
            assert b"CANARY" not in (Path(base) / name).read_bytes(), name
    assert "CANARY" not in json.dumps([[record.id, record.group, dict(record.metadata)] for record in made.samples()])


def test_windows_are_recorded_with_each_stored_picture(bids: Path, tmp_path: Path) -> None:
    options = {
        "path": str(bids),
        "texts": {"path": str(tmp_path / "texts.csv"), "key": "study"},
        "windows": ["medgemma-1.5"],
        "already_deidentified": True,
    }
    settings = DataSettings.model_validate({"sources": [{"source": "nifti", "options": options}], "num_workers": 1})
    prepare(settings, name="three", folder=tmp_path / "dataset")
    dataset = Dataset.open(tmp_path / "dataset")
    (ref, *_) = dataset.images.values()
    assert [step.name for step in ref.transforms] == ["volume-slice", "window"]
    assert ref.transforms[1].parameters["windows"] == [[0.0, 2048.0], [40.0, 350.0], [40.0, 80.0]]
