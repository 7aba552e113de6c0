"""Synthetic DICOM files. Every value is made up: no name, number or pixel is of a person."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

__all__ = [
    "CT",
    "ENHANCED_CT",
    "SECONDARY_CAPTURE",
    "SEGMENTATION",
    "dicom_dataset",
    "uid",
    "write_ct_series",
    "write_dicom",
    "write_dicom_folder",
]

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def uid(*numbers: int) -> str:
    """A UID below 2.25 (PS3.5, B.2) that nobody else has a reason to use."""
    return ".".join(["2.25.7301", *map(str, numbers)])


def dicom_dataset(
    pixels: np.ndarray | None, *, sop_class: str = CT, syntax: str = ExplicitVRLittleEndian, **changes: Any
) -> Dataset:
    """A data set with (rows, columns), (frames, rows, columns) or (rows, columns, 3) pixels; in ``changes`` None deletes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = changes.get("SOPInstanceUID", uid(1, 1, 1))
    dataset.SOPClassUID, dataset.Modality = sop_class, "CT"
    dataset.PatientID, dataset.PatientName = "MADE-UP-1", "Nobody^Synthetic"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid(1), uid(1, 1), uid(1, 1, 1)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    if pixels is not None:
        colour = pixels.ndim == 3 and pixels.shape[-1] == 3
        dataset.SamplesPerPixel = 3 if colour else 1
        dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
        if colour:
            dataset.PlanarConfiguration = 0
        elif pixels.ndim == 3:
            dataset.NumberOfFrames = len(pixels)
        dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        content = pixels.tobytes()
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for keyword, value in changes.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def write_dicom(file: Path, pixels: np.ndarray | None, **changes: Any) -> Path:
    """See :func:`dicom_dataset`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    dicom_dataset(pixels, **changes).save_as(file, enforce_file_format=True)
    return file


def write_ct_series(
    folder: Path,
    *,
    places: Sequence[float] = (0.0, 5.0, 10.0, 15.0),
    patient: int = 1,
    series: int = 1,
    size: int = 16,
    **changes: Any,
) -> list[Path]:
    """A CT series: stored value 1024 + 10 x slice, so that Hounsfield units tell the slices apart. File names and instance numbers
    run against the order of the places."""
    files = []
    for index, place in enumerate(places):
        pixels = np.full((size, size), 1024 + 10 * index, np.uint16)
        pixels[:2, :2] = 3000 + patient
        number = len(places) - index
        files.append(
            write_dicom(
                folder / f"IM{number:04d}",
                pixels,
                **{
                    "PatientID": f"MADE-UP-{patient}",
                    "StudyInstanceUID": uid(patient),
                    "SeriesInstanceUID": uid(patient, series),
                    "SOPInstanceUID": uid(patient, series, index + 1),
                    "InstanceNumber": number,
                    "ImagePositionPatient": [0, 0, place],
                    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                    "PixelSpacing": [0.5, 0.5],
                    "RescaleSlope": 1,
                    "RescaleIntercept": -1024,
                    "BodyPartExamined": "HEAD",
                    **changes,
                },
            )
        )
    return files


def write_dicom_folder(folder: Path, *, num_patients: int = 2) -> dict[str, Any]:
    """Head CT series of several patients and a table of reports, and the options of the source ``dicom`` that reads them."""
    rows = []
    for patient in range(1, num_patients + 1):
        write_ct_series(folder / "images" / f"patient-{patient}", patient=patient)
        rows.append({"series": uid(patient, 1), "answer": f"A made-up report of head {patient}."})
    table = folder / "reports.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["series", "answer"])
        writer.writeheader()
        writer.writerows(rows)
    return {
        "path": str(folder / "images"),
        "texts": {"path": str(table)},
        "slices": {"kind": "all"},
        "windows": ["brain"],
        "key_file": str(folder / "key" / "pseudonym.key"),
    }
