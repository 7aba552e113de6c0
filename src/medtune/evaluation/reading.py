"""What readers marked on the pages of :mod:`medtune.evaluation.review`, joined with the key: preferences, errors, agreement.

The preference is a mean over judgements, a tie as half: the Mann-Whitney form of "how often is the second better". Its interval
resamples whole groups (:mod:`medtune.evaluation.bootstrap`), because judgements on one patient, by several readers and of several
pictures, are not independent. It says nothing about other readers: with two or three, read the agreement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from medtune.errors import EvaluationError
from medtune.evaluation.agreement import cohen_kappa, fleiss_kappa, gwet_ac1, rating_table
from medtune.evaluation.bootstrap import cluster_bootstrap
from medtune.evaluation.predictions import read_index, read_predictions
from medtune.evaluation.review_key import CaseKey, ReviewKey, answers_digest, read_key, review_folder
from medtune.evaluation.review_wording import ERRORS, SEVERITIES
from medtune.language import msg
from medtune.runs import atomic_write
from medtune.schema import read_fault
from medtune.types import Document, Generation, ReaderReview

__all__ = ["CaseMarks", "Marks", "import_marks", "join_marks", "stored_review"]

MAX_FILE_BYTES = 20_000_000
"""Of a reader's file; it holds marks and remarks of some dozen cases."""

ErrorName = Literal["missed", "invented", "side", "measurement", "dangerous"]
SeverityName = Literal["none", "minor", "moderate", "severe"]


class AnswerMarks(Document):
    """What a reader found in one answer."""

    errors: tuple[ErrorName, ...] = ()
    severity: SeverityName | None = None


class CaseMarks(Document):
    """One case by one reader. ``preference`` is None where the reader went on without deciding."""

    preference: Literal["a", "b", "tie"] | None = None
    a: AnswerMarks = AnswerMarks()
    b: AnswerMarks = AnswerMarks()
    remark: Annotated[str, Field(max_length=10_000)] = ""


class Marks(Document):
    """The file that a reader sends back. ``cases`` are by the page's case numbers."""

    format: Literal["medtune-review"]
    version: Literal[1]
    review: str
    reader: Annotated[str, Field(min_length=1, max_length=200)]
    cases: dict[str, CaseMarks]


def import_marks(run: Path, files: Sequence[Path]) -> ReaderReview:
    """Take the files of readers into ``review/marks`` of a run, and join all that are there. A reader who sends again replaces
    the earlier file.

    Raises:
        EvaluationError: A file is no file of this review, two of the given files are of one reader, or the answers have
            changed since the review was made. Nothing is taken then.
    """
    key = read_key(run)
    taken: dict[str, tuple[Path, Marks]] = {}
    for file in files:
        marks = _read_marks(file, key)
        if marks.reader in taken:
            raise EvaluationError(
                msg("Two files are by the same reader, {reader}.", reader=marks.reader),
                file=file,
                remedy=msg("Give the later one only; readers need names of their own."),
            )
        taken[marks.reader] = (file, marks)
    if _changed(run, key):
        raise EvaluationError(
            msg("The answers have changed since the review was made: the marks are of other texts."),
            file=review_folder(run) / "key.json",
            remedy=msg("Make a new review with `medtune review {run} --overwrite`.", run=run),
        )
    for reader, (_, marks) in taken.items():
        name = hashlib.sha256(reader.encode()).hexdigest()[:16]
        atomic_write(review_folder(run) / "marks" / f"{name}.json", marks.model_dump_json(indent=2) + "\n")
    return join_marks(key, _all_marks(run, key))


def stored_review(run: Path) -> ReaderReview | None:
    """What the imported marks of a run say; None where there are none, or where they are of answers that were given anew since.

    Raises:
        EvaluationError: A stored file is damaged.
    """
    if not any((review_folder(run) / "marks").glob("*.json")):
        return None
    key = read_key(run)
    return None if _changed(run, key) else join_marks(key, _all_marks(run, key))


def join_marks(key: ReviewKey, readers: Sequence[Marks], *, num_resamples: int = 2000, seed: int = 0) -> ReaderReview:
    """Preferences, errors and agreement, with A and B turned back into first and second.

    Args:
        readers: One for each reader; their names do not enter the result.
    """
    cases = {case.case: case for case in key.cases}
    judged = [(cases[number], marks) for reader in readers for number, marks in reader.cases.items() if number in cases]
    decided = [(case, _model(case, marks.preference)) for case, marks in judged if marks.preference is not None]
    worth = {"first": 0.0, "tie": 0.5, "second": 1.0}
    preference: float | None = None
    low = high = None
    if decided:
        statistics = np.array([[worth[choice], 1.0] for _, choice in decided])
        preference, low, high = cluster_bootstrap(
            statistics,
            [case.group for case, _ in decided],
            lambda totals: totals[..., 0] / totals[..., 1],
            num_resamples=num_resamples,
            seed=seed,
            limits=(0.0, 1.0),
        )
    choices = [choice for _, choice in decided]
    return ReaderReview(
        first=key.first,
        second=key.second,
        num_readers=len(readers),
        num_cases=len({case.case for case, _ in decided}),
        num_judgements=len(decided),
        num_identical=key.num_identical,
        num_first=choices.count("first"),
        num_ties=choices.count("tie"),
        num_second=choices.count("second"),
        preference=preference,
        low=low,
        high=high,
        num_groups=len({case.group for case, _ in decided}),
        agreement=_preference_agreement(cases, readers),
        errors={name: _count(judged, lambda marks, name=name: name in marks.errors) for name in ERRORS},  # type: ignore[misc]
        severity={name: _count(judged, lambda marks, name=name: marks.severity == name) for name in SEVERITIES},  # type: ignore[misc]
        error_agreement=_error_agreement(cases, readers),
    )


