"""WebDataset shards: tar files in which the members of a sample stand together under one base name."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medtune.data.sources.archives import ArchiveLimits, ArchiveMember, iter_tar
from medtune.data.sources.chats import chat_rows
from medtune.data.sources.hub import hub_address, open_data, revision_of
from medtune.data.sources.rows import RecordFault, Row, data_files, picture_group, split_of
from medtune.errors import DataError
from medtune.language import Text, msg
from medtune.schema import read_fault
from medtune.types import IMAGE_MARK, Fault, GroupKind, Part, Picture, Record, Settings, SourceCard

__all__ = ["PICTURES", "WebDataset", "shard_files"]

PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "dcm", "nii", "nii.gz")
"""Extensions of members that are pictures; ``0.jpg``, ``left.png`` and so on give several to a sample, in the shard's order."""

_SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_SHARDS = 1_000_000


class WebDataset(Settings):
    """``.tar``, ``.tar.gz`` or ``.tar.zst`` shards. A member's name up to the first dot behind the last slash is the sample, the
    rest its key: pictures, and ``json``, ``txt`` or ``cls`` with the words.

    The JSON object gives ``answer`` (also as ``caption``, ``report`` or ``text``), ``question``, ``task``, a group and metadata, or
    a conversation (``messages`` or ``conversations``), which may do without a picture. Without JSON, ``txt`` is the answer; ``cls``
    is the number of a class.
    Members of other keys are passed over, as are names that begin with a dot.
    """

    path: Path
    """A shard, a folder of shards, a pattern (`shards/*.tar`), a range (`shard-{000000..000012}.tar`), or `hf://owner/name/...`."""
    question_key: str = "question"
    """Key of the JSON object with the question."""
    answer_keys: tuple[str, ...] = ("answer", "caption", "report", "text")
    """Keys of the JSON object that may hold the answer; the first that is there counts."""
    group_key: str | None = None
    """Key of the JSON object with the patient, study or volume; without it the picture is the group."""
    group_kind: GroupKind = "patient"
    """What `group_key` holds."""
    metadata_keys: tuple[str, ...] = ()
    """Keys of the JSON object that go into the row's metadata."""
    classes: tuple[str, ...] = ()
    """What the numbers of `cls` mean, from 0."""
    question: str = ""
    """Asked where a sample has no question of its own; without one the task's own instruction is asked."""
    task: str | None = None
    """The task; left out: `open-vqa` where there is a question, else `caption`; `conversation` for conversations."""
    title: str = "WebDataset shards"
    """How reports call the data."""
    licence: str = "not stated"
    """SPDX identifier of the data's licence; yours to fill in."""
    limits: ArchiveLimits = ArchiveLimits()
    """What a shard may unfold to."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="webdataset",
            title=self.title,
            licence=self.licence,
            citation="layout: https://github.com/webdataset/webdataset",
            group_kind=self.group_kind if self.group_key else "image",
            revision=revision_of(self.path),
            notes=()
            if self.group_key
            else ("No patient ids: rows that share a picture (or, without pictures, a question) stay together.",),
        )

    def parts(self) -> list[Part]:
        return [Part(file) for file in shard_files(self.path)]

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def samples_of(self, part: Part) -> Iterator[Record]:
        """The records of one shard.

        Raises:
            ArchiveError: The shard is damaged, cut short, or beyond ``limits``.
        """
        with open_data(part.file) as stream:
            members = iter_tar(stream, self.limits, name=str(part.file))
            shown = (member for member in members if not PurePosixPath(member.name).name.startswith("."))
            seen: set[str] = set()
            for number, (base, group) in enumerate(itertools.groupby(shown, key=_base), start=1):
                sample = list(group)
                yield from (_faulty(part.file, member.name, member.fault) for member in sample if member.fault)
                sound = [member for member in sample if not member.fault]
                if not sound:
                    continue
                try:
                    if base in seen:
                        raise _fault("sample-scattered", msg("The members of the sample do not stand together in the shard."))
                    seen.add(base)
                    yield self._record(part.file, number, base, sound)
                except RecordFault as found:
                    yield _faulty(part.file, base, found.fault)

    def _record(self, file: Path, number: int, base: str, members: list[ArchiveMember]) -> Record:
        keys = {_key(member.name): member.data for member in members}
        if len(keys) < len(members):
            raise _fault("sample-ambiguous", msg("Two members of the sample have the same key."))
        values = _object(keys["json"]) if "json" in keys else {}
        identity = f"{_stem(file)}/{base}"
        pictures = tuple(Picture(data=data, name=f"{identity}.{key}") for key, data in keys.items() if _is_picture(key) and data)
        missing = _fault("picture-missing", msg("The sample has no picture; it has {keys}.", keys=", ".join(keys)))
        is_chat = any(key in values for key in ("messages", "conversations"))
        if not pictures and (not is_chat or values.get("images") or values.get("image")):
            raise missing
        metadata = {key: values[key] for key in self.metadata_keys if values.get(key) is not None}
        place = f"{file}:{base}"
        if is_chat:
            row = Row(file, number, {key: value for key, value in values.items() if key not in ("images", "image")})
            record = chat_rows(row.values, file.parent, self.task or "conversation").record(row, identity)
            if not pictures and (record.pictures or any(IMAGE_MARK in message.content for message in record.messages)):
                raise missing
            group = self._group(values, pictures, record.group)
            question, target, messages = record.question, record.target, record.messages
            metadata = {**record.metadata, **metadata}
        else:
            group = self._group(values, pictures, "")
            question = str(values.get(self.question_key) or self.question).strip()
            target, messages = self._answer(values, keys), ()
        task = str(values.get("task") or self.task or ("conversation" if messages else "open-vqa" if question else "caption"))
        return Record(identity, task, pictures, target, group, question, messages, metadata, split_of(file), place=place)

    def _answer(self, values: dict[str, Any], keys: dict[str, bytes]) -> str:
        for name in self.answer_keys:
            if isinstance(values.get(name), (str, int, float)) and str(values[name]).strip():
                return str(values[name]).strip()
        if keys.get("txt", b"").strip():
            return _text(keys["txt"])
        if "cls" in keys:
            number = _text(keys["cls"])
            if not self.classes:
                return number
            if not number.isdecimal() or int(number) >= len(self.classes):
                raise _fault("class-unknown", msg("The class {number} is not among the names given.", number=number[:20]))
            return self.classes[int(number)]
        raise _fault("answer-missing", msg("The sample has no answer; it has {keys}.", keys=", ".join(keys)))

    def _group(self, values: dict[str, Any], pictures: tuple[Picture, ...], of_words: str) -> str:
        """The group that the JSON names, else that of the first picture, else that of a conversation's words."""
        if self.group_key is None:
            return picture_group(pictures[0]) if pictures else of_words
        value = str(values.get(self.group_key) or "").strip()
        if not value:
            raise _fault("group-missing", msg("The sample's JSON has no value under {key!r}.", key=self.group_key))
        return value


