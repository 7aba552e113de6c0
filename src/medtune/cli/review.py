"""``medtune review``: readers compare two models without knowing which is which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.cli.parameters import AsJson, RunName, example
from medtune.cli.usage import Command
from medtune.language import msg

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    text = str(msg("Make a page on which readers compare two models blindly, and join what they marked with the report."))
    app.command(cls=Command, help=text, short_help=text, epilog=example("medtune review runs/demo --cases 40"))(review)


def review(
    run: RunName,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", show_default=False, help=str(msg("With --import: the files that readers sent back."))),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help=str(msg("Compare with this run's tuned model, not with the base model.")))
    ] = None,
    cases: Annotated[int, typer.Option(min=1, max=1000, help=str(msg("How many cases, drawn at random.")))] = 50,
    seed: Annotated[int, typer.Option(help=str(msg("Of the draw and of the order of the answers.")))] = 0,
    take: Annotated[
        bool, typer.Option("--import", help=str(msg("Join the files that readers sent back with the report.")))
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help=str(msg("Throw away what readers have marked, and begin anew.")))
    ] = False,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.reading import print_made, print_reading
    from medtune.cli.tables import print_json

    if take and not files:
        raise typer.BadParameter(str(msg("--import needs the files that readers sent back.")))
    if files and not take:
        raise typer.BadParameter(str(msg("Files of readers are taken with --import.")))
    if take and (against is not None or overwrite):
        raise typer.BadParameter(
            str(msg("--against and --overwrite make a new page; --import takes the marks of the present one."))
        )
    if take:
        result = api.import_review(run, files or ())
        print_json(result) if as_json else print_reading(result, api.find_run(run).folder)
        return
    page = api.review(run, against=against, num_cases=cases, seed=seed, overwrite=overwrite)
    print_json({"page": page}) if as_json else print_made(page, run)
