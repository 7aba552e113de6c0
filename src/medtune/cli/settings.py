"""Finding good settings: sweep and advise."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medtune.cli.parameters import AsJson, Overrides, RecipeName, example
from medtune.cli.usage import Command
from medtune.language import msg

if TYPE_CHECKING:
    from medtune.api import SweepResult
    from medtune.hpo.advise import Advice

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command, text, shown in (
        (
            sweep,
            msg("Train a recipe with other settings, many times, and say which were best, with intervals."),
            "medtune sweep mine.yaml --space mine.sweep.yaml --seeds 3",
        ),
        (
            advise,
            msg("What others say of good settings, with sources, and what a sweep on your data says of it."),
            "medtune advise mine.yaml --sweep sweeps/mine",
        ),
    ):
        app.command(cls=Command, help=str(text), short_help=str(text), epilog=example(shown))(command)


def sweep(
    recipe: RecipeName,
    overrides: Overrides = None,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=str(msg("The search space; by default NAME.sweep.yaml beside the recipe."))),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help=str(msg("Where everything goes; by default sweeps/NAME. A sweep in it goes on."))),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=str(msg("How many settings are tried, besides the recipe's own.")))
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=str(msg("Trainings of each setting, each with another seed.")))
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=str(msg("Trainings at a time; by default one for each GPU.")))
    ] = None,
    gpus_per_trial: Annotated[
        int, typer.Option(min=1, metavar="N", help=str(msg("For recipes that are trained on several GPUs.")))
    ] = 1,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help=str(msg("Leave the checkpoints of finished runs.")))
    ] = False,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_json

    try:
        with Progress() as listener:
            result = api.sweep(
                recipe,
                overrides or (),
                space=space,
                folder=folder,
                trials=trials,
                seeds=seeds,
                num_workers=workers,
                gpus_per_trial=gpus_per_trial,
                keep_checkpoints=keep_checkpoints,
                listener=listener,
            )
    except KeyboardInterrupt:
        words = ["medtune", "sweep", recipe, *(overrides or ())]
        for option, value in (
            ("--space", space),
            ("--folder", folder),
            ("--trials", trials),
            ("--seeds", seeds),
            ("--workers", workers),
            ("--gpus-per-trial", gpus_per_trial if gpus_per_trial > 1 else None),
        ):
            words += [] if value is None else [option, str(value)]
        words += ["--keep-checkpoints"] if keep_checkpoints else []
        typer.echo(str(msg("Go on with: {command}", command=shlex.join(words))), err=True)
        raise
    print_json(result) if as_json else _print_sweep(result)


def advise(
    recipe: RecipeName,
    overrides: Overrides = None,
    sweep: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help=str(msg("A sweep that says which rules hold on its data.")))
    ] = None,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_json

    with Progress() as listener:
        advice = api.advise(recipe, overrides or (), sweep=sweep, listener=listener)
    print_json(advice) if as_json else _print_advice(advice)


def _print_advice(advice: Advice) -> None:
    """The size of the data, then each rule: what it says, whose it is, what the recipe has, what was measured."""
    from rich.console import Console
    from rich.markup import escape

    from medtune.hpo.advise import VERDICTS

    console = Console(highlight=False, soft_wrap=True)
    size = msg(
        "{rows} training rows, {tokens} tokens an epoch; {epochs} epochs are {steps} steps of {step_rows} rows.",
        rows=f"{advice.num_train_rows:,}",
        tokens="?" if advice.num_tokens is None else f"{advice.num_tokens:,}",
        epochs=f"{advice.epochs:g}",
        steps=f"{advice.num_steps:,}",
        step_rows=advice.rows_per_step,
    )
    console.print(escape(str(size)))
    for rule in advice.rules:
        console.print(f"\n[bold]{escape(str(rule.says))}[/bold] [dim]{rule.name}[/dim]")
        console.print(escape(str(msg("  source: {source}", source=rule.source))), style="dim")
        state = msg("  here: {has}; the rule: {wanted}", has=f"{' / '.join(rule.keys[:1])} {rule.has}", wanted=rule.wanted)
        console.print(escape(str(state)))
        if rule.verdict is None:
            continue
        change = rule.difference
        verdict = VERDICTS[rule.verdict]
        if change is None:
            console.print(escape(str(msg("  the sweep: {verdict}", verdict=verdict))))
            continue
        shown = f"{change.mean:+.4f}"
        if change.low is not None and change.high is not None:
            shown += f" ({change.low:+.4f} … {change.high:+.4f})"
        color = {"confirmed": "green", "contradicted": "red"}.get(rule.verdict)
        sentence = escape(str(msg("  the sweep: {verdict}, {difference}", verdict=verdict, difference=shown)))
        console.print(f"[{color}]{sentence}[/]" if color else sentence)
    console.print()
    for note in advice.notes:
        console.print(escape(str(note)))


def _print_sweep(result: SweepResult) -> None:
    """The trials, the best first, what they say together, and where the page and the recipe of the best are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from medtune.hpo.table import objective_title, rows

    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in (msg("trial"), objective_title(result.report), msg("minus the recipe's own, 95 % interval")):
        table.add_column(str(head), justify="right", no_wrap=head.template == "trial")
    table.add_column(str(msg("settings")), overflow="fold")
    for row in rows(result.report):
        color = {"better": "green", "worse": "red", "": None}[row.standing]
        difference = f"[{color}]{row.difference}[/]" if color else row.difference
        settings = escape(str(row.settings))
        if row.error is not None:
            settings += f"\n[red]{escape(str(row.error))}[/red]"
        elif not row.value:
            settings += f" [dim]{row.state}[/dim]"
        table.add_row(str(row.number), row.value, difference, settings, style="bold" if row.is_best else None)
    console.print(table)
    for note in result.report.notes:
        console.print(escape(str(note)))
    console.print(escape(str(msg("Report: {file}", file=result.page))))
    console.print(escape(str(msg("The recipe of the best trial: {file}", file=result.best))))
    console.print(str(msg("Next: {command}", command=result.next_command)), style="bold")
