"""What ``medtune review`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medtune.language import msg

if TYPE_CHECKING:
    from medtune.types import ReaderReview

__all__ = ["print_made", "print_reading"]


def print_made(page: Path, run: str) -> None:
    """Where the page is, and what to do with it."""
    typer.echo(str(msg("Page for the readers: {file}", file=page)))
    typer.echo(str(msg("Give readers this file only: key.json beside it says which answer is whose.")))
    typer.echo(str(msg("Next: {command}", command=f"medtune review {run} --import review-*.json")))


def print_reading(result: ReaderReview, folder: Path) -> None:
    """Preferences, agreement and errors."""
    from medtune.evaluation.review_wording import ERRORS
    from medtune.evaluation.wording import AGREEMENTS

    typer.echo(
        str(
            msg(
                "{readers} readers, {cases} cases: {first} preferred {num_first} times, {second} {num_second} times, no preference"
                " {ties} times.",
                readers=result.num_readers,
                cases=result.num_cases,
                first=result.first,
                num_first=result.num_first,
                second=result.second,
                num_second=result.num_second,
                ties=result.num_ties,
            )
        )
    )
    if result.preference is not None:
        interval = "–" if result.low is None or result.high is None else f"{result.low:.3f} … {result.high:.3f}"
        typer.echo(
            str(
                msg(
                    "Preference for {second}: {value} (95 % interval {interval})",
                    second=result.second,
                    value=f"{result.preference:.3f}",
                    interval=interval,
                )
            )
        )
    for name, number in result.agreement.items():
        typer.echo(f"{AGREEMENTS[name]}: {number:.2f}")
    for name, (first, second) in result.errors.items():
        typer.echo(f"{ERRORS[name]}: {first} / {second}")
    typer.echo(str(msg("Report: {file}", file=folder / "report.html")))
