"""A row that holds a conversation becomes a record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from medtune.data.sources.conversations import Columns, Conversation, Tags, from_alpaca, from_turns
from medtune.data.sources.rows import RecordFault, Row, picture_group, picture_of
from medtune.language import msg
from medtune.types import Fault, Picture, Record

__all__ = ["ChatRows"]


@dataclass(frozen=True, slots=True)
class ChatRows:
    """How the rows of a file are read.

    Attributes:
        columns: Which column holds what.
        tags: The keys of a turn and the names of the roles; not used for Alpaca rows.
        media: Where relative picture paths start.
        group_column: The column with the patient, study or volume. None: rows of one picture (or question) are a group.
    """

    formatting: Literal["alpaca", "turns"]
    columns: Columns
    tags: Tags
    media: Path
    task: str
    group_column: str | None = None

    def record(self, row: Row, identity: str) -> Record:
        """The record of a row.

        Raises:
            RecordFault: It is damaged, or no conversation.
        """
        if row.fault is not None:
            raise RecordFault(row.fault)
        for kind in ("videos", "audios", "tools"):
            column = getattr(self.columns, kind)
            if column is not None and row.values.get(column):
                raise RecordFault(
                    Fault(
                        f"{kind}-unsupported",
                        msg("The record brings {kind}, which are not supported.", kind=kind),
                        msg("Leave the record out."),
                    )
                )
        if self.formatting == "alpaca":
            conversation = from_alpaca(row.values, self.columns)
        else:
            conversation = from_turns(row.values, self.columns, self.tags)
        pictures = self._pictures(row, identity, conversation)
        metadata: dict[str, JsonValue] = {"source_notes": list(conversation.source_notes)} if conversation.source_notes else {}
        question = conversation.messages[-2].content
        return Record(
            id=identity,
            task=self.task,
            pictures=pictures,
            target=conversation.messages[-1].content,
            group=self._group(row, pictures, question),
            question=question,
            messages=conversation.messages,
            metadata=metadata,
            place=row.place,
        )

    def _pictures(self, row: Row, identity: str, conversation: Conversation) -> tuple[Picture, ...]:
        found = row.values.get(self.columns.images) if self.columns.images is not None else None
        if found is None or found == "":
            found = conversation.addresses
        if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
            found = [found]
        names = [
            item if isinstance(item, str) and not item.startswith("data:") else f"{identity}#{index}"
            for index, item in enumerate(found)
        ]
        return tuple(picture_of(item, name=name, base=self.media) for item, name in zip(found, names, strict=True))

    def _group(self, row: Row, pictures: Sequence[Picture], question: str) -> str:
        if self.group_column is not None:
            value = row.values.get(self.group_column)
            if value is None or not str(value).strip():
                raise RecordFault(
                    Fault(
                        "group-missing",
                        msg("The record has no value in the group column {column!r}.", column=self.group_column),
                        msg("Fill the column in: a row without a patient cannot be placed in a split."),
                    )
                )
            return str(value).strip()
        if pictures:
            return picture_group(pictures[0], self.media)
        return hashlib.sha256(question.strip().encode()).hexdigest()[:16]
