"""The shards of a preparation become the files of a data set, in memory that does not grow with the rows.

Mostly the shards' files are copied one behind the other. Three things are only known when all shards are there, and are found
by their keys (:mod:`medtune.data.keys`): rows whose id stands in an earlier shard, pictures that an earlier shard has listed,
and groups that move to another split. Only the shards concerned are read line by line.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medtune.data.config import DataSettings, Fractions
from medtune.data.dataset import LeftOut
from medtune.data.keys import KeyFiles, KeyTable
from medtune.data.shard import ROW, TAGS, Summary, shard_folder
from medtune.data.split import SPLITS, assigned_splits, digest_of, draw_all, fill_strata, group_line, place_of
from medtune.language import msg
from medtune.types import Fault, SplitName

__all__ = ["SourceTotals", "Totals", "merge"]

_MAX_STRATA = 64
"""Strata that are looked after; a data set with more of them has few groups in each."""

_MAX_TAG_VALUES = 50
"""Values of a tag that are counted: a column that names something else for each row is no tag."""

_GROUP_STRATUM = np.dtype([("key", "<u8"), ("strata", "<u8"), ("split", "u1")])


@dataclass(slots=True)
class SourceTotals:
    """What became of the records of one source."""

    num_records: int = 0
    num_rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    first: LeftOut | None = None


@dataclass(slots=True)
class Totals:
    """The counts of a whole data set."""

    sources: dict[int, SourceTotals] = field(default_factory=dict)
    num_samples: Counter[str] = field(default_factory=Counter)
    num_groups: Counter[str] = field(default_factory=Counter)
    num_images: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    strata: dict[str, dict[str, int]] = field(default_factory=dict)
    """``task / modality`` -> split -> groups."""
    tags: dict[str, dict[str, dict[SplitName, int]]] = field(default_factory=dict)
    """Tag -> its value -> split -> rows."""
    displays: set[str] = field(default_factory=set)
    num_unused_splits: int = 0
    num_moved_groups: int = 0
    """Groups that :func:`~medtune.data.split.fill_strata` moved."""
    num_uncounted_strata: int = 0
    """Strata beyond those that are looked after: no split is filled for them, and ``strata`` does not name them."""
    num_listed_groups: int = 0
    """Groups of the data set that the user's list names."""


def merge(work: Path, settings: DataSettings, labels: list[str], num_shards: int) -> Totals:
    """Write the split files, ``images.jsonl``, ``left_out.jsonl`` and ``groups.csv`` to ``work/out``."""
    keys = work / "keys"
    shutil.rmtree(keys, ignore_errors=True)
    try:
        return _Merge(work, settings, labels, num_shards, keys).run()
    finally:
        shutil.rmtree(keys, ignore_errors=True)


