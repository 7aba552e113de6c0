"""Source records become a data set folder.

The records are cut into shards, each made by a process of its own (:mod:`medtune.data.shard`), locally or on a Ray cluster, and
then put together (:mod:`medtune.data.merge`). What is finished survives a kill (:mod:`medtune.data.work`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from medtune import __version__
from medtune.data.card import write_card
from medtune.data.config import DataSettings
from medtune.data.construct import construct
from medtune.data.dataset import Dataset, file_sha256, llamafactory_entry
from medtune.data.engine import local_engine, ray_engine
from medtune.data.jobs import jobs_of, settings_hash
from medtune.data.merge import SourceTotals, Totals, merge
from medtune.data.pictures import transform_record
from medtune.data.shard import Job, Summary, shard_folder
from medtune.data.sources.hub import revision_of
from medtune.data.split import SPLITS, assigned_splits, digest_of_list, split_record
from medtune.data.work import begin, discard, hold, is_of_use, move, work_folder
from medtune.errors import DataError, RunError
from medtune.language import Text, msg
from medtune.types import Event, GroupKind, Listener, Manifest, RemarkingSource, SourceCard, SourceRecord

__all__ = ["prepare", "settings_hash", "work_folder"]

_WEAKEST: tuple[GroupKind, ...] = ("row", "image", "volume", "study", "patient")


def prepare(
    settings: DataSettings, *, name: str, folder: Path, listener: Listener | None = None, overwrite: bool = False
) -> Manifest:
    """Read the sources, ask each record as its task asks, store the pictures, split by group, write the folder.

    The folder appears whole or not at all, and the same input gives the same bytes, whatever the number of processes. A folder
    that was made with the same settings is used again; a preparation that was killed goes on where it was. Records that cannot
    become a row are listed in ``left_out.jsonl`` with the reason.

    Raises:
        DataError: The folder exists with other settings and ``overwrite`` is not set; a source cannot be read; or no record of a
            source became a row (then the first fault is told).
        RecipeError: Options that a source, task or transform does not take.
        PluginError: An unknown name.
        RunError: Another process prepares the same folder, or nothing can be written there.
    """
    digest, list_digest = settings_hash(settings), digest_of_list(settings.split)
    existing = _existing(folder, digest, overwrite, list_digest)
    if existing is not None:
        if work_folder(folder).exists() and not is_of_use(work_folder(folder)):
            # A process was killed when the data set stood: what it left serves nobody. Or another one has just begun there.
            with contextlib.suppress(RunError), hold(folder):
                pass
        return existing
    with hold(folder) as work:
        # Looked at again: until this moment another process may have worked here.
        existing = _existing(folder, digest, overwrite, list_digest)
        if existing is not None:
            return existing
        begin(work, json.dumps({"settings": digest, "medtune": __version__}))
        preparation = _Preparation(settings, name, work, listener)
        num_shards = preparation.make_shards()
        try:
            manifest = preparation.conclude(digest, num_shards)
        except DataError:
            discard(work)  # the same shards would lead to the same error
            raise
        move(work, folder)
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


def _existing(folder: Path, digest: str, overwrite: bool, list_digest: str) -> Manifest | None:
    """The data set that is there already.

    ``list_digest`` is that of the list of splits; empty where the list is not at hand, as on a machine that has the data set only.
    """
    if not folder.exists():
        return None
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
            remedy=msg(
                "Give the settings that it was made with, make it anew with `medtune prepare` and --overwrite, or name another "
                "folder with data.folder=..."
            ),
        )
    if list_digest and dataset.manifest.split.get("assigned_sha256", list_digest) != list_digest:
        raise DataError(
            msg("The data set exists, and was made with another list of splits."),
            file=folder,
            key="data.split.assigned",
            remedy=msg("Make it anew with `medtune prepare` and --overwrite, or name another folder with data.folder=..."),
        )
    changed = dataset.changed_files()
    if changed:
        raise DataError(
            msg("The data set exists, but {files} changed since it was made.", files=", ".join(changed)),
            file=folder,
            remedy=msg("Make it anew with `medtune prepare` and --overwrite, or name another folder with data.folder=..."),
        )
    return dataset.manifest


class _InputChangedError(Exception):
    """The input is not what the finished shards were made of."""


class _Preparation:
    """One run of :func:`prepare`."""

    def __init__(self, settings: DataSettings, name: str, work: Path, listener: Listener | None) -> None:
        self.settings = settings
        self.name = name
        self.work = work
        self.listener = listener
        self.labels = _labels([entry.source for entry in settings.sources])

    def make_shards(self) -> int:
        """Make every shard that is not there yet; how many there are."""
        # Faults of the settings come before any work.
        self.transforms = [
            construct("transform", entry.transform, entry.options, f"data.transforms.{index}")
            for index, entry in enumerate(self.settings.transforms)
        ]
        assigned_splits(self.settings.split)
        self.sources = [
            construct("source", entry.source, entry.options, f"data.sources.{index}")
            for index, entry in enumerate(self.settings.sources)
        ]
        self._refuse_leaving()
        try:
            return self._make_missing()
        except _InputChangedError:
            # Pictures that nobody names any more would stay behind, so nothing is kept.
            for name in ("shards", "out"):
                shutil.rmtree(self.work / name, ignore_errors=True)
            return self._make_missing()

    def _refuse_leaving(self) -> None:
        """Records and pictures travel to the machines of a Ray cluster."""
        local_only = self.settings.local_only
        for index, source in enumerate(self.sources):
            try:  # a card that needs the data looks at them here for the first time
                local_only |= source.card.local_only
            except DataError as error:
                error.key = f"data.sources.{index}{(error.key or '').removeprefix('data.sources')}"
                raise
        address = os.environ.get("RAY_ADDRESS", "local")
        if self.settings.engine == "ray" and local_only and address != "local":
            raise DataError(
                msg(
                    "The data may not leave this machine (local-only), and RAY_ADDRESS names a cluster: {address}.", address=address
                ),
                key="data.engine",
                remedy=msg("Use data.engine: local, or unset RAY_ADDRESS: Ray then runs on this machine alone."),
            )

    def _make_missing(self) -> int:
        (self.work / "out").mkdir(exist_ok=True)
        num_shards = 0
        found = 0

        def missing() -> Iterator[Job]:
            nonlocal num_shards, found
            for job in jobs_of(self.settings, self.sources, self.labels):
                num_shards = job.number + 1
                file = shard_folder(self.work, job.number) / "summary.json"
                if not file.is_file():
                    yield job
                    continue
                try:
                    summary = Summary.model_validate_json(file.read_bytes())
                except ValidationError:  # of a machine that lost power: what it had said was written was not
                    raise _InputChangedError from None
                if summary.digest != job.digest:
                    raise _InputChangedError
                found += summary.num_records

        engine = ray_engine if self.settings.engine == "ray" else local_engine
        with contextlib.closing(engine(self.settings, self.work, missing())) as progress:
            for label, num_records in progress:
                if self.listener is not None:
                    self.listener(Event("progress", msg("Reading {source}", source=label), done=found + num_records))
        # An earlier attempt may have found more in the input.
        for folder in sorted((self.work / "shards").glob("[0-9]" * 6))[num_shards:]:
            raise _InputChangedError(folder)
        return num_shards

    def conclude(self, digest: str, num_shards: int) -> Manifest:
        """Put the shards together and write the manifest."""
        totals = merge(self.work, self.settings, self.labels, num_shards)
        for index, label in enumerate(self.labels):
            if index not in totals.sources or not totals.sources[index].num_rows:
                path = getattr(self.sources[index], "path", None)
                raise _nothing(label, totals.sources.get(index), f"data.sources.{index}", path)
        records = tuple(
            SourceRecord(
                card=_card(source),
                options={key: _without_folder(key, value) for key, value in entry.options.items()},
                num_samples=totals.sources[index].num_rows,
                left_out=dict(sorted(totals.sources[index].left_out.items())),
            )
            for index, (source, entry) in enumerate(zip(self.sources, self.settings.sources, strict=True))
        )
        out = self.work / "out"
        self._write_dataset_info(totals)
        manifest = Manifest(
            name=self.name,
            medtune_version=__version__,
            sources=records,
            split=split_record(self.settings.split),
            transforms=tuple(transform_record(transform) for transform in self.transforms),
            num_samples={name: totals.num_samples[name] for name in SPLITS},
            num_groups={name: totals.num_groups[name] for name in SPLITS},
            num_images=totals.num_images,
            tasks=dict(sorted(totals.tasks.items())),
            displays=tuple(sorted(totals.displays)),
            strata=totals.strata,
            group_kind=min((record.card.group_kind for record in records), key=_WEAKEST.index),
            synthetic=any(record.card.synthetic for record in records),
            local_only=self.settings.local_only or any(record.card.local_only for record in records),
            files={file: file_sha256(out / file) for file in (*(f"{name}.jsonl" for name in SPLITS), "images.jsonl")},
            warnings=tuple(self._warnings(totals)),
            settings_hash=digest,
        )
        (out / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_card(out, manifest, strata=totals.tags)
        return manifest

    def _write_dataset_info(self, totals: Totals) -> None:
        """Register each split that has rows with LLaMA-Factory."""
        entries = {f"{self.name}_{split}": llamafactory_entry(f"{split}.jsonl") for split in SPLITS if totals.num_samples[split]}
        (self.work / "out" / "dataset_info.json").write_text(
            json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    def _warnings(self, totals: Totals) -> Iterator[Text]:
        for split in SPLITS:
            wanted = self.settings.split.kind == "group-hash" and getattr(self.settings.split.fractions, split) > 0
            if not totals.num_samples[split] and wanted:
                yield msg("The split {split} is empty: there are too few groups for its share.", split=split)
        listed = len(assigned_splits(self.settings.split))
        if totals.num_listed_groups < listed:
            yield msg(
                "{count} of the {total} groups that {file} names are not in the data; groups.csv shows how groups are named.",
                count=listed - totals.num_listed_groups,
                total=listed,
                file=str(getattr(self.settings.split.assigned, "name", "")),
            )
        if totals.num_unused_splits:
            yield msg(
                "{count} records bring a split of their own; data.split.kind group-hash does not use it.",
                count=totals.num_unused_splits,
            )
        if totals.num_uncounted_strata:
            yield msg(
                "There are {count} combinations of task and modality more than are looked after; only the first have a group in "
                "each split for sure, and are counted.",
                count=totals.num_uncounted_strata,
            )
        if totals.num_moved_groups:
            yield msg(
                "{count} groups were moved to another split than the hash drew, so that each task and modality is in every split.",
                count=totals.num_moved_groups,
            )
        left_out = sum(sum(source.left_out.values()) for source in totals.sources.values())
        if left_out:
            yield msg("{count} records were left out; left_out.jsonl says why.", count=left_out)
        for source in self.sources:
            if isinstance(source, RemarkingSource):
                yield from source.remarks()


def _labels(names: list[str]) -> list[str]:
    """A label for each source entry: its name, with #2, #3, ... from the second use on."""
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return labels


