"""Pictures of a data set: each is stored once, under the hash of its bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from medtune.errors import UnreadableImageError
from medtune.imaging.intact import is_whole
from medtune.imaging.read import Limits, open_picture, read_header
from medtune.language import msg
from medtune.types import ImageRef, InShard, Picture, TransformRecord, View

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["TEMPORARY", "FileStore", "PictureReader", "PictureStore", "ReadPicture", "ShardStore", "transform_record"]

Box = tuple[float, float, float, float]

TEMPORARY = ".writing-"
"""How names of files begin that are still being written."""


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """A picture ready to be stored, the sizes (width, height) it had before each configured transform, and its bytes."""

    ref: ImageRef
    sizes: tuple[tuple[int, int], ...]
    data: bytes | None
    """None when the picture is stored already: :meth:`PictureReader.remember`."""


class PictureReader:
    """Makes what is stored out of what a source holds. Remembers what it has read, so it should live for a shard, not longer.

    The bytes of an upright 8-bit JPEG or PNG that is whole (:func:`~medtune.imaging.intact.is_whole`) are copied as they are
    when no transform is asked for: nothing is lost or decoded, and the same picture in two sources has the same hash. Everything
    else becomes PNG.
    """

    def __init__(self, transforms: Sequence[Any] = (), limits: Limits | None = None) -> None:
        self.transforms = tuple(transforms)
        self.limits = limits or Limits()
        self._known: dict[tuple[Path | bytes, str | None, View | None], ReadPicture] = {}

    def read(self, picture: Picture) -> ReadPicture:
        """Check a picture's header and read it; decode it only where it is not copied.

        Raises:
            UnreadableImageError: It is missing, damaged or beyond a limit.
        """
        known = self._known.get(_key(picture))
        if known is not None:
            return known
        if picture.path is not None:
            return self._read(picture.path, str(picture.path), picture)
        return self._read(picture.data or b"", picture.name, picture)

    def remember(self, picture: Picture, read: ReadPicture) -> None:
        """The picture has been stored: it need not be read again."""
        self._known[_key(picture)] = ReadPicture(read.ref, read.sizes, None)

    def map_box(self, box: Box, read: ReadPicture) -> Box:
        """Where a box of the source picture (pixels, upright) lies in the stored one."""
        for transform, (width, height) in zip(self.transforms, read.sizes, strict=True):
            box = transform.map_box(box, width, height)
        return box

    def _read(self, source: Path | bytes, name: str, picture: Picture) -> ReadPicture:
        header = read_header(source, name=name, view=picture.view, limits=self.limits)
        suffix = header.plain_suffix
        sizes: list[tuple[int, int]] = []
        if self.transforms or suffix is None:
            image = open_picture(source, name=name, view=picture.view, limits=self.limits)
            for transform in self.transforms:
                sizes.append(image.size)
                image = transform(image)
            data, suffix, (width, height) = _png(image), ".png", image.size
        else:
            data = source.read_bytes() if isinstance(source, Path) else source
            width, height = header.width, header.height
            if not is_whole(data):
                self._refuse(source, name)
        sha256 = hashlib.sha256(data).hexdigest()
        ref = ImageRef(
            path=f"images/{sha256[:2]}/{sha256[:16]}{suffix}",
            sha256=sha256,
            width=width,
            height=height,
            modality=picture.modality,
            transforms=(*header.reading, *(transform_record(transform) for transform in self.transforms)),
        )
        return ReadPicture(ref, tuple(sizes), data)

    def _refuse(self, source: Path | bytes, name: str) -> None:
        open_picture(source, name=name, limits=self.limits)  # its decoder says best what is wrong
        raise UnreadableImageError(
            msg("The picture file ends before its end mark."),
            file=name,
            remedy=msg("Fetch the file again from where it came, or leave the sample out."),
        )


class PictureStore(Protocol):
    """Where the pictures of a shard go."""

    def put(self, read: ReadPicture) -> ImageRef:
        """Store a picture that was not stored before, and say where."""
        ...


class FileStore:
    """A file for each picture: ``folder/images/<2 hex>/<16 hex>.<jpg|png>``. Several processes may store the same picture."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, read: ReadPicture) -> ImageRef:
        assert read.data is not None
        path = self.folder / read.ref.path
        if not path.exists():
            # Not runs.atomic_write: the whole folder appears by rename, so a flush to disk for each picture would only cost time.
            try:
                descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
            with os.fdopen(descriptor, "wb") as file:
                file.write(read.data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        return read.ref


_TAR_BLOCK = 512
_TAR_END = bytes(2 * _TAR_BLOCK)


class ShardStore:
    """All pictures of a shard in one uncompressed tar file (POSIX ustar), where each is a read at an offset away.

    The same pictures in the same order give the same bytes: no time, no owner.
    """

    def __init__(self, file: IO[bytes], path: str) -> None:
        self.path = path
        self._file = file
        self._offset = 0

    def put(self, read: ReadPicture) -> ImageRef:
        import tarfile

        assert read.data is not None
        info = tarfile.TarInfo(read.ref.path)
        info.size = len(read.data)
        self._file.write(info.tobuf(tarfile.USTAR_FORMAT))
        self._file.write(read.data)
        self._file.write(bytes(-len(read.data) % _TAR_BLOCK))
        offset = self._offset + _TAR_BLOCK
        self._offset = offset + len(read.data) + (-len(read.data) % _TAR_BLOCK)
        return read.ref.model_copy(update={"shard": InShard(file=self.path, offset=offset, num_bytes=len(read.data))})

    def finish(self) -> bool:
        """Write the end mark; whether the shard holds any picture."""
        self._file.write(_TAR_END)
        return self._offset > 0


def transform_record(transform: Any) -> TransformRecord:
    """A transform as the manifest keeps it."""
    return TransformRecord(name=transform.name, parameters=transform.model_dump(mode="json", exclude={"name"}))


def _key(picture: Picture) -> tuple[Path | bytes, str | None, View | None]:
    source = picture.path if picture.path is not None else hashlib.sha256(picture.data or b"").digest()
    return source, picture.modality, picture.view


def _png(image: Image) -> bytes:
    import numpy as np
    from PIL import Image as images

    # A fresh picture, so that no comment, profile or Exif block of the source (which may name a patient) comes along.
    pixels = np.asarray(image.convert("RGB"))
    if (pixels[..., :1] == pixels).all():
        pixels = pixels[..., 0]
    buffer = BytesIO()
    # A higher level of compression makes files a few per cent smaller and costs several times the time.
    images.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
