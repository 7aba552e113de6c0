"""A data set folder on disk.

::

    dataset/
      manifest.json          what it is, and the hashes of the files below
      dataset_info.json      makes the folder a LLaMA-Factory data set
      train.jsonl, validation.jsonl, test.jsonl
                             rows: id, messages, images, task, target, group, source, metadata (JSON text)
      images.jsonl           one ImageRef a line
      left_out.jsonl         records that did not become rows, and why
      groups.csv             group,split: a list for data.split.assigned of a later data set
      README.md, README.zh-CN.md
                             what it is, in words
      images/<2 hex>/<16 hex>.<jpg|png>, or images/<6 digits>.tar (data.storage: shards)

``metadata`` is JSON *text* because Arrow readers, LLaMA-Factory's among them, refuse rows whose objects differ in their keys.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from pydantic import JsonValue, ValidationError

from medtune.data.images import ImageIndex, stays_inside
from medtune.data.line_file import LineFile
from medtune.data.split import SPLITS
from medtune.errors import DataError
from medtune.imaging.part import read_part
from medtune.language import Field, Text, msg
from medtune.schema import read_fault
from medtune.types import Document, Fault, FilePart, ImageRef, Manifest, Message, Sample, SplitName

__all__ = [
    "Dataset",
    "LeftOut",
    "RowError",
    "RowSequence",
    "file_sha256",
    "image_line",
    "llamafactory_entry",
    "sample_of",
    "write_row",
]


class LeftOut(Document):
    """A line of ``left_out.jsonl``: a record that did not become a row. ``message`` is English; ``text`` can be translated."""

    source: str
    id: str
    reason: str
    message: str
    text: Text
    remedy: Text | None = None
    file: str | None = None

    @classmethod
    def of(cls, fault: Fault, *, source: str, record_id: str) -> LeftOut:
        """The line for a record with a fault."""
        return cls(
            source=source,
            id=_writable(record_id),
            reason=fault.reason,
            message=_writable(fault.message.render("en")),
            text=_writable_text(fault.message),
            remedy=None if fault.remedy is None else _writable_text(fault.remedy),
            file=None if fault.file is None else _writable(fault.file),
        )


def _writable(text: str) -> str:
    """The text with what UTF-8 cannot write (lone surrogates, of a cut JSON text or a file name in no encoding) as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _writable_text(text: Text) -> Text:
    def field(value: Field) -> Field:
        return _writable_text(value) if isinstance(value, Text) else _writable(value) if isinstance(value, str) else value

    return Text(text.template, {name: field(value) for name, value in text.fields.items()})


