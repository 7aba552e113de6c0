"""Volumes of the demo shards, by a heuristic: ``uuid-time``.

The demo shards have lost every file name, and with it patient and slice. Their ids are UUIDs of version 1 (RFC 9562, 5.1), which
bear the time at which each was made, milliseconds apart: sorted by it, pictures stand in the order in which they were generated.
Neighbours in that order that look alike and were made within a short time are taken for slices of one volume.

It is a heuristic. Slices of two patients at one level look alike as well, and two volumes that follow each other may be joined; a
volume may be cut where neighbouring slices differ. Correlation and gap are settings, and chosen, not fitted: the published set
says of no two pictures that they are of one volume.
"""

from __future__ import annotations

import functools
import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.data.sources.medtrinity.index_folder import alone, fingerprint
from medtune.data.sources.rows import RecordFault, picture_of, read_rows
from medtune.errors import UnreadableImageError
from medtune.imaging.child import Child, ChildDiedError
from medtune.runs import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BYTES_PER_ROW", "SIDE", "Volumes", "join_neighbours", "thumbnails", "volumes_of"]

SIDE = 16
"""Pixels of a thumbnail's sides: enough for the outline of a slice, too few for its noise."""
BYTES_PER_ROW = 28
"""Held in memory for each row while records are read: time, id, volume. During the pass over the pictures a thumbnail more, and its
copy in the order of time: 2 x 256 bytes."""
_TICKS_PER_SECOND = 10_000_000
"""A version 1 UUID counts 100 ns (RFC 9562, 5.1)."""
_PAIRS = 65_536
"""Correlated at a time."""
_THUMBNAILS = "medtune.data.sources.medtrinity.volumes:thumbnails"


class Volumes:
    """The volume of each row with a version 1 UUID and a picture that can be read.

    Args:
        times: (N,) int64, ascending: 100 ns ticks of the UUIDs.
        ids: (N, 16) uint8: the UUIDs.
        first: (N,) int32: place of the first slice of each row's volume.
    """

    def __init__(self, times: NDArray[np.int64], ids: NDArray[np.uint8], first: NDArray[np.int32]) -> None:
        self._times, self._ids, self._first = times, ids, first

    @classmethod
    def of(cls, files: Sequence[Path], folder: Path | None, *, correlation: float, seconds: float) -> Volumes:
        """Those of ``files``: read from ``folder`` where a process has put them, else found by a pass over the pictures."""
        if folder is None:
            return cls._found(files, correlation, seconds)
        import numpy as np

        state = json.dumps([fingerprint(files), correlation, seconds]).encode()
        kept = folder / f"volumes-{hashlib.sha256(state).hexdigest()[:16]}.npz"
        with alone(folder):
            if not kept.is_file():
                found = cls._found(files, correlation, seconds)
                buffer = BytesIO()
                np.savez(buffer, times=found._times, ids=found._ids, first=found._first)
                atomic_write(kept, buffer.getvalue())
        with np.load(kept, allow_pickle=False) as arrays:
            return cls(arrays["times"], arrays["ids"], arrays["first"])

    @classmethod
    def _found(cls, files: Sequence[Path], correlation: float, seconds: float) -> Volumes:
        import numpy as np

        times: list[int] = []
        ids, pictures = bytearray(), bytearray()
        for identity, thumbnail in _thumbnails_of(files):
            parsed = _uuid1(identity)
            if parsed is not None and thumbnail:
                times.append(parsed.time)
                ids += parsed.bytes
                pictures += thumbnail
        ticks = np.array(times, np.int64)
        order = np.argsort(ticks, kind="stable")
        ticks = ticks[order]
        joined = join_neighbours(_rows(pictures, SIDE * SIDE)[order], ticks / _TICKS_PER_SECOND, correlation, seconds)
        starts = np.concatenate([[True], ~joined])[: len(ticks)]
        first = np.maximum.accumulate(np.where(starts, np.arange(len(ticks)), 0)).astype(np.int32)
        return cls(ticks, _rows(ids, 16)[order], first)

    def find(self, identity: str) -> str | None:
        """The id of the first slice of the volume; None for a row of which nothing is known."""
        import numpy as np

        parsed = _uuid1(identity)
        if parsed is None:
            return None
        place = int(np.searchsorted(self._times, parsed.time))
        while place < len(self._times) and self._times[place] == parsed.time:
            if self._ids[place].tobytes() == parsed.bytes:
                return str(uuid.UUID(bytes=self._ids[self._first[place]].tobytes()))
            place += 1
        return None


