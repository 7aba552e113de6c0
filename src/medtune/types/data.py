"""Records, pictures, samples, and what a data set folder says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from medtune.language import Text, msg
from medtune.types.base import IMAGE_MARK, Document

Role = Literal["system", "user", "assistant"]
SplitName = Literal["train", "validation", "test"]
GroupKind = Literal["patient", "study", "volume", "image", "row"]
"""What a group is. ``image`` and ``row`` mean that the source has no patient ids: every later report says so."""


class Message(Document):
    """One turn. ``content`` is plain text with one :data:`IMAGE_MARK` for each picture."""

    role: Role
    content: str


class TransformRecord(Document):
    """One picture transform that was applied: its registered name and its parameters, in order of application."""

    name: str
    parameters: dict[str, JsonValue] = {}


class InShard(Document):
    """Where a picture lies that has no file of its own: ``num_bytes`` bytes from ``offset`` of a tar file of the data set."""

    file: str
    """POSIX path relative to the data set folder."""
    offset: Annotated[int, Field(ge=0)]
    num_bytes: Annotated[int, Field(gt=0)]


class ImageRef(Document):
    """A picture of a data set.

    Attributes:
        path: POSIX path relative to the data set folder.
        sha256: Of the stored file's bytes, 64 hexadecimal digits.
        width: Pixels, upright (after the EXIF turn).
        height: Pixels, upright.
        modality: DICOM modality code (CT, MR, DX, US, ...) when the source knows it.
        transforms: What was done to the source picture.
        shard: Where its bytes lie, when the data set keeps its pictures in shards.
    """

    path: str
    sha256: str
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    modality: str | None = None
    transforms: tuple[TransformRecord, ...] = ()
    shard: InShard | None = None


@dataclass(frozen=True, slots=True)
class FilePart:
    """A picture that lies in a larger file, such as a shard, and has not been read: ``num_bytes`` bytes from ``offset``."""

    file: Path
    offset: int
    num_bytes: int


StoredPicture = Path | bytes | FilePart
"""A picture as it is stored, not decoded."""

Axis = Literal["sagittal", "coronal", "axial"]


@dataclass(frozen=True, slots=True)
class View:
    """Which part of a file of measured values (DICOM, NIfTI) is shown, and through which windows.

    Attributes:
        index: From 0: the frame of a DICOM file, or the slice of a volume along ``axis`` in canonical orientation.
        axis: Of a volume; DICOM files are shown as they were acquired.
        volume: From 0: the volume of a file with a fourth dimension (time, echo, direction).
        windows: (center, width) in the units after the modality LUT. One is shown in grey, three in red, green and blue; none:
            the window that the file itself states first, or all its values.
    """

    index: int = 0
    axis: Axis = "axial"
    volume: int = 0
    windows: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if len(self.windows) not in (0, 1, 3):
            raise ValueError("a View has no window, one or three")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a source holds it: a file, or encoded bytes with a name for messages. Exactly one of the two.

    ``modality`` is a DICOM modality code. ``name`` never holds a patient identifier. ``view`` is for DICOM and NIfTI.
    ``private``: the path may hold one, so what is written down calls the picture by its name.
    """

    path: Path | None = None
    data: bytes | None = None
    name: str = ""
    modality: str | None = None
    view: View | None = None
    private: bool = False

    @property
    def called(self) -> str:
        """What messages about it say: its path, where that is not private, else its name."""
        return self.name if self.path is None or self.private else str(self.path)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise ValueError("a Picture has either a path or data")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record cannot become a row. ``reason`` is stable (kebab-case); ``message`` and ``remedy`` are for people."""

    reason: str
    message: Text
    remedy: Text | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What a dataset source yields: one question about zero or more pictures, before a task puts it into words.

    Attributes:
        id: Unique within the source, stable between runs.
        task: Registered name of the task that asks it.
        pictures: In the order of the image marks.
        target: The reference answer; for structured tasks the text that the model should write.
        group: The unit that a split may not cut (patient > study > volume > image).
        question: The question's words, where the record has its own; a task with fixed instructions ignores it.
        messages: A whole conversation with the final assistant turn, where the source has one; a task leaves it as it is.
        metadata: Truths and tags for metrics and subgroups (``box`` is [x1, y1, x2, y2] in pixels of the source picture, upright).
        split: Where the source itself assigns one.
        fault: Set when the source could not read the record; ``prepare`` lists it among the left out.
        place: ``file:line`` (or ``file:number``) of the record in the source, for messages.
    """

    id: str
    task: str
    pictures: tuple[Picture, ...]
    target: str
    group: str
    question: str = ""
    messages: tuple[Message, ...] = ()
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    split: SplitName | None = None
    fault: Fault | None = None
    place: str = ""


