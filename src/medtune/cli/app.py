"""The commands and the global options."""

from __future__ import annotations

from typing import Annotated

import typer

from medtune.cli import deidentify, doctor, export, recipes, review, runs, settings, verbs
from medtune.cli.parameters import example
from medtune.cli.usage import Group
from medtune.language import msg

__all__ = ["app"]

app = typer.Typer(
    name="medtune",
    cls=Group,
    help=str(msg("Turn a vision-language model into a medical-imaging assistant, and measure what it became.")),
    epilog=example("medtune demo"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from medtune import __version__

        typer.echo(f"medtune {__version__}")
        raise typer.Exit


@app.callback()
def medtune(
    lang: Annotated[
        str | None,
        typer.Option("--lang", metavar="en|zh", help=str(msg("Language of all messages; also the variable MEDTUNE_LANG."))),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", callback=_version, is_eager=True, help=str(msg("Print the version and exit.")))
    ] = False,
) -> None:
    if lang is not None:
        raise typer.BadParameter(str(msg("Choose en or zh.")), param_hint="--lang")


verbs.add_to(app)
review.add_to(app)
settings.add_to(app)
deidentify.add_to(app)
export.add_to(app)
recipes.add_to(app)
runs.add_to(app)
doctor.add_to(app)
