"""``medtune doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from medtune.cli.parameters import AsJson, example
from medtune.cli.usage import Command
from medtune.language import msg

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    text = str(msg("Check this machine: versions, memory, GPUs, disk, optional packages."))
    app.command(cls=Command, help=text, short_help=text, epilog=example("medtune doctor"))(doctor)


def doctor(
    network: Annotated[bool, typer.Option("--network", help=str(msg("Also try to reach the model hubs.")))] = False,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.tables import print_findings, print_json

    findings = api.doctor(network=network)
    print_json(findings) if as_json else print_findings(findings)
    if any(finding.status == "missing" for finding in findings):
        raise typer.Exit(1)
