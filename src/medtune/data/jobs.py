"""The sources of a data set are cut into the jobs of which each makes one shard."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from medtune import __version__
from medtune.data.config import DataSettings
from medtune.data.shard import Job, with_key
from medtune.data.split import digest_of_list
from medtune.types import Part, PartedSource, Picture, Record

__all__ = ["jobs_of", "settings_hash"]

MAX_RECORDS = 512
"""Records of a shard: what is lost when a preparation is killed, for each process."""
_FILES_OF_LINES = frozenset({".json", ".jsonl", ".csv", ".tsv", ".arrow"})
MAX_BYTES = 64 * 1024**2
"""Bytes of pictures in the records of one shard, where the source holds bytes: what waits in memory, for each process."""


def settings_hash(settings: DataSettings) -> str:
    """sha256 of the settings that decide what a data set holds, as written in the recipe."""
    without = {"folder", "num_workers", "engine", "faulty_records"}
    text = json.dumps(settings.model_dump(mode="json", exclude=without), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def jobs_of(settings: DataSettings, sources: Sequence[Any], labels: Sequence[str]) -> Iterator[Job]:
    """All jobs in order, lazily. They do not depend on the number of processes.

    A source with parts (:class:`~medtune.types.PartedSource`) is read by the processes that make the shards. The records of
    others are read here, and only their pictures there.
    """
    number = 0
    # A list that changes between two attempts would put a group into two splits: the recipe names the file only.
    constant = json.dumps([settings_hash(settings), digest_of_list(settings.split), __version__])
    for index, source in enumerate(sources):
        entry = settings.sources[index]
        parts = _parts(source, entry.max_samples) if isinstance(source, PartedSource) else None
        if parts is not None:
            for part in parts:
                digest = _digest(constant, index, part.start, part.stop, *_state(part.file))
                yield Job(number, index, labels[index], digest, part=part)
                number += 1
            continue
        records = islice(with_key(source.samples(), f"data.sources.{index}"), entry.max_samples)
        for chunk in _chunks(records):
            digest = _digest(constant, index, *(_fingerprint(record) for record in chunk))
            yield Job(number, index, labels[index], digest, records=tuple(chunk))
            number += 1


def _parts(source: PartedSource, max_samples: int | None) -> list[Part] | None:
    """The parts, as far as ``max_samples`` reaches; None when the source is better read from its head.

    That is so when the parts do not tell where ``max_samples`` ends, and for files of lines: each is one part, of any number of
    rows, and a shard should hold about five hundred.
    """
    parts = list(source.parts())
    if any(part.stop is None and part.file.suffix.lower() in _FILES_OF_LINES for part in parts):
        return None
    if max_samples is None:
        return parts
    chosen = []
    for part in parts:
        if max_samples <= 0:
            break
        if part.stop is None:
            return None
        part = replace(part, stop=min(part.stop, part.start + max_samples))
        assert part.stop is not None
        max_samples -= part.stop - part.start
        chosen.append(part)
    return chosen


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += sum(len(picture.data) for picture in record.pictures if picture.data is not None)
        if len(chunk) >= MAX_RECORDS or size >= MAX_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _digest(*values: Any) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value).encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _state(file: Path) -> tuple[str, int, int]:
    """What tells a file from another state of it."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # ValueError: a name that no system takes
        return str(file), -1, -1
    return str(file), found.st_size, found.st_mtime_ns


def _fingerprint(record: Record) -> str:
    values = (
        record.id,
        record.task,
        record.target,
        record.group,
        record.question,
        [(message.role, message.content) for message in record.messages],
        sorted(record.metadata.items()),
        record.split,
        record.fault,
        [_picture(picture) for picture in record.pictures],
    )
    return repr(values)


def _picture(picture: Picture) -> tuple[Any, ...]:
    source = hashlib.sha256(picture.data).digest() if picture.data is not None else _state(Path(os.fspath(picture.path or "")))
    return source, picture.modality, picture.view
