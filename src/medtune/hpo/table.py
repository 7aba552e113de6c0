"""The table of a sweep, as the command line and the page show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medtune.hpo.report import Interval, SweepReport, TrialReport
from medtune.language import Text, msg

__all__ = ["STATES", "Row", "objective_title", "rows"]

STATES = {
    "complete": msg("complete"),
    "pruned": msg("stopped early"),
    "failed": msg("failed"),
    "running": msg("running"),
    "waiting": msg("waiting"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One trial. ``standing``: what the 95 % interval of its difference to the recipe's own settings says, for this one alone."""

    number: int
    settings: Text | str
    state: Text
    value: str
    difference: str
    standing: Literal["better", "worse", ""]
    is_best: bool
    error: Text | None


def rows(report: SweepReport) -> list[Row]:
    """The complete trials, the best first; then those without a value."""
    ranked = report.complete
    others = [trial for trial in report.trials if trial not in ranked]
    return [_row(trial, report) for trial in (*ranked, *others)]


def objective_title(report: SweepReport) -> Text:
    """The head of the column of values."""
    return msg("validation loss") if report.objective == "validation-loss" else msg("{detail}", detail=report.objective)


def _row(trial: TrialReport, report: SweepReport) -> Row:
    return Row(
        number=trial.number,
        settings=", ".join(trial.overrides) if trial.overrides else msg("the recipe's own settings"),
        state=STATES[trial.state],
        value=_shown(trial.value),
        difference=_shown(trial.difference, signed=True),
        standing=_standing(trial.difference, report),
        is_best=trial.number == report.best,
        error=trial.error,
    )


def _standing(difference: Interval | None, report: SweepReport) -> Literal["better", "worse", ""]:
    if difference is None or difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return ""
    return "better" if (difference.mean < 0) == (report.direction == "lower") else "worse"


def _shown(interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    form = "{:+.4f}" if signed else "{:.4f}"
    mean = form.format(interval.mean)
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} ({form.format(interval.low)} … {form.format(interval.high)})"
