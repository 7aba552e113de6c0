"""``validate --fix``: a cleaned copy of a data set, and ``fixes.jsonl``, the list of what it changed or left out.

Never in place, and whole or not at all. Small faults are put right (:mod:`medtune.data.repair`); rows with errors are left out.
What two splits share is left out of train, then of validation, never of test: a test set that shrinks to fit the training data
would measure another thing. Warnings stay, among them what a split that was asked for by name (``official``) shares.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from medtune.data.card import write_card
from medtune.data.checks.check import Check, Context, PictureFacts, PictureUse
from medtune.data.checks.keys import key
from medtune.data.checks.texts import is_placeholder
from medtune.data.dataset import Dataset, RowError, file_sha256, image_line, sample_of
from medtune.data.repair import Change, repair_row
from medtune.errors import DataError
from medtune.language import msg
from medtune.runs import atomic_folder
from medtune.types import Document, Issue, Manifest, Sample, SplitName

__all__ = ["LEFT_OUT", "Faults", "Fix", "Fixed", "check_target", "write_fixed"]

LEFT_OUT = frozenset({
    "answer-empty", "answer-placeholder", "box-outside", "duplicate-id", "image-marks", "image-unknown", "not-encodable",
    "role-order", "row-malformed", "row-not-json", "row-too-long", "target-differs", "turn-empty", "unknown-task",
})  # fmt: skip
"""Errors of one row, which is left out where it cannot be put right."""

PICTURES = frozenset({"burned-in-identifier", "image-changed", "image-missing", "image-unreadable"})
"""Errors of a picture; all its rows are left out."""

_PLACE = re.compile(r"\.jsonl:(\d+)$")
_SHARED = ("group", "patient", "study", "volume")
_HELD_OUT_FIRST: tuple[SplitName, ...] = ("test", "validation", "train")


class Fix(Document):
    """A line of ``fixes.jsonl``. ``before`` and ``after`` are the words or numbers that changed; a row left out has neither."""

    sample: str | None
    split: SplitName | None
    line: int | None
    """In the split file of the origin, from 1."""
    code: str
    action: Literal["changed", "left-out"]
    before: str | None = None
    after: str | None = None


class Fixed(Document):
    """What :func:`write_fixed` did. Nothing was written when both numbers are 0."""

    folder: str
    num_changed: int
    """Rows that were put right."""
    num_left_out: int
    """Rows that were left out."""
    codes: dict[str, int]
    """Rows changed or left out, by the code of the finding."""


class Faults(Check):
    """Notes, during a validation, which rows and pictures have errors. 8 bytes a picture, and an entry for each fault."""

    needs = frozenset({"fingerprint"})

    def __init__(self, context: Context, into: list[Faults] | None = None) -> None:
        super().__init__(context)
        if into is not None:
            into.append(self)
        self.rows: dict[tuple[SplitName, int], str] = {}
        self.pictures: dict[str, str] = {}
        self.pixels = array("Q")
        """By number of the picture; 0 where it was not read."""
        self.findings.watch = self._note

    def _note(self, issue: Issue) -> None:
        if issue.severity != "error":
            return
        place = _PLACE.search(issue.file or "")
        if issue.code in LEFT_OUT and place is not None and issue.split is not None:
            self.rows.setdefault((issue.split, int(place[1])), issue.code)
        elif issue.code in PICTURES and issue.file is not None:
            self.pictures.setdefault(Path(issue.file).relative_to(self.context.dataset.folder).as_posix(), issue.code)

    def picture(self, facts: PictureFacts, use: PictureUse) -> None:
        del use
        self.pixels.append(facts.measured["fingerprint"]["pixels"] if facts.fault is None else 0)


def write_fixed(dataset: Dataset, faults: Faults, folder: Path, *, terms: bool = False) -> Fixed:
    """Write the cleaned copy of ``dataset`` as a new data set.

    Args:
        dataset: The origin; it is not changed.
        faults: From a validation of ``dataset``.
        folder: Where the copy appears. Must not exist, and not lie in the data set.
        terms: Replace phrases that have one standard term too.

    Raises:
        DataError: ``folder`` exists or lies in the data set, or no row would be left.
    """
    check_target(dataset, folder)
    try:
        with atomic_folder(folder) as work:
            fixed = _Copy(dataset, faults, work, terms).write(folder)
            if not fixed.num_changed and not fixed.num_left_out:
                raise _NothingToDo(fixed)
    except _NothingToDo as nothing:  # so that no folder appears
        return nothing.fixed
    return fixed


def check_target(dataset: Dataset, folder: Path) -> None:
    """Whether a copy may be written here.

    Raises:
        DataError: ``folder`` exists or lies in the data set.
    """
    if folder.exists():
        raise DataError(msg("The folder exists already."), file=folder, remedy=msg("Give another name."))
    if folder.resolve().is_relative_to(dataset.folder.resolve()):
        raise DataError(
            msg("The cleaned copy cannot lie inside the data set."), file=folder, remedy=msg("Name a folder beside the data set.")
        )


class _NothingToDo(Exception):
    def __init__(self, fixed: Fixed) -> None:
        super().__init__("nothing to do")
        self.fixed = fixed


class _Copy:
    def __init__(self, dataset: Dataset, faults: Faults, work: Path, terms: bool) -> None:
        self.dataset = dataset
        self.faults = faults
        self.work = work
        self.terms = terms
        self.fixes = (work / "fixes.jsonl").open("w", encoding="utf-8", newline="\n")
        self.codes: Counter[str] = Counter()
        self.num_rows: Counter[str] = Counter()
        self.tasks: Counter[str] = Counter()
        self.num_changed = self.num_left_out = 0
        self.groups: dict[str, set[int]] = {split: set() for split in _HELD_OUT_FIRST}
        self.strata: dict[tuple[str, str], dict[str, set[int]]] = {}
        self.held: dict[SplitName, set[int]] = {"test": set(), "validation": set()}
        self.used: set[int] = set()
        """Keys of the pictures that rows of the copy show."""
        official = dataset.manifest.split.get("kind") == "official"
        self.pixels = {} if official else _shared_pixels(dataset, faults)
        self.official = official

    def write(self, folder: Path) -> Fixed:
        for entry in self.dataset.left_out():
            self._note(Fix(sample=entry.id, split=None, line=None, code=f"left-out-{entry.reason}", action="left-out"))
            self.codes[f"left-out-{entry.reason}"] += 1
        left_out_before = self.codes.total()
        for split in _HELD_OUT_FIRST:
            self._write_split(split)
        self.fixes.close()
        if not self.num_rows.total():
            raise DataError(
                msg("No row would be left."),
                file=self.dataset.folder,
                remedy=msg("Correct the source: `medtune validate` says what is wrong."),
            )
        fixed = Fixed(
            folder=str(folder),
            num_changed=self.num_changed,
            num_left_out=self.num_left_out + left_out_before,
            codes=dict(sorted(self.codes.items())),
        )
        if fixed.num_changed or fixed.num_left_out:
            self._write_rest()
        return fixed

    def _note(self, fix: Fix) -> None:
        self.fixes.write(fix.model_dump_json(exclude_none=True) + "\n")

    # ------------------------------------------------------------------------------------------------------------------ rows

    def _write_split(self, split: SplitName) -> None:
        with (self.work / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for number, line in self.dataset.lines(split):
                kept = self._row(split, number, line)
                if kept is not None:
                    file.write(kept if kept.endswith("\n") else kept + "\n")

    def _row(self, split: SplitName, number: int, line: str) -> str | None:
        """The line of the copy; None for a row that is left out."""
        row, changes = self._repaired(line)
        code, sample = self._error(split, number, line if row is None or not changes else json.dumps(row), bool(changes))
        name = sample.id if sample is not None else str(row["id"]) if row is not None and "id" in row else None
        if code is None and sample is not None:
            code = self._overlap(split, sample)
        if code is not None or sample is None:
            self.num_left_out += 1
            self.codes[code or "row-malformed"] += 1
            self._note(Fix(sample=name, split=split, line=number, code=code or "row-malformed", action="left-out"))
            return None
        self._count(split, sample)
        if not changes:
            return line
        self.num_changed += 1
        self.codes.update({change.code for change in changes})
        for change in changes:
            self._note(Fix(sample=name, split=split, line=number, action="changed", **change._asdict()))
        return json.dumps(row, ensure_ascii=False)

    def _repaired(self, line: str) -> tuple[dict[str, Any] | None, list[Change]]:
        try:
            row = json.loads(line)
        except ValueError:
            return None, []
        if not isinstance(row, dict):
            return None, []
        paths = row.get("images")
        ref = self.dataset.images.get(paths[0]) if isinstance(paths, list) and paths and isinstance(paths[0], str) else None
        return row, repair_row(row, None if ref is None else (ref.width, ref.height), terms=self.terms)

    def _error(self, split: SplitName, number: int, line: str, changed: bool) -> tuple[str | None, Sample | None]:
        code = self.faults.rows.get((split, number))
        try:
            sample = sample_of(line, self.dataset.images)
        except RowError as error:
            return code or error.code, None
        if changed and code in ("row-malformed", "box-outside", "target-differs"):
            # Put right, perhaps: but nobody has looked behind the first fault yet.
            code = _answer_fault(sample) if sample.target == sample.messages[-1].content else "target-differs"
            if _is_outside(sample):
                code = "box-outside"
        bad = next((self.faults.pictures[image.path] for image in sample.images if image.path in self.faults.pictures), None)
        return code or bad, sample

    def _overlap(self, split: SplitName, sample: Sample) -> str | None:
        """The code of what a row shares with a held-out row; remembers what held-out rows hold."""
        if self.official:
            return None
        shared = list(self._keys(sample))
        others = [held for other, held in self.held.items() if _HELD_OUT_FIRST.index(other) < _HELD_OUT_FIRST.index(split)]
        for code, value in shared:
            if any(value in held for held in others):
                return code
        if split != "train":
            self.held[split].update(value for _, value in shared)
        return None

    def _keys(self, sample: Sample) -> Iterator[tuple[str, int]]:
        yield "group-overlap", key("group", sample.group)
        for name in _SHARED[1:]:
            value = sample.metadata.get(name)
            if isinstance(value, (str, int)) and value != "":
                yield f"{name}-overlap", key(name, sample.source, str(value))
        for image in sample.images:
            yield "image-overlap", key("image", image.sha256)
            if image.path in self.pixels:
                yield "same-pixels-overlap", self.pixels[image.path]
        yield "linked-overlap", key("id", sample.id)
        linked = sample.metadata.get("linked_id")
        if linked is not None:
            prefix, slash, _ = sample.id.rpartition("/")
            yield "linked-overlap", key("id", f"{prefix}{slash}{linked}")

    def _count(self, split: SplitName, sample: Sample) -> None:
        group = key(sample.group)
        self.num_rows[split] += 1
        self.tasks[sample.task] += 1
        self.groups[split].add(group)
        modality = str(sample.images[0].modality or "-") if sample.images else "-"
        self.strata.setdefault((sample.task, modality), {}).setdefault(split, set()).add(group)
        self.used.update(key(image.path) for image in sample.images)

    # ------------------------------------------------------------------------------------------------------------ other files

    def _write_rest(self) -> None:
        num_images = 0
        copied: set[str] = set()
        with (self.work / "images.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for ref in self.dataset.images.values():
                if key(ref.path) not in self.used:
                    continue
                num_images += 1
                file.write(image_line(ref) + "\n")
                source = self.dataset.image_path(ref)
                name = source.relative_to(self.dataset.folder).as_posix()
                if ref.shard is None or name not in copied:
                    (self.work / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, self.work / name)
                    if ref.shard is not None:
                        copied.add(name)
        self._copy_groups()
        self._copy_info()
        manifest = self._manifest(num_images)
        (self.work / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_card(self.work, manifest)

    def _copy_groups(self) -> None:
        origin = self.dataset.folder / "groups.csv"
        if not origin.is_file():
            return
        with (
            origin.open(encoding="utf-8", newline="") as old,
            (self.work / "groups.csv").open("w", encoding="utf-8", newline="") as new,
        ):
            writer = csv.writer(new, lineterminator="\n")
            for number, line in enumerate(csv.reader(old)):
                if number == 0 or (len(line) >= 2 and key(line[0]) in self.groups.get(line[1], ())):
                    writer.writerow(line)

    def _copy_info(self) -> None:
        origin = self.dataset.folder / "dataset_info.json"
        if not origin.is_file():
            return
        entries = json.loads(origin.read_text(encoding="utf-8"))
        kept = {
            name: entry for name, entry in entries.items() if self.num_rows[str(entry.get("file_name", "")).removesuffix(".jsonl")]
        }
        (self.work / "dataset_info.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _manifest(self, num_images: int) -> Manifest:
        splits: tuple[SplitName, ...] = ("train", "validation", "test")
        files = (*(f"{split}.jsonl" for split in splits), "images.jsonl")
        origin = self.dataset.manifest
        note = msg(
            "A cleaned copy of the data set {origin}: {changed} rows were put right, {left_out} left out; fixes.jsonl lists them.",
            origin=origin.hash,
            changed=self.num_changed,
            left_out=self.num_left_out,
        )
        return origin.model_copy(
            update={
                "num_samples": {split: self.num_rows[split] for split in splits},
                "num_groups": {split: len(self.groups[split]) for split in splits},
                "num_images": num_images,
                "tasks": dict(sorted(self.tasks.items())),
                "strata": {
                    f"{task} / {modality}": {split: len(groups.get(split, ())) for split in splits}
                    for (task, modality), groups in sorted(self.strata.items())
                },
                "files": {name: file_sha256(self.work / name) for name in files},
                "warnings": (*origin.warnings, note),
                "settings_hash": "",
                "derived_from": origin.hash,
            }
        )


def _answer_fault(sample: Sample) -> str | None:
    answer = sample.target.strip()
    return "answer-empty" if not answer else "answer-placeholder" if is_placeholder(answer) else None


def _is_outside(sample: Sample) -> bool:
    box = sample.metadata.get("box")
    if box is None or not sample.images:
        return False
    try:
        x1, y1, x2, y2 = (float(edge) for edge in box)  # type: ignore[union-attr, arg-type]
    except (TypeError, ValueError):
        return True
    return not (0 <= x1 < x2 <= sample.images[0].width and 0 <= y1 < y2 <= sample.images[0].height)


def _shared_pixels(dataset: Dataset, faults: Faults) -> Mapping[str, int]:
    """Path -> key of the pixels, of the pictures whose pixels another file holds as well."""
    times = Counter(faults.pixels)
    return {path: pixels for path, pixels in zip(dataset.images, faults.pixels, strict=True) if pixels and times[pixels] > 1}
