"""Synthetic DICOM objects for tests. All names, numbers and dates are invented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"

ROOT = "1.2.826.0.1.3680043.8.498"
"""pydicom's own UID root."""


def image(pixels: NDArray[Any] | None = None, *, sop_class: str = CT, number: int = 1, **attributes: Any) -> Dataset:
    """A small image object; ``pixels`` are ([frames,] rows, columns[, 3])."""
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) if pixels is None else pixels
    colour = values.ndim > 2 and values.shape[-1] == 3
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = f"{ROOT}.1.{number}"
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{ROOT}.2", f"{ROOT}.3"
    made.FrameOfReferenceUID = f"{ROOT}.4"
    made.Modality = {CT: "CT", ULTRASOUND: "US"}.get(sop_class, "OT")
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.PatientName, made.PatientID, made.PatientBirthDate = "Musterfrau^Erika", "PID-0815-4711", "19580312"
    made.StudyDate, made.StudyTime, made.ContentDate = "20200229", "101500", "20200301"
    made.Manufacturer = "Example Devices"
    made.Rows, made.Columns = values.shape[:2] if values.ndim == 2 + colour else values.shape[1:3]
    if values.ndim > 2 + colour:
        made.NumberOfFrames = values.shape[0]
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = values.dtype.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    made.PixelData = values.tobytes()
    made["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def save(dataset: Dataset, path: Path, *, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write an object as a file of PS3.10."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def with_text(text: str, *, size: tuple[int, int] = (256, 320), at: tuple[int, int] = (12, 16), height: int = 16) -> NDArray[Any]:
    """Grey noise (rows, columns) uint8 with a line of white text, as a device burns it in."""
    from PIL import Image, ImageDraw, ImageFont

    noise = np.random.default_rng(0).normal(60, 10, size).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(noise)
    ImageDraw.Draw(picture).text(at, text, fill=255, font=ImageFont.load_default(height))
    return np.asarray(picture)
