"""Two runs on the same samples, paired: is the second better, or was it luck?"""

from __future__ import annotations

from pathlib import Path

from medtune import plugins
from medtune.errors import EvaluationError
from medtune.evaluation import cautions
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import read_report
from medtune.evaluation.measure import ScoreTable, difference
from medtune.evaluation.predictions import read_index, read_scores
from medtune.evaluation.score import Metrics, load_metric
from medtune.evaluation.table import main_pair
from medtune.language import Text, msg
from medtune.types import Comparison, Condition, Difference, Metric, Report

__all__ = ["compare"]


def compare(
    first: Path,
    second: Path,
    *,
    first_label: str | None = None,
    second_label: str | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two evaluated run folders on the samples that both have; differences are ``second`` minus ``first``.

    Args:
        first_label: Which condition of ``first``; its tuned model with the real pictures when not given, its base model
            when it has no tuned one.
        second_label: The same of ``second``.
        num_resamples: Of the paired cluster bootstrap.

    Raises:
        EvaluationError: A report is missing, the two were made from other data or another split, or have no sample or no
            metric in common.
    """
    one, other = read_report(first), read_report(second)
    if one.dataset_hash != other.dataset_hash:
        raise EvaluationError(
            msg(
                "The two runs were evaluated on different data: {first} ({first_hash}) and {second} ({second_hash}).",
                first=one.dataset,
                first_hash=one.dataset_hash,
                second=other.dataset,
                second_hash=other.dataset_hash,
            ),
            file=second / "report.json",
            remedy=msg("Evaluate both runs on the same prepared data set."),
        )
    if one.split != other.split:
        raise EvaluationError(
            msg("The two runs were evaluated on different splits: {first} and {second}.", first=one.split, second=other.split),
            file=second / "report.json",
            remedy=msg("Evaluate both runs with the same evaluation.split."),
        )
    left, right = _condition(one, first, first_label), _condition(other, second, second_label)
    first_table = _table(first, one, left, num_resamples, seed)
    second_table = _table(second, other, right, num_resamples, seed)
    common = [sample for sample in first_table.tasks if sample in second_table.tasks]
    if not common:
        raise EvaluationError(
            msg("The two runs have no evaluated sample in common."),
            file=second / "evaluations" / "samples.jsonl",
            remedy=msg("Evaluate both with the same evaluation.seed and evaluation.max_samples."),
        )
    values = {value.name: value for value in one.metrics}
    names = [value.name for value in other.metrics if value.name in values and value.name in first_table.scores]
    if not names:
        raise EvaluationError(
            msg("The two runs were not scored with a metric in common."),
            file=second / "report.json",
            remedy=msg("Score the stored predictions again, with the same metrics."),
        )
    differences: list[Difference] = []
    for name in names:
        differences.append(difference(first_table, second_table, name))
        tasks = first_table.tasks_of(name)
        if len(tasks) > 1:
            differences.extend(difference(first_table, second_table, name, task=task) for task in tasks)
    num_groups = len({first_table.groups[sample] for sample in common})
    return Comparison(
        first=f"{one.run}/{left.label}",
        second=f"{other.run}/{right.label}",
        dataset_hash=one.dataset_hash,
        split=one.split,
        num_samples=len(common),
        num_groups=num_groups,
        metrics=tuple(values[name] for name in names),
        differences=tuple(differences),
        warnings=tuple(_warnings(one, other, len(first_table.tasks), len(second_table.tasks), len(common), num_groups)),
    )


def _condition(report: Report, folder: Path, label: str | None) -> Condition:
    if label is None:
        base, tuned = main_pair(report)
        if (found := tuned or base) is not None:
            return found
    for condition in report.conditions:
        if condition.label == label:
            return condition
    raise EvaluationError(
        msg("The report has no condition {label!r}.", label=label or "-"),
        file=folder / "report.json",
        remedy=msg("It has: {known}.", known=", ".join(condition.label for condition in report.conditions) or "-"),
    )


def _table(folder: Path, report: Report, condition: Condition, num_resamples: int, seed: int) -> ScoreTable:
    index = read_index(folder / "evaluations" / "samples.jsonl")
    path = folder / "evaluations" / condition.label / "scores.jsonl"
    scores = read_scores(path)
    for score in scores:
        if score.sample_id not in index:
            raise EvaluationError(
                msg("The scores do not belong to the evaluated samples."),
                file=path,
                sample=score.sample_id,
                remedy=msg("Score the stored predictions again."),
            )
    return ScoreTable.build(
        scores,
        {name: entry.task for name, entry in index.items()},
        {name: str(entry.group) for name, entry in index.items()},
        _metrics(report, [entry.task for entry in index.values()]),
        num_resamples=num_resamples,
        seed=seed,
    )


def _metrics(report: Report, tasks: list[str]) -> dict[str, Metric]:
    """Who aggregates each value of a report: a registered metric, else one that its settings or its tasks name."""
    found: dict[str, Metric] = {}
    registered = plugins.names("metric")
    for value in report.metrics:
        name = value.name.partition("/")[0]
        if name in registered and value.name in {known.name for known in load_metric(name).values}:
            found[value.name] = load_metric(name)
    if len(found) < len(report.metrics):
        settings = EvaluationSettings.model_validate(report.settings.get("evaluation", {}))
        others = Metrics(settings.metrics).values(tasks)
        found.update({name: metric for name, (_, metric) in others.items() if name not in found})
    if lost := [value.name for value in report.metrics if value.name not in found]:
        raise EvaluationError(
            msg("The report of {run} has {metric}, which no metric here computes.", run=report.run, metric=lost[0]),
            remedy=msg("Score the stored predictions again."),
        )
    return found


def _warnings(one: Report, other: Report, num_first: int, num_second: int, num_common: int, num_groups: int) -> list[Text]:
    found: list[Text] = []
    shared = {text.template for text in other.warnings}
    found.extend(text for text in one.warnings if cautions.is_severe(text) and text.template in shared)
    if one.synthetic:
        found.append(cautions.synthetic_data())
    if num_groups < cautions.FEW_GROUPS:
        found.append(cautions.few_groups(num_groups))
    if num_common < max(num_first, num_second):
        found.append(
            msg(
                "Only {common} samples are common to both runs, which have {first} and {second}.",
                common=num_common,
                first=num_first,
                second=num_second,
            )
        )
    only = sorted({value.name for value in one.metrics} ^ {value.name for value in other.metrics})
    if only:
        found.append(msg("Scored in one run only, and left out: {metrics}.", metrics=", ".join(only)))
    if one.settings.get("sampling") != other.settings.get("sampling"):
        found.append(msg("The answers of the two runs were drawn with different sampling settings."))
    return found
