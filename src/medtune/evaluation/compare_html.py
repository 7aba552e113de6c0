"""``compare.html``: two or more runs on the same samples, as one file (:mod:`medtune.evaluation.page`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from medtune.evaluation import cautions, overlaps, plots
from medtune.evaluation.case_filters import case_filters
from medtune.evaluation.cases import PICTURE_BYTES, QUOTA, Case, Side
from medtune.evaluation.evaluate import read_report
from medtune.evaluation.kinds import by_kind
from medtune.evaluation.page import render_page
from medtune.evaluation.run_cases import Asked, cases_of, check_dataset
from medtune.evaluation.table import Verdict, about, choose_headline, format_interval, format_p, format_value, verdict
from medtune.evaluation.wording import ABOUT, FATES, PAGE, TAGS, VERDICTS, metric_title, split_title, task_title, unit_title
from medtune.language import Language, Text, msg
from medtune.runs import atomic_write
from medtune.types import Comparison, Condition, Difference, MetricValue, Report

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["Pair", "render_comparisons", "write_comparisons"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A comparison, and the run folders that it was made from: of several runs in an arm, the first, whose cases are shown."""

    comparison: Comparison
    first: Path
    second: Path


def write_comparisons(pairs: Sequence[Pair], path: Path, dataset: Dataset | None, in_language: Language | None = None) -> Path:
    """Write the page, whole or not at all, and return its path. Arguments and errors as of :func:`render_comparisons`."""
    atomic_write(path, render_comparisons(pairs, dataset, in_language))
    return path


