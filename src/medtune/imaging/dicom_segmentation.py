"""How much of each slice a DICOM segmentation (SEG) covers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medtune.errors import UnreadableImageError
from medtune.imaging.child import Child, ChildDiedError
from medtune.imaging.config import Limits
from medtune.imaging.dicom_file import functional_group, read_dicom
from medtune.imaging.dicom_pixels import decode_frame
from medtune.imaging.quiet import quiet
from medtune.imaging.read import check_size

__all__ = ["MaskedFrame", "masked_frames"]


@dataclass(frozen=True, slots=True)
class MaskedFrame:
    """A frame of a segmentation: the series and the SOP instance that it was drawn on, its first pixel's place, its pixels.

    Attributes:
        series: Series Instance UID of the segmented series; empty when the file does not say.
        instance: SOP Instance UID of the segmented slice; empty when the file does not say.
        position: Image Position (Patient), or None.
        area: Pixels that are not 0.
    """

    series: str
    instance: str
    position: tuple[float, float, float] | None
    area: int


def masked_frames(path: Path, limits: Limits | None = None) -> list[MaskedFrame] | None:
    """The frames of a segmentation, decoded in a child process; None when the file cannot be read."""
    limits = limits or Limits()
    try:
        with Child(max_memory=limits.max_memory * 1024**2, seconds=limits.seconds) as child:
            frames = list(child.run("medtune.imaging.dicom_segmentation:read_frames", str(path.absolute()), limits))
    except (ChildDiedError, UnreadableImageError):
        return None
    return [MaskedFrame(series, instance, tuple(place) if place else None, area) for series, instance, place, area in frames]


def read_frames(path: str, limits: Limits) -> Iterator[tuple[str, str, list[float] | None, int]]:
    """The fields of each :class:`MaskedFrame`. Runs in the child."""
    file = read_dicom(Path(path), "", limits)
    dataset = file.dataset
    check_size(int(dataset.get("Columns") or 0) or 1, int(dataset.get("Rows") or 0) or 1, "", limits)
    with quiet():
        referenced: Any = dataset.get("ReferencedSeriesSequence") or [{}]
        series = str(referenced[0].get("SeriesInstanceUID") or "")
        frames = min(int(dataset.get("NumberOfFrames") or 1), limits.max_frames)
    for frame in range(frames):
        with quiet():
            derivation: Any = functional_group(dataset, frame, "DerivationImageSequence") or {}
            sources = derivation.get("SourceImageSequence") or [{}]
            instance = str(sources[0].get("ReferencedSOPInstanceUID") or "")
            plane: Any = functional_group(dataset, frame, "PlanePositionSequence") or {}
            place = plane.get("ImagePositionPatient")
        area = int(np.count_nonzero(decode_frame(file, frame, "", safe=False)))
        yield series, instance, [float(value) for value in place] if place and len(place) == 3 else None, area
