"""From stored predictions to ``report.json``: parse, score, measure, compare conditions, warn."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING

from pydantic import JsonValue

from medtune import __version__
from medtune.data.validation_file import stored_report
from medtune.errors import EvaluationError
from medtune.evaluation import cautions, overlaps
from medtune.evaluation.asked_again import Plain, tell_of_again
from medtune.evaluation.bootstrap import forget_draws
from medtune.evaluation.calibration import VALIDATION, abstention, closed_questions, probabilities, reliability_bins, with_yes_or_no
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.controls import askable
from medtune.evaluation.finding_counts import count_findings
from medtune.evaluation.habits import habits_of, only_form_changed
from medtune.evaluation.measure import ScoreTable, by_task, difference, measure
from medtune.evaluation.metrics.llamafactory import predict_timing
from medtune.evaluation.permutation import adjust, forget_exchanges
from medtune.evaluation.picked import SampleIndex
from medtune.evaluation.picture_share import picture_share
from medtune.evaluation.predictions import (
    Asked,
    read_asked,
    read_predictions,
    write_asked,
    write_index,
)
from medtune.evaluation.reading import stored_review
from medtune.evaluation.score import Metrics, score_file
from medtune.evaluation.subgroups import measure_subgroups
from medtune.evaluation.table import about, choose_headline, verdict
from medtune.language import Text, msg
from medtune.runs import atomic_write
from medtune.types import (
    Abstention,
    Condition,
    Difference,
    Measurement,
    MetricValue,
    PictureShare,
    Prediction,
    ReliabilityBin,
    Report,
    Sample,
    SplitName,
)

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["build_report"]


@dataclass(frozen=True, slots=True)
class _Scored:
    """One condition with what was read and scored of it."""

    asked: Asked
    label: str
    predictions: Mapping[str, Prediction]
    table: ScoreTable
    condition: Condition


def build_report(
    dataset: Dataset,
    samples: Sequence[Sample],
    pool: Sequence[Sample],
    asked: Sequence[Asked],
    *,
    settings: EvaluationSettings,
    folder: Path,
    provenance: Mapping[str, JsonValue],
) -> Report:
    """Score the stored predictions of every condition, and write ``scores.jsonl`` of each and ``report.json``.

    Args:
        samples: Those that are evaluated.
        pool: All of the split.
        asked: The conditions, in the order of the report. One that no sample can be asked in is left out with a warning.
        folder: The run folder.

    Raises:
        EvaluationError: A predictions file is missing or belongs to other samples.
    """
    manifest = dataset.manifest
    metrics = Metrics(settings.metrics)
    index = SampleIndex.of(samples, pool)
    known = metrics.values(index.tasks.values())
    values = {name: value for name, (value, _) in known.items()}
    warnings: list[Text] = list(manifest.warnings)
    scored: list[_Scored] = []
    left_out: dict[str, Text] = {}
    can_be_asked: dict[str, Sequence[Sample]] = {}
    trained_tasks = {sample.task for sample in dataset.rows("train")} if any(entry.model == "none" for entry in asked) else set()
    for entry in (entry for entry in asked if not entry.variant):
        if entry.control not in can_be_asked:
            can_be_asked[entry.control] = askable(entry.control, samples, pool=pool, trained_tasks=trained_tasks)
        wanted = can_be_asked[entry.control]
        if len(wanted) < len(samples):
            left_out[entry.control] = cautions.control_not_asked(entry.control, len(samples) - len(wanted), len(samples))
        if wanted:
            one, faults = _score_condition(entry, wanted, index, metrics, settings, folder)
            scored.append(one)
            warnings.extend(faults)
    differences = _differences(scored, values)
    forget_exchanges()
    headline = choose_headline(
        values, [entry.metric for one in _plain(scored) for entry in one.condition.measurements if entry.value is not None]
    )
    of_pictures = {name: values[name] for name in headline if about(name) == "picture"}
    models = [Plain(one.label, one.asked.model, one.predictions) for one in _plain(scored)]
    consistency, forgetting = tell_of_again(models, asked, samples, pool, folder, settings)
    warnings = [*_data_warnings(dataset, samples, index, asked[0].split), *warnings, *left_out.values()]
    warnings.extend(_answer_warnings(scored, differences, of_pictures))
    warnings.extend(_model_warnings(scored, differences, samples, values, headline))
    warnings.extend(cautions.inconsistent(consistency))
    warnings.extend(cautions.forgotten(forgetting))
    calibration, abstentions, unjudged = _calibration(scored, asked, samples, dataset, folder, settings)
    warnings.extend(unjudged)
    looked = next((one for one in _plain(scored) if one.asked.model == "tuned"), next(iter(_plain(scored)), None))
    subgroups: dict[str, dict[str, tuple[Measurement, ...]]] = {}
    if looked is not None:
        subgroups, small = measure_subgroups(looked.table, samples, values, settings)
        warnings.extend(small)
    report = Report(
        run=folder.resolve().name,
        dataset=manifest.name,
        dataset_hash=manifest.hash,
        split=asked[0].split,
        group_kind=manifest.group_kind,
        synthetic=manifest.synthetic,
        num_samples=len(samples),
        num_groups=len(set(index.groups.values())),
        metrics=tuple(values.values()),
        conditions=tuple(one.condition for one in scored),
        differences=tuple(differences),
        subgroups=subgroups,
        picture_share=tuple(_picture_shares(scored, differences, list(of_pictures.values()))),
        consistency=consistency,
        forgetting=forgetting,
        headline=headline,
        alerts=tuple(text for text in _once(warnings) if overlaps.makes_unfit(text)),
        warnings=_once(warnings),
        findings={one.label: rows for one in _plain(scored) if (rows := count_findings(one.table))},
        versions=_versions(),
        calibration=calibration,
        abstention=abstentions,
        review=stored_review(folder),
        settings=dict(provenance),
    )
    forget_draws()
    write_index(folder / "evaluations" / "samples.jsonl", ((name, task, index.groups[name]) for name, task in index.tasks.items()))
    atomic_write(folder / "report.json", report.model_dump_json(indent=2) + "\n")
    return report


def _score_condition(
    asked: Asked,
    samples: Sequence[Sample],
    index: SampleIndex,
    metrics: Metrics,
    settings: EvaluationSettings,
    folder: Path,
) -> tuple[_Scored, list[Text]]:
    label = asked.folder
    place = folder / "evaluations" / label
    ids = dict.fromkeys(sample.id for sample in samples) if len(samples) < len(index.tasks) else index.tasks
    stored = read_predictions(place / "predictions.jsonl", index.known)
    if stored.broken and not stored.predictions:
        raise EvaluationError(
            msg(
                "None of the lines is a prediction: {count}, the first is line {line}.",
                count=len(stored.broken),
                line=stored.broken[0],
            ),
            file=stored.path,
            remedy=msg("Put the file back, or let `medtune evaluate` ask the model again: it keeps these lines beside."),
        )
    predictions = stored.predictions.among(ids)
    started = time.perf_counter()
    found = score_file(samples, predictions, metrics, place / "scores.jsonl", numbers=index.numbers)
    seconds = _wall_time(place, predictions.values(), time.perf_counter() - started)
    known = metrics.values(index.tasks[name] for name in ids)
    table = ScoreTable(
        found.columns,
        index.tasks,
        index.groups,
        {name: metric for name, (_, metric) in known.items()},
        num_resamples=settings.num_resamples,
        seed=settings.seed,
    )
    measurements = by_task(table, known, partial(measure, table))
    condition = Condition(
        label=label,
        model=asked.model,
        control=asked.control,
        measurements=tuple(measurements),
        num_predictions=found.num_predictions,
        num_unparsed=found.num_unparsed,
        seconds=seconds,
        timing=predict_timing(found.num_predictions, seconds, read_asked(place).batch_size) if seconds else {},
    )
    return _Scored(asked, label, predictions, table, condition), stored.faults(ids, empty_matters=asked.control == "none")


def _wall_time(place: Path, predictions: Iterable[Prediction], scoring_seconds: float) -> float | None:
    """Seconds of generating and of the *first* scoring, so that scoring again gives the same report. None = not known."""
    asked = read_asked(place)
    if not asked.seconds:
        # Predictions that came without it: what each says of itself, which is too much where several were under way at once.
        parts = [prediction.generation.seconds for prediction in predictions]
        return sum(part for part in parts if part is not None) if parts and None not in parts else None
    if asked.scoring_seconds is None:
        asked = asked.model_copy(update={"scoring_seconds": round(scoring_seconds, 4)})
        write_asked(place, asked)
    return asked.seconds + (asked.scoring_seconds or 0.0)


def _plain(scored: Iterable[_Scored]) -> list[_Scored]:
    return [one for one in scored if one.asked.control == "none"]


def _differences(scored: Sequence[_Scored], values: Mapping[str, MetricValue]) -> list[tuple[str, str, tuple[Difference, ...]]]:
    """Every tuned model against every base model, and every control against its own real pictures."""
    plain = _plain(scored)
    pairs = [(base, tuned) for base in plain if base.asked.model == "base" for tuned in plain if tuned.asked.model == "tuned"]
    pairs += [
        (real, control)
        for real in plain
        for control in scored
        if control.asked.control != "none" and (control.asked.model == "none" or control.asked.label == real.asked.label)
    ]
    found = []
    for first, second in pairs:
        entries = by_task(first.table, values, partial(difference, first.table, second.table))
        found.append((first.label, second.label, tuple(adjust(entries, values))))
    return found


def _data_warnings(dataset: Dataset, samples: Sequence[Sample], index: SampleIndex, split: SplitName) -> list[Text]:
    manifest = dataset.manifest
    found: list[Text] = []
    if split == "train":
        found.append(overlaps.trained_on_split())
    else:
        found.extend(overlaps.leakage(samples, dataset.rows("train")))
    if split == "validation":
        found.append(overlaps.chosen_on_split())
    elif split == "test" and (overlap := overlaps.chosen_by(samples, dataset.rows("validation"))) is not None:
        found.append(overlap)
    found.extend(overlaps.found_by_validation(stored_report(dataset)))
    if manifest.group_kind != "patient":
        found.append(overlaps.no_patient_ids(manifest.group_kind))
    if manifest.synthetic:
        found.append(cautions.synthetic_data())
    found.extend(cautions.too_few_groups(list(index.groups.values())))
    return found


def _answer_warnings(
    scored: Sequence[_Scored],
    differences: Sequence[tuple[str, str, tuple[Difference, ...]]],
    of_pictures: Mapping[str, MetricValue],
) -> list[Text]:
    found: list[Text] = []
    for one in _plain(scored):
        condition = one.condition
        if condition.num_unparsed > cautions.MANY_UNPARSED * condition.num_predictions:
            found.append(cautions.many_unparsed(condition))
        num_cut = cautions.num_cut_off(one.predictions.values())
        if num_cut:
            found.append(cautions.cut_off(one.label, num_cut, condition.num_predictions))
    plain = _plain(scored)
    by_label = {one.label: one for one in scored}
    only = not any(one.asked.model == "tuned" for one in plain)
    for first, second, entries in differences:
        one, other = by_label[first], by_label[second]
        if other.asked.control == "none":
            if _same_texts(one.predictions, other.predictions):
                found.append(cautions.same_answers(first, second))
        elif one.asked.model == "tuned" or only:
            seen = [entry for entry in entries if entry.task is None and entry.metric in of_pictures]
            if (text := cautions.unused_pictures(first, other.asked.control, seen, of_pictures)) is not None:
                found.append(text)
    return found


def _calibration(
    scored: Sequence[_Scored],
    asked: Sequence[Asked],
    samples: Sequence[Sample],
    dataset: Dataset,
    folder: Path,
    settings: EvaluationSettings,
) -> tuple[dict[str, tuple[ReliabilityBin, ...]], tuple[Abstention, ...], list[Text]]:
    """Reliability bins of the models with the real pictures, what abstaining would do, and a word where that is not known."""
    bins: dict[str, tuple[ReliabilityBin, ...]] = {}
    found: list[Abstention] = []
    warnings: list[Text] = []
    chosen_on = {entry.label: entry for entry in asked if entry.variant == VALIDATION}
    others = closed_questions(dataset.rows("validation")) if chosen_on else []
    closed = with_yes_or_no(samples)
    with_closed = settings.abstain and bool(closed_questions(closed))
    for one in _plain(scored):
        here = probabilities(closed, one.predictions)
        if not here.groups:
            if settings.abstain:
                warnings.append(cautions.no_probabilities(one.label) if with_closed else cautions.nothing_closed(asked[0].split))
            continue
        bins[one.label] = reliability_bins(here.probability, here.truth)
        entry = chosen_on.get(one.asked.label)
        if entry is None:
            if asked[0].split == "validation":
                warnings.extend([cautions.threshold_on_its_own_split()] if settings.abstain else [])
            else:
                warnings.append(cautions.nothing_closed("validation") if settings.abstain else cautions.no_threshold(one.label))
            continue
        stored = read_predictions(folder / "evaluations" / entry.folder / "predictions.jsonl", {sample.id for sample in others})
        there = probabilities(others, stored.predictions)
        again = {"num_resamples": settings.num_resamples, "seed": settings.seed}
        if (num_groups := len(set(there.groups))) < cautions.FEW_GROUPS:
            warnings.append(cautions.few_to_choose(one.label, len(there.groups), num_groups))
        found.append(abstention(one.label, there, here, max_risk=settings.abstain_max_risk, **again))
    return bins, tuple(found), warnings


def _same_texts(first: Mapping[str, Prediction], second: Mapping[str, Prediction]) -> bool:
    """Whether both answered the same questions in the same words. One pair at a time: they stand in files."""
    return 0 < len(first) == len(second) and all(
        name in second and entry.generation.text == second[name].generation.text for name, entry in first.items()
    )


def _model_warnings(
    scored: Sequence[_Scored],
    differences: Sequence[tuple[str, str, tuple[Difference, ...]]],
    samples: Sequence[Sample],
    values: Mapping[str, MetricValue],
    headline: Sequence[str],
) -> list[Text]:
    """What a model does that no table of scores shows by itself."""
    found: list[Text] = []
    plain = {one.label: one for one in _plain(scored)}
    for one in plain.values():
        found.extend(habits_of(one.label, one.predictions, samples))
    if any(sample.images for sample in samples) and not any(one.asked.control in cautions.WITHOUT_PICTURE for one in scored):
        found.append(cautions.no_control())
    for first, second, entries in differences:
        if first in plain and second in plain:
            before, after = plain[first].predictions, plain[second].predictions
            if not _same_texts(before, after) and (text := only_form_changed(first, second, before, after, samples)) is not None:
                found.append(text)
            told = [entry for entry in entries if entry.task is None and entry.metric in headline]
            verdicts = [verdict(entry, values[entry.metric]) for entry in told]
            if verdicts and all(said in (None, "unclear") for said in verdicts):
                found.append(cautions.no_change(first, second))
    return found


def _picture_shares(
    scored: Sequence[_Scored], differences: Sequence[tuple[str, str, tuple[Difference, ...]]], metrics: Sequence[MetricValue]
) -> Iterator[PictureShare]:
    """Of every model with its own pictures against each control, on the metrics that should need the picture, all tasks
    together."""
    by_label = {one.label: one for one in scored}
    for first, second, entries in differences:
        real, without = by_label[first], by_label[second]
        if without.asked.control == "none":
            continue
        known = {entry.metric: entry for entry in entries if entry.task is None}
        for metric in metrics:
            if metric.name in known:
                yield picture_share(first, without.asked.control, real.table, without.table, metric, known[metric.name])


def _once(texts: Iterable[Text]) -> tuple[Text, ...]:
    kept: list[Text] = []
    for text in texts:
        if text not in kept:
            kept.append(text)
    return tuple(kept)


def _versions() -> dict[str, str]:
    found = {"medtune": __version__, "python": python_version()}
    for package in ("torch", "transformers", "peft", "numpy", "nltk", "jieba", "rouge-chinese", "sacrebleu"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
