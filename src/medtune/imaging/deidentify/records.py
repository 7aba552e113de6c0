"""``done.jsonl``: which originals are done, and what became of them."""

from __future__ import annotations

from pathlib import Path

from medtune.imaging.deidentify.verdict import FileRecord
from medtune.runs import atomic_write

__all__ = ["Records"]


class Records:
    """Appended to, and read when a call begins. A last line torn by a crash is cut off."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target / "done.jsonl"
        self._records: dict[str, FileRecord] = {}
        if self._path.is_file():
            content = self._path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                atomic_write(self._path, whole)
            for line in whole.splitlines():
                record = FileRecord.model_validate_json(line)
                self._records[record.id] = record

    def finished(self, name: str, state: str) -> FileRecord | None:
        """The record of an original that has not changed since, and whose result is still there."""
        record = self._records.get(name)
        if record is None or record.state != state or (record.file is not None and not (self._target / record.file).is_file()):
            return None
        return record

    def files_of(self, name: str) -> list[str]:
        """What an earlier state of an original left: its result, or its note."""
        record = self._records.get(name)
        if record is None:
            return []
        return [record.file if record.file is not None else f"quarantine/{name}.json"]

    def append(self, record: FileRecord) -> None:
        self._records[record.id] = record
        with self._path.open("a", encoding="utf-8") as file:
            file.write(record.model_dump_json() + "\n")

    def kept(self, names: set[str]) -> list[FileRecord]:
        """The records of the originals that are there, and of those from other calls into the same folder."""
        return [record for name, record in sorted(self._records.items()) if name in names or record.file is not None]
