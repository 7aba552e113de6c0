"""What the commands print: one table each, in the reader's language, on standard output."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medtune.errors import RunError
from medtune.language import Text, msg
from medtune.types import Comparison, Difference, Issue, Manifest, MetricValue, Report, ValidationReport

if TYPE_CHECKING:
    from medtune.api import DemoResult, RunView
    from medtune.data.dataset import LeftOut
    from medtune.environment import Finding
    from medtune.recipe import Recipe, Setting, SettingDifference
    from medtune.runs import Run

__all__ = [
    "print_comparison",
    "print_demo",
    "print_findings",
    "print_json",
    "print_manifest",
    "print_recipe_diff",
    "print_recipes",
    "print_report",
    "print_run",
    "print_runs",
    "print_settings",
    "print_validation",
]

_STYLE = {"error": "bold red", "warning": "yellow", "info": "dim", "ok": "green", "note": "yellow", "missing": "bold red"}


def print_json(value: Any) -> None:
    """Any result as JSON. Sentences are rendered in the reader's language."""
    print(json.dumps(_jsonable(value), ensure_ascii=False, indent=2))


def _jsonable(value: Any) -> Any:
    from dataclasses import fields, is_dataclass

    from pydantic import BaseModel

    if isinstance(value, Text):
        return value.render()
    if isinstance(value, BaseModel):
        return {name: _jsonable(getattr(value, name)) for name in type(value).model_fields}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _console() -> Console:
    # A pipe or a file has no width of its own, and a table that is folded to 80 columns cannot be searched.
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


def _table(first: Text | str, *numbers: Text | str) -> Table:
    """A plain table: the first column reads, the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(str(first), no_wrap=True)
    for column in numbers:
        table.add_column(str(column), justify="right")
    return table


def _list(*columns: Text | str) -> Table:
    """A plain table of words."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(str(column) for column in columns))
    for column in columns:
        table.add_column(str(column), overflow="fold")
    return table