class Sample(Document):
    """One row of a data set: a conversation that ends with the reference answer, its pictures, and what is known about it.

    Raises:
        ValueError: The marks and the pictures differ in number, the roles do not alternate, or the last turn is not the
            assistant's.
    """

    id: Annotated[str, Field(min_length=1)]
    task: str
    images: tuple[ImageRef, ...] = ()
    messages: tuple[Message, ...]
    target: str
    group: str
    source: str
    metadata: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _check(self) -> Sample:
        marks = sum(message.content.count(IMAGE_MARK) for message in self.messages)
        if marks != len(self.images):
            raise ValueError(msg("{marks} <image> marks, but {pictures} pictures", marks=marks, pictures=len(self.images)))
        turns = [message.role for message in self.messages]
        if turns[:1] == ["system"]:
            turns = turns[1:]
        if not turns or len(turns) % 2 or any(role != ("user", "assistant")[index % 2] for index, role in enumerate(turns)):
            raise ValueError(
                msg("after an optional system message the roles must be user, assistant, user, ... and end with assistant")
            )
        return self

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages without the final reference answer."""
        return self.messages[:-1]


class SourceCard(Document):
    """What a dataset source says of itself."""

    name: str
    title: str
    licence: str
    """SPDX identifier where there is one."""
    citation: str
    url: str = ""
    group_kind: GroupKind
    synthetic: bool = False
    local_only: bool = False
    """The data may not be sent to another machine."""
    revision: str = ""
    """The commit that the data are read at, where they lie on a hub."""
    notes: tuple[str, ...] = ()
    """Known problems, one sentence each, in English; ``Text(note)`` renders it for the reader."""


Severity = Literal["error", "warning", "info"]


class Issue(Document):
    """One finding of ``validate``. ``code`` is stable (kebab-case); ``message`` is for people."""

    code: str
    severity: Severity
    message: Text
    remedy: Text | None = None
    split: SplitName | None = None
    sample: str | None = None
    file: str | None = None
    count: int = 1
    """How many samples the finding stands for, when it is about many at once."""


class ValidationReport(Document):
    """Everything ``validate`` found, in file order. ``num_rows`` counts the rows read, sound or not."""

    dataset: str
    num_rows: dict[str, int]
    issues: tuple[Issue, ...]
    checks: tuple[str, ...]
    """The names of the checks that ran."""
    skipped: dict[str, Text] = {}
    """Checks that did not run, and why."""

    @property
    def num_errors(self) -> int:
        return sum(issue.count for issue in self.issues if issue.severity == "error")

    @property
    def num_warnings(self) -> int:
        return sum(issue.count for issue in self.issues if issue.severity == "warning")


class SourceRecord(Document):
    """One source of a data set as the manifest keeps it."""

    card: SourceCard
    options: dict[str, JsonValue] = {}
    num_samples: int
    left_out: dict[str, int] = {}
    """Records that did not become rows: reason -> count. Each is also a line of ``left_out.jsonl``."""


class Manifest(Document):
    """``manifest.json`` of a data set folder. Holds no time and no path, so that the same input gives the same bytes."""

    format_version: Literal[1] = 1
    name: str
    medtune_version: str
    sources: tuple[SourceRecord, ...]
    split: dict[str, JsonValue]
    """The split settings as used, seed included."""
    transforms: tuple[TransformRecord, ...] = ()
    num_samples: dict[str, int]
    """Rows per split."""
    num_groups: dict[str, int]
    num_images: int
    tasks: dict[str, int]
    """Rows per task, all splits together."""
    displays: tuple[str, ...] = ()
    """How measured values became the pictures, sorted (:mod:`medtune.imaging.display`); empty when that is not known."""
    strata: dict[str, dict[str, int]] = {}
    """``task / modality`` -> split -> groups."""
    group_kind: GroupKind
    """The weakest of the sources'."""
    synthetic: bool
    local_only: bool
    files: dict[str, str]
    """Relative path -> sha256 of the split files and ``images.jsonl``."""
    warnings: tuple[Text, ...] = ()
    settings_hash: str = ""
    """sha256 of the recipe's data settings as written: tells a data set that can be used again from one of other settings."""
    derived_from: str = ""
    """:attr:`hash` of the data set that this one is a cleaned copy of."""

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of a sha256 over ``files``: names the data a model was trained or measured on."""
        import hashlib

        text = "\n".join(f"{name} {digest}" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
