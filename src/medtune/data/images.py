"""The pictures that ``images.jsonl`` of a data set names, found by path without holding them in memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, ValuesView
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from medtune.data.line_file import LineFile
from medtune.errors import DataError
from medtune.language import msg
from medtune.schema import read_fault
from medtune.types import ImageRef

__all__ = ["ImageIndex", "stays_inside"]

_OWN_LINE = re.compile(rb'\{"path":"(images/[0-9a-f]{2}/[0-9a-f]{16}\.(?:jpg|png))",')
"""How a line begins that medtune wrote. Any other line is read whole at once."""


class ImageIndex(Mapping[str, ImageRef]):
    """Path -> picture. Holds 16 bytes a picture; a picture's line is read when it is asked for. Can be sent to other processes.

    Raises:
        DataError: A line does not describe a picture, or names a file outside the folder.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        keys, offsets = bytearray(), bytearray()
        offset = 0
        try:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        own = _OWN_LINE.match(line)
                        path = own[1].decode() if own else self._parse(line, number).path
                        keys += _key(path)
                        offsets += offset.to_bytes(8, "little")
                    offset += len(line)
        except OSError as error:
            raise DataError(
                msg("The file cannot be read: {error}", error=read_fault(error)),
                file=file,
                remedy=msg("Prepare the data set again."),
            ) from error
        found = np.frombuffer(bytes(keys), "<u8"), np.frombuffer(bytes(offsets), "<i8")
        order = np.argsort(found[0], kind="stable")
        self._keys, self._offsets = found[0][order], found[1][order]
        self._lines = LineFile(file)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return (ref.path for ref in self.refs())

    def values(self) -> ValuesView[ImageRef]:
        """The pictures in the order of the file, each line read once."""
        return _Refs(self)

    def refs(self) -> Iterator[ImageRef]:
        """All pictures in the order of the file."""
        with self.file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield self._parse(line, number)

    def __getitem__(self, path: str) -> ImageRef:
        key = np.frombuffer(_key(path), "<u8")[0]
        # A path may stand twice: the last line counts, as in a dict.
        place = int(np.searchsorted(self._keys, key, side="right")) - 1
        while place >= 0 and self._keys[place] == key:
            ref = self._parse(self._lines.line_at(int(self._offsets[place])), None)
            if ref.path == path:
                return ref
            place -= 1
        raise KeyError(path)

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str):
            return False
        key = np.frombuffer(_key(path), "<u8")[0]
        place = int(np.searchsorted(self._keys, key))
        return place < len(self._keys) and bool(self._keys[place] == key)

    def _parse(self, line: bytes, number: int | None) -> ImageRef:
        place = str(self.file) if number is None else f"{self.file}:{number}"
        try:
            ref = ImageRef.model_validate_json(line)
        except ValidationError as error:
            raise DataError(
                msg("The line does not describe a picture: {error}", error=read_fault(error)),
                file=place,
                remedy=msg("Prepare the data set again."),
            ) from error
        for path in (ref.path, *([] if ref.shard is None else [ref.shard.file])):
            if not stays_inside(path):
                raise DataError(
                    msg("The picture {path} lies outside the data set's folder.", path=path),
                    file=place,
                    remedy=msg("Do not use this data set: a sound one names its own pictures only."),
                )
        return ref


class _Refs(ValuesView[ImageRef]):
    """The values of an :class:`ImageIndex`: the inherited ones would look each line up by its path, after reading it for that."""

    _mapping: ImageIndex

    def __iter__(self) -> Iterator[ImageRef]:
        return self._mapping.refs()


def stays_inside(path: str) -> bool:
    """Whether a path from a data set's file is relative and goes nowhere up. Data sets come from other people."""
    plain = path.replace("\\", "/")
    return not plain.startswith("/") and plain[1:2] != ":" and ".." not in plain.split("/")


def _key(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest()
