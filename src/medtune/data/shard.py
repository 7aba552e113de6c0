"""One shard of a data set: about five hundred records become rows, in a process of its own.

A shard is a folder that appears whole. Which records it holds depends on the sources alone, so the same input gives the same
shards whatever the number of processes, and a preparation that was killed goes on behind its last whole shard.

::

    shards/000012/
      train.jsonl, validation.jsonl, test.jsonl, images.jsonl, left_out.jsonl
                      lines as the data set will hold them
      groups.csv      group,split: each pair once, without a head
      rows.npy        a record (ROW) for each row, in the order of the three split files
      images.npy      uint64 for each line of images.jsonl: the first 64 bits of its sha256
      groups.npy      a record (GROUP) for each row of groups.csv
      summary.json    a Summary; written last
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import mmap
import os
import shutil
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from medtune.data.config import DataSettings
from medtune.data.construct import construct
from medtune.data.dataset import LeftOut, image_line, write_row
from medtune.data.pictures import TEMPORARY, FileStore, PictureReader, PictureStore, ReadPicture, ShardStore
from medtune.data.rows import LeaveOut, RowMaker
from medtune.data.split import SPLITS, assigned_splits, digest_of, group_line, place_of
from medtune.errors import DataError, RunError, UnreadableImageError, system_reason
from medtune.imaging.child import Death
from medtune.imaging.display import display_of
from medtune.language import Text, msg
from medtune.types import Document, Fault, ImageRef, Part, Record, Sample

__all__ = ["GROUP", "ROW", "TAGS", "Job", "Summary", "make_shard", "position_in", "shard_folder"]

ROW = np.dtype(
    [
        ("id", "<u8"),
        ("id_more", "<u8"),
        ("group", "<u8"),
        ("record", "<u4"),
        # A source may put any number of rows in a part, each with words of its own.
        ("stratum", "<u4"),
        ("tags", "<u4"),
        ("split", "u1"),
    ]
)
TAGS = ("modality", "organ", "language")
"""Metadata of which the card tells how often each value occurs."""
GROUP = np.dtype([("group", "<u8"), ("split", "u1")])
HEARTBEAT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """What a shard is made of: a part that the shard's process reads itself, or records that were read already.

    Attributes:
        number: Of the shard, from 0, over all sources.
        source: Index of the source's entry in the settings.
        label: Name of the source in the rows.
        digest: Of all that decides what the shard will hold.
    """

    number: int
    source: int
    label: str
    digest: str
    part: Part | None = None
    records: tuple[Record, ...] = ()


class Summary(Document):
    """``summary.json`` of a shard."""

    digest: str
    source: int
    num_records: int
    num_rows: dict[str, int]
    num_images: int
    tasks: dict[str, int]
    left_out: dict[str, int]
    first: LeftOut | None = None
    """The first record that was left out."""
    strata: tuple[tuple[str, str], ...]
    """(task, modality) by the numbers used in ``rows.npy``."""
    tags: tuple[tuple[str, ...], ...] = ()
    """Values of :data:`TAGS`, likewise."""
    displays: tuple[str, ...] = ()
    """How the pictures show their values: :func:`~medtune.imaging.display.display_of`."""
    num_unused_splits: int = 0


def shard_folder(work: Path, number: int) -> Path:
    """Where a shard lies."""
    return work / "shards" / f"{number:06d}"


def position_in(work: Path, number: int) -> int:
    """The record (from 1) that an unfinished shard was at work on; 0 = it was reading, or had not begun."""
    with contextlib.suppress(OSError, struct.error):
        return int(_POSITION.unpack((_unfinished(work, number) / "position").read_bytes())[0])
    return 0


def make_shard(settings: DataSettings, work: Path, job: Job, deaths: Mapping[int, tuple[Death, Text]]) -> Iterator[int]:
    """Make a shard below ``work``; yields the number of records done from time to time, so that somebody knows it is alive.

    Args:
        settings: The recipe's data settings.
        work: The folder of the preparation.
        job: The shard.
        deaths: Records (from 1) at which an earlier attempt died, and how: they are left out.

    Raises:
        DataError: The source cannot be read, or names no split where it should.
        RunError: Nothing can be written: the disk is full, for one.
    """
    folder = _unfinished(work, job.number)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        with _Shard(settings, work, folder, job) as shard:
            yield from shard.run(deaths)
        (folder / "position").unlink()
        os.replace(folder, shard_folder(work, job.number))
    except OSError as error:
        raise RunError(
            msg("Nothing can be written here: {error}", error=str(system_reason(error))),
            file=error.filename or work,
            remedy=msg("Check the path, who may write there, and the free space; then go on with the same command."),
        ) from error


_POSITION = struct.Struct("<q")


def _unfinished(work: Path, number: int) -> Path:
    return work / "shards" / f"{number:06d}.unfinished"


class _Shard(contextlib.ExitStack):
    """The open files and the counts of one shard."""

    def __init__(self, settings: DataSettings, work: Path, folder: Path, job: Job) -> None:
        super().__init__()
        self.settings = settings
        self.entry = settings.sources[job.source]
        self.work = work
        self.folder = folder
        self.job = job
        transforms = [
            construct("transform", entry.transform, entry.options, f"data.transforms.{index}")
            for index, entry in enumerate(settings.transforms)
        ]
        self.reader = PictureReader(transforms, settings.limits)
        self.maker = RowMaker(self.reader, settings.task_options)
        self.assigned = assigned_splits(settings.split)
        names = (*(f"{split}.jsonl" for split in SPLITS), "images.jsonl", "left_out.jsonl", "groups.csv")
        self.files: dict[str, IO[str]] = {
            name: self.enter_context((folder / name).open("w", encoding="utf-8", newline="\n")) for name in names
        }
        self.store: PictureStore
        if settings.storage == "shards":
            images = work / "out" / "images"
            images.mkdir(parents=True, exist_ok=True)
            self.tar = images / f"{TEMPORARY}{job.number:06d}.tar"
            self.store = ShardStore(self.enter_context(self.tar.open("wb")), f"images/{job.number:06d}.tar")
        else:
            self.store = FileStore(work / "out")
        self.images: dict[str, ImageRef] = {}
        self.rows: list[list[tuple[int, ...]]] = [[] for _ in SPLITS]
        self.digests: dict[str, int] = {}
        self.groups: dict[tuple[str, int], int] = {}
        self.strata: dict[tuple[str, str], int] = {}
        self.tags: dict[tuple[str, ...], int] = {}
        self.displays: set[str] = set()
        self.tasks: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.first: LeftOut | None = None
        self.num_unused_splits = 0

    def run(self, deaths: Mapping[int, tuple[Death, Text]]) -> Iterator[int]:
        alive = time.monotonic()
        number = 0
        # Seen by the parent also when this process is killed in the middle of a system call.
        with (self.folder / "position").open("w+b") as file:
            file.write(_POSITION.pack(0))
            file.flush()
            with mmap.mmap(file.fileno(), _POSITION.size) as position:
                for number, record in enumerate(self._records(), start=1):
                    _POSITION.pack_into(position, 0, number)
                    for _ in self._take(number, record, deaths.get(number)):
                        if time.monotonic() - alive > HEARTBEAT_SECONDS:
                            alive = time.monotonic()
                            yield number
                    _POSITION.pack_into(position, 0, 0)
        self._finish(number)
        yield number

    def _records(self) -> Iterator[Record]:
        if self.job.part is None:
            return iter(self.job.records)
        key = f"data.sources.{self.job.source}"
        source = construct("source", self.entry.source, self.entry.options, key)
        return with_key(source.samples_of(self.job.part), key)

    def _take(self, number: int, record: Record, death: tuple[Death, Text] | None) -> Iterator[None]:
        """Make a row of a record, or list it among the left out; yields after each picture, of which there may be thousands."""
        prefix = f"{self.job.label}/" if len(self.settings.sources) > 1 else ""
        record_id = prefix + record.id
        try:
            if record.fault is not None:
                raise LeaveOut(record.fault)
            if death is not None:
                raise LeaveOut(_fault_of(record, *death))
            if self.entry.task is not None:
                record = dataclasses.replace(record, task=self.entry.task)
            read = []
            for picture in record.pictures:
                try:
                    read.append(self.reader.read(picture))
                except UnreadableImageError as error:
                    raise LeaveOut(Fault("unreadable-image", error.what, error.remedy, _file_of(record, error.file))) from error
                yield
            sample = self.maker.sample(record, tuple(read), record_id=record_id, source=self.job.label)
            self._write(number, sample, record, read)
        except LeaveOut as reason:
            fault = dataclasses.replace(reason.fault, file=reason.fault.file or record.place or None)
            line = LeftOut.of(fault, source=self.job.label, record_id=record_id)
            self.left_out[fault.reason] += 1
            self.first = self.first or line
            self.files["left_out.jsonl"].write(line.model_dump_json() + "\n")
        yield

    def _write(self, number: int, sample: Sample, record: Record, read: Sequence[ReadPicture]) -> None:
        line = _line(sample)
        digest = self.digests.get(sample.group)
        if digest is None:
            digest = self.digests[sample.group] = digest_of(sample.group, self.settings.split.seed)
        split = self._split(record, sample, digest)
        for one in read:
            if one.data is not None and one.ref.path not in self.images:
                ref = self.store.put(one)
                self.images[ref.path] = ref
                self.displays.add(display_of(ref.transforms))
                self.files["images.jsonl"].write(image_line(ref) + "\n")
            self.reader.remember(one)
        self.files[f"{SPLITS[split]}.jsonl"].write(line + "\n")
        modality = next((one.ref.modality for one in read if one.ref.modality), None) or sample.metadata.get("modality")
        stratum = self.strata.setdefault((sample.task, str(modality or "-")), len(self.strata))
        values = (str(modality or ""), *(str(sample.metadata.get(tag) or "")[:80] for tag in TAGS[1:]))
        tags = self.tags.setdefault(values, len(self.tags))
        identity = hashlib.sha256(sample.id.encode("utf-8", "surrogatepass")).digest()
        self.rows[split].append((*_KEYS.unpack_from(identity), digest, number, stratum, tags, split))
        self.tasks[sample.task] += 1
        if (sample.group, split) not in self.groups:
            self.groups[sample.group, split] = digest
            self.files["groups.csv"].write(group_line(sample.group, SPLITS[split]))

    def _split(self, record: Record, sample: Sample, digest: int) -> int:
        if self.settings.split.kind == "group-hash":
            self.num_unused_splits += record.split is not None
            if sample.group in self.assigned:
                return SPLITS.index(self.assigned[sample.group])
            return place_of(digest, self.settings.split.fractions)
        if record.split is None:
            raise DataError(
                msg("The source {source} assigns no split, and data.split.kind is official.", source=self.job.label),
                sample=record.id,
                key=f"data.sources.{self.job.source}",
                remedy=msg("Use data.split.kind: group-hash, or the option of the source that gives its official split."),
            )
        return SPLITS.index(record.split)

    def _finish(self, num_records: int) -> None:
        rows = [row for split in self.rows for row in split]
        np.save(self.folder / "rows.npy", np.array(rows, ROW), allow_pickle=False)
        keys = [int(ref.sha256[:16], 16) for ref in self.images.values()]
        np.save(self.folder / "images.npy", np.array(keys, np.uint64), allow_pickle=False)
        groups = [(digest, split) for (_, split), digest in self.groups.items()]
        np.save(self.folder / "groups.npy", np.array(groups, GROUP), allow_pickle=False)
        has_pictures = isinstance(self.store, ShardStore) and self.store.finish()
        self.close()
        if isinstance(self.store, ShardStore):
            if has_pictures:
                os.replace(self.tar, self.work / "out" / self.store.path)
            else:
                self.tar.unlink()
        summary = Summary(
            digest=self.job.digest,
            source=self.job.source,
            num_records=num_records,
            num_rows={split: len(rows) for split, rows in zip(SPLITS, self.rows, strict=True)},
            num_images=len(keys),
            tasks=dict(self.tasks),
            left_out=dict(self.left_out),
            first=self.first,
            strata=tuple(self.strata),
            tags=tuple(self.tags),
            displays=tuple(sorted(self.displays)),
            num_unused_splits=self.num_unused_splits,
        )
        (self.folder / "summary.json").write_text(summary.model_dump_json(), encoding="utf-8")


_KEYS = struct.Struct("<QQ")


def with_key(records: Iterator[Record], key: str) -> Iterator[Record]:
    """The records; an error gets the recipe key of the source, which a source does not know."""
    try:
        yield from records
    except DataError as error:
        error.key = key + (error.key or "").removeprefix("data.sources")
        raise
    except OSError as error:  # here and not where the records are used: there it is about what is written
        raise DataError(
            msg("The file cannot be read: {error}", error=str(system_reason(error))),
            file=error.filename,
            key=key,
            remedy=msg("Check the path."),
        ) from error


def _line(sample: Sample) -> str:
    """The row. JSON's ``"\\ud83d"``, half of a picture character, is read without complaint and cannot be written.

    Raises:
        LeaveOut: A text holds a lone surrogate.
    """
    line = write_row(sample)
    try:
        line.encode()
        for image in sample.images:
            (image.modality or "").encode()
    except UnicodeEncodeError as error:
        fault = Fault(
            "text-not-unicode",
            msg("A text of the record holds half a character (a lone surrogate), which no UTF-8 file can."),
            msg("Correct the record in the source, or leave it out."),
        )
        raise LeaveOut(fault) from error
    return line


def _fault_of(record: Record, death: Death, what: Text) -> Fault:
    files = [picture.called for picture in record.pictures]
    return Fault(
        f"decoder-{death}",
        msg("The picture could not be decoded. {what}", what=what),
        msg("The file is damaged or made to do harm. Fetch it again from where it came, or leave it out."),
        _file_of(record, files[0] if files else None),
    )


def _file_of(record: Record, file: str | None) -> str | None:
    """What a person looks for. A private picture is called by a pseudonym, which nobody can look for: its place says more."""
    return record.place or file if any(picture.private for picture in record.pictures) else file
