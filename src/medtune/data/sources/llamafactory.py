"""Any entry of a LLaMA-Factory ``dataset_info.json`` that lies on this machine."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from medtune.data.sources.chat_rows import ChatRows
from medtune.data.sources.conversations import Columns, Tags
from medtune.data.sources.rows import SUFFIXES, RecordFault, data_files, faulty, read_rows
from medtune.errors import DataError
from medtune.language import Text, msg
from medtune.schema import read_fault
from medtune.types import Record, Settings, SourceCard

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
        rows = ChatRows(
            formatting="alpaca" if entry.formatting == "alpaca" else "turns",
            columns=entry.columns,
            tags=entry.tags,
            media=media,
            task=self.task,
            group_column=self.group_column,
        )
        count = 0
        for file in data_files(info.parent / entry.file_name, tuple(SUFFIXES)):
            for row in read_rows(file):
                if entry.num_samples is not None and count >= entry.num_samples:
                    return
                count += 1
                identity = str(row.values.get("id") or row.id)
                try:
                    yield rows.record(row, identity)
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
                msg("dataset_info.json cannot be read: {error}", error=read_fault(error)),
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
            raise self._error(
                msg("The entry {dataset!r} is wrong: {error}", dataset=self.dataset, error=read_fault(error)),
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

    def _error(self, what: Text, remedy: Text) -> DataError:
        return DataError(what, file=self._info, remedy=remedy)