def _model(case: CaseKey, preference: str | None) -> str:
    if preference not in ("a", "b"):
        return "tie"
    other = "second" if case.a == "first" else "first"
    return case.a if preference == "a" else other


def _sides(case: CaseKey, marks: CaseMarks) -> tuple[AnswerMarks, AnswerMarks]:
    """What was marked in the first's and in the second's answer."""
    return (marks.a, marks.b) if case.a == "first" else (marks.b, marks.a)


def _count(judged: Iterable[tuple[CaseKey, CaseMarks]], holds: Callable[[AnswerMarks], bool]) -> tuple[int, int]:
    sides = [_sides(case, marks) for case, marks in judged if marks.preference is not None]
    return sum(bool(holds(first)) for first, _ in sides), sum(bool(holds(second)) for _, second in sides)


def _preference_agreement(cases: Mapping[str, CaseKey], readers: Sequence[Marks]) -> dict[str, float]:
    by_reader = [
        {
            number: _model(cases[number], marks.preference)
            for number, marks in reader.cases.items()
            if number in cases and marks.preference
        }
        for reader in readers
    ]
    table = rating_table([[mine[number] for mine in by_reader if number in mine] for number in cases], ("first", "tie", "second"))
    found = {"fleiss-kappa": fleiss_kappa(table), "gwet-ac1": gwet_ac1(table)}
    if len(readers) == 2:
        shared = [number for number in cases if all(number in mine for mine in by_reader)]
        found = {"cohen-kappa": cohen_kappa(*([mine[number] for number in shared] for mine in by_reader)), **found}
    return {name: number for name, number in found.items() if number is not None}


def _error_agreement(cases: Mapping[str, CaseKey], readers: Sequence[Marks]) -> dict[str, float]:
    """AC1 of each kind of error, over all answers (two a case) that at least two readers judged."""
    found = {}
    for name in ERRORS:
        ratings: list[list[str]] = []
        for number, case in cases.items():
            marked = [reader.cases[number] for reader in readers if number in reader.cases]
            sides = [_sides(case, marks) for marks in marked if marks.preference is not None]
            ratings.extend([["yes" if name in side[place].errors else "no" for side in sides] for place in (0, 1)])
        if (number_of := gwet_ac1(rating_table(ratings, ("yes", "no")))) is not None:
            found[name] = number_of
    return found


def _read_marks(file: Path, key: ReviewKey) -> Marks:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise EvaluationError(msg("The file is too large for a reader's marks."), file=file)
        marks = Marks.model_validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise EvaluationError(
            msg("This is no file of a reader's marks: {error}", error=read_fault(error)),
            file=file,
            remedy=msg("Give the file that the review page saved."),
        ) from error
    if marks.review != key.review:
        raise EvaluationError(
            msg("The marks are of another review ({other}), not of this one ({this}).", other=marks.review, this=key.review),
            file=file,
            remedy=msg("Give the run that the page was made from."),
        )
    if unknown := sorted(set(marks.cases) - {case.case for case in key.cases}):
        raise EvaluationError(msg("The review has no case {case}.", case=unknown[0]), file=file)
    return marks


def _all_marks(run: Path, key: ReviewKey) -> list[Marks]:
    return [_read_marks(path, key) for path in sorted((review_folder(run) / "marks").glob("*.json"))]


def _changed(run: Path, key: ReviewKey) -> bool:
    """Whether the answers that were shown are no longer those that are stored. Of another run's answers nothing is known here
    once that run is gone, so only what can be found is compared."""
    answers: list[Mapping[str, Generation]] = []
    for name in (key.first, key.second):
        folder, _, label = name.rpartition("/")
        place = (run if folder == run.resolve().name else run.resolve().parent / folder) / "evaluations"
        if not (place / label / "predictions.jsonl").is_file():
            return False
        stored = read_predictions(place / label / "predictions.jsonl", read_index(place / "samples.jsonl"))
        answers.append({sample: prediction.generation for sample, prediction in stored.predictions.items()})
    return answers_digest(answers, [case.sample_id for case in key.cases]) != key.answers
