"""A table of one's own: any columns, named or found by their usual names."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import Field, JsonValue

from medtune.data.sources.delimited import Encoding, read_delimited
from medtune.data.sources.hub import hub_address, revision_of
from medtune.data.sources.rows import (
    RecordFault,
    Row,
    data_files,
    faulty,
    metadata_value,
    parts_of,
    picture_group,
    picture_of,
    read_rows,
    split_of,
)
from medtune.errors import DataError
from medtune.imaging.pseudonym import Pseudonyms, default_key_file, load_key
from medtune.language import Text, msg
from medtune.types import Fault, GroupKind, Part, Picture, Record, Settings, SourceCard, SplitName

__all__ = ["COLUMNS", "Csv", "Table"]

COLUMNS: dict[str, tuple[str, ...]] = {
    key: tuple(names.split())
    for key, names in {
        "image": "image images image_path image_paths img_path image_name img_name picture file_name filename dicom dicom_path "
        "path 图像 图片 影像 图像路径 文件名",
        "question": "question prompt query instruction 问题 提问",
        "answer": "answer report caption response output target text findings 答案 回答 报告 描述",
        "group": "patient patient_id patientid subject subject_id 患者 病人 病历号 患者编号 study study_id 检查号 volume",
        "split": "split subset 数据集划分",
    }.items()
}
"""Names under which a column is found when an option does not name it; case, blanks and hyphens do not count."""

_KINDS: dict[str, GroupKind] = {"study": "study", "study_id": "study", "检查号": "study", "volume": "volume"}
_DELIMITED = (".csv", ".tsv", ".txt")
"""The last only where a path names the file: a folder of pictures has other texts beside them."""
_SPLITS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "validate": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "训练": "train",
    "验证": "validation",
    "测试": "test",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """The columns of one file; None = no such column."""

    image: str | None
    question: str | None
    answer: str
    group: str | None
    split: str | None


class Table(Settings):
    """CSV, TSV, JSON, JSON lines, Parquet or Arrow with one row a question, here or on a hub. The options say which column holds
    what; those left out are found by their usual names (English and Chinese).

    Pictures are paths (several separated by `;`, or a list), or bytes in Parquet. DICOM and NIfTI files are pictures, too.

    What a group column or a path holds may name a patient. Unless the data are de-identified already, groups and ids become
    keyed pseudonyms.
    """

    name: ClassVar[str] = "table"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow")

    path: Path
    """A file, a folder, a pattern, `hf://owner/name[@revision][/file]` or `modelscope://...`."""
    media_dir: Path | None = None
    """Where relative picture paths start; the file's folder when left out."""
    image: str | None = None
    """Column with the picture or pictures."""
    question: str | None = None
    """Column with the question; without one the task's own instruction is asked."""
    answer: str | None = None
    """Column with the reference answer."""
    group: str | None = None
    """Column with the patient, study or volume; without one the picture is the group."""
    group_kind: GroupKind | None = None
    """What the group column holds; left out, what its name says, else patients."""
    split: str | None = None
    """Column with train, validation or test; without one a file's name may begin with it. For `data.split.kind: official`."""
    id: str | None = None
    """Column with an id of the row; never found by its name, for it may be a patient's. Without one rows are counted."""
    task_column: str | None = None
    """Column with the task."""
    task: str | None = None
    """The task; left out: `open-vqa` with pictures and question, `report` with pictures alone, `text-qa` without pictures."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """What goes into the row's metadata: name -> column. `modality` also becomes the picture's."""
    separator: str = ";"
    """Between several picture paths in one field."""
    encoding: Encoding | None = None
    """Of CSV files, such as `gb18030`; by the byte order mark, else UTF-8, when left out."""
    delimiter: str | None = None
    """Of CSV files; found in the head line when left out."""
    already_deidentified: bool | None = None
    """Whether groups and ids may be kept as they are. Left out: yes for data on a hub, no for files."""
    key_file: Path | None = None
    """Key of the pseudonyms, outside the data; `~/.config/medtune/pseudonym.key`, made at first use, when left out."""
    title: str | None = None
    """How reports call the data."""
    licence: str = "not stated"
    """SPDX identifier of the data's licence; yours to fill in."""
    local_only: bool = False
    """The data may not be sent to another machine."""

    @property
    def card(self) -> SourceCard:
        kind = self._kind
        anonymous = kind == "image"
        return SourceCard(
            name=self.name,
            title=self.title or PurePosixPath(str(self.path)).stem or self.name,
            licence=self.licence,
            citation="",
            group_kind=kind,
            local_only=self.local_only,
            revision=revision_of(self.path),
            notes=("No patient ids: rows that share a picture (or, without pictures, a question) stay together.",)
            if anonymous
            else (),
        )

    def parts(self) -> list[Part]:
        files = data_files(self.path, self.suffixes)
        return [part for file in files for part in ([Part(file)] if _delimited(file) else parts_of([file]))]

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def samples_of(self, part: Part) -> Iterator[Record]:
        found: _Found | None = None
        for row in self._rows(part):
            identity = self._identity(row)
            try:
                if row.fault is not None:
                    raise RecordFault(row.fault)
                found = found or self._columns(row.file, list(row.values))
                yield self._record(row, identity, found)
            except RecordFault as fault:
                yield faulty(row, fault.fault, record_id=identity)

    def _rows(self, part: Part) -> Iterator[Row]:
        if _delimited(part.file):
            return read_delimited(part.file, encoding=self.encoding, delimiter=self.delimiter)
        return read_rows(part.file, part.start, part.stop)

    @cached_property
    def _kind(self) -> GroupKind:
        """What the groups are, from the options and the head of the first file."""
        column = self.group
        if column is None:
            row = next((row for part in self.parts()[:1] for row in self._rows(part) if row.fault is None), None)
            column = _named("group", list(row.values)) if row is not None else None
        if column is None:
            return "image"
        return self.group_kind or _KINDS.get(_usual(column), "patient")

    def _columns(self, file: Path, names: Sequence[str]) -> _Found:
        chosen = {
            "image": self.image,
            "question": self.question,
            "answer": self.answer,
            "group": self.group,
            "split": self.split,
            "id": self.id,
            "task_column": self.task_column,
            **{f"metadata.{key}": column for key, column in self.metadata.items()},
        }
        for option, column in chosen.items():
            if column is not None and column not in names:
                raise _unknown(file, option, column, names)
        found = {key: chosen[key] or _named(key, names) for key in COLUMNS}
        answer = found.pop("answer")
        if answer is None:
            raise _unknown(file, "answer", "answer", names)
        return _Found(answer=answer, **found)

    def _record(self, row: Row, identity: str, found: _Found) -> Record:
        values = row.values
        metadata: dict[str, JsonValue] = {}
        for key, column in self.metadata.items():
            if values.get(column) not in (None, ""):
                metadata[key] = metadata_value(key, values[column])
        modality = metadata.get("modality")
        pictures = self._pictures(row, identity, found.image, modality if isinstance(modality, str) else None)
        question = _text(values.get(found.question)) if found.question else ""
        answer = values.get(found.answer)
        if isinstance(answer, (Mapping, list, bytes)):
            raise RecordFault(
                Fault(
                    "answer-not-text",
                    msg("The answer is not text, but {kind}.", kind=type(answer).__name__),
                    msg("Name another column as options.answer."),
                )
            )
        if found.question and not question:
            raise RecordFault(
                Fault("question-empty", msg("The record has no question."), msg("Complete the record in the source."))
            )
        task = _text(values.get(self.task_column)) if self.task_column else ""
        return Record(
            id=identity,
            task=task or self.task or ("text-qa" if not pictures else "open-vqa" if question else "report"),
            pictures=pictures,
            target=_text(answer),
            group=self._group(row, found, pictures, question),
            question=question,
            metadata=metadata,
            split=_SPLITS.get(_text(values.get(found.split)).lower()) if found.split else split_of(row.file),
            place=row.place,
        )

    def _pictures(self, row: Row, identity: str, column: str | None, modality: str | None) -> tuple[Picture, ...]:
        value = row.values.get(column) if column is not None else None
        if column is None:
            return ()
        items: Sequence[Any]
        if isinstance(value, str) and not value.startswith("data:"):
            # Tables of Windows programs write folder\file; no file of these data sets has a backslash in its name.
            items = [part.strip().replace("\\", "/") for part in value.split(self.separator) if part.strip()]
        else:
            items = value if isinstance(value, list) else [value]
        base = self.media_dir.expanduser() if self.media_dir else row.file.parent
        found = [picture_of(item, name=f"{identity}#{index}", base=base) for index, item in enumerate(items or [None])]
        # A hospital's file names are called after patients; what is wrong with one is told by the row that names it.
        return tuple(Picture(item.path, item.data, item.name, modality, private=not self._deidentified) for item in found)

    def _group(self, row: Row, found: _Found, pictures: Sequence[Picture], question: str) -> str:
        if found.group is None:
            if not pictures:
                return hashlib.sha256(question.encode()).hexdigest()[:16]
            if pictures[0].data is not None:
                return picture_group(pictures[0])
            return self._pseudonym(
                "instance", picture_group(pictures[0], self.media_dir.expanduser() if self.media_dir else self._root)
            )
        value = _text(row.values.get(found.group))
        if not value:
            raise RecordFault(
                Fault(
                    "group-missing",
                    msg("The record has no value in the group column {column!r}.", column=found.group),
                    msg("Fill the column in: a row without a patient cannot be placed in a split."),
                )
            )
        return self._pseudonym("patient", value)

    def _identity(self, row: Row) -> str:
        value = _text(row.values.get(self.id)) if self.id is not None else ""
        return self._pseudonym("instance", value) if value else f"{self._called(row.file)}-{row.number}"

    def _called(self, file: Path) -> str:
        """A file's part of its rows' ids: tables of one name may lie in several folders, which may be called after patients."""
        address = hub_address(file)
        if address is not None:
            return str(PurePosixPath(address.inside).with_suffix(""))
        below = file.relative_to(self._root).with_suffix("").as_posix()
        return below if "/" not in below else self._pseudonym("instance", below)

    @cached_property
    def _root(self) -> Path:
        """The folder of the tables: ``path``, or that of the file or of the fixed part of the pattern it names."""
        folder = self.path.expanduser()
        while not folder.is_dir():
            folder = folder.parent
        return folder

    def _pseudonym(self, kind: Any, value: str) -> str:
        return value if self._deidentified else self._pseudonyms.name(kind, value)

    @property
    def _deidentified(self) -> bool:
        if self.already_deidentified is not None:
            return self.already_deidentified
        return hub_address(self.path) is not None

    @cached_property
    def _pseudonyms(self) -> Pseudonyms:
        return Pseudonyms(load_key((self.key_file or default_key_file()).expanduser(), create=True, outside=[self._root]))


class Csv(Table):
    """A CSV or TSV file with a head line and, as a rule, an image column. The source `table`, for these files only."""

    name: ClassVar[str] = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")


def _delimited(file: Path) -> bool:
    return file.suffix.lower() in _DELIMITED


def _named(key: str, names: Sequence[str]) -> str | None:
    """The column that has one of the usual names of ``key``, the more usual first."""
    plain = {_usual(name): name for name in reversed(names)}
    return next((plain[name] for name in COLUMNS[key] if name in plain), None)


def _usual(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _unknown(file: Path, option: str, column: str, names: Sequence[str]) -> DataError:
    nearest = difflib.get_close_matches(column, names, n=1)
    remedy: Text = (
        msg("Did you mean {nearest}? Known: {known}.", nearest=nearest[0], known=", ".join(names))
        if nearest
        else msg("Name the column with options.{option}. Known: {known}.", option=option, known=", ".join(names))
    )
    return DataError(
        msg("The file has no column {column!r}.", column=column), file=file, key=f"data.sources.options.{option}", remedy=remedy
    )