def shard_files(path: Path) -> list[Path]:
    """The shards that a path names, in order; each number of a range must be there.

    Raises:
        DataError: A shard is missing, or none is there.
    """
    ranges = _RANGE.search(str(path))
    if ranges is None:
        return data_files(path, _SHARDS)
    first, last = ranges.groups()
    if not int(first) <= int(last) < int(first) + _MAX_SHARDS:
        raise DataError(
            msg("The range {range} names no shards.", range=ranges.group(0)), file=path, key="data.sources.options.path"
        )
    names = [
        f"{str(path)[: ranges.start()]}{n:0{len(first)}d}{str(path)[ranges.end() :]}" for n in range(int(first), int(last) + 1)
    ]
    return [file for name in names for file in shard_files(Path(name))]


def _base(member: ArchiveMember) -> str:
    path = PurePosixPath(member.name)
    return (path.parent / path.name.partition(".")[0]).as_posix()


def _key(name: str) -> str:
    return PurePosixPath(name).name.partition(".")[2].lower()


def _is_picture(key: str) -> bool:
    return any(key == name or key.endswith(f".{name}") for name in PICTURES)


def _stem(file: Path) -> str:
    address = hub_address(file)
    return PurePosixPath(address.inside if address else file.name).name.partition(".")[0]


def _object(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _fault("not-json", msg("The sample's JSON cannot be read: {error}", error=read_fault(error))) from error
    if not isinstance(values, dict):
        raise _fault("not-an-object", msg("The record is not a JSON object, but {kind}.", kind=type(values).__name__))
    return values


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise _fault("not-text", msg("The sample's text is not UTF-8.")) from error


def _fault(reason: str, what: Text) -> RecordFault:
    return RecordFault(Fault(reason, what, msg("Correct the sample in the shard, or leave it out.")))


def _faulty(file: Path, name: str, fault: Fault) -> Record:
    identity = f"{_stem(file)}/{name}"
    placed = dataclasses.replace(fault, file=fault.file or f"{file}:{name}")
    return Record(id=identity, task="", pictures=(), target="", group=identity, fault=placed)
