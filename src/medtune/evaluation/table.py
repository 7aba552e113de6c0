"""The short table of a report, as typed rows: what the command line prints and what the page shows are the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from medtune.types import Condition, ControlName, Difference, Measurement, MetricValue, Report

__all__ = [
    "SIGNIFICANT",
    "About",
    "HeadlineRow",
    "Verdict",
    "about",
    "choose_headline",
    "format_interval",
    "format_p",
    "format_share",
    "format_value",
    "headline_rows",
    "main_pair",
    "table_control",
    "verdict",
]

About = Literal["picture", "certainty", "form", "wording", "protocol"]
"""What a metric tells: what is seen in the picture, whether probabilities are right, whether the asked form was kept, how near the
words are, or what a published protocol would say, its defects included."""

Verdict = Literal["better", "worse", "unclear"]
"""Of a difference: its 95 % interval lies wholly on one side of zero and the p-value adjusted for all metrics that were tried is at
most 0.05, or that is not so."""

SIGNIFICANT = 0.05
"""Largest adjusted p-value of a difference that is called better or worse: the level that goes with 95 % intervals."""

_ABOUT: dict[str, About] = {
    "closed": "picture",
    "closed/yes-rate": "form",
    "closed/parse-failure": "form",
    "choice": "picture",
    "choice/parse-failure": "form",
    "strict": "picture",
    "open": "picture",
    "region": "picture",
    "region/area-stated": "form",
    "findings": "picture",
    "measurements": "picture",
    # Models of others that read the content of reports.
    "radgraph": "picture",
    "chexbert": "picture",
    "radbert-ct": "picture",
    "green": "picture",
    "ratescore": "picture",
    "srrbert": "picture",
    "calibration": "certainty",
    "llava-med-v1": "protocol",
    "medevalkit-nojudge": "protocol",
    "modality-organ": "picture",
    "sections": "form",
    "box": "picture",
    "json-record/valid": "form",
    "json-record/key-f1": "form",
}

HEADLINE = (
    "region/position-accuracy",
    "region/side-accuracy",
    "region/area-error",
    "region/kind-accuracy",
    "findings/micro-f1",
    "findings/contradicted",
    "findings/invented",
    "findings/missed",
    "findings/coarser",
    "measurements/f1",
    "box/iou",
    "closed/accuracy",
    "open/f1",
    "json-record/valid",
    "json-record/value-match",
    "bleu/corpus",
    "rouge/rouge-l",
    "llamafactory/bleu-4",
    "llamafactory/rouge-l",
)
"""The short table's metrics, as far as they were scored. LLaMA-Factory's stand there because published runs quote them."""


def about(metric: str) -> About:
    """What ``metric`` (``name/value``) tells. A metric that is not known counts as wording: the smallest claim."""
    return _ABOUT.get(metric, _ABOUT.get(metric.partition("/")[0], "wording"))


@dataclass(frozen=True, slots=True)
class HeadlineRow:
    """One metric of the short table. A column is None where there is no such condition.

    Attributes:
        difference: Tuned minus base.
        control: The tuned model (or the only one) under the control of the table.
        reliance: The control minus the real pictures, paired: what is lost without the right picture.
    """

    metric: MetricValue
    about: About
    base: Measurement | None
    tuned: Measurement | None
    difference: Difference | None
    control: Measurement | None
    reliance: Difference | None

    @property
    def verdict(self) -> Verdict | None:
        """What the tuning did to this metric; None where there is nothing to compare."""
        return verdict(self.difference, self.metric) if self.difference is not None else None

    @property
    def num_scored(self) -> int:
        return max((column.num_scored for column in (self.base, self.tuned) if column is not None), default=0)

    @property
    def num_unscored(self) -> int:
        """The larger of base's and tuned's: how many samples the less lucky of the two was not scored on."""
        return max((column.num_unscored for column in (self.base, self.tuned) if column is not None), default=0)


def verdict(difference: Difference, metric: MetricValue) -> Verdict | None:
    """Whether a difference is one for the better; None when it has no interval, or the metric no better end."""
    if difference.low is None or difference.high is None or metric.direction == "neither":
        return None
    if difference.p_adjusted is not None and difference.p_adjusted > SIGNIFICANT:
        return "unclear"
    if difference.low > 0:
        return "better" if metric.direction == "higher" else "worse"
    if difference.high < 0:
        return "worse" if metric.direction == "higher" else "better"
    return "unclear"


def main_pair(report: Report) -> tuple[Condition | None, Condition | None]:
    """The (base, tuned) conditions without a control that the short table compares: the first of each kind."""
    plain = [condition for condition in report.conditions if condition.control == "none"]
    base = next((condition for condition in plain if condition.model == "base"), None)
    tuned = next((condition for condition in plain if condition.model == "tuned"), None)
    return base, tuned


def table_control(report: Report) -> ControlName | None:
    """The control that the short table shows: shuffled pictures where they were asked, else the first other one of the model."""
    asked = [condition.control for condition in report.conditions if condition.control != "none" and condition.model != "none"]
    return "shuffled" if "shuffled" in asked else next(iter(asked), None)


def headline_rows(report: Report, *, task: str | None = None, metrics: Iterable[str] | None = None) -> tuple[HeadlineRow, ...]:
    """The rows of the short table, most telling first; of one ``task``, or other ``metrics``, when given."""
    values = {value.name: value for value in report.metrics}
    base, tuned = main_pair(report)
    looked = tuned or base
    control_name = table_control(report)
    control = next(
        (
            condition
            for condition in report.conditions
            if looked is not None and condition.control == control_name and condition.label == f"{looked.label}-{control_name}"
        ),
        None,
    )
    rows = []
    for name in report.headline if metrics is None else metrics:
        rows.append(
            HeadlineRow(
                metric=values[name],
                about=about(name),
                base=_measurement(base, name, task),
                tuned=_measurement(tuned, name, task),
                difference=_difference(report, base, tuned, name, task),
                control=_measurement(control, name, task),
                reliance=_difference(report, looked, control, name, task),
            )
        )
    return tuple(rows)


def choose_headline(values: Mapping[str, MetricValue], scored: Iterable[str]) -> tuple[str, ...]:
    """Metric names for the short table: those that were scored, in the order of :data:`About`.

    These are the :data:`HEADLINE` and, of a metric that is not among them, the first value in the order of ``values``.
    """
    order = get_args(About)
    have = set(scored)
    chosen = [name for name in HEADLINE if name in have]
    known = {name.partition("/")[0] for name in chosen}
    for name in values:
        if name in have and (metric := name.partition("/")[0]) not in known:
            known.add(metric)
            chosen.append(name)
    return tuple(sorted(chosen, key=lambda name: order.index(about(name))))


def format_value(value: float | None, metric: MetricValue, *, signed: bool = False) -> str:
    """A number of ``metric`` in its unit: shares (0 to 1) with three decimals, larger ranges with two. ``–`` for None.

    A difference (``signed``) that this would round to nothing has one digit more than its zeros, so that "better by +0.000" is
    never read; below a millionth it is 0.
    """
    if value is None:
        return "–"
    decimals = 3 if max(abs(metric.low), abs(metric.high)) <= 1 else 2
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if signed and float(text) == 0:
        decimals = next((more for more in range(decimals + 1, 7) if round(value, more)), decimals)
        text = f"{value:+.{decimals}f}"
    if float(text) == 0:
        text = text.replace("-", "+") if signed else text.replace("-", "")
    return text.replace("-", "−")


def format_interval(low: float | None, high: float | None, metric: MetricValue, *, signed: bool = False) -> str:
    """``low to high``, or nothing when there is no interval."""
    if low is None or high is None:
        return ""
    return f"{format_value(low, metric, signed=signed)} … {format_value(high, metric, signed=signed)}"


def format_p(value: float | None) -> str:
    """Three decimals, and never 0: no test shows that chance is impossible."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def format_share(share: float, decimals: int = 0) -> str:
    """A share (0 to 1) in per cent."""
    return f"{100 * share:.{decimals}f} %".replace("-", "−")


def _measurement(condition: Condition | None, metric: str, task: str | None) -> Measurement | None:
    if condition is None:
        return None
    return next((entry for entry in condition.measurements if entry.metric == metric and entry.task == task), None)


def _difference(
    report: Report, first: Condition | None, second: Condition | None, metric: str, task: str | None
) -> Difference | None:
    if first is None or second is None:
        return None
    for one, other, differences in report.differences:
        if (one, other) == (first.label, second.label):
            return next((entry for entry in differences if entry.metric == metric and entry.task == task), None)
    return None