def _pairs(pairs: Iterable[tuple[Text, object]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            table.add_row(str(name), escape(str(value)))
    return table


def print_manifest(folder: Path, manifest: Manifest, first_left_out: LeftOut | None = None) -> None:
    """What a data set holds, and the first record that did not become a row."""
    left_out: dict[str, int] = {}
    for source in manifest.sources:
        for reason, count in source.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    console = _console()
    console.print(
        _pairs(
            [
                (msg("data set"), folder),
                (msg("sources"), ", ".join(source.card.name for source in manifest.sources)),
                (msg("rows"), _counts(manifest.num_samples)),
                (msg("groups"), f"{_counts(manifest.num_groups)} ({_GROUP_KINDS[manifest.group_kind]})"),
                (msg("pictures"), manifest.num_images),
                (msg("tasks"), _counts(manifest.tasks)),
                (msg("left out"), _counts(left_out)),
                (msg("hash"), manifest.hash),
            ]
        )
    )
    _warn(console, manifest.warnings)
    if first_left_out is not None:
        where = ", ".join(part for part in (first_left_out.file, first_left_out.id) if part)
        console.print(f"  {escape(where)}: {escape(str(first_left_out.text))}", style="yellow")
        if first_left_out.remedy is not None:
            console.print(f"    {escape(str(first_left_out.remedy))}", style="dim")
        command = f"medtune validate {shlex.quote(str(folder))}"
        console.print(f"    {escape(str(msg('`{command}` lists all that were left out.', command=command)))}", style="dim")


_GROUP_KINDS = {
    "patient": msg("patients"),
    "study": msg("studies"),
    "volume": msg("volumes"),
    "image": msg("pictures"),
    "row": msg("rows"),
}

_STATES = {
    "created": msg("created"),
    "training": msg("training"),
    "interrupted": msg("interrupted"),
    "failed": msg("failed"),
    "trained": msg("trained"),
}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


_SHOWN_OF_A_KIND = 5


def print_validation(report: ValidationReport) -> None:
    """The findings by kind, errors before warnings before notes, the first of each kind by name; then the sums."""
    console = _console()
    ranks = ("error", "warning", "info")
    kinds: dict[tuple[int, str], list[Issue]] = {}
    for issue in report.issues:
        kinds.setdefault((ranks.index(issue.severity), issue.code), []).append(issue)
    for (_, code), issues in sorted(kinds.items(), key=lambda kind: kind[0][0]):
        count = sum(issue.count for issue in issues)
        console.print(f"[{_STYLE[issues[0].severity]}]{_severity(issues[0])}[/] {code}" + (f" x{count}" if count > 1 else ""))
        for issue in issues[:_SHOWN_OF_A_KIND]:
            console.print(f"  {escape(_where(issue))}{escape(str(issue.message))}")
        if len(issues) > _SHOWN_OF_A_KIND:
            rest = count - sum(issue.count for issue in issues[:_SHOWN_OF_A_KIND])
            console.print(f"  {msg('... and {count} more; --json lists them.', count=rest)}", style="dim")
        for remedy in dict.fromkeys(str(issue.remedy) for issue in issues if issue.remedy is not None):
            console.print(f"    {escape(remedy)}", style="dim")
    for check, reason in report.skipped.items():
        console.print(escape(str(msg("not checked: {check} ({reason})", check=check, reason=str(reason)))), style="dim")
    total = msg(
        "Rows: {rows}. Checks: {checks}. Errors: {errors}. Warnings: {warnings}.",
        rows=sum(report.num_rows.values()),
        checks=len(report.checks),
        errors=report.num_errors,
        warnings=report.num_warnings,
    )
    console.print(str(total), style="bold red" if report.num_errors else "yellow" if report.num_warnings else "bold green")


def _severity(issue: Issue) -> Text:
    return {"error": msg("error"), "warning": msg("warning"), "info": msg("note")}[issue.severity]


def _where(issue: Issue) -> str:
    parts = [part for part in (issue.file or issue.split, issue.sample) if part]
    return f"{', '.join(parts)}: " if parts else ""


def print_run(view: RunView) -> None:
    """What a run is, how far it came, what it measured, and what comes next."""
    record = view.record
    console = _console()
    console.print(
        _pairs(
            [
                (msg("run"), view.folder),
                (msg("state"), _STATES[record.status]),
                (msg("recipe"), record.recipe),
                (msg("base model"), record.base_model),
                (msg("data set"), f"{record.dataset or '-'} ({record.dataset_hash or '-'})"),
                (msg("steps"), f"{record.num_steps or 0} / {record.num_steps_planned or '?'}"),
                (msg("loss"), None if record.train_loss is None else f"{record.train_loss:.4f}"),
                (msg("validation loss"), None if record.eval_loss is None else f"{record.eval_loss:.4f}"),
                (msg("trained parameters"), _share(record.trainable)),
                (msg("time"), None if record.seconds is None else str(msg("{seconds:.1f} s", seconds=record.seconds))),
                (msg("evaluations"), ", ".join(view.evaluations)),
                (msg("error"), record.error),
            ]
        )
    )
    if view.report is not None:
        print_report(view.report, view.folder)
    console.print(str(msg("Next: {command}", command=view.next_command)))


def _share(trainable: Mapping[str, int]) -> str | None:
    if not trainable.get("total"):
        return None
    return f"{trainable['trainable']:,} / {trainable['total']:,} ({trainable['trainable'] / trainable['total']:.2%})"


def print_runs(runs: Sequence[Run]) -> None:
    """One line per run."""
    console = _console()
    if not runs:
        console.print(str(msg("There are no runs here yet. Next: {command}", command="medtune demo")))
        return
    table = _list(
        msg("run"), msg("state"), msg("base model"), msg("data set"), msg("steps"), msg("validation loss"), msg("changed")
    )
    for run in runs:
        try:
            record = run.record
        except RunError as error:
            table.add_row(run.folder.name, f"[red]{escape(str(error.what))}[/red]")
            continue
        loss = "-" if record.eval_loss is None else f"{record.eval_loss:.4f}"
        changed = record.updated[:16].replace("T", " ")
        model, data = escape(record.base_model), escape(record.dataset or "-")
        table.add_row(run.folder.name, str(_STATES[record.status]), model, data, str(record.num_steps or 0), loss, changed)
    console.print(table)


def print_report(report: Report, folder: Path) -> None:
    """The headline table, the warnings, and where the whole report is."""
    from medtune.evaluation.table import format_value, headline_rows, table_control

    console = _console()
    sizes = msg(
        "{samples} samples of {groups} groups ({kind}), split {split}",
        samples=report.num_samples,
        groups=report.num_groups,
        kind=str(_GROUP_KINDS[report.group_kind]),
        split=report.split,
    )
    console.print(f"[dim]{escape(str(sizes))}[/dim]")
    control = table_control(report)
    table = _table(
        "", msg("base"), msg("tuned"), msg("tuned - base, 95 % interval"), *([_CONTROLS[control]] if control else []), "n"
    )
    about: dict[str, Text] = {
        "picture": msg("what is seen"),
        "certainty": msg("probabilities"),
        "form": msg("form"),
        "wording": msg("wording"),
        "protocol": msg("published protocols"),
    }
    shown = ""
    for row in headline_rows(report):
        if row.about != shown:
            table.add_row(f"[dim]{about[row.about]}[/dim]")
            shown = row.about
        metric = row.metric
        columns = [row.base, row.tuned, *([row.control] if control else [])]
        cells = [format_value(column.value if column is not None else None, metric) for column in columns]
        cells.insert(2, _change(row.difference, metric))
        cells.append(f"{row.num_scored}" + (f" (+{row.num_unscored})" if row.num_unscored else ""))
        table.add_row(_title(metric), *cells, style=_VERDICT.get(row.verdict or ""))
    console.print(table)
    _warn(console, report.warnings)
    page = folder / "report.html"
    if page.is_file():
        console.print(escape(str(msg("Report: {file}", file=page))))


_VERDICT = {"better": "green", "worse": "red"}
_ARROW = {"higher": "↑", "lower": "↓", "neither": ""}


def _title(metric: MetricValue) -> str:
    return f"{escape(Text(metric.title).render())} {_ARROW[metric.direction]}"


def _change(difference: Difference | None, metric: MetricValue) -> str:
    """The difference with its interval."""
    from medtune.evaluation.table import format_interval, format_value

    if difference is None or difference.difference is None:
        return ""
    interval = format_interval(difference.low, difference.high, metric, signed=True)
    return format_value(difference.difference, metric, signed=True) + (f" ({interval})" if interval else "")


_CONTROLS = {"shuffled": msg("other pictures"), "blank": msg("blank pictures"), "question-only": msg("no pictures")}


def print_comparison(comparison: Comparison) -> None:
    """The differences with their intervals."""
    from medtune.evaluation.table import format_value, verdict

    values = {metric.name: metric for metric in comparison.metrics}
    table = _table("", escape(comparison.first), escape(comparison.second), msg("difference, 95 % interval"), "n")
    for entry in comparison.differences:
        if entry.task is None:
            metric = values[entry.metric]
            cells = (
                format_value(entry.first, metric),
                format_value(entry.second, metric),
                _change(entry, metric),
                str(entry.num_samples),
            )
            table.add_row(_title(metric), *cells, style=_VERDICT.get(verdict(entry, metric) or ""))
    console = _console()
    console.print(table)
    _warn(console, comparison.warnings)


def _warn(console: Console, warnings: Iterable[Text]) -> None:
    """One line for each kind of sentence: a hundred pictures that look alike are one warning."""
    from medtune.evaluation.kinds import in_short
    from medtune.evaluation.overlaps import makes_unfit

    sentences = list(warnings)
    for warning in in_short(text for text in sentences if makes_unfit(text)):
        console.print(f"[bold red]{escape(str(warning))}[/bold red]")
    for warning in in_short(text for text in sentences if not makes_unfit(text)):
        console.print(f"[yellow]{escape(str(warning))}[/yellow]")


def print_recipes(recipes: Mapping[str, Recipe]) -> None:
    """Name and title of each recipe."""
    table = _list(msg("recipe"), msg("base model"), msg("title"))
    for name, recipe in recipes.items():
        table.add_row(name, escape(recipe.model.base), escape(recipe.title))
    _console().print(table)


def print_settings(settings: Sequence[Setting]) -> None:
    """Each setting with its value and meaning; those that differ from the default stand out."""
    console = _console()
    for setting in settings:
        value = escape(f"{setting.key}: {json.dumps(setting.value, ensure_ascii=False)}")
        console.print(f"[bold]{value}[/bold]" if setting.changed else value)
        if setting.description:
            # Docstrings mark code with two backticks; a terminal needs one.
            console.print(f"    {escape(Text(setting.description).render().replace('``', '`'))}", style="dim")


def print_recipe_diff(first: str, second: str, differences: Sequence[SettingDifference]) -> None:
    """A line per setting."""
    table = _list(msg("setting"), escape(first), escape(second))
    for entry in differences:
        table.add_row(
            entry.key, escape(json.dumps(entry.first, ensure_ascii=False)), escape(json.dumps(entry.second, ensure_ascii=False))
        )
    console = _console()
    console.print(table if differences else str(msg("The two recipes are equal.")))


def print_findings(findings: Sequence[Finding]) -> None:
    """The doctor's report."""
    table = _list("", "", "")
    names = {"ok": msg("ok"), "note": msg("note"), "missing": msg("missing")}
    for finding in findings:
        detail = str(finding.detail) if finding.remedy is None else f"{finding.detail}  ->  {finding.remedy}"
        table.add_row(f"[{_STYLE[finding.status]}]{names[finding.status]}[/]", finding.subject, escape(detail))
    _console().print(table)


def print_demo(result: DemoResult) -> None:
    """The table, the report and the next command."""
    print_report(result.report, result.run.folder)
    _console().print(str(msg("Next: {command}", command=result.next_command)), style="bold")
