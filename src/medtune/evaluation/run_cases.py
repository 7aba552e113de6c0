"""The cases of a page, from what is stored of one run or of two."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.errors import EvaluationError
from medtune.evaluation.cases import PICTURE_BYTES, QUOTA, Case, Side, Tag, choose_cases, describe_case
from medtune.evaluation.finding_marks import OUTCOMES, SIDES
from medtune.evaluation.predictions import read_index, read_predictions, read_scores
from medtune.evaluation.score import parse_generation
from medtune.evaluation.score_columns import ScoreColumns
from medtune.evaluation.table import main_pair
from medtune.language import msg
from medtune.types import Condition, MetricValue, Report, Sample, Score

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["Asked", "cases_of", "check_dataset", "report_cases"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A condition of a run folder, whose answers are shown."""

    folder: Path
    condition: Condition


def report_cases(report: Report, folder: Path, dataset: Dataset) -> list[Case]:
    """The cases of a run's report: base and tuned model, or the only one.

    Raises:
        EvaluationError: The data set is another than the report's, or a stored file is damaged.
    """
    check_dataset(report, folder, dataset)
    base, tuned = main_pair(report)
    sides: dict[Side, Asked] = {}
    if base is not None:
        sides["base"] = Asked(folder, base)
    if tuned is not None:
        sides["tuned"] = Asked(folder, tuned)
    values = {value.name: value for value in report.metrics}
    return cases_of(sides, dataset, report, [values[name] for name in report.headline])


def check_dataset(report: Report, folder: Path, dataset: Dataset) -> None:
    """That ``dataset`` is the one that ``report`` was made from.

    Raises:
        EvaluationError: It is not.
    """
    if dataset.manifest.hash != report.dataset_hash:
        raise EvaluationError(
            msg(
                "The report was made from the data set {old} ({old_hash}), not from {new} ({new_hash}).",
                old=report.dataset,
                old_hash=report.dataset_hash,
                new=dataset.manifest.name,
                new_hash=dataset.manifest.hash,
            ),
            file=folder / "report.json",
            remedy=msg("Give the data set that the report was made from."),
        )


def cases_of(
    sides: Mapping[Side, Asked],
    dataset: Dataset,
    report: Report,
    metrics: Sequence[MetricValue],
    *,
    quota: Mapping[Tag, int] = QUOTA,
    picture_bytes: int = PICTURE_BYTES,
) -> list[Case]:
    """What is shown of the samples that all ``sides`` were asked.

    Args:
        sides: ``base`` is before, ``tuned`` after; one of them is enough.
        report: Whose split it is.
        metrics: Most telling first.
        quota: Cases of each kind.
        picture_bytes: Of all pictures together, in base64.

    Raises:
        EvaluationError: A stored file is damaged.
    """
    if not sides:
        return []
    indexes = [
        {name: entry.task for name, entry in read_index(side.folder / "evaluations" / "samples.jsonl").items()}
        for side in sides.values()
    ]
    tasks = {name: task for name, task in indexes[0].items() if all(name in index for index in indexes)}
    wanted = {OUTCOMES, SIDES, *(value.name for value in metrics)}
    scores = {which: _columns(side, tasks, wanted) for which, side in sides.items()}
    stored = {
        which: read_predictions(
            side.folder / "evaluations" / side.condition.label / "predictions.jsonl", indexes[place]
        ).predictions
        for place, (which, side) in enumerate(sides.items())
    }
    looked: Side = "tuned" if "tuned" in sides else "base"
    before = scores["base"] if looked == "tuned" and "base" in scores else ScoreColumns()
    unread = [name for name in tasks if (kept := stored[looked].get(name)) is not None and kept.error is not None]
    chosen = choose_cases(tasks, before, scores[looked], metrics, unread, quota)
    samples = {sample.id: sample for sample in dataset.rows(report.split) if sample.id in chosen}
    values = {(which, value.name): _values(columns, value.name, chosen) for which, columns in scores.items() for value in metrics}
    outcomes = {which: _scores(columns, OUTCOMES, chosen) for which, columns in scores.items()}
    found: list[Case] = []
    left = picture_bytes
    for place, (name, tags) in enumerate(chosen.items()):
        sample: Sample = samples[name]
        predictions = {
            which: parse_generation(kept.generation, sample, image_sha256=kept.image_sha256)
            for which, entries in stored.items()
            if (kept := entries.get(name)) is not None
        }
        rows = []
        for value in metrics:
            first, second = (values.get((which, value.name), {}).get(name) for which in ("base", "tuned"))
            if first is not None or second is not None:
                rows.append((value, first, second))
        # An equal share of what is left: large pictures of the first cases do not use up the page.
        share = left // (len(chosen) - place)
        case = describe_case(
            sample,
            tags,
            dataset=dataset,
            predictions=predictions,
            scores=rows,
            outcomes={which: found_of.get(name) for which, found_of in outcomes.items()},
            picture_bytes=share,
        )
        left -= sum(len(picture.data) for picture in case.pictures if picture.data is not None)
        found.append(case)
    return found


def _columns(side: Asked, known: Container[str], metrics: Collection[str]) -> ScoreColumns:
    """The scores of ``known`` samples on ``metrics``."""
    stored = read_scores(side.folder / "evaluations" / side.condition.label / "scores.jsonl", metrics)
    return ScoreColumns.of(score for score in stored if score.sample_id in known)


def _scores(columns: ScoreColumns, metric: str, samples: Iterable[str]) -> dict[str, Score]:
    """The scores of ``samples``, of a column that is read once."""
    column: Mapping[str, Score] = columns.get(metric, {})
    return {name: column[name] for name in samples if name in column}


def _values(columns: ScoreColumns, metric: str, samples: Iterable[str]) -> dict[str, float | None]:
    return {name: score.value for name, score in _scores(columns, metric, samples).items()}
