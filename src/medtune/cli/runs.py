"""``medtune runs``: list and show runs."""

from __future__ import annotations

from pathlib import Path

import typer

from medtune.cli.parameters import AsJson, RunName, RunsFolder, example
from medtune.cli.usage import Command, Group
from medtune.language import msg

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    group = typer.Typer(cls=Group, help=str(msg("List and show runs.")), no_args_is_help=True, epilog=example("medtune runs list"))
    group.command("list", cls=Command, help=str(msg("The runs, the latest first.")), epilog=example("medtune runs list"))(list_runs)
    group.command(
        "show",
        cls=Command,
        help=str(msg("What a run is, how far it came, and what it measured.")),
        epilog=example("medtune runs show demo"),
    )(show_run)
    app.add_typer(group, name="runs")


def list_runs(folder: RunsFolder = Path("runs"), as_json: AsJson = False) -> None:
    from medtune import api
    from medtune.cli.tables import print_json, print_runs

    listed = api.list_runs(folder)
    print_json([run.record for run in listed]) if as_json else print_runs(listed)


def show_run(run: RunName, as_json: AsJson = False) -> None:
    from medtune import api
    from medtune.cli.tables import print_json, print_run

    shown = api.show_run(run)
    print_json(shown) if as_json else print_run(shown)
