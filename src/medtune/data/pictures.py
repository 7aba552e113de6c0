"""Pictures of a data set: each is stored once, under the hash of its bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from medtune.errors import UnreadableImageError
from medtune.imaging.intact import is_whole, read_plain
from medtune.imaging.read import Limits, open_picture, read_header, readable
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
    key: tuple[Path | bytes, str | None, View | None]
    """What the reader knows the source picture by."""


class PictureReader:
    """Makes what is stored out of what a source holds. Remembers what it has read, so it should live for a shard, not longer.

    The bytes of an upright 8-bit JPEG or PNG that is whole (:func:`~medtune.imaging.intact.is_whole`) are copied as they are
    when no transform is asked for: nothing is lost or decoded, and the same picture in two sources has the same hash. Everything
    else becomes PNG.
    """

    def __init__(self, transforms: Sequence[Any] = (), limits: Limits | None = None) -> None:
        self.transforms = tuple(transforms)
        self.limits = limits or Limits()
        self._records = tuple(transform_record(transform) for transform in self.transforms)
        self._known: dict[tuple[Path | bytes, str | None, View | None], ReadPicture] = {}

    def read(self, picture: Picture) -> ReadPicture:
        """Check a picture's header and read it; decode it only where it is not copied.

        Raises:
            UnreadableImageError: It is missing, damaged or beyond a limit.
        """
        source: Path | bytes = picture.path if picture.path is not None else picture.data or b""
        digest = None if isinstance(source, Path) else hashlib.sha256(source)
        key = (source if isinstance(source, Path) else digest.digest(), picture.modality, picture.view)  # type: ignore[union-attr]
        known = self._known.get(key)
        return known or self._read(source, digest, key, picture)

    def remember(self, read: ReadPicture) -> None:
        """The picture has been stored: it need not be read again."""
        if read.data is not None:
            self._known[read.key] = replace(read, data=None)

    def map_box(self, box: Box, read: ReadPicture) -> Box:
        """Where a box of the source picture (pixels, upright) lies in the stored one."""
        for transform, (width, height) in zip(self.transforms, read.sizes, strict=True):
            box = transform.map_box(box, width, height)
        return box

    def _read(self, source: Path | bytes, digest: Any, key: Any, picture: Picture) -> ReadPicture:
        name = picture.called
        sizes: list[tuple[int, int]] = []
        reading: tuple[TransformRecord, ...] = ()
        whole = None if self.transforms or picture.view is not None else self._whole(source, name)
        if whole is not None:
            data, suffix, (width, height) = whole
            if digest is None:
                digest = hashlib.sha256(data)
        else:
            reading = read_header(source, name=name, view=picture.view, limits=self.limits).reading
            image = open_picture(source, name=name, view=picture.view, limits=self.limits)
            for transform in self.transforms:
                sizes.append(image.size)
                image = transform(image)
            data, suffix, (width, height) = _png(image), ".png", image.size
            digest = hashlib.sha256(data)
        sha256 = digest.hexdigest()
        ref = ImageRef(
            path=f"images/{sha256[:2]}/{sha256[:16]}{suffix}",
            sha256=sha256,
            width=width,
            height=height,
            modality=picture.modality,
            transforms=(*reading, *self._records),
        )
        return ReadPicture(ref, tuple(sizes), data, key)

    def _whole(self, source: Path | bytes, name: str) -> tuple[bytes, str, tuple[int, int]] | None:
        """Bytes, suffix and (width, height) of a picture that can be copied as it is."""
        if isinstance(source, Path):
            with readable(name):
                if not source.is_file() or source.stat().st_size > self.limits.max_bytes:
                    read_header(source, name=name, limits=self.limits)  # says what is wrong
                data = source.read_bytes()
        else:
            data = source
        plain = read_plain(data)
        if plain is None or not self.limits.allow(len(data), plain.width, plain.height):
            header = read_header(data, name=name, limits=self.limits)
            if header.plain_suffix is None:
                return None
            if not is_whole(data):
                self._refuse(data, name)
            return data, header.plain_suffix, (header.width, header.height)
        return data, plain.suffix, (plain.width, plain.height)

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
        path = f"{self.folder}/{read.ref.path}"
        # Not runs.atomic_write: the whole folder appears by rename. A file that a killed process left half written has another
        # size, and so has one that another process is writing at this moment.
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return self.put(read)
        except FileExistsError:
            if os.path.getsize(path) != len(read.data):
                descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=TEMPORARY)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(read.data)
                os.chmod(temporary, 0o644)
                os.replace(temporary, path)
        else:
            with os.fdopen(descriptor, "wb", buffering=0) as plain:
                view = memoryview(read.data)
                while view:
                    view = view[plain.write(view) :]
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
