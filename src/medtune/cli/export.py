"""``medtune export``: what medtune made, in the forms of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.cli.parameters import AsJson, example
from medtune.cli.usage import Command, Group
from medtune.language import msg

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    text = msg("Write a data set folder for LLaMA-Factory, as WebDataset or as Parquet, on this machine.")
    shown = "medtune export dataset datasets/demo --to parquet demo-parquet"
    group = typer.Typer(
        cls=Group, help=str(msg("Write a data set in the forms of other tools.")), no_args_is_help=True, epilog=example(shown)
    )
    group.command(
        "dataset",
        cls=Command,
        help=str(text),
        short_help=str(text),
        epilog=example(shown),
    )(export_dataset)
    app.add_typer(group, name="export")


def export_dataset(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help=str(msg("The folder of a data set.")))],
    out: Annotated[Path, typer.Argument(metavar="OUT", help=str(msg("The new folder.")))],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="llamafactory|webdataset|parquet", help=str(msg("The tool or format to write for.")), show_default=False
        ),
    ],
    max_shard_bytes: Annotated[
        int, typer.Option(metavar="N", min=1, help=str(msg("Bytes; a tar or Parquet file is closed before it grows larger.")))
    ] = 1_000_000_000,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_json

    with Progress() as listener:
        exported = api.export_dataset(folder, out, to=to, max_shard_bytes=max_shard_bytes, listener=listener)
    if as_json:
        print_json(exported)
        return
    rows = ", ".join(f"{split} {count}" for split, count in exported.num_rows.items())
    typer.echo(str(msg("Written: {folder} ({rows})", folder=exported.folder, rows=rows)))
    if exported.local_only:
        typer.echo(str(msg("The data set is local-only: keep the copy on this machine too.")))
