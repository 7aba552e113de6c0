"""What a NIfTI file says of itself: shape, spacing, orientation, how stored numbers become values. No voxel is read.

NIfTI-1 is defined by ``nifti1.h`` (Cox et al. 2004, https://nifti.nimh.nih.gov/nifti-1), NIfTI-2 by ``nifti2.h`` (2011).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtune.errors import UnreadableImageError
from medtune.imaging.config import Limits
from medtune.language import Text, msg
from medtune.types import Axis

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CANONICAL", "HEAD_BYTES", "Volume", "is_nifti", "read_volume", "refused"]

HEAD_BYTES = 2048
"""Bytes from the start of a file that :func:`is_nifti` wants: enough to decompress the 540 bytes of the longer header."""

_GZIP = b"\x1f\x8b"
_NIFTI1, _NIFTI2 = 348, 540
"""Bytes of the headers; the number stands in each header's first field."""
_MAGIC1 = (b"n+1\0", b"ni1\0")
_MAGIC2 = (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")
"""``n+`` holds header and voxels in one file; ``ni`` is one half of a pair of files."""
_DEFLATE = 1032
"""The most that deflate expands (zlib's technical notes, "Maximum Compression Factor")."""
CANONICAL: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis of the canonical volume (R, A, S) along which slices are numbered."""

OrientationSource = Literal["sform", "qform", "none"]


@dataclass(frozen=True, slots=True)
class Volume:
    """The header of a NIfTI file, checked against the limits. "Canonical" is R, A, S: the axis numbers grow towards the patient's
    right, front and head, each stored axis taken for the anatomical one that it is closest to.

    Attributes:
        shape: Voxels along the *stored* axes.
        num_volumes: Length of the fourth dimension, 1 without one.
        spacing: Millimetres (or whatever unit the file has) between voxels along the stored axes; 1.0 where the header states none.
        codes: Which way the stored axes grow: ``RAS``, ``LPI``, ...
        orientation: Stored axis -> (canonical axis, 1 or -1 for the same or the opposite direction).
        orientation_from: ``sform`` when its code is above 0, else ``qform`` when its code is, else ``none``: nothing tells left
            from right, and the stored axes are read as nibabel and SPM read them, the first growing to the *left*.
        contradicts: Both forms are set, and say different directions. The sform is used.
        dtype: Of the stored numbers, byte order included; a structure with R, G, B for colour.
        offset: Bytes before the first voxel.
        slope: ``value = slope * stored + intercept``.
        intercept: See ``slope``.
        display: (``cal_min``, ``cal_max``), the range to be shown, where the header sets one.
        compressed: The file is gzip.
    """

    shape: tuple[int, int, int]
    num_volumes: int
    spacing: tuple[float, float, float]
    codes: str
    orientation: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    orientation_from: OrientationSource
    contradicts: bool
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    display: tuple[float, float] | None
    compressed: bool

    @property
    def colour(self) -> bool:
        """The voxels are red, green and blue, 8 bits each (RGB24, RGBA32)."""
        return self.dtype.names is not None

    @property
    def num_bytes(self) -> int:
        """Header, extensions and voxels without compression."""
        return self.offset + self.dtype.itemsize * math.prod(self.shape) * self.num_volumes

    def stored_axis(self, canonical: int) -> int:
        """The stored axis that lies along canonical axis 0 (left to right), 1 (back to front) or 2 (foot to head)."""
        return next(stored for stored, (along, _) in enumerate(self.orientation) if along == canonical)

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """Voxels from left to right, from back to front, from foot to head."""
        return self.shape[self.stored_axis(0)], self.shape[self.stored_axis(1)], self.shape[self.stored_axis(2)]

    def num_slices(self, axis: Axis) -> int:
        """Slices along ``axis``: from left to right, from back to front, from foot to head."""
        return self.canonical_shape[CANONICAL[axis]]

    def slice_shape(self, axis: Axis) -> tuple[int, int]:
        """(width, height) in voxels of a slice as it is shown."""
        across, down = (each for each in range(3) if each != CANONICAL[axis])
        return self.canonical_shape[across], self.canonical_shape[down]

    def slice_spacing(self, axis: Axis) -> tuple[float, float]:
        """Millimetres between the columns and between the rows of a slice as it is shown."""
        across, down = (each for each in range(3) if each != CANONICAL[axis])
        return self.spacing[self.stored_axis(across)], self.spacing[self.stored_axis(down)]


def is_nifti(head: bytes) -> bool:
    """Whether a file that begins with these bytes (:data:`HEAD_BYTES` of them, or all) is NIfTI, compressed with gzip or not."""
    if head[:2] == _GZIP:
        head = _expand_head(head)
    return head[344:348] in _MAGIC1 or head[4:12] in _MAGIC2


def read_volume(source: Path | bytes, *, name: str = "", limits: Limits | None = None) -> Volume:
    """Read a header and check it against the limits and the length of the file.

    Raises:
        UnreadableImageError: Missing, no NIfTI, one half of a pair, cut short, of a type or shape that is not read, or
            beyond a limit.
    """
    called, limits = name or _called(source), limits or Limits()
    head, size = _head(source, called)
    compressed = head[:2] == _GZIP
    if compressed and size > limits.max_bytes:
        raise refused(
            msg("The picture file has {size} bytes; the limit is {limit}.", size=size, limit=limits.max_bytes), called, "max_bytes"
        )
    volume = _parse(_expand_head(head) if compressed else head, compressed, called)
    _check(volume, size, called, limits)
    return volume


def refused(what: Text, called: str, limit: str | None = None) -> UnreadableImageError:
    """The error for a file that is damaged, or beyond the limit named."""
    remedy = (
        msg("Make the picture smaller, or raise data.limits.{field}.", field=limit)
        if limit
        else msg("Fetch the file again from where it came, or leave the sample out.")
    )
    return UnreadableImageError(what, file=called, remedy=remedy)


def _called(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "<bytes>"


def _head(source: Path | bytes, called: str) -> tuple[bytes, int]:
    if isinstance(source, bytes):
        return source[:HEAD_BYTES], len(source)
    if not source.is_file():
        raise UnreadableImageError(
            msg("The picture is missing."),
            file=called,
            remedy=msg("Check the path, or the folder that the pictures are looked for in."),
        )
    with source.open("rb") as file:
        return file.read(HEAD_BYTES), source.stat().st_size


def _expand_head(head: bytes) -> bytes:
    """The first decompressed bytes, and no more than a header needs."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _NIFTI2)
    except zlib.error:
        return b""


def _parse(head: bytes, compressed: bool, called: str) -> Volume:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    second = head[4:12] in _MAGIC2
    if not is_nifti(head) or len(head) < (_NIFTI2 if second else _NIFTI1):
        raise refused(msg("This is not a NIfTI file, or it ends within its header."), called)
    if head[344:346] == b"ni" or head[4:6] == b"ni":
        raise UnreadableImageError(
            msg("This is the header of a NIfTI pair (.hdr and .img); a single file is read."),
            file=called,
            remedy=msg("Save the volume as .nii or .nii.gz."),
        )
    # nibabel's own check writes what it mends to the log, and mends more than a stranger's file deserves.
    header: Any = Nifti2Header(head[:_NIFTI2], check=False) if second else Nifti1Header(head[:_NIFTI1], check=False)
    try:
        return _volume(header, compressed, called)
    except UnreadableImageError:
        raise
    except Exception as error:  # numbers of a damaged header lead nibabel into errors of many kinds
        raise refused(msg("The NIfTI header is damaged: {error}", error=_one_line(error)), called) from error


def _volume(header: Any, compressed: bool, called: str) -> Volume:
    import numpy as np
    from nibabel.orientations import aff2axcodes, io_orientation

    dims = [int(length) for length in header["dim"]]
    if not 1 <= dims[0] <= 7 or any(length < 1 for length in dims[1 : dims[0] + 1]):
        raise refused(msg("The NIfTI header states impossible dimensions: {dims}.", dims=str(dims)), called)
    lengths = dims[1 : dims[0] + 1] + [1] * (7 - dims[0])
    if any(length > 1 for length in lengths[4:]):
        raise UnreadableImageError(
            msg("The volume has more than four dimensions: {dims}.", dims=str(lengths)),
            file=called,
            remedy=msg("Save the part that is to be shown as a volume of three or four dimensions."),
        )
    # "If qfac is 0 (which should not happen), use 1" (nifti1.h, method 2).
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1
    sform, qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    affine = header.get_sform() if sform else header.get_qform() if qform else header.get_base_affine()
    orientation = io_orientation(affine) if np.isfinite(affine).all() else np.full((3, 2), np.nan)
    if not np.isfinite(orientation).all() or sorted(orientation[:, 0]) != [0, 1, 2]:
        raise refused(msg("The NIfTI header states an orientation that is none."), called)
    slope, intercept = header.get_slope_inter()
    low, high = float(header["cal_min"]), float(header["cal_max"])
    offset = int(header["vox_offset"])
    if not header.sizeof_hdr <= offset:
        raise refused(msg("The NIfTI header states impossible dimensions: {dims}.", dims=f"vox_offset {offset}"), called)
    return Volume(
        shape=(lengths[0], lengths[1], lengths[2]),
        num_volumes=lengths[3],
        spacing=tuple(float(step) if math.isfinite(step) and step > 0 else 1.0 for step in header["pixdim"][1:4]),  # type: ignore[arg-type]
        codes="".join(str(code) for code in aff2axcodes(affine)),
        orientation=tuple((int(axis), int(direction)) for axis, direction in orientation),  # type: ignore[arg-type]
        orientation_from="sform" if sform else "qform" if qform else "none",
        contradicts=sform and qform and _codes(header) != "".join(str(code) for code in aff2axcodes(affine)),
        dtype=_dtype(header, called),
        offset=offset,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        display=(low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None,
        compressed=compressed,
    )


def _codes(header: Any) -> str:
    """The directions by the qform alone; empty when it is none."""
    from nibabel.orientations import aff2axcodes

    try:
        return "".join(str(code) for code in aff2axcodes(header.get_qform()))
    except Exception:  # an unusable qform beside a sound sform contradicts nothing
        return ""


def _dtype(header: Any, called: str) -> np.dtype[Any]:
    import numpy as np

    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except Exception as error:
        raise refused(msg("The NIfTI data type {code} is not known.", code=int(header["datatype"])), called) from error
    # Bits of a voxel (DT_BINARY) and long doubles are in nobody's files; complex numbers are no grey values.
    if dtype.names is None and (dtype.kind not in "iuf" or dtype.itemsize > 8):
        raise UnreadableImageError(
            msg("Voxels of the type {dtype} are no grey values.", dtype=dtype.name),
            file=called,
            remedy=msg("Save the magnitude, or the part that is to be shown, as integers or floats."),
        )
    return np.dtype(dtype)


def _check(volume: Volume, size: int, called: str, limits: Limits) -> None:
    if volume.num_bytes > limits.max_volume_bytes:
        raise refused(
            msg(
                "The volume has {size} bytes without compression; the limit is {limit}.",
                size=volume.num_bytes,
                limit=limits.max_volume_bytes,
            ),
            called,
            "max_volume_bytes",
        )
    frames = max(volume.shape) * volume.num_volumes
    if frames > limits.max_frames:
        raise refused(
            msg("The file holds {frames} slices; the limit is {limit}.", frames=frames, limit=limits.max_frames),
            called,
            "max_frames",
        )
    if volume.num_bytes > size * (_DEFLATE if volume.compressed else 1):
        raise refused(
            msg("The file is cut short: its header promises {claimed} bytes of voxels.", claimed=volume.num_bytes - volume.offset),
            called,
        )


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
