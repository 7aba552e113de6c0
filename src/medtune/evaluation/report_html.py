"""``report.html``: the report as one file that anybody can open, keep, print and send on. It loads nothing from anywhere.

Both languages are in the page, and every value goes through the template's escaping: an answer may hold HTML. The page's
content policy names its one script by hash, so that even markup that slipped through could run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup, escape

from medtune.errors import EvaluationError, MedtuneError
from medtune.evaluation import cautions, plots
from medtune.evaluation.cases import Case, choose_cases, describe_case
from medtune.evaluation.predictions import read_index, read_predictions, read_scores
from medtune.evaluation.score import parse_generation
from medtune.evaluation.table import (
    About,
    HeadlineRow,
    about,
    format_interval,
    format_value,
    headline_rows,
    main_pair,
    table_control,
    verdict,
)
from medtune.evaluation.wording import (
    ABOUT,
    CONTROLS,
    GROUPS,
    PAGE,
    TAGS,
    VERDICTS,
    field_title,
    task_title,
    unit_title,
    value_title,
)
from medtune.language import Language, Text, language, msg
from medtune.runs import Run, atomic_write
from medtune.types import Condition, Measurement, MetricValue, Report, RunRecord, Score

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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medtune.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = _asset("report.js"), _asset("report.css")
    base, tuned = main_pair(report)
    control = table_control(report)
    record = _record(folder)
    cases = [] if dataset is None else _cases(report, folder, dataset)
    page = environment.get_template("report.html").render(
        lang=_HTML_LANGUAGE[in_language or language()],
        t=_both,
        text=PAGE,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        report=report,
        title=msg("Evaluation of {run}", run=report.run),
        group_word=GROUPS[report.group_kind],
        severe=[text for text in report.warnings if cautions.is_severe(text)],
        cautions=[
            text
            for text in report.warnings
            if not cautions.is_severe(text) and text.template != cautions.synthetic_data().template  # it has a banner
        ],
        local_only=dataset is not None and dataset.manifest.local_only,
        summary=_summary(report),
        base=base,
        tuned=tuned,
        control=control,
        control_title=CONTROLS[control] if control is not None else None,
        sections=_sections(headline_rows(report)),
        more=_sections(headline_rows(report, metrics=_in_order(report))) if len(report.metrics) > len(report.headline) else [],
        tasks=_by_task(report),
        subgroups=_subgroups(report),
        about_titles=ABOUT,
        verdicts=VERDICTS,
        tags=TAGS,
        task_title=task_title,
        field_title=field_title,
        value_title=value_title,
        unit_title=unit_title,
        value=format_value,
        interval=format_interval,
        verdict=verdict,
        metric_text=lambda metric: Text(metric.title),
        strip=_strip,
        record=record,
        loss=_loss_picture(folder),
        cases=cases,
        case_tags=[tag for tag in TAGS if any(tag in case.tags for case in cases)],
        facts=_facts(report),
    )
    return str(page)


_HTML_LANGUAGE = {"en": "en", "zh": "zh-CN"}


def _asset(name: str) -> str:
    return (resources.files("medtune.evaluation") / "templates" / name).read_text(encoding="utf-8")


def _both(text: Text) -> Markup:
    """A sentence in both languages; the style sheet shows the one that the page is set to."""
    english, chinese = text.render("en"), text.render("zh")
    if english == chinese:
        return escape(english)
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>').format(english, chinese)


@dataclass(frozen=True, slots=True)
class _Section:
    """Rows that tell the same; ``empty`` are those in which no sample could be scored, for one line instead of many."""

    about: About
    rows: tuple[HeadlineRow, ...]
    empty: tuple[HeadlineRow, ...]


def _sections(rows: Sequence[HeadlineRow]) -> list[_Section]:
    kinds: tuple[About, ...] = ("picture", "form", "wording")
    found = []
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
    rows = [row for row in headline_rows(report) if row.about == "picture"]
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
            "shuffled": msg("With the pictures of others it loses on {lost} of {count} of them.", lost=lost, count=len(relied)),
            "blank": msg("With blank pictures it loses on {lost} of {count} of them.", lost=lost, count=len(relied)),
            "question-only": msg("Without a picture it loses on {lost} of {count} of them.", lost=lost, count=len(relied)),
        }
        found.append(sentences[control])
    if not rows:
        found.append(msg("No measure of what the pictures show was scored: the numbers are of wording alone."))
    return found


@dataclass(frozen=True, slots=True)
class _Subgroup:
    field: str
    metric: MetricValue
    low: float
    high: float
    entries: tuple[tuple[str, Measurement, Markup], ...]


def _subgroups(report: Report) -> list[_Subgroup]:
    """For each field, the most telling metric that its subgroups were scored on."""
    values = {value.name: value for value in report.metrics}
    found = []
    for field, groups in report.subgroups.items():
        for name in report.headline:
            entries = {
                label: entry
                for label, measured in groups.items()
                for entry in measured
                if entry.metric == name and entry.num_scored
            }
            if len(entries) > 1:
                low, high = plots.axis_of(values[name], list(entries.values()))
                bars = tuple((label, entry, plots.interval_bar(entry, low, high)) for label, entry in entries.items())
                found.append(_Subgroup(field, values[name], low, high, bars))
                break
    return found


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


def _cases(report: Report, folder: Path, dataset: Dataset) -> list[Case]:
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
    base, tuned = main_pair(report)
    looked = tuned or base
    if looked is None:
        return []
    tasks = {name: entry.task for name, entry in read_index(folder / "evaluations" / "samples.jsonl").items()}
    shown: dict[Literal["base", "tuned"], Condition] = {}
    if base is not None:
        shown["base"] = base
    if tuned is not None:
        shown["tuned"] = tuned
    scores = {model: _by_metric(folder, condition, tasks) for model, condition in shown.items()}
    before = scores["base"] if looked.model == "tuned" and "base" in scores else {}
    stored = {
        model: read_predictions(folder / "evaluations" / condition.label / "predictions.jsonl", tasks).predictions
        for model, condition in shown.items()
    }
    values = {value.name: value for value in report.metrics}
    order = [values[name] for name in report.headline]
    unread = [name for name in tasks if (kept := stored[looked.model].get(name)) is not None and kept.error is not None]
    chosen = choose_cases(tasks, before, scores[looked.model], order, unread)
    samples = {sample.id: sample for sample in dataset.rows(report.split) if sample.id in chosen}
    found = []
    for name, tags in chosen.items():
        sample = samples[name]
        predictions = {
            model: parse_generation(kept.generation, sample, image_sha256=kept.image_sha256)
            for model, entries in stored.items()
            if (kept := entries.get(name)) is not None
        }
        rows = [
            (value, _value(scores.get("base", {}), value.name, name), _value(scores.get("tuned", {}), value.name, name))
            for value in order
            if any(_value(table, value.name, name) is not None for table in scores.values())
        ]
        found.append(describe_case(sample, tags, dataset=dataset, predictions=predictions, scores=rows))
    return found


def _by_metric(folder: Path, condition: Condition, known: Mapping[str, str]) -> dict[str, dict[str, Score]]:
    table: dict[str, dict[str, Score]] = {}
    for score in read_scores(folder / "evaluations" / condition.label / "scores.jsonl"):
        if score.sample_id in known:
            table.setdefault(score.metric, {})[score.sample_id] = score
    return table


def _value(table: Mapping[str, Mapping[str, Score]], metric: str, sample: str) -> float | None:
    score = table.get(metric, {}).get(sample)
    return None if score is None else score.value


def _facts(report: Report) -> list[tuple[str, str]]:
    """The settings of a report as key and text, for the page's foot."""
    return [
        (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))
        for key, value in sorted({"command": f"medtune evaluate {report.run}", **report.settings}.items())
    ]
