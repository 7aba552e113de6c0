"""``medtune review``: a page on which readers compare two models without knowing which is which.

::

    review/
      review.html      what a reader gets: pictures, questions, the two answers as A and B
      key.json         which of A and B is whose; never given to a reader
      marks/           what readers sent back, one file each (:mod:`medtune.evaluation.reading`)

The page needs no server and no network: it keeps its progress in the browser and saves a JSON file at the end. It holds neither
run names nor labels nor sample ids, and the order of the answers is drawn for each case apart. Reference answers are not in it: a
reader who sees the expected wording would judge nearness to it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.errors import EvaluationError, UnreadableImageError
from medtune.evaluation.cases import embed_picture, predicted_boxes
from medtune.evaluation.evaluate import read_report
from medtune.evaluation.page import render_page
from medtune.evaluation.predictions import read_index, read_predictions
from medtune.evaluation.review_key import CaseKey, ReviewKey, answers_digest, review_folder
from medtune.evaluation.review_wording import ERRORS, REVIEW, SEVERITIES
from medtune.evaluation.run_cases import Asked, check_dataset
from medtune.evaluation.score import parse_generation
from medtune.evaluation.table import main_pair
from medtune.language import Language, msg
from medtune.runs import atomic_write
from medtune.types import IMAGE_MARK, Generation, Report, Sample

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["make_review", "sides_of"]

LARGEST_SIDE = 1024
"""Pixels of a picture's longer side: readers judge details that the report's small pictures do not show."""

MAX_PICTURES = 8
"""Of one case."""

MAX_PAGE_BYTES = 60_000_000
"""Of all pictures in base64; a browser keeps such a page in memory without trouble. More is refused with a smaller number of
cases as the remedy."""


@dataclass(frozen=True, slots=True)
class _Shown:
    case: str
    pictures: tuple[str | None, ...]
    question: str
    answers: tuple[str, str]
    size: tuple[int, int] = (0, 0)
    boxes: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()
    """(``a`` or ``b``, (x, y, width, height)) in pixels of the first picture as it is stored, ``size``: nobody judges a box by its
    numbers."""


def sides_of(run: Path, against: Path | None) -> tuple[Asked, Asked, tuple[str, str]]:
    """Whose answers are compared, and their names ``run/label``: base and tuned model of ``run``, or the tuned models of
    ``against`` and ``run``.

    Raises:
        EvaluationError: A report is missing, was made from other data, or has no such model.
    """
    report = read_report(run)
    base, tuned = main_pair(report)
    if against is None:
        first, second = base, tuned
        if first is None or second is None:
            raise EvaluationError(
                msg("The report has only one model, and a review compares two."),
                file=run / "report.json",
                remedy=msg("Name another run with `--against RUN`."),
            )
        return Asked(run, first), Asked(run, second), (f"{report.run}/{first.label}", f"{report.run}/{second.label}")
    other = read_report(against)
    if (other.dataset_hash, other.split) != (report.dataset_hash, report.split):
        raise EvaluationError(
            msg("The two runs were evaluated on different data."),
            file=against / "report.json",
            remedy=msg("Evaluate both runs on the same prepared data set."),
        )
    first, second = (tuned or base for base, tuned in (main_pair(other), main_pair(report)))
    if first is None or second is None:
        raise EvaluationError(msg("A report has no model that was asked with the right pictures."), file=run / "report.json")
    return Asked(against, first), Asked(run, second), (f"{other.run}/{first.label}", f"{report.run}/{second.label}")


def make_review(
    first: Asked,
    second: Asked,
    *,
    names: tuple[str, str],
    report: Report,
    dataset: Dataset,
    folder: Path,
    num_cases: int = 50,
    seed: int = 0,
    overwrite: bool = False,
    in_language: Language | None = None,
) -> Path:
    """Write ``review/review.html`` and ``review/key.json`` of a run; returns the page.

    Cases are drawn at random from the samples that both answered. Pairs of equal answers are not shown, but counted.

    Args:
        first: One condition, for example the base model's.
        second: The other; a preference for it counts 1.
        names: ``run/label`` of both.
        report: Of the run that the review belongs to.
        folder: That run's folder.
        num_cases: At most.
        seed: Of the draw and of the order of the answers.
        overwrite: Make a new review where marks of an earlier one lie; these are removed.

    Raises:
        EvaluationError: The data set is another one, no pair differs, marks would be lost, or the page would be too large.
    """
    check_dataset(report, folder, dataset)
    place = review_folder(folder)
    if not overwrite and any((place / "marks").glob("*.json")):
        raise EvaluationError(
            msg("Readers have marked this review already."),
            file=place / "marks",
            remedy=msg("Import their marks, or throw them away with `medtune review {run} --overwrite`.", run=folder),
        )
    answers = [_answers(side) for side in (first, second)]
    groups = {name: entry.group for name, entry in read_index(folder / "evaluations" / "samples.jsonl").items()}
    both = [name for name in groups if all(name in side for side in answers)]
    differing = [name for name in both if answers[0][name].text.strip() != answers[1][name].text.strip()]
    if not differing:
        raise EvaluationError(
            msg(
                "There is nothing to review: no sample was answered differently by {first} and {second}.",
                first=names[0],
                second=names[1],
            ),
            file=folder / "evaluations",
        )
    draw = random.Random(f"review/{seed}/{names[0]}/{names[1]}")
    chosen = draw.sample(differing, min(num_cases, len(differing)))
    samples = {sample.id: sample for sample in dataset.rows(report.split) if sample.id in set(chosen)}
    keys, shown = [], []
    for number, name in enumerate(chosen, start=1):
        swapped = draw.random() < 0.5
        case = f"{number:03d}"
        keys.append(CaseKey(case=case, sample_id=name, group=groups[name], a="second" if swapped else "first"))
        shown.append(_show(case, samples[name], dataset, [side[name] for side in answers], swapped=swapped))
    _check_size(shown, folder)
    digest = answers_digest(answers, chosen)
    key = ReviewKey(
        review=hashlib.sha256(f"{digest}/{draw.random()}".encode()).hexdigest()[:16],
        first=names[0],
        second=names[1],
        dataset_hash=report.dataset_hash,
        seed=seed,
        num_identical=len(both) - len(differing),
        answers=digest,
        cases=tuple(keys),
    )
    page = render_page(
        "review.html",
        style="review.css",
        script="review.js",
        in_language=in_language,
        text=REVIEW,
        review=key.review,
        cases=shown,
        errors=ERRORS,
        severities=SEVERITIES,
        synthetic=report.synthetic,
        local_only=dataset.manifest.local_only,
    )
    for old in (place / "marks").glob("*.json"):
        old.unlink()
    # The key first: a page without its key could never be joined with the report.
    atomic_write(place / "key.json", key.model_dump_json(indent=2) + "\n")
    atomic_write(place / "review.html", page)
    return place / "review.html"


def _answers(side: Asked) -> dict[str, Generation]:
    """The texts of a condition, by sample; failed generations are none."""
    known = read_index(side.folder / "evaluations" / "samples.jsonl")
    stored = read_predictions(side.folder / "evaluations" / side.condition.label / "predictions.jsonl", known)
    return {
        name: prediction.generation
        for name, prediction in stored.predictions.items()
        if prediction.generation.finish_reason != "error"
    }


def _show(case: str, sample: Sample, dataset: Dataset, answers: Sequence[Generation], *, swapped: bool) -> _Shown:
    pictures: list[str | None] = []
    for place in range(min(len(sample.images), MAX_PICTURES)):
        try:
            pictures.append(embed_picture(dataset, sample, place, largest_side=LARGEST_SIDE, quality=92))
        except UnreadableImageError:
            pictures.append(None)
    turns = [message.content.replace(IMAGE_MARK, "").strip() for message in sample.prompt if message.role != "system"]
    first, second = reversed(answers) if swapped else answers
    boxes: list[tuple[str, tuple[float, float, float, float]]] = []
    size = (sample.images[0].width, sample.images[0].height) if sample.images else (0, 0)
    for name, answer in (("a", first), ("b", second)):
        boxes += [(name, box) for box in predicted_boxes(parse_generation(answer, sample).answer, *size)]
    question = "\n\n".join(filter(None, turns))
    return _Shown(case, tuple(pictures), question, (first.text.strip(), second.text.strip()), size, tuple(boxes) if size[0] else ())


def _check_size(shown: Sequence[_Shown], folder: Path) -> None:
    size = sum(len(picture or "") for one in shown for picture in one.pictures)
    if size > MAX_PAGE_BYTES:
        fits = max(int(len(shown) * MAX_PAGE_BYTES / size), 1)
        raise EvaluationError(
            msg(
                "The pictures of {count} cases take {size} MB, more than a page should hold.",
                count=len(shown),
                size=size // 1_000_000,
            ),
            file=folder,
            remedy=msg("Ask for fewer cases: `--cases {count}`.", count=fits),
        )