def _card(source: Any) -> SourceCard:
    """The source's card, with the commit at which data of a hub were read."""
    card: SourceCard = source.card
    path = getattr(source, "path", None)
    return card if card.revision or path is None else card.model_copy(update={"revision": revision_of(path)})


_PATHS = ("path", "patients", "masks", "index", "captions", "images", "reports")
"""Options of sources that are paths, beside those whose names end like one."""


def _without_folder(key: str, value: JsonValue) -> JsonValue:
    """Options for the manifest, which holds no folder of the machine it was made on. Addresses of a hub stay."""
    if isinstance(value, dict):
        return {name: _without_folder(name, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_folder(key, inner) for inner in value]
    if not isinstance(value, str) or "://" in value:
        return value
    is_path = key in _PATHS or key.endswith(("_path", "_dir", "_folder", "_file")) or Path(value).is_absolute()
    return Path(value).name if is_path else value


def _nothing(label: str, totals: SourceTotals | None, key: str, path: Path | None) -> DataError:
    if totals is None or totals.first is None:
        return DataError(
            msg("The source {source} has no records.", source=label),
            file=path,
            key=key,
            remedy=msg("Check its options; is this the right file?"),
        )
    first = totals.first
    return DataError(
        msg(
            "None of the {count} records of {source} can be used. The first: {fault}",
            count=sum(totals.left_out.values()),
            source=label,
            fault=str(first.text),
        ),
        file=first.file,
        sample=first.id,
        key=key,
        remedy=first.remedy,
    )
