"""What a model wrote, on disk: ``evaluations/<label>[-control]/{asked.json, predictions.jsonl, scores.jsonl}``.

Predictions are appended as they come, so that a run that is cut off loses at most the line it was writing. ``asked.json``
names the data, the sampling and the weights they belong to; predictions of anything else are refused, never mixed in.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import JsonValue, ValidationError

from medtune.errors import EvaluationError, system_reason
from medtune.evaluation.prediction_lines import PredictionLines
from medtune.language import Text, msg
from medtune.runs import atomic_file, atomic_write
from medtune.schema import read_fault
from medtune.types import ControlName, Document, ModelName, Prediction, Score, SplitName

__all__ = [
    "MAX_CHARACTERS",
    "Asked",
    "StoredPredictions",
    "append_prediction",
    "condition_label",
    "order_predictions",
    "read_asked",
    "read_index",
    "read_predictions",
    "read_scores",
    "resume_predictions",
    "write_asked",
    "write_index",
]


MAX_CHARACTERS = 20_000
"""Of an answer, that are read and judged; the whole text is kept. It is ten times a long radiology report. Some readers of texts
need time that grows with the square of the length, and a model that repeats itself for a million characters must not hold up all
other answers."""


class Asked(Document):
    """``asked.json``: who was asked what. Two conditions may share predictions only where all of it is the same.

    Attributes:
        variant: Another way of asking the same (``paraphrase``, ``mirrored``, ``repeated-1``, ...) or other questions
            (``general``); empty = the questions as they stand. See :mod:`medtune.evaluation.variants`.
        identity: Names the weights (for an adapter, a hash of its file). Empty = not known, and not checked.
        batch_size: Of the generator that was last used, for the timing; not checked.
        seed: Of the shuffled pictures.
        seconds: Wall time of asking, all attempts together: opening pictures and generating, not loading the model. 0 = not
            known. Not checked.
        scoring_seconds: Wall time of the first scoring of these predictions, None before it. Not checked.
    """

    format_version: Literal[1] = 1
    label: str
    model: ModelName
    control: ControlName
    variant: str = ""
    dataset: str
    dataset_hash: str
    split: SplitName
    seed: int
    sampling: dict[str, JsonValue]
    identity: str = ""
    batch_size: int = 1
    seconds: float = 0.0
    scoring_seconds: float | None = None

    def conflicts(self, other: Asked) -> list[str]:
        """Names of the fields in which the two differ so that their predictions cannot be mixed."""
        names = ["model", "control", "variant", "dataset_hash", "split", "sampling"]
        if self.control == "shuffled":
            names.append("seed")
        if self.identity and other.identity:
            names.append("identity")
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    @property
    def folder(self) -> str:
        """Its folder's name under ``evaluations/``."""
        return condition_label(self.label, self.control, self.variant)


def condition_label(label: str, control: ControlName, variant: str = "") -> str:
    """The folder name of a condition: ``tuned``, ``tuned-shuffled``, ``tuned-paraphrase``, ``majority``, ..."""
    return "-".join(dict.fromkeys(part for part in (label, "" if control == "none" else control, variant) if part))


@dataclass(frozen=True, slots=True)
class StoredPredictions:
    """A predictions file as read. Every line is accounted for.

    Attributes:
        predictions: The first sound line of each sample, in file order; read when asked for, where they stand in a file.
        broken: Numbers (from 1) of the lines that are no prediction.
        torn: The last line was cut off while it was written.
        duplicates: Sample ids that came again; the later lines are not used.
        unknown: Sample ids that the split does not have.
    """

    path: Path
    predictions: PredictionLines
    broken: tuple[int, ...] = ()
    torn: bool = False
    duplicates: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def faults(self, wanted: Collection[str], *, empty_matters: bool = True) -> list[Text]:
        """One sentence for each kind of fault, with its count and the first culprit.

        Args:
            wanted: The ids to be scored.
            empty_matters: Whether an empty answer is worth a word; under a control it is not.
        """
        found: list[Text] = []
        name = f"{self.path.parent.name}/{self.path.name}"
        missing = [sample for sample in wanted if sample not in self.predictions]
        failed, empty, long = [], [], []
        # One after the other: they may stand in a file, and not all fit into memory.
        for sample in wanted:
            if (prediction := self.predictions.get(sample)) is None:
                continue
            if prediction.generation.finish_reason == "error":
                failed.append(sample)
            elif not prediction.generation.text.strip():
                empty.append(sample)
            elif len(prediction.generation.text) > MAX_CHARACTERS:
                long.append(sample)
        if self.broken:
            found.append(
                msg(
                    "{file}: lines that are no predictions: {count}, the first is line {line}.",
                    file=name,
                    count=len(self.broken),
                    line=self.broken[0],
                )
            )
        if self.torn:
            found.append(msg("{file}: the last line was cut off and is not used.", file=name))
        if self.duplicates:
            found.append(
                msg(
                    "{file}: samples predicted more than once (the first prediction counts): {count}, such as {sample}.",
                    file=name,
                    count=len(self.duplicates),
                    sample=self.duplicates[0],
                )
            )
        if self.unknown:
            found.append(
                msg(
                    "{file}: predictions of samples that the split does not have: {count}, such as {sample}.",
                    file=name,
                    count=len(self.unknown),
                    sample=self.unknown[0],
                )
            )
        if missing:
            found.append(
                msg(
                    "{file}: samples without a prediction: {count}, such as {sample}.",
                    file=name,
                    count=len(missing),
                    sample=missing[0],
                )
            )
        if failed:
            found.append(
                msg(
                    "{file}: samples whose generation failed (unscored): {count}, such as {sample}.",
                    file=name,
                    count=len(failed),
                    sample=failed[0],
                )
            )
        if long:
            found.append(
                msg(
                    "{file}: answers of more than {limit} characters, of which the rest is not read: {count}, such as {sample}.",
                    file=name,
                    limit=MAX_CHARACTERS,
                    count=len(long),
                    sample=long[0],
                )
            )
        if empty and empty_matters:
            found.append(msg("{file}: empty answers: {count}, such as {sample}.", file=name, count=len(empty), sample=empty[0]))
        return found


