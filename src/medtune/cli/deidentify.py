"""``medtune deidentify``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from medtune.cli.parameters import AsJson, example
from medtune.cli.usage import Command
from medtune.imaging.deidentify.choices import Dates, Ocr, Option
from medtune.language import Text, msg

if TYPE_CHECKING:
    from medtune.imaging.deidentify.run import Deidentified

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    text = msg("De-identify DICOM files into another folder: header, dates, UIDs and text burned into pixels.")
    app.command(
        cls=Command, help=str(text), short_help=str(text), epilog=example("medtune deidentify hospital/ cleaned/ --workers 4")
    )(deidentify)


def deidentify(
    source: Annotated[Path, typer.Argument(metavar="IN", help=str(msg("A DICOM file or a folder of them; only read.")))],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=str(msg("A new folder, or one to go on with.")))],
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=str(
                msg(
                    "The secret key of the pseudonyms, outside IN and OUT; made when missing. Default: {file}",
                    file="~/.config/medtune/pseudonym.key",
                )
            ),
        ),
    ] = None,
    dates: Annotated[
        Dates,
        typer.Option(
            metavar="shift|keep|remove", help=str(msg("Dates: shift each patient's by one number of days, keep or remove them."))
        ),
    ] = "shift",
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=str(
                msg(
                    "Keep more, as an option of PS3.15 allows; may be given several times: {known}.",
                    known=", ".join(get_args(Option)),
                )
            ),
        ),
    ] = None,
    ocr: Annotated[
        Ocr, typer.Option(metavar="suspected|all|none", help=str(msg("Which pictures are searched for burned-in text.")))
    ] = "suspected",
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help=str(msg("Processes; by default one a core, at most 4.")))
    ] = None,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_json
    from medtune.imaging.deidentify.settings import DeidentifySettings

    known = get_args(Option)
    if unknown := [name for name in option or () if name not in known]:
        raise typer.BadParameter(
            str(msg("{name} is no option of the profile. Known: {known}.", name=unknown[0], known=", ".join(known))),
            param_hint="--option",
        )
    # In the order of the profile: two calls that keep the same are of the same settings.
    chosen = {"dates": dates, "options": [name for name in known if name in (option or ())], "ocr": ocr}
    settings = DeidentifySettings.model_validate(chosen)
    with Progress() as listener:
        done = api.deidentify(
            source, target, settings=settings, key_file=key, num_workers=workers or min(4, os.cpu_count() or 1), listener=listener
        )
    print_json(done.report) if as_json else _print(done)


_VERDICTS = {
    "pass": msg("nothing suspicious is left"),
    "review": msg("cleaned; a person should look"),
    "quarantine": msg("not written; the original stays where it is"),
    "ignored": msg("no DICOM object; not written"),
}

_SHOWN = 20


def _print(done: Deidentified) -> None:
    """The sums, the reasons, and which originals want a person. Their paths are shown here and written nowhere."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from medtune.imaging.deidentify.verdict import REASONS

    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for verdict, text in _VERDICTS.items():
        table.add_row(verdict, str(done.report.files.get(verdict, 0)), str(text))
    for reason, count in done.report.reasons.items():
        table.add_row(
            f"  [dim]{reason}[/dim]", f"[dim]{count}[/dim]", f"[dim]{escape(str(REASONS.get(reason, Text(reason))))}[/dim]"
        )
    console.print(table)
    refused = [(path, record) for path, record in done.originals if record.verdict == "quarantine"]
    if refused:
        console.print(str(msg("Originals in quarantine (shown here, written nowhere):")), style="yellow")
        for path, record in refused[:_SHOWN]:
            console.print(f"  {escape(str(path))}: {', '.join(record.reasons)} ({record.id})")
        if len(refused) > _SHOWN:
            console.print(f"  {msg('... and {count} more.', count=len(refused) - _SHOWN)}", style="dim")
    console.print(str(msg("Report: {file}", file=done.folder / "deidentify.json")))
    if done.report.files.get("pass") or done.report.files.get("review"):
        console.print(
            str(msg("A header without a name is no proof: look at `review`, and at a sample of `pass`, before you hand them on."))
        )
