"""What a sweep found, as data: ``sweep.json``. The table, the plots and the page are drawn from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from medtune.errors import RunError
from medtune.hpo.config import Space
from medtune.hpo.statistics import mean_with_interval, paired_difference
from medtune.hpo.study import Trial
from medtune.hpo.trial import SeedRun
from medtune.language import Text, msg
from medtune.schema import read_fault
from medtune.types import Document

__all__ = ["REPORT_FILE", "Interval", "SweepReport", "SweptData", "TrialReport", "judge", "read_report", "summarize"]

REPORT_FILE = "sweep.json"

Verdict = Literal["better", "not-distinguishable", "own-settings", "unknown"]


class Interval(Document):
    """A mean over seeds with its 95 % t interval; no ends with one seed."""

    mean: float
    low: float | None = None
    high: float | None = None


class TrialReport(Document):
    """One trial. ``difference`` is the trial minus the recipe's own settings, paired by seed."""

    number: int
    state: Literal["complete", "pruned", "failed", "running", "waiting"]
    settings: dict[str, JsonValue]
    """As the search space writes them; empty for the recipe's own settings."""
    overrides: tuple[str, ...]
    """The same for `medtune train RECIPE ...`."""
    runs: tuple[SeedRun, ...] = ()
    value: Interval | None = None
    difference: Interval | None = None
    losses: dict[int, float] = Field(default_factory=dict)
    """Percent of the training -> validation loss of the first seed, without the last."""
    error: Text | None = None


class SweptData(Document):
    """The data that all trials share."""

    name: str
    hash: str
    synthetic: bool
    num_train_rows: int
    num_validation_rows: int


class SweepReport(Document):
    """``sweep.json``.

    Attributes:
        objective: ``validation-loss``, or the name of a metric's value on the validation split.
        own: Key -> the recipe's own value, as the search space writes it.
        best: Number of the complete trial with the best mean.
        best_difference: The best minus the recipe's own settings, paired by seed, at the level that holds for all trials
            together (Bonferroni): the best of many is partly the luckiest.
        verdict: ``better``: that interval does not hold zero. ``not-distinguishable``: it does. ``own-settings``: the recipe's
            own are the best. ``unknown``: fewer than two seeds, or nothing to compare.
        importance: Setting -> share; empty where it means nothing.
        notes: What a reader must know.
    """

    format_version: Literal[1] = 1
    recipe: str
    base_model: str
    data: SweptData
    space: Space
    own: dict[str, JsonValue]
    objective: str
    direction: Literal["lower", "higher"]
    num_planned: int
    trials: tuple[TrialReport, ...]
    best: int | None = None
    best_difference: Interval | None = None
    verdict: Verdict = "unknown"
    importance: dict[str, float] = Field(default_factory=dict)
    notes: tuple[Text, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def complete(self) -> tuple[TrialReport, ...]:
        """The trials with a value, the best first."""
        found = [trial for trial in self.trials if trial.value is not None and trial.state == "complete"]
        sign = -1.0 if self.direction == "higher" else 1.0
        return tuple(sorted(found, key=lambda trial: sign * trial.value.mean if trial.value is not None else 0.0))

    @property
    def num_finished(self) -> int:
        return sum(trial.state in ("complete", "pruned", "failed") for trial in self.trials)

    def trial(self, number: int) -> TrialReport:
        return next(trial for trial in self.trials if trial.number == number)


def read_report(folder: Path) -> SweepReport:
    """``sweep.json`` of a sweep folder.

    Raises:
        RunError: It is missing or damaged.
    """
    path = folder / REPORT_FILE
    try:
        return SweepReport.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            msg("This is not a sweep folder: it has no sweep.json."), file=folder, remedy=msg("`medtune sweep RECIPE` makes one.")
        ) from error
    except (OSError, ValueError) as error:
        raise RunError(msg("sweep.json cannot be read: {error}", error=read_fault(error)), file=path) from error


