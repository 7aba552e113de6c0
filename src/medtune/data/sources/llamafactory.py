"""Any entry of a LLaMA-Factory ``dataset_info.json`` that lies on this machine."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from medtune.data.sources.conversations import Columns, Conversation, Tags, from_alpaca, from_turns
from medtune.data.sources.rows import SUFFIXES, RecordFault, Row, data_files, faulty, picture_group, picture_of, read_rows
from medtune.errors import DataError
from medtune.language import Text, msg
from medtune.types import Fault, Picture, Record, Settings, SourceCard

__all__ = ["LlamaFactory"]

_DEFAULT_COLUMNS = Columns(prompt="instruction", query="input", response="output", messages="conversations")
_DEFAULT_TAGS = Tags(
    role_tag="from",
    content_tag="value",
    user_tag="human",
    assistant_tag="gpt",
    observation_tag="observation",
    function_tag="function_call",
    system_tag="system",
)
_OPENAI_COLUMNS = Columns(messages="messages")
_OPENAI_TAGS = Tags(role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant", system_tag="system")
_REMOTE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


class _Entry(BaseModel):
    """The keys of an entry that matter here; LLaMA-Factory has more, and users add statistics of their own."""

    model_config = ConfigDict(frozen=True)

    file_name: str
    formatting: str = "alpaca"
    ranking: bool = False
    num_samples: int | None = None
    columns: Columns = _DEFAULT_COLUMNS
    tags: Tags = _DEFAULT_TAGS


class LlamaFactory(Settings):
    """Alpaca, ShareGPT (``conversations/from/value`` or ``messages/role/content``) and OpenAI messages, with or without pictures,
    from JSON, JSON lines, CSV, Parquet or Arrow.

    As in LLaMA-Factory, an entry that gives ``columns`` or ``tags`` gives all of them: a name it leaves out is not there. Rows that
    LLaMA-Factory drops with a warning (order of roles, number of marks) are left out here with a reason.
    """

    path: Path
    """The folder with `dataset_info.json` (LLaMA-Factory's `dataset_dir`), or that file."""
    dataset: str
    """Name of the entry."""
    media_dir: Path | None = None
    """Where relative picture paths start; the folder of `dataset_info.json` when left out."""
    group_column: str | None = None
    """A column with the patient, study or volume of a row. Without it, rows of one picture are a group."""
    task: str = "conversation"
    """The task that judges the answers."""
    licence: str = "not stated"
    """SPDX identifier of the data's licence; yours to fill in."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="llamafactory",
            title=self.dataset,
            licence=self.licence,
            citation="",
            group_kind="patient" if self.group_column else "image",
            notes=()
            if self.group_column
            else ("No patient ids: rows that share a picture (or, without pictures, a question) stay together.",),
        )

    def samples(self) -> Iterator[Record]:
        info = self._info
        entry = self._entry(info)
        media = self.media_dir.expanduser() if self.media_dir else info.parent
        count = 0
        for file in data_files(info.parent / entry.file_name, tuple(SUFFIXES)):
            for row in read_rows(file):
                if entry.num_samples is not None and count >= entry.num_samples:
                    return
                count += 1
                identity = str(row.values.get("id") or row.id)
                try:
                    yield self._record(row, entry, identity, media)
                except RecordFault as found:
                    yield faulty(row, found.fault, record_id=identity)

    @property
    def _info(self) -> Path:
        path = self.path.expanduser()
        return path / "dataset_info.json" if path.is_dir() else path

    def _entry(self, info: Path) -> _Entry:
        try:
            entries = json.loads(info.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise self._error(
                msg("dataset_info.json cannot be read: {error}", error=str(error).splitlines()[0]),
                msg("Give the folder that holds it as options.path."),
            ) from error
        if not isinstance(entries, dict) or not isinstance(entries.get(self.dataset), dict):
            known = list(entries) if isinstance(entries, dict) else []
            nearest = difflib.get_close_matches(self.dataset, known, n=1)
            remedy = (
                msg("Did you mean {nearest}? Known: {known}.", nearest=nearest[0], known=", ".join(known))
                if nearest
                else msg("Known: {known}.", known=", ".join(known) or "-")
            )
            raise self._error(msg("There is no entry {dataset!r}.", dataset=self.dataset), remedy)
        values = entries[self.dataset]
        remote = next((key for key in _REMOTE if values.get(key)), None)
        if remote is not None:
            raise self._error(
                msg(
                    "The entry {dataset!r} names data elsewhere ({key}); only files on this machine are read.",
                    dataset=self.dataset,
                    key=remote,
                ),
                msg("Download the files and give them as file_name."),
            )
        formatting = values.get("formatting", "alpaca")
        if formatting == "openai":
            values = {"columns": _OPENAI_COLUMNS.model_dump(), "tags": _OPENAI_TAGS.model_dump(), **values}
        try:
            entry = _Entry.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise self._error(
                msg("The entry {dataset!r} is wrong at {place}: {error}", dataset=self.dataset, place=place, error=first["msg"]),
                msg("Correct dataset_info.json."),
            ) from error
        self._check(entry)
        return entry

    def _check(self, entry: _Entry) -> None:
        remedy = msg("Correct dataset_info.json.")
        if entry.ranking:
            raise self._error(
                msg("The entry {dataset!r} holds preference pairs (ranking); supervised data are expected.", dataset=self.dataset),
                msg("Choose an entry with one answer a question."),
            )
        if entry.formatting not in ("alpaca", "sharegpt", "openai"):
            raise self._error(
                msg("The entry {dataset!r} has the formatting {formatting!r}.", dataset=self.dataset, formatting=entry.formatting),
                msg("Known: {known}.", known="alpaca, sharegpt, openai"),
            )
        if entry.formatting == "alpaca":
            missing = [name for name in ("prompt", "response") if getattr(entry.columns, name) is None]
        else:
            missing = [name for name in ("messages",) if entry.columns.messages is None]
            missing += [
                name for name in ("role_tag", "content_tag", "user_tag", "assistant_tag") if getattr(entry.tags, name) is None
            ]
        if missing:
            raise self._error(
                msg(
                    "The entry {dataset!r} gives columns or tags, but not {missing}.",
                    dataset=self.dataset,
                    missing=", ".join(missing),
                ),
                remedy,
            )

    def _record(self, row: Row, entry: _Entry, identity: str, media: Path) -> Record:
        if row.fault is not None:
            raise RecordFault(row.fault)
        for kind in ("videos", "audios", "tools"):
            column = getattr(entry.columns, kind)
            if column is not None and row.values.get(column):
                raise RecordFault(
                    Fault(
                        f"{kind}-unsupported",
                        msg("The record brings {kind}, which are not supported.", kind=kind),
                        msg("Leave the record out."),
                    )
                )
        read = from_alpaca if entry.formatting == "alpaca" else None
        conversation: Conversation = read(row.values, entry.columns) if read else from_turns(row.values, entry.columns, entry.tags)
        pictures = self._pictures(row.values, entry, identity, media, conversation.addresses)
        metadata: dict[str, JsonValue] = {"source_notes": list(conversation.source_notes)} if conversation.source_notes else {}
        question = conversation.messages[-2].content
        return Record(
            id=identity,
            task=self.task,
            pictures=pictures,
            target=conversation.messages[-1].content,
            group=self._group(row, pictures, question, media),
            question=question,
            messages=conversation.messages,
            metadata=metadata,
            place=row.place,
        )

    def _pictures(
        self, values: Mapping[str, Any], entry: _Entry, identity: str, media: Path, addresses: Sequence[str]
    ) -> tuple[Picture, ...]:
        found = values.get(entry.columns.images) if entry.columns.images is not None else None
        if found is None or found == "":
            found = addresses
        if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
            found = [found]
        names = [
            item if isinstance(item, str) and not item.startswith("data:") else f"{identity}#{index}"
            for index, item in enumerate(found)
        ]
        return tuple(picture_of(item, name=name, base=media) for item, name in zip(found, names, strict=True))

    def _group(self, row: Row, pictures: Sequence[Picture], question: str, media: Path) -> str:
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
            return picture_group(pictures[0], media)
        return hashlib.sha256(question.strip().encode()).hexdigest()[:16]

    def _error(self, what: Text, remedy: Text) -> DataError:
        return DataError(what, file=self._info, remedy=remedy)
