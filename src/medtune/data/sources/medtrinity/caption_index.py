"""Captions found by a picture's file name, without holding them in memory.

``25M_full`` has 24.9 million captions in Parquet shards, ``25M_accessible`` the pictures in archives, in another order. The
captions are copied once into a folder: their text one behind the other, and beside it the 64-bit hashes of their names in
ascending order with the place of each text. A look-up is a binary search in a mapped file.

On disk that takes 20 bytes a caption beside its text. Memory to build it is that of the largest of 256 partitions (24.9 million
captions: about 100,000 entries of 20 bytes) and of their buffers, 16 MiB.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from medtune.data.sources.medtrinity.index_folder import Fingerprint, alone, fingerprint
from medtune.data.sources.rows import read_rows
from medtune.errors import DataError
from medtune.language import msg
from medtune.runs import atomic_folder, atomic_write

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CaptionIndex", "CaptionRow"]

_FORMAT = 1
_PARTITIONS = 256
_ENTRY = [("hash", "<u8"), ("offset", "<u8"), ("length", "<u4")]
_BUFFERED = 64 * 1024
"""Bytes kept for each partition before they are written: 16 MiB for all."""


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """A row of the metadata shards. ``position`` is its number in the index, from 0."""

    file_name: str
    caption: str
    source: str
    position: int


class CaptionIndex:
    """The captions of the files it was built from. Open one with :meth:`of`."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.num_captions: int = about["captions"]
        self.sources: dict[str, int] = about["sources"]
        """Captions of each value of the ``source`` column."""
        if self.num_captions:
            self._hashes = np.load(folder / "hashes.npy", mmap_mode="r")
            self._places = np.load(folder / "places.npy", mmap_mode="r")
        self._texts = (folder / "texts.bin").open("rb")

    @classmethod
    def of(cls, files: Sequence[Path], folder: Path) -> CaptionIndex:
        """The index of ``files`` in ``folder``: the one that is there, or a new one. Processes that want it at once wait for one.

        Raises:
            DataError: A metadata shard is damaged, or the folder holds something else.
        """
        with alone(folder):
            about = folder / "index.json"
            wanted = fingerprint(files)
            if about.is_file() and json.loads(about.read_text(encoding="utf-8")).get("files") == wanted:
                return cls(folder)
            if folder.exists() and not about.is_file() and any(folder.iterdir()):
                raise DataError(
                    msg("The folder exists and is not an index of captions; it is left as it is."),
                    file=folder,
                    key="data.sources.options.index",
                    remedy=msg("Name a folder that does not exist yet."),
                )
            with atomic_folder(folder) as temporary:
                _build(files, temporary, wanted)
        return cls(folder)

    def find(self, file_name: str) -> list[CaptionRow]:
        """The rows of that name; more than one where sources share it."""
        if not self.num_captions:
            return []
        import numpy as np

        key = np.uint64(_hash(file_name))
        position = int(np.searchsorted(self._hashes, key))
        found: list[CaptionRow] = []
        while position < self.num_captions and self._hashes[position] == key:
            row = self._row(position)
            if row.file_name == file_name:
                found.append(row)
            position += 1
        return found

    # ------------------------------------------------------------------------------------------- which have a picture

    def note_pictures(self, archive: Path, positions: array.array[int]) -> None:
        """Keep which captions an archive had pictures for (4 bytes each), once it was read to its end."""
        atomic_write(self._pictures(archive), positions.tobytes())

    def num_without_picture(self, archives: Sequence[Path]) -> int | None:
        """Captions for which none of ``archives`` had a picture; None until each was read to its end. Memory: a bit a caption."""
        import numpy as np

        files = [self._pictures(archive) for archive in archives]
        if not all(file.is_file() for file in files):
            return None
        seen = np.zeros((self.num_captions + 7) // 8, np.uint8)
        for file in files:
            positions = np.fromfile(file, "<u4")
            np.bitwise_or.at(seen, positions >> 3, np.left_shift(1, positions & 7).astype(np.uint8))
        return self.num_captions - int(np.unpackbits(seen).sum())

    def _pictures(self, archive: Path) -> Path:
        digest = hashlib.sha256(json.dumps(fingerprint([archive])).encode()).hexdigest()[:16]
        return self.folder / "pictures" / f"{digest}.bin"

    def _row(self, position: int) -> CaptionRow:
        place = self._places[position]
        self._texts.seek(int(place["offset"]))
        name, caption, source = json.loads(self._texts.read(int(place["length"])))
        return CaptionRow(name, caption, source, position)


def _build(files: Sequence[Path], folder: Path, state: Fingerprint) -> None:
    sources: Counter[str] = Counter()
    parts = [folder / f"part-{number:03d}" for number in range(_PARTITIONS)]
    with contextlib.ExitStack() as stack, (folder / "texts.bin").open("wb") as texts:
        opened = [stack.enter_context(part.open("wb", buffering=_BUFFERED)) for part in parts]
        for file in files:
            _append(file, texts, opened, sources)
    total = sum(sources.values())
    if total:
        _sort(parts, folder, total)
    for part in parts:
        part.unlink()
    about = {"format": _FORMAT, "files": state, "captions": total, "sources": dict(sorted(sources.items()))}
    (folder / "index.json").write_text(json.dumps(about, indent=2), encoding="utf-8")


def _append(file: Path, texts: BinaryIO, parts: Sequence[BinaryIO], sources: Counter[str]) -> None:
    offset = texts.tell()
    for row in read_rows(file, columns=("file_name", "caption", "source")):
        name = str(row.values.get("file_name") or "").replace("\\", "/").rpartition("/")[2]
        source = str(row.values.get("source") or "")
        line = json.dumps([name, str(row.values.get("caption") or ""), source], ensure_ascii=False).encode("utf-8", "replace")
        key = _hash(name)
        parts[key >> 56].write(key.to_bytes(8, "little") + offset.to_bytes(8, "little") + len(line).to_bytes(4, "little"))
        texts.write(line)
        offset += len(line)
        sources[source] += 1


def _sort(parts: Sequence[Path], folder: Path, total: int) -> None:
    import numpy as np

    hashes = np.lib.format.open_memmap(folder / "hashes.npy", mode="w+", dtype="<u8", shape=(total,))
    places = np.lib.format.open_memmap(folder / "places.npy", mode="w+", dtype=_ENTRY[1:], shape=(total,))
    begin = 0
    for part in parts:
        entries: np.ndarray = np.fromfile(part, _ENTRY)
        # Rows of one name stay in the order of the files: the sort is stable.
        entries = entries[np.argsort(entries["hash"], kind="stable")]
        end = begin + len(entries)
        hashes[begin:end] = entries["hash"]
        places["offset"][begin:end], places["length"][begin:end] = entries["offset"], entries["length"]
        begin = end
    hashes.flush()
    places.flush()


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "big")