def summarize(
    trials: Iterable[Trial],
    *,
    recipe: str,
    base_model: str,
    data: SweptData,
    space: Space,
    own: Mapping[str, JsonValue],
    direction: Literal["lower", "higher"],
    num_planned: int,
    importance: Mapping[str, float],
    versions: Mapping[str, str],
) -> SweepReport:
    """The report of the trials so far."""
    trials = list(trials)
    first = next((trial for trial in trials if trial.number == 0 and trial.state == "complete"), None)
    reports = tuple(_report(trial, first) for trial in trials if trial.state != "waiting")
    report = SweepReport(
        recipe=recipe,
        base_model=base_model,
        data=data,
        space=space,
        own=dict(own),
        objective=space.objective,
        direction=direction,
        num_planned=num_planned,
        trials=reports,
        importance=dict(importance),
        versions=dict(versions),
    )
    best, difference, verdict = judge(report)
    notes = tuple(_notes(report, verdict))
    return report.model_copy(update={"best": best, "best_difference": difference, "verdict": verdict, "notes": notes})


def judge(report: SweepReport) -> tuple[int | None, Interval | None, Verdict]:
    """The best trial, its difference to the recipe's own settings at the level of all comparisons, and what that says."""
    ranked = report.complete
    if not ranked:
        return None, None, "unknown"
    best = ranked[0]
    own = next((trial for trial in ranked if trial.number == 0), None)
    if own is None or len(ranked) < 2:
        return best.number, None, "unknown"
    if best is own:
        return best.number, None, "own-settings"
    estimate = paired_difference(*_paired(own.runs, best.runs), num_comparisons=len(ranked) - 1)
    interval = Interval(mean=estimate.mean, low=estimate.low, high=estimate.high)
    if estimate.low is None or estimate.high is None:
        return best.number, interval, "unknown"
    return best.number, interval, "not-distinguishable" if estimate.low <= 0 <= estimate.high else "better"


def _report(trial: Trial, own: Trial | None) -> TrialReport:
    value = difference = None
    if trial.state == "complete":
        estimate = mean_with_interval([run.value for run in trial.runs])
        value = Interval(mean=estimate.mean, low=estimate.low, high=estimate.high)
        if own is not None and trial.number != 0:
            change = paired_difference(*_paired(own.runs, trial.runs))
            difference = Interval(mean=change.mean, low=change.low, high=change.high)
    return TrialReport(
        number=trial.number,
        state=trial.state,
        settings=dict(trial.settings),
        overrides=trial.overrides,
        runs=trial.runs,
        value=value,
        difference=difference,
        losses=dict(trial.losses),
        error=trial.error,
    )


def _paired(first: Sequence[SeedRun], second: Sequence[SeedRun]) -> tuple[list[float], list[float]]:
    """The values of the seeds that both have, in the same order."""
    after = {run.seed: run.value for run in second}
    shared = [run for run in first if run.seed in after]
    return [run.value for run in shared], [after[run.seed] for run in shared]


def _notes(report: SweepReport, verdict: Verdict) -> Iterable[Text]:
    if verdict == "better":
        yield msg("The best differs from the recipe's own settings by more than the seeds explain, all comparisons taken together.")
    elif verdict == "not-distinguishable":
        yield msg("The best cannot be told from the recipe's own settings: another set of seeds may turn the order around.")
    elif verdict == "own-settings":
        yield msg("No other settings had a better mean than the recipe's own.")
    if len(report.space.seeds) < 2:
        yield msg("One seed has no interval: differences may be chance. Give the search space seeds: 3 or more.")
    else:
        yield msg(
            "Intervals: 95 %, Student's t over {seeds} seeds, on the same validation rows. They say nothing of other patients.",
            seeds=len(report.space.seeds),
        )
    pruned = sum(trial.state == "pruned" for trial in report.trials)
    failed = sum(trial.state == "failed" for trial in report.trials)
    if pruned:
        yield msg("{count} trials were stopped early; they have no value.", count=pruned)
    if failed:
        yield msg("{count} trials failed; the reason stands beside each.", count=failed)
    if report.data.synthetic:
        yield msg("The data are synthetic: nothing here holds for patients' pictures.")
    yield msg("The best was picked on the validation split: `medtune evaluate` measures it on the test split.")
