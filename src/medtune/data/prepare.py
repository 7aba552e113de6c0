"""Source records become a data set folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from pydantic import JsonValue

from medtune import __version__
from medtune.data.config import DataSettings
from medtune.data.construct import construct
from medtune.data.dataset import Dataset, LeftOut, file_sha256, write_row
from medtune.data.pictures import PictureStore, StoredPicture, transform_record
from medtune.data.rows import LeaveOut, RowMaker
from medtune.data.split import SPLITS, draw
from medtune.errors import DataError, UnreadableImageError
from medtune.language import Text, msg
from medtune.runs import atomic_folder
from medtune.types import (
    Event,
    Fault,
    GroupKind,
    ImageRef,
    Listener,
    Manifest,
    Record,
    Sample,
    SourceRecord,
    SplitName,
)

__all__ = ["prepare", "settings_hash"]

_WEAKEST: tuple[GroupKind, ...] = ("row", "image", "volume", "study", "patient")
_LOOKAHEAD = 8
"""Records read ahead of the writer for each thread: enough to keep the threads busy, little enough to keep memory flat."""


def settings_hash(settings: DataSettings) -> str:
    """sha256 of the settings that decide what a data set holds, as written in the recipe."""
    text = json.dumps(settings.model_dump(mode="json", exclude={"folder", "num_workers", "faulty_records"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def prepare(
    settings: DataSettings, *, name: str, folder: Path, listener: Listener | None = None, overwrite: bool = False
) -> Manifest:
    """Read the sources, ask each record as its task asks, store the pictures, split by group, write the folder.

    The folder appears whole or not at all, and the same input gives the same bytes. A folder that was made with the same
    settings is used again. Records that cannot become a row are listed in ``left_out.jsonl`` with the reason.

    Raises:
        DataError: The folder exists with other settings and ``overwrite`` is not set; a source cannot be read; or no record of a
            source became a row (then the first fault is told).
        RecipeError: Options that a source, task or transform does not take.
        PluginError: An unknown name.
    """
    digest = settings_hash(settings)
    if folder.exists():
        existing = _existing(folder, digest, overwrite)
        if existing is not None:
            return existing
    with atomic_folder(folder) as temporary:
        manifest = _Preparation(settings, name, temporary, listener).run(digest)
    if listener is not None:
        listener(
            Event(
                "finished",
                msg(
                    "Prepared {rows} rows with {pictures} pictures.",
                    rows=sum(manifest.num_samples.values()),
                    pictures=manifest.num_images,
                ),
            )
        )
    return manifest


def _existing(folder: Path, digest: str, overwrite: bool) -> Manifest | None:
    if not (folder / "manifest.json").is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            return None
        raise DataError(
            msg("The folder exists and is not a data set; it is left as it is."),
            file=folder,
            remedy=msg("Name another folder with data.folder=..."),
        )
    if overwrite:
        return None
    dataset = Dataset.open(folder)
    if dataset.manifest.settings_hash != digest:
        raise DataError(
            msg("The data set exists, and was made with other settings."),
            file=folder,
            remedy=msg("Make it anew with --overwrite, or name another folder with data.folder=..."),
        )
    changed = dataset.changed_files()
    if changed:
        raise DataError(
            msg("The data set exists, but {files} changed since it was made.", files=", ".join(changed)),
            file=folder,
            remedy=msg("Make it anew with --overwrite, or name another folder with data.folder=..."),
        )
    return dataset.manifest


class _Preparation:
    """One run of :func:`prepare`: the open files and the counts."""

    def __init__(self, settings: DataSettings, name: str, folder: Path, listener: Listener | None) -> None:
        self.settings = settings
        self.name = name
        self.folder = folder
        self.listener = listener
        self.transforms = [
            construct("transform", entry.transform, entry.options, f"data.transforms.{index}")
            for index, entry in enumerate(settings.transforms)
        ]
        self.store = PictureStore(folder, self.transforms, settings.limits)
        self.maker = RowMaker(self.store, settings.task_options)
        self.images: dict[str, ImageRef] = {}
        self.rows: Counter[str] = Counter()
        self.task_rows: Counter[str] = Counter()
        self.groups: dict[str, set[str]] = {split: set() for split in SPLITS}
        self.unused_splits = 0

    def run(self, digest: str) -> Manifest:
        sources = [
            construct("source", entry.source, entry.options, f"data.sources.{index}")
            for index, entry in enumerate(self.settings.sources)
        ]
        labels = _labels([entry.source for entry in self.settings.sources])
        with contextlib.ExitStack() as stack:
            self.files: dict[str, IO[str]] = {
                file: stack.enter_context((self.folder / file).open("w", encoding="utf-8", newline="\n"))
                for file in (*(f"{split}.jsonl" for split in SPLITS), "images.jsonl", "left_out.jsonl")
            }
            records = tuple(self._source(index, source, labels[index]) for index, source in enumerate(sources))
        if self.settings.split.kind == "official" and not self.rows["validation"] and self.settings.split.fractions.validation:
            self._draw_validation()
        self._write_dataset_info()
        cards = [record.card for record in records]
        manifest = Manifest(
            name=self.name,
            medtune_version=__version__,
            sources=records,
            split=self.settings.split.model_dump(mode="json"),
            transforms=tuple(transform_record(transform) for transform in self.transforms),
            num_samples={split: self.rows[split] for split in SPLITS},
            num_groups={split: len(self.groups[split]) for split in SPLITS},
            num_images=len(self.images),
            tasks=dict(sorted(self.task_rows.items())),
            group_kind=min((card.group_kind for card in cards), key=_WEAKEST.index),
            synthetic=any(card.synthetic for card in cards),
            local_only=any(card.local_only for card in cards),
            files={file: file_sha256(self.folder / file) for file in (*(f"{split}.jsonl" for split in SPLITS), "images.jsonl")},
            warnings=tuple(self._warnings(records)),
            settings_hash=digest,
        )
        (self.folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return manifest

    def _source(self, index: int, source: Any, label: str) -> SourceRecord:
        entry = self.settings.sources[index]
        left_out: Counter[str] = Counter()
        first: tuple[str, Fault] | None = None
        num_rows = 0
        records = itertools.islice(_records(source, f"data.sources.{index}"), entry.max_samples)
        prefix = f"{label}/" if len(self.settings.sources) > 1 else ""
        for number, (record, pictures) in enumerate(self._with_pictures(records), start=1):
            record_id = prefix + record.id
            try:
                if isinstance(pictures, Fault):
                    raise LeaveOut(pictures)
                if entry.task is not None:
                    record = dataclasses.replace(record, task=entry.task)
                self._write(
                    self.maker.sample(record, pictures, record_id=record_id, source=label), self._split(record, label, index)
                )
                num_rows += 1
            except LeaveOut as reason:
                fault = dataclasses.replace(reason.fault, file=reason.fault.file or record.place or None)
                first = first or (record_id, fault)
                left_out[fault.reason] += 1
                line = LeftOut.of(fault, source=label, record_id=record_id)
                self.files["left_out.jsonl"].write(line.model_dump_json() + "\n")
            if self.listener is not None and number % 100 == 0:
                self.listener(Event("progress", msg("Reading {source}", source=label), done=number, total=entry.max_samples))
        if num_rows == 0:
            raise _nothing(label, first, sum(left_out.values()), f"data.sources.{index}")
        options: dict[str, JsonValue] = {key: _without_folder(key, value) for key, value in entry.options.items()}
        return SourceRecord(card=source.card, options=options, num_samples=num_rows, left_out=dict(sorted(left_out.items())))

    def _with_pictures(self, records: Iterator[Record]) -> Iterator[tuple[Record, tuple[StoredPicture, ...] | Fault]]:
        """Each record with its stored pictures, in the records' order; threads decode ahead."""

        def load(record: Record) -> tuple[StoredPicture, ...] | Fault:
            if record.fault is not None:
                return record.fault
            try:
                return tuple(self.store.add(picture) for picture in record.pictures)
            except UnreadableImageError as error:
                return Fault("unreadable-image", error.what, error.remedy, error.file)

        waiting: deque[tuple[Record, Future[tuple[StoredPicture, ...] | Fault]]] = deque()
        with ThreadPoolExecutor(self.settings.num_workers) as threads:
            try:
                for record in records:
                    waiting.append((record, threads.submit(load, record)))
                    if len(waiting) >= _LOOKAHEAD * self.settings.num_workers:
                        done, future = waiting.popleft()
                        yield done, future.result()
                while waiting:
                    done, future = waiting.popleft()
                    yield done, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()

    def _split(self, record: Record, label: str, index: int) -> SplitName:
        settings = self.settings.split
        if settings.kind == "group-hash":
            self.unused_splits += record.split is not None
            return draw(record.group, settings.fractions, settings.seed)
        if record.split is None:
            raise DataError(
                msg("The source {source} assigns no split, and data.split.kind is official.", source=label),
                sample=record.id,
                key=f"data.sources.{index}",
                remedy=msg("Use data.split.kind: group-hash, or the option of the source that gives its official split."),
            )
        return record.split

    def _write(self, sample: Sample, split: SplitName) -> None:
        self.files[f"{split}.jsonl"].write(write_row(sample) + "\n")
        for ref in sample.images:
            if ref.path not in self.images:
                self.images[ref.path] = ref
                self.files["images.jsonl"].write(ref.model_dump_json(exclude={"shard"}) + "\n")
        self.rows[split] += 1
        self.task_rows[sample.task] += 1
        self.groups[split].add(sample.group)

    def _draw_validation(self) -> None:
        """Move a share of the training groups to validation: no source named validation rows."""
        share = self.settings.split.fractions
        fractions = share.model_copy(update={"train": 1.0 - share.validation, "test": 0.0})
        rows = (self.folder / "train.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        kept: dict[SplitName, list[str]] = {"train": [], "validation": []}
        self.groups.update(train=set(), validation=set())
        for row in rows:
            group = json.loads(row)["group"]
            split = draw(group, fractions, self.settings.split.seed)
            kept[split].append(row + "\n")
            self.groups[split].add(group)
        for split, lines in kept.items():
            (self.folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
            self.rows[split] = len(lines)

    def _write_dataset_info(self) -> None:
        """Register each split that has rows with LLaMA-Factory (its ``data/README.md`` describes the keys)."""
        entries = {
            f"{self.name}_{split}": {
                "file_name": f"{split}.jsonl",
                "formatting": "sharegpt",
                "columns": {"messages": "messages", "images": "images"},
                "tags": {
                    "role_tag": "role",
                    "content_tag": "content",
                    "user_tag": "user",
                    "assistant_tag": "assistant",
                    "system_tag": "system",
                },
            }
            for split in SPLITS
            if self.rows[split]
        }
        (self.folder / "dataset_info.json").write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _warnings(self, records: tuple[SourceRecord, ...]) -> Iterator[Text]:
        for split in SPLITS:
            wanted = self.settings.split.kind == "group-hash" and getattr(self.settings.split.fractions, split) > 0
            if not self.rows[split] and wanted:
                yield msg("The split {split} is empty: there are too few groups for its share.", split=split)
        if self.unused_splits:
            yield msg(
                "{count} records bring a split of their own; data.split.kind group-hash does not use it.", count=self.unused_splits
            )
        left_out = sum(sum(record.left_out.values()) for record in records)
        if left_out:
            yield msg("{count} records were left out; left_out.jsonl says why.", count=left_out)


def _records(source: Any, key: str) -> Iterator[Record]:
    """A source's records; a source does not know which entry of the recipe it is."""
    try:
        yield from source.samples()
    except DataError as error:
        error.key = key + (error.key or "").removeprefix("data.sources")
        raise


def _labels(names: list[str]) -> list[str]:
    """A label for each source entry: its name, with #2, #3, ... from the second use on."""
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return labels


def _without_folder(key: str, value: JsonValue) -> JsonValue:
    """Options for the manifest, which holds no folder of the machine it was made on."""
    is_path = key == "path" or key.endswith(("_path", "_dir", "_folder", "_file"))
    return Path(value).name if is_path and isinstance(value, str) else value


def _nothing(label: str, first: tuple[str, Fault] | None, count: int, key: str) -> DataError:
    if first is None:
        return DataError(
            msg("The source {source} has no records.", source=label),
            key=key,
            remedy=msg("Check its options; is this the right file?"),
        )
    record_id, fault = first
    return DataError(
        msg(
            "None of the {count} records of {source} can be used. The first: {fault}",
            count=count,
            source=label,
            fault=str(fault.message),
        ),
        file=fault.file,
        sample=record_id,
        key=key,
        remedy=fault.remedy,
    )
