"""Parquet as the Hugging Face hub shows it: ``data/train-00000-of-00002.parquet``, pictures inside as the Image feature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.data.export.rows import Rows, row_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_parquet"]

_GROUP_ROWS = 100
"""Rows of a row group, at most: the hub's own for sets of pictures, so that its viewer reads a page of rows and not a file."""
_GROUP_BYTES = 32 * 1024 * 1024
"""Bytes of pictures and text in a row group, unless a single row is larger: what is held in memory at a time."""

_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES = {
    "id": _TEXT,
    "images": [{"_type": "Image"}],
    "messages": [{"role": _TEXT, "content": _TEXT}],
    "task": _TEXT,
    "target": _TEXT,
    "group": _TEXT,
    "source": _TEXT,
    "metadata": _TEXT,
}
"""What ``datasets`` reads from the schema's metadata under the key ``huggingface``. ``metadata`` is JSON text."""


def write_parquet(rows: Rows, folder: Path, max_shard_bytes: int) -> None:
    """Write each split as files of at most about ``max_shard_bytes``, row by row.

    The path in a picture's struct ``{bytes, path}`` is its name in the data set folder.
    """
    (folder / "data").mkdir()
    for split in rows.splits:
        shards = _Shards(folder / "data", split, max_shard_bytes)
        for sample in rows.of(split):
            pictures = [{"bytes": rows.picture(ref, sample), "path": ref.path} for ref in sample.images]
            shards.add({**row_of(sample), "images": pictures})
        shards.close()


class _Shards:
    """Parquet files whose number is known, and written into their names, when the last one is closed."""

    def __init__(self, folder: Path, split: str, max_bytes: int) -> None:
        self.folder = folder
        self.split = split
        self.max_bytes = max_bytes
        self._files: list[Path] = []
        self._writer: Any = None
        self._size = 0
        self._waiting: list[dict[str, Any]] = []
        self._waiting_size = 0

    def add(self, row: dict[str, Any]) -> None:
        size = len(json.dumps(row["messages"], ensure_ascii=False).encode()) + sum(len(entry["bytes"]) for entry in row["images"])
        if self._size + self._waiting_size + size > self.max_bytes and self._size + self._waiting_size:
            self._end_file()
        elif len(self._waiting) == _GROUP_ROWS or (self._waiting and self._waiting_size + size > _GROUP_BYTES):
            self._flush()
        self._waiting.append(row)
        self._waiting_size += size

    def close(self) -> None:
        self._end_file()
        for index, file in enumerate(self._files):
            file.rename(self.folder / f"{self.split}-{index:05d}-of-{len(self._files):05d}.parquet")

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        if self._writer is None:
            file = self.folder / f"{self.split}-{len(self._files):05d}.part"
            # Dictionaries and statistics of pictures would be copies of them in the footer.
            short = ["task", "source", "group"]
            self._writer = pq.ParquetWriter(file, _schema(), use_dictionary=short, write_statistics=[*short, "id"])
            self._files.append(file)
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=_schema()), row_group_size=_GROUP_ROWS)
        self._size += self._waiting_size
        self._waiting, self._waiting_size = [], 0

    def _end_file(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._size = None, 0


def _schema() -> pa.Schema:
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    types = {"images": pa.list_(picture), "messages": pa.list_(turn)}
    columns = [(name, types.get(name, pa.string())) for name in _FEATURES]
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})})
