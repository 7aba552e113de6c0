"""A slice of a NIfTI volume becomes an 8-bit RGB picture, as a radiologist expects to see it.

- *Orientation.* The volume is turned to the anatomical axes that its stored axes are closest to (nothing is interpolated), and
  shown in radiological convention: the patient's right is on the left of axial and coronal pictures, anterior is up on axial
  ones, the head is up on coronal and sagittal ones, and the face looks left on sagittal ones. Slices are numbered from left to
  right, from back to front, from foot to head.
- *Greys.* The windows of the view, in the units of the file after ``scl_slope`` and ``scl_inter`` (Hounsfield units, for CT); else
  the header's ``cal_min`` and ``cal_max``; else percentiles 0.5 and 99.5 of the volume.
- *Shape.* Where rows and columns lie differently far apart, the coarser ones are brought to the finer, so that anatomy keeps its
  proportions.

All of it is recorded in :attr:`Header.reading <medtune.imaging.read.Header.reading>`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import JsonValue

from medtune.errors import UnreadableImageError
from medtune.imaging.config import Limits
from medtune.imaging.nifti_header import CANONICAL, HEAD_BYTES, Volume, is_nifti, read_volume
from medtune.imaging.nifti_voxels import open_voxels
from medtune.imaging.read import Header, check_size
from medtune.imaging.window import apply_range, apply_windows
from medtune.language import msg
from medtune.types import Axis, TransformRecord, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HEAD_BYTES", "Volume", "is_nifti", "mask_areas", "middle_slice", "open_nifti", "read_nifti_header", "read_volume"]

_SQUARE = 0.01
"""Spacings that differ by less are taken for the same: rounding in the header."""


def read_nifti_header(source: Path | bytes, *, name: str = "", view: View | None = None, limits: Limits | None = None) -> Header:
    """What a view of a volume will look like. Voxels are read only to measure a range that neither view nor header states.

    Raises:
        UnreadableImageError: As :func:`~medtune.imaging.nifti_header.read_volume`; or there is no such slice or volume.
    """
    called, limits = _called(source, name), limits or Limits()
    volume = read_volume(source, name=called, limits=limits)
    view = view or _middle(volume)
    width, height = _size(volume, view, called, limits)
    turned: dict[str, Any] = {"axis": view.axis, "slice": view.index, "volume": view.volume}
    turned |= {"stored": volume.codes, "orientation_from": volume.orientation_from}
    done = [TransformRecord(name="volume-slice", parameters=turned)]
    if not volume.colour:
        done.append(_greys(source, volume, view, called))
    if (width, height) != volume.slice_shape(view.axis):
        columns, rows = volume.slice_spacing(view.axis)
        spacing = {"column_spacing": round(columns, 4), "row_spacing": round(rows, 4)}
        done.append(TransformRecord(name="square-pixels", parameters={**spacing}))
    mode = "RGB" if volume.colour or len(view.windows) == 3 else "L"
    return Header(format="NIFTI", mode=mode, width=width, height=height, orientation=1, steps=tuple(done))


def open_nifti(source: Path | bytes, *, name: str = "", view: View | None = None, limits: Limits | None = None) -> Image.Image:
    """The slice of a volume that the view names, RGB; the middle axial slice of the first volume without one.

    Raises:
        UnreadableImageError: As :func:`read_nifti_header`, or the voxels are damaged or cut short.
    """
    called, limits = _called(source, name), limits or Limits()
    volume = read_volume(source, name=called, limits=limits)
    view = view or _middle(volume)
    size = _size(volume, view, called, limits)
    voxels = open_voxels(source, volume, called=called)
    plane = voxels.slice(CANONICAL[view.axis], view.index, view.volume)
    # The two axes of the plane grow to the right, to the front or to the head; rows grow downwards, columns to the right.
    shown = np.swapaxes(plane, 0, 1)[::-1, ::-1]
    if volume.colour:
        pixels: NDArray[np.uint8] = shown
    elif view.windows:
        pixels = apply_windows(shown, view.windows)
    else:
        pixels = apply_range(shown, *(volume.display or voxels.range(view.volume)))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return image.convert("RGB")


def middle_slice(source: Path | bytes, windows: tuple[tuple[float, float], ...] = (), *, limits: Limits | None = None) -> View:
    """The view that is taken where nobody names one, with windows of the caller's.

    Raises:
        UnreadableImageError: As :func:`~medtune.imaging.nifti_header.read_volume`.
    """
    return _middle(read_volume(source, limits=limits), windows)


def mask_areas(source: Path | bytes, axis: Axis, *, name: str = "", limits: Limits | None = None) -> list[int]:
    """How many voxels of a segmentation are not 0 on each slice along ``axis``, in the order of :class:`~medtune.types.View`.

    Raises:
        UnreadableImageError: As :func:`open_nifti`.
    """
    called = _called(source, name)
    volume = read_volume(source, name=called, limits=limits)
    voxels = open_voxels(source, volume, called=called)
    return [int(np.count_nonzero(voxels.slice(CANONICAL[axis], index, 0))) for index in range(volume.num_slices(axis))]


def _called(source: Path | bytes, name: str) -> str:
    return name or (str(source) if isinstance(source, Path) else "<bytes>")


def _middle(volume: Volume, windows: tuple[tuple[float, float], ...] = ()) -> View:
    return View(index=volume.num_slices("axial") // 2, windows=windows)


def _greys(source: Path | bytes, volume: Volume, view: View, called: str) -> TransformRecord:
    if view.windows:
        windows: list[JsonValue] = [list(window) for window in view.windows]
        return TransformRecord(name="window", parameters={"windows": windows, "function": "LINEAR", "origin": "view"})
    if volume.display is not None:
        low, high = volume.display
        return TransformRecord(name="grey-range", parameters={"origin": "file", "low": low, "high": high})
    low, high = open_voxels(source, volume, called=called).range(view.volume)
    return TransformRecord(name="grey-range", parameters={"origin": "volume", "low": round(low, 6), "high": round(high, 6)})


def _size(volume: Volume, view: View, called: str, limits: Limits) -> tuple[int, int]:
    """(width, height) of the picture; checked."""
    count = volume.num_slices(view.axis)
    if not 0 <= view.index < count:
        raise UnreadableImageError(
            msg("The volume has {count} {axis} slices; there is no slice {index}.", count=count, axis=view.axis, index=view.index),
            file=called,
            remedy=msg("Slices are numbered from 0."),
        )
    if not 0 <= view.volume < volume.num_volumes:
        raise UnreadableImageError(
            msg("The file holds {count} volumes; there is no volume {index}.", count=volume.num_volumes, index=view.volume),
            file=called,
            remedy=msg("Volumes are numbered from 0."),
        )
    width, height = volume.slice_shape(view.axis)
    columns, rows = volume.slice_spacing(view.axis)
    if abs(columns - rows) > _SQUARE * min(columns, rows):
        finest = min(columns, rows)
        # A damaged header's spacings may be 1e300 apart, and the quotient infinite: larger than any limit is all that matters then.
        width, height = round(min(width * columns / finest, 1e15)), round(min(height * rows / finest, 1e15))
    check_size(width, height, called, limits)
    return width, height