def render_comparisons(pairs: Sequence[Pair], dataset: Dataset | None, in_language: Language | None = None) -> str:
    """The page.

    Args:
        pairs: Shown one below the other.
        dataset: For the questions and pictures of the cases; without it there are no cases.
        in_language: The language that the page opens in; the reader can switch.

    Raises:
        EvaluationError: A report cannot be read, or the data set is another than that of the runs.
        ValueError: ``pairs`` is empty.
    """
    if not pairs:
        raise ValueError("no comparison to show")
    shown = [_shown(pair) for pair in pairs]
    cases = [] if dataset is None else [case for place in range(len(pairs)) for case in _cases(shown, place, dataset)]
    warnings = [text for one in shown for text in one.pair.comparison.warnings]
    warnings = [text for place, text in enumerate(warnings) if text not in warnings[:place]]
    alerts = [text for one in shown for text in one.pair.comparison.alerts]
    severe = [text for text in warnings if text in alerts or overlaps.makes_unfit(text)]
    synthetic = any(text.template == cautions.synthetic_data().template for text in warnings)
    return render_page(
        "compare.html",
        style="report.css",
        script="report.js",
        in_language=in_language,
        text=PAGE,
        title=_title(pairs),
        shown=shown,
        severe=by_kind(severe),
        cautions=by_kind(
            # Synthetic data have a banner.
            [text for text in warnings if text not in severe and text.template != cautions.synthetic_data().template]
        ),
        synthetic=synthetic,
        local_only=dataset is not None and dataset.manifest.local_only,
        about_titles=ABOUT,
        verdicts=VERDICTS,
        tags=TAGS,
        task_title=task_title,
        split_title=split_title,
        unit_title=unit_title,
        metric_text=metric_title,
        value=format_value,
        p_value=format_p,
        interval=format_interval,
        base=True,
        tuned=True,
        cases=cases,
        case_filters=case_filters(cases),
        fates=FATES,
        side_titles={"base": PAGE["first_model"], "tuned": PAGE["second_model"]},
        answer_titles={"base": PAGE["first_answer"], "tuned": PAGE["second_answer"]},
        box_titles={"base": PAGE["first_box"], "tuned": PAGE["second_box"]},
        cases_note=PAGE["compared_cases_note"],
        num_samples=max(pair.comparison.num_samples for pair in pairs),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    metric: MetricValue
    entry: Difference
    verdict: Verdict | None
    bar: Markup


_Kinds = tuple[tuple[str, tuple[_Row, ...]], ...]
"""(what the measures are about, the measures)."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """One pair as the page shows it. ``headline`` is the short table, ``sections`` are (task, None for all; (about, rows))."""

    pair: Pair
    reports: tuple[Report, Report]
    summary: Text
    headline: _Kinds
    sections: tuple[tuple[str | None, _Kinds], ...]


def _title(pairs: Sequence[Pair]) -> Text:
    first = pairs[0].comparison
    if len(pairs) == 1:
        return msg("{second} against {first}", first=first.first, second=first.second)
    return msg("{count} runs against {first}", count=len(pairs), first=first.first)


def _shown(pair: Pair) -> _Shown:
    comparison = pair.comparison
    values = {value.name: value for value in comparison.metrics}
    tasks = dict.fromkeys([None, *(entry.task for entry in comparison.differences)])
    sections = []
    for task in tasks:
        rows = [
            _Row(values[entry.metric], entry, verdict(entry, values[entry.metric]), _bar(entry))
            for entry in comparison.differences
            if entry.task == task and entry.difference is not None
        ]
        kinds = tuple((kind, tuple(row for row in rows if about(row.metric.name) == kind)) for kind in ABOUT)
        sections.append((task, tuple((kind, mine) for kind, mine in kinds if mine)))
    chosen = choose_headline(values, [row.metric.name for _, rows in sections[0][1] for row in rows])
    headline = tuple(
        (kind, mine) for kind, rows in sections[0][1] if (mine := tuple(row for row in rows if row.metric.name in chosen))
    )
    overall = [row for kind, rows in headline for row in rows if kind == "picture"]
    summary = msg(
        "On what the pictures show, {second} is better than {first} on {better} of {count} measures, worse on {worse}, and on"
        " {unclear} there is no clear change.",
        first=comparison.first,
        second=comparison.second,
        better=sum(row.verdict == "better" for row in overall),
        worse=sum(row.verdict == "worse" for row in overall),
        unclear=sum(row.verdict in ("unclear", None) for row in overall),
        count=len(overall),
    )
    if not overall:
        summary = msg("No measure of what the pictures show was scored: the numbers are of wording alone.")
    return _Shown(pair, (read_report(pair.first), read_report(pair.second)), summary, headline, tuple(sections))


def _bar(entry: Difference) -> Markup:
    reach = max(abs(entry.low or 0.0), abs(entry.high or 0.0), abs(entry.difference or 0.0))
    return plots.difference_bar(entry.difference, entry, reach or 1.0)


def _cases(shown: Sequence[_Shown], place: int, dataset: Dataset) -> list[Case]:
    """The cases of one pair; several pairs share the room of the page."""
    one = shown[place]
    comparison = one.pair.comparison
    for report, folder in zip(one.reports, (one.pair.first, one.pair.second), strict=True):
        check_dataset(report, folder, dataset)
    values = {value.name: value for value in comparison.metrics}
    scored = [entry.metric for entry in comparison.differences if entry.task is None and entry.difference is not None]
    metrics = [values[name] for name in choose_headline(values, scored)]
    first, second = (
        runs[0] if runs else name for runs, name in zip(comparison.runs, (comparison.first, comparison.second), strict=True)
    )
    sides: dict[Side, Asked] = {
        "base": Asked(one.pair.first, _condition(one.reports[0], first)),
        "tuned": Asked(one.pair.second, _condition(one.reports[1], second)),
    }
    share = len(shown)
    quota = {tag: -(-count // share) for tag, count in QUOTA.items()}
    found = cases_of(sides, dataset, one.reports[0], metrics, quota=quota, picture_bytes=PICTURE_BYTES // share)
    return [replace(case, pair=f"{comparison.second} – {comparison.first}") for case in found] if share > 1 else found


def _condition(report: Report, name: str) -> Condition:
    label = name.removeprefix(f"{report.run}/")
    return next(condition for condition in report.conditions if condition.label == label)