def read_predictions(path: Path, known: Collection[str]) -> StoredPredictions:
    """Read a predictions file, faults and all; the sound lines stay in the file. ``known`` are the ids of the split.

    Raises:
        EvaluationError: The file is absent, or holds predictions but none for a sample of the split.
    """
    predictions = PredictionLines(path)
    broken: list[int] = []
    duplicates: dict[str, None] = {}
    unknown: dict[str, None] = {}
    torn = False
    offset = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                place, offset = offset, offset + len(line)
                if not line.strip():
                    continue
                try:
                    sample_id = Prediction.model_validate_json(line).sample_id
                except ValidationError:
                    # Only the last line can be without an end: it was being written.
                    torn = not line.endswith(b"\n")
                    if not torn:
                        broken.append(number)
                    continue
                if sample_id not in known:
                    unknown[sample_id] = None
                elif sample_id in predictions:
                    duplicates[sample_id] = None
                else:
                    predictions.add(sample_id, place, len(line))
    except OSError as error:
        raise EvaluationError(
            msg("The predictions cannot be read: {error}", error=system_reason(error)),
            file=path,
            remedy=msg("Run `medtune evaluate` first."),
        ) from error
    if unknown and not predictions:
        raise EvaluationError(
            msg("None of the {count} predictions belongs to this split.", count=len(unknown)),
            file=path,
            sample=next(iter(unknown)),
            remedy=msg("Give the data set and the split that the predictions were made from."),
        )
    return StoredPredictions(path, predictions, tuple(broken), torn, tuple(duplicates), tuple(unknown))


def resume_predictions(folder: Path, asked: Asked, known: Collection[str], *, overwrite: bool) -> StoredPredictions:
    """The predictions that a condition already has, after the file has been made fit to be appended to.

    Lines that cannot be used (torn, broken, repeated, of samples that are not known, failed generations) leave the file here, and
    what is missing is generated again. They are not lost: ``set_aside.jsonl`` beside it gets them as they are.

    Raises:
        EvaluationError: The stored predictions belong to other data, weights or sampling, and ``overwrite`` is not set.
    """
    path = folder / "predictions.jsonl"
    if overwrite:
        # asked.json goes last and comes first: predictions never stand beside another condition's description.
        for name in ("scores.jsonl", "predictions.jsonl", "asked.json"):
            (folder / name).unlink(missing_ok=True)
    if path.exists():
        before = read_asked(folder)
        conflicts = before.conflicts(asked)
        if conflicts:
            raise EvaluationError(
                msg("The stored predictions differ in {fields} from what is asked now.", fields=", ".join(conflicts)),
                file=path,
                remedy=msg("Throw the old answers away with `medtune evaluate --overwrite`, or evaluate a copy of the run folder."),
            )
        kept_fields = ("batch_size", "seconds", "scoring_seconds")
        asked = asked.model_copy(update={name: getattr(before, name) for name in kept_fields})
    write_asked(folder, asked)
    if not path.exists():
        path.touch()
        return StoredPredictions(path, PredictionLines(path))
    stored = read_predictions(path, known)
    kept = [name for name in stored.predictions if stored.predictions[name].generation.finish_reason != "error"]
    lines = [len(line) for line in stored.predictions.lines(kept) if line is not None and line.endswith(b"\n")]
    if len(lines) == len(kept) and sum(lines) == path.stat().st_size:
        return stored
    _set_aside(path, set(kept), folder / "set_aside.jsonl")
    with atomic_file(path) as file:
        for line in stored.predictions.lines(kept):
            file.write((line or b"").rstrip(b"\n") + b"\n")
    return replace(stored, predictions=read_predictions(path, known).predictions)


