"""Two runs on the same samples, paired: is the second better, or was it luck?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune import plugins
from medtune.errors import EvaluationError
from medtune.evaluation import cautions, overlaps
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import read_report
from medtune.evaluation.measure import ScoreTable
from medtune.evaluation.permutation import adjust
from medtune.evaluation.predictions import read_index, read_scores
from medtune.evaluation.score import Metrics, load_metric
from medtune.evaluation.score_columns import ScoreColumns
from medtune.evaluation.several_runs import averaged_difference
from medtune.evaluation.table import main_pair
from medtune.evaluation.wording import listed, metric_title
from medtune.language import Text, msg
from medtune.types import Comparison, Condition, Difference, Metric, Report

__all__ = ["compare"]


def compare(
    first: Path | Sequence[Path],
    second: Path | Sequence[Path],
    *,
    first_label: str | None = None,
    second_label: str | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two evaluated run folders on the samples that both have; differences are ``second`` minus ``first``.

    Several folders are runs of one recipe with other seeds: they are averaged, never pooled
    (:mod:`medtune.evaluation.several_runs`), on the samples that all of them have.

    Args:
        first_label: Which condition of ``first``; its tuned model with the real pictures when not given, its base model
            when it has no tuned one.
        second_label: The same of ``second``.
        num_resamples: Of the paired cluster bootstrap, and of the permutation.

    Raises:
        EvaluationError: A report is missing, the runs were made from other data or another split, have no sample or no
            metric in common, or an arm has no run.
    """
    arms = [
        [_Run.read(folder, label) for folder in ([given] if isinstance(given, Path) else given)]
        for given, label in ((first, first_label), (second, second_label))
    ]
    if not all(arms):
        raise EvaluationError(msg("A comparison needs at least one run on either side."))
    runs = [run for arm in arms for run in arm]
    one = runs[0].report
    for run in runs[1:]:
        _check_comparable(one, run)
    tables = [[run.table(num_resamples, seed) for run in arm] for arm in arms]
    every = [table for arm in tables for table in arm]
    common = [sample for sample in every[0].tasks if all(sample in table.tasks for table in every[1:])]
    if not common:
        raise EvaluationError(
            msg("The two runs have no evaluated sample in common."),
            file=runs[-1].folder / "evaluations" / "samples.jsonl",
            remedy=msg("Evaluate both with the same evaluation.seed and evaluation.max_samples."),
        )
    values = {value.name: value for value in one.metrics}
    names = [
        value.name
        for value in arms[1][0].report.metrics
        if value.name in values and all(value.name in table.scores for table in every[:-1])
    ]
    if not names:
        raise EvaluationError(
            msg("The two runs were not scored with a metric in common."),
            file=runs[-1].folder / "report.json",
            remedy=msg("Score the stored predictions again, with the same metrics."),
        )
    differences: list[Difference] = []
    for name in names:
        differences.append(averaged_difference(tables[0], tables[1], name))
        tasks = every[0].tasks_of(name)
        if len(tasks) > 1:
            differences.extend(averaged_difference(tables[0], tables[1], name, task=task) for task in tasks)
    groups = [every[0].groups[sample] for sample in common]
    itself = _against_itself(*arms)
    warnings = [*itself, *_warnings([run.report for run in runs], [len(table.tasks) for table in every], groups)]
    warnings += _run_warnings(*arms)
    return Comparison(
        first=_title(arms[0]),
        second=_title(arms[1]),
        dataset_hash=one.dataset_hash,
        split=one.split,
        num_samples=len(common),
        num_groups=len(set(groups)),
        metrics=tuple(values[name] for name in names),
        differences=tuple(adjust(differences, values)),
        alerts=(*itself, *(text for text in warnings if overlaps.makes_unfit(text))),
        warnings=tuple(warnings),
        runs=(tuple(run.title for run in arms[0]), tuple(run.title for run in arms[1])),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    folder: Path
    report: Report
    condition: Condition

    @classmethod
    def read(cls, folder: Path, label: str | None) -> _Run:
        report = read_report(folder)
        return cls(folder, report, _condition(report, folder, label))

    @property
    def title(self) -> str:
        return f"{self.report.run}/{self.condition.label}"

    def table(self, num_resamples: int, seed: int) -> ScoreTable:
        return _table(self.folder, self.report, self.condition, num_resamples, seed)


def _title(arm: Sequence[_Run]) -> str:
    return arm[0].title if len(arm) == 1 else f"{arm[0].title} (+{len(arm) - 1})"


def _check_comparable(one: Report, run: _Run) -> None:
    """
    Raises:
        EvaluationError: The run was evaluated on other data, or on another split.
    """
    other = run.report
    if one.dataset_hash != other.dataset_hash:
        raise EvaluationError(
            msg(
                "The two runs were evaluated on different data: {first} ({first_hash}) and {second} ({second_hash}).",
                first=one.dataset,
                first_hash=one.dataset_hash,
                second=other.dataset,
                second_hash=other.dataset_hash,
            ),
            file=run.folder / "report.json",
            remedy=msg("Evaluate both runs on the same prepared data set."),
        )
    if one.split != other.split:
        raise EvaluationError(
            msg("The two runs were evaluated on different splits: {first} and {second}.", first=one.split, second=other.split),
            file=run.folder / "report.json",
            remedy=msg("Evaluate both runs with the same evaluation.split."),
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
    columns = ScoreColumns.of(read_scores(path))
    for sample in columns.sample_ids:
        if sample not in index:
            raise EvaluationError(
                msg("The scores do not belong to the evaluated samples."),
                file=path,
                sample=sample,
                remedy=msg("Score the stored predictions again."),
            )
    return ScoreTable(
        columns,
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


def _warnings(reports: Sequence[Report], sizes: Sequence[int], groups: Sequence[str]) -> list[Text]:
    one, others, num_common = reports[0], reports[1:], len(groups)
    # What speaks of the data is true of all, also where only one run was evaluated after the data had been validated; what speaks
    # of one model's answers belongs to its own report.
    severe = [text for report in reports for text in report.warnings if overlaps.makes_unfit(text)]
    found: list[Text] = list({text.render("en"): text for text in severe}.values())
    if one.synthetic:
        found.append(cautions.synthetic_data())
    found.extend(cautions.too_few_groups(groups))
    if num_common < max(sizes):
        found.append(
            msg(
                "Only {common} samples are common to both runs, which have {first} and {second}.",
                common=num_common,
                first=sizes[0],
                second=sizes[-1],
            )
            if len(sizes) == 2
            else msg(
                "Only {common} samples are common to all runs, which have between {fewest} and {most}.",
                common=num_common,
                fewest=min(sizes),
                most=max(sizes),
            )
        )
    counts = Counter(value.name for report in reports for value in report.metrics)
    only = sorted(name for name, count in counts.items() if count < len(reports))
    if only:
        titles = {value.name: metric_title(value) for report in reports for value in report.metrics}
        found.append(msg("Scored in one run only, and left out: {metrics}.", metrics=listed(titles[name] for name in only)))
    if any(one.settings.get("sampling") != other.settings.get("sampling") for other in others):
        found.append(msg("The answers of the two runs were drawn with different sampling settings."))
    return found


def _against_itself(first: Sequence[_Run], second: Sequence[_Run]) -> list[Text]:
    """The runs whose answers stand on both sides, whatever their folders are called."""
    places = {(run.folder.resolve(), run.condition.label) for run in first}
    return [cautions.same_run(run.title) for run in second if (run.folder.resolve(), run.condition.label) in places]


def _run_warnings(first: Sequence[_Run], second: Sequence[_Run]) -> list[Text]:
    """What the number of runs of either arm means for the comparison."""
    found: list[Text] = []
    if len(first) == len(second) == 1:
        if first[0].folder != second[0].folder:
            found.append(cautions.one_run_each())
        return found
    for arm in (first, second):
        weights = [run.report.settings.get("weights") for run in arm]
        known = [str(entry) for entry in weights if entry]
        if len(set(known)) < len(known):
            found.append(cautions.same_weights(_title(arm)))
        if len(arm) == 1:
            found.append(cautions.one_run(arm[0].title))
    return found
