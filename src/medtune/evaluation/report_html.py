"""``report.html``: the report as one file that anybody can open, keep, print and send on (:mod:`medtune.evaluation.page`)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from markupsafe import Markup

from medtune.errors import MedtuneError
from medtune.evaluation import cautions, overlaps, plots
from medtune.evaluation.case_filters import Name, case_filters, finding_title
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.kinds import by_kind
from medtune.evaluation.page import render_page
from medtune.evaluation.review_wording import ERRORS, SEVERITIES
from medtune.evaluation.run_cases import report_cases
from medtune.evaluation.table import (
    SIGNIFICANT,
    About,
    HeadlineRow,
    Verdict,
    about,
    format_interval,
    format_p,
    format_share,
    format_value,
    headline_rows,
    main_pair,
    table_control,
    verdict,
)
from medtune.evaluation.wording import (
    ABOUT,
    AGREEMENTS,
    CONSISTENCY,
    FATES,
    PAGE,
    TAGS,
    USES,
    VERDICTS,
    condition_title,
    control_title,
    field_title,
    metric_title,
    num_groups,
    sex_title,
    split_title,
    task_title,
    unit_title,
    value_title,
)
from medtune.language import Language, Text, msg
from medtune.runs import Run, atomic_write
from medtune.types import FindingCount, Measurement, MetricValue, PictureShare, Report, RunRecord

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["render_report", "write_report"]


def write_report(report: Report, folder: Path, dataset: Dataset | None, in_language: Language | None = None) -> Path:
    """Write ``report.html`` into the run folder, whole or not at all, and return its path."""
    path = folder / "report.html"
    atomic_write(path, render_report(report, folder, dataset, in_language))
    return path


def render_report(report: Report, folder: Path, dataset: Dataset | None, in_language: Language | None = None) -> str:
    """The page.

    Args:
        report: ``report.json`` of ``folder``.
        folder: The run folder; stored predictions and scores make the cases, ``loss.png`` and ``run.json`` the part on
            training. What is not there is left out.
        dataset: For the questions and pictures of the cases; without it there are no cases.
        in_language: The language that the page opens in; the reader can switch.

    Raises:
        EvaluationError: The data set is another than the report's, or a stored file is damaged.
    """
    base, tuned = main_pair(report)
    control = table_control(report)
    cases = [] if dataset is None else report_cases(report, folder, dataset)
    return render_page(
        "report.html",
        style="report.css",
        script="report.js",
        in_language=in_language,
        text=PAGE,
        report=report,
        title=msg("Evaluation of {run}", run=report.run),
        groups=num_groups(report.group_kind, report.num_groups),
        severe=by_kind(
            [*report.alerts, *(text for text in report.warnings if overlaps.makes_unfit(text) and text not in report.alerts)]
        ),
        cautions=by_kind(
            [
                text
                for text in report.warnings
                if not overlaps.makes_unfit(text)
                and text not in report.alerts
                and text.template != cautions.synthetic_data().template  # it has a banner
            ]
        ),
        local_only=dataset is not None and dataset.manifest.local_only,
        summary=_summary(report),
        base=base,
        tuned=tuned,
        control=control,
        control_title=control_title(control) if control is not None else None,
        sections=_sections(headline_rows(report)),
        more=_sections(headline_rows(report, metrics=_in_order(report))) if len(report.metrics) > len(report.headline) else [],
        tasks=_by_task(report),
        subgroups=_subgroups(report),
        picture_rows=_picture_rows(report),
        control_name=control_title,
        condition_title=condition_title,
        split_title=split_title,
        errors=ERRORS,
        severities=SEVERITIES,
        agreements=AGREEMENTS,
        findings=_findings(report),
        diagrams=[
            (
                label,
                plots.reliability_diagram(bins, "base" if label == "base" else "tuned"),
                sum(entry.num_samples for entry in bins),
            )
            for label, bins in report.calibration.items()
            if any(entry.num_samples for entry in bins)
        ],
        abstentions=[(entry, plots.risk_coverage_plot(entry)) for entry in report.abstention if entry.num_test],
        reading=report.review,
        about_titles=ABOUT,
        verdicts=VERDICTS,
        uses=USES,
        consistency_titles=CONSISTENCY,
        tags=TAGS,
        task_title=task_title,
        field_title=field_title,
        subgroup_title=_subgroup_title,
        unit_title=unit_title,
        value=format_value,
        interval=format_interval,
        percent=format_share,
        p_value=format_p,
        verdict=verdict,
        metric_text=metric_title,
        strip=_strip,
        record=_record(folder),
        loss=_loss_picture(folder),
        cases=cases,
        case_filters=case_filters(cases),
        fates=FATES,
        side_titles={"base": PAGE["base"], "tuned": PAGE["tuned"]},
        answer_titles={"base": PAGE["base_answer"], "tuned": PAGE["tuned_answer"]},
        box_titles={"base": PAGE["base_box"], "tuned": PAGE["tuned_box"]},
        cases_note=PAGE["cases_note"],
        num_samples=report.num_samples,
        facts=_facts(report),
    )


@dataclass(frozen=True, slots=True)
class _Section:
    """Rows that tell the same; ``empty`` are those in which no sample could be scored, for one line instead of many."""

    about: About
    rows: tuple[HeadlineRow, ...]
    empty: tuple[HeadlineRow, ...]


def _sections(rows: Sequence[HeadlineRow]) -> list[_Section]:
    found = []
    kinds: tuple[About, ...] = get_args(About)
    for kind in kinds:
        mine = [row for row in rows if row.about == kind and _has_value(row)]
        if mine:
            found.append(
                _Section(kind, tuple(row for row in mine if row.num_scored), tuple(row for row in mine if not row.num_scored))
            )
    return found


def _has_value(row: HeadlineRow) -> bool:
    return any(column is not None for column in (row.base, row.tuned))


def _by_task(report: Report) -> list[tuple[str, list[_Section]]]:
    plain = [condition for condition in report.conditions if condition.control == "none"]
    tasks = dict.fromkeys(entry.task for condition in plain for entry in condition.measurements if entry.task is not None)
    return [(task, _sections(headline_rows(report, task=task, metrics=_in_order(report)))) for task in tasks]


def _in_order(report: Report) -> list[str]:
    """All metrics, those of the picture first."""
    return sorted((value.name for value in report.metrics), key=lambda name: list(ABOUT).index(about(name)))


def _strip(row: HeadlineRow) -> Markup:
    return plots.range_strip(row.metric, base=row.base, tuned=row.tuned, control=row.control)


def _summary(report: Report) -> list[Text]:
    """What the short table says, in at most three sentences that claim nothing its intervals do not hold."""
    # Where neither end is better, nothing is gained or lost.
    rows = [row for row in headline_rows(report) if row.about == "picture" and row.metric.direction != "neither"]
    found = []
    compared = [row for row in rows if row.verdict is not None]
    if compared:
        found.append(
            msg(
                "On what the pictures show, the tuned model is better than the base model on {better} of {count} measures, worse on"
                " {worse}, and on {unclear} there is no clear change.",
                better=sum(row.verdict == "better" for row in compared),
                worse=sum(row.verdict == "worse" for row in compared),
                unclear=sum(row.verdict == "unclear" for row in compared),
                count=len(compared),
            )
        )
    control = table_control(report)
    relied = [row for row in rows if row.reliance is not None and row.reliance.low is not None]
    if control is not None and relied:
        lost = sum(verdict(row.reliance, row.metric) == "worse" for row in relied if row.reliance is not None)
        sentences = {
            "shuffled": msg("With the pictures of others it loses on {lost} of {count} measures.", lost=lost, count=len(relied)),
            "blank": msg("With blank pictures it loses on {lost} of {count} measures.", lost=lost, count=len(relied)),
            "question-only": msg("Without a picture it loses on {lost} of {count} measures.", lost=lost, count=len(relied)),
        }
        found.append(sentences[control])
    if not rows:
        found.append(msg("No measure of what the pictures show was scored: the numbers are of wording alone."))
    return found


@dataclass(frozen=True, slots=True)
class _Subgroup:
    field: str
    metric: MetricValue
    overall: Measurement | None
    low: float
    high: float
    entries: tuple[tuple[str, Measurement, Markup], ...]
    left_out: tuple[tuple[str, int], ...]


def _subgroups(report: Report) -> list[_Subgroup]:
    """For each field, the most telling metric on which two of its subgroups have as many scored samples as a subgroup needs: one of
    40 samples may hold 5 of the task that the metric belongs to, and an interval from these says nothing."""
    fewest = EvaluationSettings.model_validate(report.settings.get("evaluation", {})).min_subgroup_samples
    values = {value.name: value for value in report.metrics}
    base, tuned = main_pair(report)
    looked = tuned or base
    whole = {entry.metric: entry for entry in (looked.measurements if looked is not None else ()) if entry.task is None}
    found = []
    for field, groups in report.subgroups.items():
        for name in report.headline:
            entries = {
                label: entry
                for label, measured in groups.items()
                for entry in measured
                if entry.metric == name and entry.num_scored
            }
            if field == "task" and about(name) == "wording":
                break  # Each task has measures of its own, in its table; nearness to its references' words ranks no tasks.
            left_out = tuple((label, entry.num_scored) for label, entry in entries.items() if entry.num_scored < fewest)
            entries = {label: entry for label, entry in entries.items() if entry.num_scored >= fewest}
            if len(entries) > 1:
                overall = whole.get(name)
                low, high = plots.axis_of(values[name], [*entries.values(), overall])
                line = None if overall is None else overall.value
                bars = tuple((label, entry, plots.interval_bar(entry, low, high, line)) for label, entry in entries.items())
                found.append(_Subgroup(field, values[name], overall, low, high, bars, left_out))
                break
    return found


def _subgroup_title(field: str, label: str) -> Text | Name:
    if field == "task":
        return task_title(label)
    if field == "sex":
        return sex_title(label)
    return finding_title(label, label) if field == "kind" else value_title(label)


def _picture_rows(report: Report) -> list[tuple[MetricValue, list[tuple[PictureShare, Verdict, Markup]]]]:
    """What depends on the picture: for each measure of the looked-at model, every control that was asked."""
    base, tuned = main_pair(report)
    looked = tuned or base
    if looked is None:
        return []
    values = {value.name: value for value in report.metrics}
    found = []
    for name in report.headline:
        mine = [
            entry
            for entry in report.picture_share
            if entry.label == looked.label and entry.metric == name and entry.task is None and entry.gain is not None
        ]
        if mine and values[name].direction != "neither":
            reach = max(max(abs(entry.low or 0), abs(entry.high or 0), abs(entry.gain or 0)) for entry in mine) or 1.0
            found.append((values[name], [(entry, _use(entry), plots.difference_bar(entry.gain, entry, reach)) for entry in mine]))
    return found


def _use(entry: PictureShare) -> Verdict:
    """``better``: measurably better with the right picture, by the rule of :func:`medtune.evaluation.table.verdict`."""
    if entry.p_adjusted is not None and entry.p_adjusted > SIGNIFICANT:
        return "unclear"
    if entry.low is not None and entry.low > 0:
        return "better"
    return "worse" if entry.high is not None and entry.high < 0 else "unclear"


def _findings(report: Report) -> list[tuple[str, list[FindingCount]]]:
    """Findings of the conditions with the right pictures, the commonest of the references first."""
    plain = [condition.label for condition in report.conditions if condition.control == "none"]
    return [
        (label, sorted(report.findings[label], key=lambda entry: (-entry.num_reference, entry.finding)))
        for label in plain
        if report.findings.get(label)
    ]


def _record(folder: Path) -> RunRecord | None:
    try:
        return Run.open(folder).record
    except MedtuneError:
        return None


def _loss_picture(folder: Path) -> str | None:
    path = folder / "loss.png"
    if not path.is_file():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _facts(report: Report) -> list[tuple[str, str]]:
    """The settings of a report as key and text, for the page's foot."""
    return [
        (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))
        for key, value in sorted({"command": f"medtune evaluate {report.run}", **report.settings}.items())
    ]