class RowError(ValueError):
    """A row that is not a sample. ``code`` is stable (kebab-case)."""

    def __init__(self, code: str, message: Text, *, row_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.row_id = row_id


def write_row(sample: Sample) -> str:
    """A sample as a line of a split file, without the line end."""
    row = {
        "id": sample.id,
        "messages": [message.model_dump() for message in sample.messages],
        "images": [image.path for image in sample.images],
        "task": sample.task,
        "target": sample.target,
        "group": sample.group,
        "source": sample.source,
        "metadata": json.dumps(sample.metadata, ensure_ascii=False, sort_keys=True),
    }
    return json.dumps(row, ensure_ascii=False)


def llamafactory_entry(file_name: str, *, with_pictures: bool = True) -> dict[str, Any]:
    """What ``dataset_info.json`` says of a file of rows (LLaMA-Factory's ``data/README.md`` describes the keys)."""
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"} if with_pictures else {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }


def image_line(ref: ImageRef) -> str:
    """A picture as a line of ``images.jsonl``, without the line end."""
    return ref.model_dump_json(exclude={"shard"} if ref.shard is None else None)


def sample_of(line: str | bytes, images: Mapping[str, ImageRef]) -> Sample:
    """The sample of a line of a split file.

    Raises:
        RowError: The line is not JSON (``row-not-json``), lacks a key or has one of the wrong kind (``row-malformed``), names a
            picture that ``images.jsonl`` does not know (``image-unknown``), has another number of marks than of pictures
            (``image-marks``), or roles out of order (``role-order``).
    """
    row_id: str | None = None
    try:
        values = json.loads(line)
        row_id = str(values["id"])
        metadata: dict[str, JsonValue] = json.loads(values["metadata"])
        paths: list[str] = values["images"]
        messages = tuple(Message.model_validate(message) for message in values["messages"])
        pictures = tuple(ref for path in paths if (ref := images.get(path)) is not None)
        if len(pictures) < len(paths):
            unknown = next(path for path in paths if images.get(path) is None)
            raise RowError("image-unknown", msg("The picture {path} is not in images.jsonl.", path=unknown), row_id=row_id)
        marks = sum(message.content.count("<image>") for message in messages)
        if marks != len(paths):
            raise RowError(
                "image-marks",
                msg(
                    "The messages have {marks} <image> marks, but the row has {pictures} pictures.",
                    marks=marks,
                    pictures=len(paths),
                ),
                row_id=row_id,
            )
        fields: dict[str, Any] = {name: values[name] for name in ("id", "task", "target", "group", "source")}
    except RowError:
        raise
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RowError("row-not-json", msg("The row cannot be read: {error}", error=read_fault(error)), row_id=row_id) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # ValueError: of pydantic, or a number of too many digits
        raise RowError("row-malformed", msg("The row is not complete: {error}", error=read_fault(error)), row_id=row_id) from error
    try:
        return Sample(images=pictures, messages=messages, metadata=metadata, **fields)
    except ValidationError as error:
        code = "row-malformed" if error.errors()[0]["loc"] else "role-order"
        raise RowError(code, msg("The row cannot be used: {error}", error=read_fault(error)), row_id=row_id) from error


class RowSequence(Sequence[Sample]):
    """The rows of a split by number, each read from disk when asked for. Holds 8 bytes a row; can be sent to worker processes."""

    def __init__(self, file: Path, images: Mapping[str, ImageRef]) -> None:
        self.file = file
        self._images = images
        self._lines = LineFile(file)
        self._offsets = array("q")
        offset = 0
        with file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    self._offsets.append(offset)
                offset += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        line = self._lines.line_at(self._offsets[index])
        return _sample(line, self._images, self.file, index % len(self) + 1)

    def __iter__(self) -> Iterator[Sample]:
        with self.file.open("rb") as file:
            for number, line in enumerate((line for line in file if line.strip()), start=1):
                yield _sample(line, self._images, self.file, number)


class Dataset:
    """A data set folder. Rows are read lazily; nothing is kept but the index of pictures."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Open a data set folder.

        Raises:
            DataError: There is no manifest, or it cannot be read.
        """
        file = folder / "manifest.json"
        if not file.is_file():
            raise DataError(
                msg("This is not a data set folder: it has no manifest.json."),
                file=folder,
                remedy=msg("`medtune prepare RECIPE` makes one."),
            )
        try:
            manifest = Manifest.model_validate_json(file.read_text(encoding="utf-8"))
            if outside := [name for name in manifest.files if not stays_inside(name)]:
                raise ValueError(msg("{file} lies outside the folder", file=outside[0]))
            return cls(folder, manifest)
        except (OSError, ValueError) as error:
            raise DataError(
                msg("manifest.json cannot be read: {error}", error=read_fault(error)),
                file=file,
                remedy=msg("Prepare the data set again."),
            ) from error

    @cached_property
    def images(self) -> Mapping[str, ImageRef]:
        """Path -> picture, from ``images.jsonl``; see :class:`~medtune.data.images.ImageIndex`.

        Raises:
            DataError: A line cannot be read, or names a file outside the folder; file and line are named.
        """
        return ImageIndex(self.folder / "images.jsonl")

    def split_file(self, split: SplitName) -> Path:
        """The file of a split's rows."""
        return self.folder / f"{split}.jsonl"

    def lines(self, split: SplitName) -> Iterator[tuple[int, str]]:
        """(line number from 1, text) of a split's rows as they stand in the file; nothing when there is no such file."""
        if self.split_file(split).is_file():
            yield from self._lines(self.split_file(split))

    def rows(self, split: SplitName) -> Iterator[Sample]:
        """The samples of a split, in file order.

        Raises:
            DataError: A row cannot be used; file, line and sample are named.
        """
        for number, line in self.lines(split):
            yield _sample(line, self.images, self.split_file(split), number)

    def sequence(self, split: SplitName) -> RowSequence:
        """The samples of a split by number."""
        if not self.split_file(split).is_file():
            raise DataError(
                msg("The split file is missing."), file=self.split_file(split), remedy=msg("Prepare the data set again.")
            )
        return RowSequence(self.split_file(split), self.images)

    def num_rows(self, split: SplitName) -> int:
        """Rows of a split, counted in the file."""
        return sum(1 for _ in self.lines(split))

    def image_path(self, ref: ImageRef) -> Path:
        """The file that a picture lies in: its own, or its shard.

        Raises:
            DataError: Outside the folder.
        """
        path = ref.path if ref.shard is None else ref.shard.file
        if not stays_inside(path):
            raise DataError(msg("The picture {path} lies outside the data set's folder.", path=path), file=self.folder)
        return self.folder / path

    def stored_picture(self, ref: ImageRef) -> Path | FilePart:
        """Where a picture lies: its file, or the part of a shard. Nothing is read.

        Raises:
            DataError: Outside the folder.
        """
        file = self.image_path(ref)
        return file if ref.shard is None else FilePart(file, ref.shard.offset, ref.shard.num_bytes)

    def picture(self, ref: ImageRef) -> Path | bytes:
        """A stored picture: its file, or its bytes when it lies in a shard.

        Raises:
            DataError: Outside the folder, or the shard is missing or cut short.
        """
        stored = self.stored_picture(ref)
        return read_part(stored) if isinstance(stored, FilePart) else stored

    def left_out(self) -> Iterator[LeftOut]:
        """The records that did not become rows."""
        file = self.folder / "left_out.jsonl"
        if file.is_file():
            for _, line in self._lines(file):
                yield LeftOut.model_validate_json(line)

    def changed_files(self) -> list[str]:
        """Files whose hash is not the manifest's, or that are missing."""
        return [
            name
            for name, digest in self.manifest.files.items()
            if not (self.folder / name).is_file() or file_sha256(self.folder / name) != digest
        ]

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The splits that have rows according to the manifest."""
        return tuple(split for split in SPLITS if self.manifest.num_samples.get(split, 0))

    def _lines(self, file: Path) -> Iterator[tuple[int, str]]:
        try:
            # Only "\n" ends a row: str.splitlines would also cut at U+2028, which JSON texts may hold.
            with file.open(encoding="utf-8", newline="\n") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield number, line
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                msg("The file cannot be read: {error}", error=read_fault(error)),
                file=file,
                remedy=msg("Prepare the data set again."),
            ) from error


def file_sha256(file: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sample(line: str | bytes, images: Mapping[str, ImageRef], file: Path, number: int) -> Sample:
    try:
        return sample_of(line, images)
    except RowError as error:
        raise DataError(
            error.message,
            file=f"{file}:{number}",
            sample=error.row_id,
            remedy=msg("Correct the row; `medtune validate` lists all faults."),
        ) from error
