"""WebDataset: tar files in which the members of one row share a key (github.com/webdataset/webdataset, "The WebDataset Format")."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, cast

from medtune.data.export.rows import Rows, row_of
from medtune.types import Sample

__all__ = ["write_webdataset"]

_BLOCK = 512
"""Bytes of a tar block: of a member's header, and what its content is filled up to (POSIX.1-2001, ustar)."""


def write_webdataset(rows: Rows, folder: Path, max_shard_bytes: int) -> None:
    """Write ``<split>-000000.tar``, ``<split>-000001.tar``, ...

    The members of a row are ``<key>.json`` and ``<key>.jpg`` or ``<key>.png``, or ``<key>.0.jpg``, ``<key>.1.jpg``, ... where there
    are several pictures; the key is the row's number in its split, nine digits. ``images`` in the JSON names them in the order of
    the marks. Headers hold no time and no user, so that the same rows give the same bytes.
    """
    for split in rows.splits:
        with _Shards(folder, split, max_shard_bytes) as shards:
            for number, sample in enumerate(rows.of(split)):
                shards.add(_members(rows, sample, f"{number:09d}"))


def _members(rows: Rows, sample: Sample, key: str) -> list[tuple[str, bytes]]:
    single = len(sample.images) == 1
    names = [
        f"{key}{PurePosixPath(ref.path).suffix}" if single else f"{key}.{index}{PurePosixPath(ref.path).suffix}"
        for index, ref in enumerate(sample.images)
    ]
    text = json.dumps({**row_of(sample), "images": names}, ensure_ascii=False)
    pictures = [rows.picture(ref, sample) for ref in sample.images]
    return [(f"{key}.json", text.encode()), *zip(names, pictures, strict=True)]


class _Shards:
    """Tar files of at most ``max_bytes``, unless a single row is larger."""

    def __init__(self, folder: Path, split: str, max_bytes: int) -> None:
        self.folder = folder
        self.split = split
        self.max_bytes = max_bytes
        self._count = 0
        self._size = 0
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._tar is not None:
            self._tar.close()

    def add(self, members: list[tuple[str, bytes]]) -> None:
        size = sum(_BLOCK + -(-len(content) // _BLOCK) * _BLOCK for _, content in members)
        # Two blocks end the file, and tarfile fills it up to a record of twenty (RECORDSIZE).
        if self._tar is None or -(-(self._size + size + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE > self.max_bytes:
            self._next()
        assert self._tar is not None
        for name, content in members:
            header = tarfile.TarInfo(name)  # mtime, uid and gid 0, no names, mode 0644
            header.size = len(content)
            self._tar.addfile(header, io.BytesIO(content))
            # TarFile keeps every header for getmembers(), which nobody calls here: 1 GB of them for a million rows.
            cast("Any", self._tar).members.clear()
        self._size += size

    def _next(self) -> None:
        if self._tar is not None:
            self._tar.close()
        file = self.folder / f"{self.split}-{self._count:06d}.tar"
        self._tar = tarfile.open(file, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - lives until the next shard
        self._count += 1
        self._size = 0
