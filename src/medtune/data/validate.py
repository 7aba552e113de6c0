"""``validate``: everything that is wrong, doubtful or worth knowing about a data set, before a GPU is paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from medtune.data.dataset import Dataset, RowError, file_sha256, sample_of
from medtune.data.findings import Findings
from medtune.data.row_checks import RowChecks
from medtune.data.split import SPLITS
from medtune.data.split_checks import SplitChecks
from medtune.errors import DataError, UnreadableImageError
from medtune.imaging.read import open_picture
from medtune.language import Text, msg
from medtune.types import Event, ImageRef, Listener, Sample, SplitName, ValidationReport

__all__ = ["CHECKS", "validate"]

CHECKS = (
    "files",
    "left-out",
    "rows",
    "answers",
    "source-notes",
    "duplicates",
    "boxes",
    "row-length",
    "closed-answers",
    "pictures",
    "group-overlap",
    "image-overlap",
    "linked-overlap",
    "provenance",
)
"""The names of all checks."""

_STOPPING = frozenset({"unreadable-image", "picture-missing", "image-marks", "answer-empty"})
"""Reasons for leaving a record out that the user should put right: these are errors, the others are warnings."""


def validate(
    dataset: Dataset,
    *,
    count_tokens: Callable[[Sample], int] | None = None,
    max_tokens: int | None = None,
    context: int | None = None,
    too_long: Literal["error", "leave-out"] = "error",
    faulty_records: Literal["error", "leave-out"] = "error",
    listener: Listener | None = None,
) -> ValidationReport:
    """Read every row and every picture of a data set and list what was found. Changes nothing.

    Args:
        dataset: The data set.
        count_tokens: Tokens of a row in the model's own counting, pictures included; None = row lengths are not checked.
        max_tokens: Tokens that fit into a row of train or validation.
        context: Tokens that fit into any row: what the model can read.
        too_long: What training does with rows that do not fit.
        faulty_records: What training does about records that should have become rows: see ``DataSettings``.
        listener: Hears of the progress.
    """
    findings = Findings()
    skipped: dict[str, Text] = {}
    _files(dataset, findings)
    _left_out(dataset, findings, faulty_records)
    try:
        images = dataset.images
    except DataError as error:
        findings.add("images-index", "error", error.what, error.remedy, file=error.file)
        skipped = {name: msg("images.jsonl cannot be read.") for name in CHECKS[2:-1]}
        _provenance(dataset, findings)
        return _report(dataset, findings, {split: dataset.num_rows(split) for split in SPLITS}, skipped)
    rows = RowChecks(findings, count_tokens, max_tokens, context=context, too_long=too_long)
    splits = SplitChecks(findings)
    users: dict[str, tuple[SplitName, str]] = {}
    num_rows = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        for place, sample in _rows(dataset, split, findings, num_rows, images):
            rows.look(sample, split, place)
            splits.look(sample, split)
            for image in sample.images:
                users.setdefault(image.path, (split, sample.id))
            if listener is not None and num_rows[split] % 500 == 0:
                listener(
                    Event(
                        "progress",
                        msg("Checking {split}", split=split),
                        done=num_rows[split],
                        total=dataset.manifest.num_samples.get(split),
                    )
                )
    rows.conclude()
    _pictures(dataset, images, users, findings)
    splits.conclude(official=dataset.manifest.split.get("kind") == "official")
    _provenance(dataset, findings)
    if rows.count_tokens is None:
        skipped["row-length"] = msg("No model was given, so the rows were not measured.")
    if not splits.has_links:
        skipped["linked-overlap"] = msg("No row names the row that it rephrases.")
    return _report(dataset, findings, num_rows, skipped)


def _report(dataset: Dataset, findings: Findings, num_rows: dict[SplitName, int], skipped: dict[str, Text]) -> ValidationReport:
    return ValidationReport(
        dataset=dataset.manifest.name,
        num_rows={str(split): count for split, count in num_rows.items()},
        issues=findings.issues(),
        checks=tuple(name for name in CHECKS if name not in skipped),
        skipped=skipped,
    )


def _files(dataset: Dataset, findings: Findings) -> None:
    for name in dataset.changed_files():
        if (dataset.folder / name).is_file():
            message = msg("The file is not the one that the manifest names: its hash differs.")
        else:
            message = msg("The file is missing.")
        findings.add("file-changed", "error", message, msg("Prepare the data set again."), file=str(dataset.folder / name))


def _left_out(dataset: Dataset, findings: Findings, faulty_records: Literal["error", "leave-out"]) -> None:
    for entry in dataset.left_out():
        stops = entry.reason in _STOPPING and faulty_records == "error"
        remedy = entry.remedy
        if stops:
            remedy = msg(
                "{remedy} Then prepare again with --overwrite; or go on without such records: data.faulty_records=leave-out.",
                remedy=str(entry.remedy or ""),
            )
        findings.add(
            f"left-out-{entry.reason}",
            "error" if stops else "warning",
            msg("A record of {source} did not become a row. {reason}", source=entry.source, reason=str(entry.text)),
            remedy,
            sample=entry.id,
            file=entry.file,
        )


def _rows(
    dataset: Dataset, split: SplitName, findings: Findings, num_rows: dict[SplitName, int], images: dict[str, ImageRef]
) -> Iterator[tuple[str, Sample]]:
    file = dataset.split_file(split)
    for number, line in dataset.lines(split):
        num_rows[split] += 1
        place = f"{file}:{number}"
        try:
            sample = sample_of(line, images)
        except RowError as error:
            findings.add(
                error.code,
                "error",
                error.message,
                msg("Correct the row, or prepare again."),
                split=split,
                sample=error.row_id,
                file=place,
            )
            continue
        yield place, sample


def _pictures(dataset: Dataset, images: dict[str, ImageRef], users: dict[str, tuple[SplitName, str]], findings: Findings) -> None:
    refs = [images[path] for path in users]
    with ThreadPoolExecutor(4) as threads:
        for ref, fault in zip(refs, threads.map(lambda ref: _picture_fault(dataset, ref), refs), strict=True):
            if fault is not None:
                split, sample = users[ref.path]
                code, message, remedy = fault
                findings.add(code, "error", message, remedy, split=split, sample=sample, file=str(dataset.image_path(ref)))
    unused = len(images) - len(users)
    if unused:
        findings.add("image-unused", "info", msg("{count} pictures belong to no row.", count=unused), count=unused)


def _picture_fault(dataset: Dataset, ref: ImageRef) -> tuple[str, Text, Text | None] | None:
    file = dataset.image_path(ref)
    again = msg("Prepare the data set again.")
    if not file.is_file():
        return "image-missing", msg("The picture is missing."), again
    if file_sha256(file) == ref.sha256:
        # Decoded and found sound when it was stored; the same bytes are sound today.
        return None
    try:
        open_picture(file, name=ref.path)
    except UnreadableImageError as error:
        return "image-unreadable", error.what, again
    return "image-changed", msg("The picture is not the one that was stored: its hash differs."), again


def _provenance(dataset: Dataset, findings: Findings) -> None:
    manifest = dataset.manifest
    if manifest.group_kind in ("image", "row"):
        findings.add(
            "no-patient-ids",
            "warning",
            msg(
                "The data have no patient ids: the split keeps each {kind} together, but one patient may stand on both sides.",
                kind=str(msg("picture") if manifest.group_kind == "image" else msg("row")),
            ),
            msg("Say so where you report numbers; with patient ids at hand, give them to the source."),
        )
    if manifest.synthetic:
        findings.add(
            "synthetic",
            "info",
            msg("The data are synthetic, in part or in whole: they show that the method works, nothing about patients."),
        )
    for source in manifest.sources:
        for note in source.card.notes:
            findings.add("source-card", "info", msg("{source}: {note}", source=source.card.name, note=Text(note).render()))
    for split in SPLITS:
        if not manifest.num_samples.get(split, 0):
            findings.add("split-empty", "info", msg("The split {split} has no rows.", split=split), split=split)
