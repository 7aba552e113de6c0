"""``validate``: everything that is wrong, doubtful or worth knowing about a data set, before a GPU is paid for."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from medtune.data.checks.answers import Answers
from medtune.data.checks.balance import ClosedAnswers
from medtune.data.checks.box_words import BoxWords
from medtune.data.checks.boxes import Boxes
from medtune.data.checks.burned_boxes import BurnedInBoxes
from medtune.data.checks.burned_text import BurnedInText, require_ocr
from medtune.data.checks.check import Check, Context, Place, RowLimits
from medtune.data.checks.duplicates import Duplicates
from medtune.data.checks.licences import Licences
from medtune.data.checks.overlap import Overlap
from medtune.data.checks.picture_reader import read_pictures
from medtune.data.checks.picture_uses import PictureUses
from medtune.data.checks.pictures import Pictures
from medtune.data.checks.predictability import Predictability
from medtune.data.checks.row_length import RowLength
from medtune.data.checks.row_table import RowTable
from medtune.data.checks.rows import Rows, SourceNotes
from medtune.data.checks.same_pictures import SamePictures
from medtune.data.checks.text_tags import Tags
from medtune.data.checks.texts import Texts
from medtune.data.checks.wording import Terms
from medtune.data.dataset import Dataset, RowError, sample_of
from medtune.data.findings import Findings
from medtune.data.split import SPLITS
from medtune.errors import DataError
from medtune.imaging.config import Limits
from medtune.language import Text, msg
from medtune.schema import read_fault
from medtune.types import Event, GroupKind, ImageRef, Listener, Sample, SplitName, ValidationReport

__all__ = ["CHECKS", "validate"]

_CHECKS: tuple[type[Check], ...] = (
    Rows,
    Answers,
    Texts,
    Terms,
    Tags,
    SourceNotes,
    Duplicates,
    Boxes,
    BoxWords,
    RowLength,
    ClosedAnswers,
    Predictability,
    Pictures,
    BurnedInBoxes,
    Overlap,
    SamePictures,
    Licences,
)
"""The families, in the order in which they look at each row. Another one: a file in ``checks/`` and a line here."""

_WITH_OCR: tuple[type[Check], ...] = (*_CHECKS, BurnedInText)

CHECKS = ("files", "left-out", *(name for family in _WITH_OCR for name in family.names), "provenance")
"""The names of all checks."""

_STOPPING = frozenset(
    {
        "unreadable-image",
        "unreadable",
        "decoder-crash",
        "decoder-timeout",
        "decoder-memory",
        "picture-missing",
        "image-marks",
        "answer-empty",
        "duplicate-id",
    }
)
"""Reasons for leaving a record out that the user should put right: these are errors."""

_BY_DESIGN = frozenset(
    {
        "localizer",
        "derived",
        "secondary-capture",
        "segmentation",
        "structured-report",
        "key-object-selection",
        "presentation-state",
        "radiotherapy",
        "no-picture",
        "instance-repeated",
        "not-dicom",
    }
)
"""Reasons that say what a file is, not what is wrong with it: every export of an archive holds such files. These are notes; what
is in neither list is a warning."""

_PROGRESS_EVERY = 500


def validate(
    dataset: Dataset,
    *,
    count_tokens: Callable[[Sample], int] | None = None,
    max_tokens: int | None = None,
    context: int | None = None,
    too_long: Literal["error", "leave-out"] = "error",
    faulty_records: Literal["error", "leave-out"] = "error",
    limits: Limits | None = None,
    num_workers: int = 2,
    ocr: bool = False,
    extra: Sequence[Callable[[Context], Check]] = (),
    listener: Listener | None = None,
) -> ValidationReport:
    """Read every row and decode every picture of a data set once, and list what was found. Changes nothing.

    Args:
        dataset: The data set.
        count_tokens: Tokens of a row in the model's own counting, pictures included; None = row lengths are not checked.
        max_tokens: Tokens that fit into a row of train or validation.
        context: Tokens that fit into any row: what the model can read.
        too_long: What training does with rows that do not fit.
        faulty_records: What training does about records that should have become rows: see ``DataSettings``.
        limits: What a picture may be at most.
        num_workers: Processes that decode pictures.
        ocr: Look for text in the pictures too; takes a hundred times as long as the other checks of a picture.
        extra: Families that look on as well; their names are not in the report.
        listener: Hears of the progress.

    Raises:
        MissingDependencyError: ``ocr`` without the packages of the extra.
    """
    if ocr:
        require_ocr()
    findings = Findings()
    _files(dataset, findings)
    _left_out(dataset, findings, faulty_records)
    rows = RowTable(dataset)
    num_rows = dict.fromkeys(SPLITS, 0)
    skipped: dict[str, Text] = {}
    scratch = Path(tempfile.mkdtemp(prefix=".validating-", dir=_scratch_parent(dataset)))
    try:
        images = dataset.images
        row_limits = RowLimits(count_tokens, max_tokens, context, too_long)
        shared = Context(dataset, findings, rows, scratch, row_limits)
        families: list[Callable[[Context], Check]] = [*(_WITH_OCR if ocr else _CHECKS), *extra]
        checks = [family(shared) for family in families]
        uses = _look_at_rows(shared, checks, images, num_rows, listener)
        _look_at_pictures(shared, checks, images, uses, limits, num_workers, listener)
        del uses
        while checks:  # each takes its columns along when it is done
            skipped.update(checks.pop(0).conclude())
    except DataError as error:
        # A line of the index may be found damaged when it is first looked up, in the middle of the rows.
        findings.add("images-index", "error", error.what, error.remedy, file=error.file)
        skipped = {name: msg("images.jsonl cannot be read.") for name in CHECKS[2:-1]}
        num_rows = {split: sum(1 for _ in RowTable(dataset).read(split)) for split in SPLITS}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not ocr:
        skipped["burned-in-text"] = msg("Reading text in pictures takes long: ask for it with --ocr.")
    _provenance(dataset, findings)
    return ValidationReport(
        dataset=dataset.manifest.name,
        num_rows={str(split): count for split, count in num_rows.items()},
        issues=findings.issues(),
        checks=tuple(name for name in CHECKS if name not in skipped),
        skipped=skipped,
    )


def _scratch_parent(dataset: Dataset) -> Path | None:
    """Beside the data set, where there is room for large things; the system's temporary folder where that cannot be written."""
    parent = dataset.folder.absolute().parent
    try:
        with tempfile.TemporaryFile(dir=parent):
            return parent
    except OSError:
        return None


