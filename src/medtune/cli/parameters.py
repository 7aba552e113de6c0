"""Arguments and options that several commands share, and the line that shows an example of use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.language import msg

__all__ = ["AsJson", "Overrides", "RecipeName", "RunName", "RunsFolder", "example"]

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help=str(msg("A recipe file, a run folder or the name of a shipped recipe.")))
]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE", show_default=False, help=str(msg("Settings of the recipe to change for this call."))
    ),
]

RunName = Annotated[str, typer.Argument(metavar="RUN", help=str(msg("A run folder, or the name of a run in `runs`.")))]

RunsFolder = Annotated[Path, typer.Option("--folder", help=str(msg("Where the runs lie.")))]

AsJson = Annotated[bool, typer.Option("--json", help=str(msg("Print JSON for other programs.")))]


def example(command: str) -> str:
    """The last line of a command's help."""
    return str(msg("Example: {command}", command=command))
