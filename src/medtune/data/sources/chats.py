"""Files of conversations that come without a ``dataset_info.json``: ShareGPT, LLaVA and OpenAI's chat format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from medtune.data.sources.chat_rows import ChatRows
from medtune.data.sources.conversations import Columns, Tags
from medtune.data.sources.hub import revision_of
from medtune.data.sources.rows import SUFFIXES, RecordFault, data_files, faulty, parts_of, read_rows, split_of
from medtune.types import Part, Record, Settings, SourceCard

__all__ = ["OpenAiChat", "ShareGpt", "chat_rows"]

_TURNS = ("conversations", "messages", "conversation")
_PICTURES = ("images", "image")
_KEYS = (("from", "value"), ("role", "content"))
_USER = ("human", "user")
_ASSISTANT = ("gpt", "assistant")
_SYSTEM = ("system", "developer")
"""``developer`` is OpenAI's name for the system's role since its o1 models."""


class ShareGpt(Settings):
    """JSON, JSON lines or Parquet with a list of turns in ``conversations`` (or ``messages``), each with ``from`` and ``value`` (or
    ``role`` and ``content``), pictures in ``images`` (or ``image``, as LLaVA has it) or inside the content parts.

    The keys are told from each row; turns of tools and unknown roles are faults.
    """

    name: ClassVar[str] = "sharegpt"
    title_default: ClassVar[str] = "ShareGPT conversations"
    layout: ClassVar[str] = "layout: the ShareGPT files and LLaVA (Liu et al., Visual Instruction Tuning, arXiv:2304.08485)"

    path: Path
    """A file, a folder of files, a pattern, or `hf://owner/name[@revision]/file`."""
    media_dir: Path | None = None
    """Where relative picture paths start; the file's folder when left out."""
    group_column: str | None = None
    """A column with the patient, study or volume of a row. Without it, rows of one picture are a group."""
    task: str = "conversation"
    """The task that judges the answers."""
    title: str | None = None
    """How reports call the data."""
    licence: str = "not stated"
    """SPDX identifier of the data's licence; yours to fill in."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name=self.name,
            title=self.title or self.title_default,
            licence=self.licence,
            citation=self.layout,
            group_kind="patient" if self.group_column else "image",
            revision=revision_of(self.path),
            notes=()
            if self.group_column
            else ("No patient ids: rows that share a picture (or, without pictures, a question) stay together.",),
        )

    def parts(self) -> list[Part]:
        return parts_of(data_files(self.path, tuple(suffix for suffix in SUFFIXES if suffix != ".csv")))

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def samples_of(self, part: Part) -> Iterator[Record]:
        media = self.media_dir.expanduser() if self.media_dir else part.file.parent
        split = split_of(part.file)
        for row in read_rows(part.file, part.start, part.stop):
            identity = str(row.values.get("id") or row.id)
            try:
                if row.fault is not None:
                    raise RecordFault(row.fault)
                record = chat_rows(row.values, media, self.task, self.group_column).record(row, identity)
                yield dataclasses.replace(record, split=split)
            except RecordFault as found:
                yield faulty(row, found.fault, record_id=identity)


class OpenAiChat(ShareGpt):
    """OpenAI's chat format, a JSON object a line: ``{"messages": [{"role": ..., "content": text or parts}, ...]}``. A part
    ``{"type": "image_url", "image_url": {"url": ...}}`` holds a ``data:`` address or a path on this machine."""

    name: ClassVar[str] = "openai"
    title_default: ClassVar[str] = "OpenAI chat messages"
    layout: ClassVar[str] = "layout: OpenAI, chat format of fine-tuning files"


def chat_rows(values: Mapping[str, Any], media: Path, task: str, group_column: str | None = None) -> ChatRows:
    """How one row's conversation is to be read, told from its keys and the roles of its turns."""
    column = next((name for name in _TURNS if name in values), _TURNS[0])
    turns = values.get(column)
    turns = [turn for turn in turns if isinstance(turn, Mapping)] if isinstance(turns, Sequence) else []
    role, content = next((keys for keys in _KEYS if any(keys[0] in turn for turn in turns)), _KEYS[0])
    roles = {turn.get(role) for turn in turns}
    columns = Columns(
        messages=column,
        images=next((name for name in _PICTURES if values.get(name)), None),
        system="system" if isinstance(values.get("system"), str) else None,
        videos="videos",
        audios="audios",
    )
    tags = Tags(
        role_tag=role,
        content_tag=content,
        user_tag=_first(_USER, roles),
        assistant_tag=_first(_ASSISTANT, roles),
        system_tag=_first(_SYSTEM, roles),
        observation_tag="observation",
        function_tag="function_call",
    )
    return ChatRows("turns", columns, tags, media, task, group_column)


def _first(names: Sequence[str], present: set[Any]) -> str:
    return next((name for name in names if name in present), names[0])
