"""Pictures of a data set: each is stored once, under the hash of its bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.imaging.read import Header, Limits, open_picture, read_header
from medtune.types import ImageRef, Picture, TransformRecord, View

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PictureStore", "StoredPicture", "transform_record"]

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A stored picture, and the sizes (width, height) it had before each configured transform."""

    ref: ImageRef
    sizes: tuple[tuple[int, int], ...]


class PictureStore:
    """Writes pictures below ``folder/images``. May be called from several threads; the result does not depend on their order.

    The bytes of a sound 8-bit upright JPEG or PNG are copied as they are when no transform is asked for: nothing is lost, and
    the same picture in two sources has the same hash. Everything else becomes PNG.
    """

    def __init__(self, folder: Path, transforms: Sequence[Any] = (), limits: Limits | None = None) -> None:
        self.folder = folder
        self.transforms = tuple(transforms)
        self.limits = limits or Limits()
        self._known: dict[tuple[bytes, str | None, View | None], StoredPicture] = {}

    def add(self, picture: Picture) -> StoredPicture:
        """Store a picture.

        Raises:
            UnreadableImageError: It is missing, damaged or beyond a limit.
        """
        source: Path | bytes = picture.path if picture.path is not None else picture.data or b""
        name = str(picture.path) if picture.path is not None else picture.name
        header = read_header(source, name=name, view=picture.view, limits=self.limits)
        data = source.read_bytes() if isinstance(source, Path) else source
        key = (hashlib.sha256(data).digest(), picture.modality, picture.view)
        if key not in self._known:
            self._known[key] = self._store(data, name, header, picture)
        return self._known[key]

    def map_box(self, box: Box, stored: StoredPicture) -> Box:
        """Where a box of the source picture (pixels, upright) lies in the stored one."""
        for transform, (width, height) in zip(self.transforms, stored.sizes, strict=True):
            box = transform.map_box(box, width, height)
        return box

    def _store(self, data: bytes, name: str, header: Header, picture: Picture) -> StoredPicture:
        image = open_picture(data, name=name, view=picture.view, limits=self.limits)
        suffix = header.plain_suffix
        sizes: list[tuple[int, int]] = []
        if self.transforms or suffix is None:
            for transform in self.transforms:
                sizes.append(image.size)
                image = transform(image)
            data, suffix = _png(image), ".png"
        sha256 = hashlib.sha256(data).hexdigest()
        path = f"images/{sha256[:2]}/{sha256[:16]}{suffix}"
        _write_once(self.folder / path, data)
        ref = ImageRef(
            path=path,
            sha256=sha256,
            width=image.width,
            height=image.height,
            modality=picture.modality,
            transforms=(*header.reading, *(transform_record(transform) for transform in self.transforms)),
        )
        return StoredPicture(ref, tuple(sizes))


def transform_record(transform: Any) -> TransformRecord:
    """A transform as the manifest keeps it."""
    return TransformRecord(name=transform.name, parameters=transform.model_dump(mode="json", exclude={"name"}))


def _png(image: Image) -> bytes:
    from PIL import Image as images

    # A fresh picture, so that no comment, profile or Exif block of the source (which may name a patient) comes along.
    buffer = BytesIO()
    images.frombytes("RGB", image.size, image.convert("RGB").tobytes()).save(buffer, "PNG")
    return buffer.getvalue()


def _write_once(path: Path, data: bytes) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not runs.atomic_write: the whole folder appears by rename, so a flush to disk for each picture would only cost time.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
