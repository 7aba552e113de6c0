"""Keys that occur more than once among any number of rows, in fixed memory.

Keys are written to files by their first bits; the keys of one file are then sorted in memory. A set of a million rows takes 24
bytes of disk a row for the time of the preparation, and no more memory than a small one.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_FILES", "KeyFiles", "KeyTable"]

NUM_FILES = 64
"""Files that the keys of a table are shared out to: a file of a billion keys' table would hold 375 MB."""


class KeyFiles:
    """Records of one numpy type, shared out to files by the first bits of their field ``key`` (uint64)."""

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        self.folder = folder
        self.dtype = dtype
        folder.mkdir(parents=True)
        self._files: dict[int, IO[bytes]] = {}

    def add(self, records: NDArray[Any]) -> None:
        """Write records of ``dtype``, in any order."""
        places = (records["key"] >> np.uint64(64 - NUM_FILES.bit_length() + 1)).astype(np.int64)
        order = np.argsort(places, kind="stable")
        starts = np.searchsorted(places[order], np.arange(NUM_FILES + 1))
        for place in range(NUM_FILES):
            chosen = order[starts[place] : starts[place + 1]]
            if len(chosen):
                if place not in self._files:
                    self._files[place] = (self.folder / f"{place:02d}").open("wb")
                self._files[place].write(records[chosen].tobytes())

    def __iter__(self) -> Any:
        """The records of each file that has any; all records of one key are in the same file."""
        for file in self._files.values():
            file.flush()
        for place in sorted(self._files):
            yield np.fromfile(self.folder / f"{place:02d}", self.dtype)

    def close(self) -> None:
        """Close the files; they stay on disk."""
        for file in self._files.values():
            file.close()


_PLACED = np.dtype([("key", "<u8"), ("more", "<u8"), ("shard", "<u4"), ("row", "<u4")])


class KeyTable:
    """Finds the places at which a key of 128 bits has occurred before."""

    def __init__(self, folder: Path) -> None:
        self._files = KeyFiles(folder, _PLACED)

    def add(self, shard: int, keys: NDArray[np.uint64]) -> None:
        """Add the keys (n, 2) of rows 0 to n - 1 of a shard."""
        records = np.empty(len(keys), _PLACED)
        records["key"], records["more"] = keys[:, 0], keys[:, 1]
        records["shard"], records["row"] = shard, np.arange(len(keys))
        self._files.add(records)

    def repeated(self) -> dict[int, NDArray[np.int64]]:
        """By shard, the rows whose key stands in an earlier row or shard, ascending."""
        found: list[NDArray[Any]] = []
        for records in self._files:
            records.sort(order=["key", "more", "shard", "row"])
            again = (records["key"][1:] == records["key"][:-1]) & (records["more"][1:] == records["more"][:-1])
            found.append(records[1:][again][["shard", "row"]].copy())
        self._files.close()
        if not any(map(len, found)):
            return {}
        places = np.sort(np.concatenate(found), order=["shard", "row"])
        shards, starts = np.unique(places["shard"], return_index=True)
        return {int(shard): rows["row"].astype(np.int64) for shard, rows in zip(shards, np.split(places, starts[1:]), strict=True)}