class _Merge:
    def __init__(self, work: Path, settings: DataSettings, labels: list[str], num_shards: int, keys: Path) -> None:
        self.work = work
        self.settings = settings
        self.labels = labels
        self.num_shards = num_shards
        self.keys = keys
        self.totals = Totals()
        self.strata: dict[tuple[str, str], int] = {}
        self.listed = assigned_splits(settings.split)

    def run(self) -> Totals:
        self._find_repeats()
        self._place_groups()
        with ExitStack() as stack:
            names = (*(f"{split}.jsonl" for split in SPLITS), "images.jsonl", "left_out.jsonl", "groups.csv")
            files: dict[str, IO[bytes]] = {name: stack.enter_context((self.work / "out" / name).open("wb")) for name in names}
            files["groups.csv"].write(b"group,split\n")
            for number in range(self.num_shards):
                self._add(number, files)
        for split in SPLITS:
            _show_a_picture_early(self.work / "out" / f"{split}.jsonl")
        return self.totals

    # ------------------------------------------------------------------------------------------------- what is only known now

    def _find_repeats(self) -> None:
        self.repeated_rows: dict[int, NDArray[np.int64]] = {}
        self.repeated_images: dict[int, NDArray[np.int64]] = {}
        self.repeated_groups: dict[int, NDArray[np.int64]] = {}
        self.official_validation = 0
        ids, images, groups = (KeyTable(self.keys / name) for name in ("ids", "images", "groups"))
        for number in range(self.num_shards):
            rows, summary = self._rows(number), self._summary(number)
            self.official_validation += summary.num_rows["validation"]
            if self.num_shards == 1:
                return
            ids.add(number, np.stack([rows["id"], rows["id_more"]], axis=1))
            keys = np.load(shard_folder(self.work, number) / "images.npy")
            images.add(number, np.stack([keys, keys], axis=1))
            pairs = np.load(shard_folder(self.work, number) / "groups.npy")
            groups.add(number, np.stack([pairs["group"], pairs["split"].astype(np.uint64)], axis=1))
        self.repeated_rows, self.repeated_images, self.repeated_groups = ids.repeated(), images.repeated(), groups.repeated()

    def _place_groups(self) -> None:
        """Count the groups of each split and stratum, and decide which groups move."""
        self.moved: dict[int, int] = {}
        self.redraw: Fractions | None = None
        split = self.settings.split
        if split.kind == "official" and not self.official_validation and split.fractions.validation:
            # No source named validation rows: a share of the training groups becomes validation.
            share = split.fractions.validation
            self.redraw = split.fractions.model_copy(update={"train": 1.0 - share, "validation": share, "test": 0.0})
        files = KeyFiles(self.keys / "strata", _GROUP_STRATUM)
        for number in range(self.num_shards):
            files.add(self._groups_of(number))
        counts = np.zeros((_MAX_STRATA, len(SPLITS)), np.int64)
        per_split = np.zeros(len(SPLITS), np.int64)
        for found in _merged(files):
            per_split += np.bincount(found["split"], minlength=len(SPLITS))
            _count_strata(found, counts)
        counts = counts[: len(self.strata)]
        if split.kind == "group-hash" and split.fill_strata:
            self.moved = fill_strata(counts, split.fractions, self._movable(files))
            for digest, place in self.moved.items():
                per_split[place_of(digest, split.fractions)] -= 1
                per_split[place] += 1
        files.close()
        self.totals.num_moved_groups = len(self.moved)
        self.totals.num_uncounted_strata = len(self.strata) - len(counts)
        self.totals.num_groups = Counter({name: int(per_split[place]) for place, name in enumerate(SPLITS)})
        names = sorted((f"{task} / {modality}", row) for (task, modality), row in self.strata.items() if row < len(counts))
        self.totals.strata = {name: {split: int(counts[row, place]) for place, split in enumerate(SPLITS)} for name, row in names}

    def _groups_of(self, number: int) -> NDArray[Any]:
        """(group, strata, split) of a shard's rows, each once."""
        rows, summary = self._rows(number), self._summary(number)
        numbers = np.array([self.strata.setdefault(pair, len(self.strata)) for pair in summary.strata] or [0], np.uint64)
        kept = self._kept(number, len(rows))
        found = np.empty(int(kept.sum()), _GROUP_STRATUM)
        found["key"] = rows["group"][kept]
        strata = numbers[rows["stratum"][kept]]
        found["strata"] = np.where(strata < _MAX_STRATA, np.uint64(1) << np.minimum(strata, _MAX_STRATA - 1), 0)
        found["split"] = self._final(rows[kept])
        return np.unique(found)

    def _movable(self, files: KeyFiles) -> Iterator[tuple[int, tuple[int, ...], int]]:
        listed = {digest_of(group, self.settings.split.seed) for group in self.listed}
        for found in _merged(files):
            for group in found:
                digest, mask = int(group["key"]), int(group["strata"])
                if digest not in listed:
                    yield digest, tuple(bit for bit in range(_MAX_STRATA) if mask >> bit & 1), int(group["split"])

    def _final(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """The split of each row, after what is only known now."""
        splits: NDArray[np.uint8] = rows["split"].copy()
        if self.redraw is not None:
            training = splits == 0
            splits[training] = draw_all(rows["group"][training], self.redraw)
        if self.moved:
            digests = np.fromiter(self.moved, np.uint64)
            for place in np.flatnonzero(np.isin(rows["group"], digests)):
                splits[place] = self.moved[int(rows["group"][place])]
        return splits

    # ------------------------------------------------------------------------------------------------------------ the files

    def _add(self, number: int, files: dict[str, IO[bytes]]) -> None:
        folder = shard_folder(self.work, number)
        rows, summary = self._rows(number), self._summary(number)
        kept, splits = self._kept(number, len(rows)), self._final(rows)
        totals = self.totals.sources.setdefault(summary.source, SourceTotals())
        totals.num_records += summary.num_records
        totals.left_out.update(summary.left_out)
        totals.first = totals.first or summary.first
        self.totals.num_unused_splits += summary.num_unused_splits
        _append(folder / "left_out.jsonl", files["left_out.jsonl"])
        if kept.all() and (splits == rows["split"]).all():
            for split in SPLITS:
                _append(folder / f"{split}.jsonl", files[f"{split}.jsonl"])
        else:
            self._add_lines(folder, summary, rows, kept, splits, files)
        for place, count in enumerate(np.bincount(splits[kept], minlength=len(SPLITS))):
            self.totals.num_samples[SPLITS[place]] += int(count)
        totals.num_rows += int(kept.sum())
        self.totals.displays.update(summary.displays)
        self._count_tags(summary, rows["tags"][kept], splits[kept])
        for stratum, count in enumerate(np.bincount(rows["stratum"][kept], minlength=len(summary.strata))):
            if count:
                self.totals.tasks[summary.strata[stratum][0]] += int(count)
        self.totals.num_images += self._add_images(number, folder, summary.num_images, files["images.jsonl"])
        self._add_groups(number, folder, files["groups.csv"])

    def _count_tags(self, summary: Summary, tags: NDArray[np.uint16], splits: NDArray[np.uint8]) -> None:
        pairs, counts = np.unique(np.stack([tags, splits.astype(np.uint16)]), axis=1, return_counts=True)
        for (number, place), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            for tag, value in zip(TAGS, summary.tags[number], strict=True):
                values = self.totals.tags.setdefault(tag, {})
                if value and (value in values or len(values) < _MAX_TAG_VALUES):
                    found = values.setdefault(value, {})
                    found[SPLITS[place]] = found.get(SPLITS[place], 0) + count

    def _add_lines(
        self,
        folder: Path,
        summary: Summary,
        rows: NDArray[Any],
        kept: NDArray[np.bool_],
        splits: NDArray[np.uint8],
        files: dict[str, IO[bytes]],
    ) -> None:
        totals = self.totals.sources[summary.source]
        # A row that moves takes the place among the rows of its new split that its record has in the source.
        with ExitStack() as stack:
            lines = itertools.chain.from_iterable(stack.enter_context((folder / f"{split}.jsonl").open("rb")) for split in SPLITS)
            found = sorted(zip(rows["record"].tolist(), kept.tolist(), splits.tolist(), lines, strict=True))
        for _, keep, split, line in found:
            if keep:
                files[f"{SPLITS[split]}.jsonl"].write(line)
                continue
            fault = Fault("duplicate-id", msg("Another record has the same id."), msg("Give each record an id of its own."))
            left_out = LeftOut.of(fault, source=self.labels[summary.source], record_id=json.loads(line)["id"])
            totals.left_out["duplicate-id"] += 1
            totals.first = totals.first or left_out
            files["left_out.jsonl"].write(left_out.model_dump_json().encode() + b"\n")

    def _add_images(self, number: int, folder: Path, num_images: int, into: IO[bytes]) -> int:
        repeated = self.repeated_images.get(number)
        if repeated is None:
            _append(folder / "images.jsonl", into)
        else:
            skip = set(repeated.tolist())
            with (folder / "images.jsonl").open("rb") as lines:
                into.writelines(line for place, line in enumerate(lines) if place not in skip)
        return num_images - (0 if repeated is None else len(repeated))

    def _add_groups(self, number: int, folder: Path, into: IO[bytes]) -> None:
        skip = set(self.repeated_groups.get(number, np.empty(0, np.int64)).tolist())
        pairs = np.load(folder / "groups.npy")
        splits = self._final(pairs)
        if not skip and not self.listed and (splits == pairs["split"]).all():
            _append(folder / "groups.csv", into)
            return
        limit = csv.field_size_limit(2**31 - 1)  # a group may be longer than the 128 KiB that csv takes for a field
        try:
            with (folder / "groups.csv").open(encoding="utf-8", newline="") as lines:
                for place, (group, _) in enumerate(csv.reader(lines)):
                    if place not in skip:
                        self.totals.num_listed_groups += group in self.listed
                        into.write(group_line(group, SPLITS[splits[place]]).encode())
        finally:
            csv.field_size_limit(limit)

    def _rows(self, number: int) -> NDArray[Any]:
        rows: NDArray[Any] = np.load(shard_folder(self.work, number) / "rows.npy")
        assert rows.dtype == ROW
        return rows

    def _summary(self, number: int) -> Summary:
        return Summary.model_validate_json((shard_folder(self.work, number) / "summary.json").read_bytes())

    def _kept(self, number: int, num_rows: int) -> NDArray[np.bool_]:
        kept = np.ones(num_rows, np.bool_)
        if number in self.repeated_rows:
            kept[self.repeated_rows[number]] = False
        return kept


def _merged(files: KeyFiles) -> Iterator[NDArray[Any]]:
    """Each (group, split) once, with the strata of all its rows."""
    for found in files:
        found.sort(order=["key", "split"])
        new = np.ones(len(found), np.bool_)
        new[1:] = (found["key"][1:] != found["key"][:-1]) | (found["split"][1:] != found["split"][:-1])
        starts = np.flatnonzero(new)
        merged = found[starts]
        merged["strata"] = np.bitwise_or.reduceat(found["strata"], starts)
        yield merged


def _count_strata(found: NDArray[Any], counts: NDArray[np.int64]) -> None:
    for stratum in range(_MAX_STRATA):
        has = (found["strata"] >> np.uint64(stratum)) & np.uint64(1) > 0
        if has.any():
            counts[stratum] += np.bincount(found["split"][has], minlength=len(SPLITS))


_FIRST_BLOCK = 8 * 1024**2
"""The JSON reader of Hugging Face datasets takes the types of all columns from the first 10 MiB."""


def _show_a_picture_early(file: Path) -> None:
    """When a file begins with more text than :data:`_FIRST_BLOCK`, put its first row with a picture at the head.

    Otherwise the reader takes ``images`` for a column of nulls, and LLaMA-Factory refuses the whole data set.
    """
    with file.open("rb") as lines:
        seen, found = 0, b""
        for line in lines:
            if b'"images": []' not in line:
                found = line
                break
            seen += len(line)
        if not found or seen < _FIRST_BLOCK:
            return
        lines.seek(0)
        rest = file.with_suffix(".writing")
        with rest.open("wb") as into:
            into.write(found)
            shutil.copyfileobj(_Limited(lines, seen), into, 1 << 20)
            lines.seek(seen + len(found))
            shutil.copyfileobj(lines, into, 1 << 20)
    rest.replace(file)


class _Limited:
    """The next ``left`` bytes of a file."""

    def __init__(self, file: IO[bytes], left: int) -> None:
        self.file = file
        self.left = left

    def read(self, size: int = -1) -> bytes:
        part = self.file.read(min(size, self.left) if size >= 0 else self.left)
        self.left -= len(part)
        return part


def _append(file: Path, into: IO[bytes]) -> None:
    with file.open("rb") as content:
        shutil.copyfileobj(content, into, 1 << 20)