def _set_aside(path: Path, kept: set[str], aside: Path) -> None:
    """Append the lines of ``path`` that are not the first sound one of a sample in ``kept`` to ``aside``."""
    open_ids = set(kept)
    with path.open("rb") as file, aside.open("ab") as rest:
        for line in file:
            try:
                name = Prediction.model_validate_json(line).sample_id
            except ValidationError:
                name = ""
            if name in open_ids:
                open_ids.discard(name)
            elif line.strip():
                rest.write(line.rstrip(b"\n") + b"\n")


def append_prediction(path: Path, prediction: Prediction) -> None:
    """Add one line, written through to the operating system before this returns.

    Raises:
        EvaluationError: It cannot be stored, say because the disk is full. The lines before it are as they were.
    """
    whole = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(prediction.model_dump_json().encode() + b"\n")
    except OSError as error:
        with contextlib.suppress(OSError):  # half a line would be set aside by the next reader anyway
            os.truncate(path, whole)
        raise EvaluationError(
            msg("The answer cannot be stored: {error}", error=system_reason(error)),
            file=path,
            sample=prediction.sample_id,
            remedy=msg("Make room, then run the same command again: it goes on behind the answers that are stored."),
        ) from error


def order_predictions(path: Path, order: Sequence[str]) -> None:
    """Put the lines of a finished file into the order of the samples, so that neither batches nor devices show in it. A line that
    is of none of them stays, at the end. No more than a line is in memory at a time."""
    place = {sample: number for number, sample in enumerate(order)}
    places, offsets = array("q"), array("q")
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                places.append(place.get(json.loads(line)["sample_id"], len(place)))
                offsets.append(offset)
            offset += len(line)
        if all(places[number - 1] <= places[number] for number in range(1, len(places))):
            return
        with atomic_file(path) as rewritten:
            for number in sorted(range(len(places)), key=places.__getitem__):  # lines of one place stay in the order of the file
                file.seek(offsets[number])
                rewritten.write(file.readline().rstrip(b"\n") + b"\n")


def read_asked(folder: Path) -> Asked:
    """``asked.json`` of a condition.

    Raises:
        EvaluationError: It is absent or damaged, so that nobody knows what the predictions belong to.
    """
    path = folder / "asked.json"
    try:
        return Asked.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(
            msg("It is not known what these predictions belong to: {error}", error=read_fault(error)),
            file=path,
            remedy=msg("Evaluate again, with the old predictions overwritten."),
        ) from error


def write_asked(folder: Path, asked: Asked) -> None:
    """Write ``asked.json`` of a condition."""
    atomic_write(folder / "asked.json", asked.model_dump_json(indent=2) + "\n")


def read_scores(path: Path, metrics: Collection[str] | None = None) -> Iterator[Score]:
    """The scores of ``scores.jsonl``, one at a time: a file of 100,000 samples holds millions.

    Args:
        metrics: Values that are wanted, all when not given. Lines that name none of them are passed over unread.

    Raises:
        EvaluationError: It is absent or damaged.
    """
    number = 0
    named = None if metrics is None else re.compile(b"|".join(re.escape(name.encode()) for name in sorted(metrics)) or b"(?!)")
    try:
        with path.open("rb") as file:
            for line in file:
                number += 1
                if named is None or named.search(line):
                    score = Score.model_validate_json(line)
                    if metrics is None or score.metric in metrics:
                        yield score
    except (OSError, ValueError) as error:
        raise EvaluationError(
            msg("The scores cannot be read (line {line}): {error}", line=number, error=read_fault(error)),
            file=path,
            remedy=msg("Score the stored predictions again."),
        ) from error


class IndexLine(Document):
    """One line of ``evaluations/samples.jsonl``: a sample's task, and its group as a number, never as the source wrote it."""

    id: str
    task: str
    group: int


class IndexEntry(NamedTuple):
    """What :class:`IndexLine` says of a sample."""

    task: str
    group: int


def write_index(path: Path, samples: Iterable[tuple[str, str, str]]) -> None:
    """Write (id, task, group) of every sample, the groups numbered in the order they come."""
    numbers: dict[str, int] = {}
    with atomic_file(path) as file:
        for sample, task, group in samples:
            line = IndexLine(id=sample, task=task, group=numbers.setdefault(group, len(numbers)))
            file.write(line.model_dump_json().encode() + b"\n")


def read_index(path: Path) -> dict[str, IndexEntry]:
    """``samples.jsonl`` by sample id.

    Raises:
        EvaluationError: It is absent or damaged.
    """
    try:
        found: dict[str, IndexEntry] = {}
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    entry = IndexLine.model_validate_json(line)
                    found[sys.intern(entry.id)] = IndexEntry(sys.intern(entry.task), entry.group)
        return found
    except (OSError, ValueError) as error:
        raise EvaluationError(
            msg("The list of evaluated samples cannot be read: {error}", error=read_fault(error)),
            file=path,
            remedy=msg("Run `medtune evaluate` first."),
        ) from error
