"""Questions and answers in text, in the Alpaca layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from medtune.data.sources.conversations import ALPACA_COLUMNS, from_alpaca
from medtune.data.sources.hub import revision_of
from medtune.data.sources.rows import RecordFault, data_files, faulty, read_rows, split_of
from medtune.types import Record, Settings, SourceCard

__all__ = ["Alpaca"]


class Alpaca(Settings):
    """JSON, JSON lines, CSV or Parquet with ``instruction``, ``input``, ``output`` and, optionally, ``system`` and ``history``
    (a list of [question, answer] pairs)."""

    path: Path
    """A file, a folder of files, or a pattern."""
    title: str = "Alpaca questions and answers"
    """How reports call the data."""
    licence: str = "not stated"
    """SPDX identifier of the data's licence; yours to fill in."""
    language: str | None = None
    """Language of the texts (`en`, `zh`), for subgroups."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="alpaca",
            title=self.title,
            licence=self.licence,
            citation="layout: Taori et al., Stanford Alpaca, 2023",
            group_kind="row",
            revision=revision_of(self.path),
            notes=("Rows with the same question stay in one split; nothing else is known about what belongs together.",),
        )

    def samples(self) -> Iterator[Record]:
        for file in data_files(self.path, (".json", ".jsonl", ".csv", ".parquet")):
            split = split_of(file)
            for row in read_rows(file):
                identity = str(row.values.get("id") or row.id)
                try:
                    if row.fault is not None:
                        raise RecordFault(row.fault)
                    conversation = from_alpaca(row.values, ALPACA_COLUMNS)
                except RecordFault as found:
                    yield faulty(row, found.fault, record_id=identity)
                    continue
                metadata: dict[str, JsonValue] = {}
                if self.language is not None:
                    metadata["language"] = self.language
                if conversation.source_notes:
                    metadata["source_notes"] = list(conversation.source_notes)
                *earlier, question, answer = conversation.messages
                yield Record(
                    id=identity,
                    task="text-qa",
                    pictures=(),
                    target=answer.content,
                    group=hashlib.sha256(question.content.strip().encode()).hexdigest()[:16],
                    question=question.content,
                    messages=conversation.messages if earlier else (),
                    metadata=metadata,
                    split=split,
                    place=row.place,
                )
