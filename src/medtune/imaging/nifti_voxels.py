"""The voxels of a NIfTI file: opened once, read slice by slice.

A compressed file has no index: its last slice is reached only through all before it. So it is decompressed once, into a file
without a name that the operating system takes away with the process, and the few volumes used last stay open. What an open
volume costs is room in the temporary folder (``TMPDIR``), not memory.
"""

from __future__ import annotations

import gzip
import hashlib
import mmap
import tempfile
import threading
import zlib
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from medtune.imaging.nifti_header import Volume, refused
from medtune.language import msg

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Voxels", "open_voxels"]

_CHUNK = 1 << 20
_TRAILING = 1 << 20
"""Bytes that may follow the last voxel: padding, which some writers add."""
_KEPT = 2
"""Volumes that stay open: an image, and the segmentation beside it."""
_SAMPLED = 9
"""Slices from which a volume's range is measured, at equal distances along the last stored axis."""
_RANGE = (0.5, 99.5)
"""Percentiles, as MedSAM's for MR (Ma et al. 2024, doi:10.1038/s41467-024-44824-z): a few bright vessels do not darken the rest."""


class Voxels:
    """The stored numbers of one file, and the ranges measured so far."""

    def __init__(self, volume: Volume, buffer: mmap.mmap | bytes) -> None:
        self.volume = volume
        shape = (*volume.shape, volume.num_volumes)
        self._stored: NDArray[Any] = np.ndarray(shape, volume.dtype, buffer, volume.offset, order="F")
        self._ranges: dict[int, tuple[float, float]] = {}

    def slice(self, canonical: int, index: int, volume: int) -> NDArray[Any]:
        """One slice of the canonical volume, as values: (first, second) of the other two canonical axes in their order.

        float32, or float64 where a stored number has 4 bytes or more; for colour (first, second, 3) uint8.
        """
        header = self.volume
        stored_axis = header.stored_axis(canonical)
        forward = header.orientation[stored_axis][1] == 1
        place = index if forward else header.shape[stored_axis] - 1 - index
        # Views as far as here: of the file, only the slice's own voxels are read. nibabel's apply_orientation copies the volume.
        plane = np.moveaxis(self._stored[..., volume], stored_axis, 0)[place]
        first, second = (axis for axis in range(3) if axis != stored_axis)
        plane = plane[:: header.orientation[first][1], :: header.orientation[second][1]]
        return self._values(plane if header.orientation[first][0] < header.orientation[second][0] else plane.T)

    def range(self, volume: int) -> tuple[float, float]:
        """The values between which a volume is shown when nobody says: percentiles 0.5 and 99.5 of nine of its slices.

        Of the whole volume and not of a slice, so that neighbouring slices have the same greys. Where the two are equal
        (a segmentation is mostly 0), the extremes of the nine slices; a constant gives (value, value).
        """
        if volume not in self._ranges:
            count = self.volume.shape[2]
            places = sorted({(2 * part + 1) * count // (2 * _SAMPLED) for part in range(_SAMPLED)})
            values = np.concatenate([self._values(self._stored[:, :, place, volume]).ravel() for place in places])
            values = values[np.isfinite(values)]
            low, high = (float(edge) for edge in np.percentile(values, _RANGE)) if values.size else (0.0, 0.0)
            if low == high and values.size:
                low, high = float(values.min()), float(values.max())
            self._ranges[volume] = low, high
        return self._ranges[volume]

    def _values(self, stored: NDArray[Any]) -> NDArray[Any]:
        if self.volume.colour:
            return np.stack([stored[channel] for channel in ("R", "G", "B")], axis=-1)
        values: NDArray[Any] = stored.astype(np.float64 if stored.dtype.itemsize >= 4 else np.float32)
        if (self.volume.slope, self.volume.intercept) != (1.0, 0.0):
            with np.errstate(over="ignore", invalid="ignore"):  # a Python float keeps the type of the array
                values = values * self.volume.slope + self.volume.intercept
        return values


_Key = tuple[object, ...]
_open: OrderedDict[_Key, Voxels] = OrderedDict()
_lock = threading.Lock()


def open_voxels(source: Path | bytes, volume: Volume, *, called: str) -> Voxels:
    """The voxels of a file whose header has been read; one of the few opened last is not read again.

    Raises:
        UnreadableImageError: The compressed data are damaged, cut short, or go on far beyond what the header promises.
    """
    if isinstance(source, Path):
        status = source.stat()
        key: _Key = (source, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    else:
        key = (hashlib.sha256(source).digest(),)
    with _lock:
        if key in _open:
            _open.move_to_end(key)
            return _open[key]
        while len(_open) >= _KEPT:  # before opening: room for one is made first
            _open.popitem(last=False)
        voxels = Voxels(volume, _buffer(source, volume, called))
        _open[key] = voxels
        return voxels


def _buffer(source: Path | bytes, volume: Volume, called: str) -> mmap.mmap | bytes:
    if not volume.compressed:
        if isinstance(source, bytes):
            return source
        with source.open("rb") as file:
            return _mapped(file, volume, called)
    with source.open("rb") if isinstance(source, Path) else BytesIO(source) as packed, tempfile.TemporaryFile() as plain:
        try:
            _expand(packed, plain, volume, called)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise refused(msg("The picture is damaged or cut short: {error}", error=str(error)), called) from error
        plain.flush()
        return _mapped(plain, volume, called)


def _mapped(file: IO[bytes], volume: Volume, called: str) -> mmap.mmap:
    """Reading beyond the end of a mapped file ends the process (SIGBUS): the length is looked at first."""
    if file.seek(0, 2) < volume.num_bytes:
        raise refused(
            msg("The file is cut short: its header promises {claimed} bytes of voxels.", claimed=volume.num_bytes - volume.offset),
            called,
        )
    return mmap.mmap(file.fileno(), volume.num_bytes, access=mmap.ACCESS_READ)


def _expand(packed: IO[bytes], plain: IO[bytes], volume: Volume, called: str) -> None:
    """Decompress what the header promises, and go to the end, where the checksum of it all stands."""
    done = 0
    with gzip.GzipFile(fileobj=packed) as stream:
        while chunk := stream.read(_CHUNK):
            done += len(chunk)
            if done > volume.num_bytes + _TRAILING:
                raise refused(msg("The file goes on far beyond the voxels that its header promises."), called)
            plain.write(chunk)