def volumes_of(files: Sequence[Path], folder: Path | None, *, correlation: float, seconds: float) -> Volumes:
    """:meth:`Volumes.of`, once in a process however many parts it reads. Files that changed are looked at anew."""
    return _once(tuple(files), repr(fingerprint(files)), folder, correlation, seconds)


@functools.lru_cache(maxsize=4)
def _once(files: tuple[Path, ...], state: str, folder: Path | None, correlation: float, seconds: float) -> Volumes:  # noqa: ARG001
    return Volumes.of(files, folder, correlation=correlation, seconds=seconds)


def join_neighbours(pictures: NDArray[np.uint8], seconds: NDArray[np.float64], correlation: float, gap: float) -> NDArray[np.bool_]:
    """Whether each picture and the next are of one volume.

    Args:
        pictures: (N, P) grey values, in the order of time.
        seconds: (N,) when each was made.
        correlation: Least Pearson correlation of the grey values. A picture of one grey correlates with nothing.
        gap: Most seconds between the two.

    Returns:
        (N - 1,); empty for no picture.
    """
    import numpy as np

    joined = np.zeros(max(len(pictures) - 1, 0), np.bool_)
    for begin in range(0, len(joined), _PAIRS):
        block = pictures[begin : begin + _PAIRS + 1].astype(np.float32)
        block -= block.mean(axis=1, keepdims=True)
        norms = np.sqrt((block * block).sum(axis=1))
        both = norms[:-1] * norms[1:]
        alike = np.divide((block[:-1] * block[1:]).sum(axis=1), both, out=np.zeros_like(both), where=both > 0)
        joined[begin : begin + len(alike)] = alike >= correlation
    return joined & (np.diff(seconds) <= gap) if len(joined) else joined


def thumbnails(file: str, start: int) -> Iterator[list[Any]]:
    """[row number, id, :data:`SIDE` x :data:`SIDE` grey bytes] of the rows of a shard from ``start`` on; None in place of the bytes
    where the picture cannot be read. Before each picture [row number, id] alone, so that one that ends the process is known.

    Of rows with one id behind one another, as the brain sets have for their six texts, only the first is looked at.
    """
    from medtune.imaging.read import open_picture

    last = ""
    for row in read_rows(Path(file), start, columns=("id", "image")):
        identity = str(row.values.get("id") or "")
        if identity and identity == last:
            continue
        last = identity
        yield [row.number, identity]
        try:
            picture = picture_of(row.values.get("image"), name=identity)
            image = open_picture(picture.path or picture.data or b"", name=identity).convert("L")
        except (RecordFault, UnreadableImageError):
            yield [row.number, identity, None]
            continue
        yield [row.number, identity, image.resize((SIDE, SIDE), resample=4).tobytes()]  # 4: box, the mean of each field


def _thumbnails_of(files: Sequence[Path]) -> Iterator[tuple[str, bytes | None]]:
    with Child() as child:
        for file in files:
            start = 0
            while True:
                try:
                    for number, identity, *rest in child.run(_THUMBNAILS, str(file), start):
                        start = number
                        if rest:
                            yield identity, rest[0]
                    break
                except ChildDiedError:
                    # The picture that ended the process becomes a fault when it is stored; the pass goes on behind it.
                    if start == 0:
                        raise


def _rows(content: bytearray, width: int) -> NDArray[np.uint8]:
    import numpy as np

    return np.frombuffer(bytes(content), np.uint8).reshape(-1, width)


def _uuid1(identity: str) -> uuid.UUID | None:
    try:
        parsed = uuid.UUID(identity)
    except ValueError:
        return None
    return parsed if parsed.version == 1 else None