def _look_at_rows(
    context: Context,
    checks: list[Check],
    images: Mapping[str, ImageRef],
    num_rows: dict[SplitName, int],
    listener: Listener | None,
) -> PictureUses:
    uses = PictureUses(context.rows)
    for split in SPLITS:
        for place, sample in _samples(context, split, num_rows, images):
            uses.add(sample, place.number)
            for check in checks:
                check.row(sample, place)
            if listener is not None and num_rows[split] % _PROGRESS_EVERY == 0:
                total = context.dataset.manifest.num_samples.get(split)
                listener(Event("progress", msg("Checking {split}", split=split), done=num_rows[split], total=total))
    return uses


def _samples(
    context: Context, split: SplitName, num_rows: dict[SplitName, int], images: Mapping[str, ImageRef]
) -> Iterator[tuple[Place, Sample]]:
    for place, line in context.rows.read(split):
        num_rows[split] += 1
        try:
            sample = sample_of(_text(line), images)
        except RowError as error:
            context.findings.add(
                error.code,
                "error",
                error.message,
                msg("Correct the row, or prepare again."),
                split=split,
                sample=error.row_id,
                file=str(place),
            )
            continue
        yield place, sample


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError("row-not-json", msg("The row cannot be read: {error}", error=read_fault(error))) from error


def _look_at_pictures(
    context: Context,
    checks: list[Check],
    images: Mapping[str, ImageRef],
    uses: PictureUses,
    limits: Limits | None,
    num_workers: int,
    listener: Listener | None,
) -> None:
    needs = frozenset[str]().union(*(check.needs for check in checks))
    # The index is parsed once; tee holds as many as the reader is ahead.
    refs, again = itertools.tee(images.values())
    all_facts = read_pictures(context.dataset, refs, needs, limits=limits, num_workers=num_workers)
    for facts, (_, use) in zip(all_facts, uses.of(again), strict=True):
        for check in checks:
            check.picture(facts, use)
        if listener is not None and (use.number + 1) % _PROGRESS_EVERY == 0:
            listener(Event("progress", msg("Checking pictures"), done=use.number + 1, total=len(images)))


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
                remedy=entry.remedy or "",
            )
        findings.add(
            f"left-out-{entry.reason}",
            "error" if stops else "info" if entry.reason in _BY_DESIGN else "warning",
            msg("A record of {source} did not become a row. {reason}", source=entry.source, reason=entry.text),
            remedy,
            sample=entry.id,
            file=entry.file,
        )


_KINDS: dict[GroupKind, Text] = {
    "study": msg("study"),
    "volume": msg("volume"),
    "image": msg("picture"),
    "row": msg("row"),
}


def _provenance(dataset: Dataset, findings: Findings) -> None:
    manifest = dataset.manifest
    if manifest.group_kind != "patient":
        findings.add(
            "no-patient-ids",
            "warning",
            msg(
                "The data have no patient ids: the split keeps each {kind} together, but one patient may stand on both sides.",
                kind=_KINDS[manifest.group_kind],
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
