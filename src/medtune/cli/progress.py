"""Draws the events of a verb: a bar where there is a terminal, plain lines where there is none. All of it on standard error."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich import progress
from rich.console import Console

from medtune.language import msg
from medtune.types import Event

__all__ = ["Progress"]

_SHOWN = ("loss", "eval_loss", "learning_rate", "epoch", "samples_per_second")
"""The numbers of a training step that stand beside the bar, in this order."""


class Progress:
    """A listener that draws. Use it as a context; the bars are taken down when the block ends, however it ends.

    Args:
        timed: Print how long each stage took when the next one begins.
    """

    def __init__(self, *, timed: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bars = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=28),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[numbers]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._timed = timed
        self._bar: progress.TaskID | None = None
        self._numbers: dict[str, float | int | str | None] = {}
        self._stage = ""
        self._began = time.monotonic()

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()
        if error is None:
            self._end_stage()

    def __call__(self, event: Event) -> None:
        text = event.text.render() if event.text is not None else ""
        match event.kind:
            case "phase":
                self._end_stage()
                self._numbers.clear()
                self._stage, self._began = text, time.monotonic()
                if self._bar is not None:
                    self._bars.remove_task(self._bar)
                self._bar = self._bars.add_task(text, total=event.total, numbers="")
                self._line(f"[bold]{_plain(text)}[/bold]" if not self._timed else f"[bold]> {_plain(text)}[/bold]")
            case "progress":
                if self._bar is None:
                    self._bar = self._bars.add_task(text, total=event.total, numbers="")
                self._bars.update(self._bar, completed=event.done, total=event.total, description=text or None)
            case "log":
                if self._bar is not None:
                    self._numbers.update(event.values)
                    self._bars.update(self._bar, numbers=_numbers(self._numbers))
            case "epoch" | "checkpoint" | "note" | "finished":
                if text:
                    self._line(f"  {_plain(text)}")

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _end_stage(self) -> None:
        if self._timed and self._stage:
            seconds = time.monotonic() - self._began
            self._line(f"  [dim]{_plain(str(msg('{seconds:.1f} s', seconds=seconds)))}[/dim]")
        self._stage = ""


def _plain(text: str) -> str:
    # rich reads [word] as markup; file names and lists in a sentence are not meant so.
    return text.replace("[", r"\[")


def _numbers(values: Mapping[str, float | int | str | None]) -> str:
    shown = [(name, values[name]) for name in _SHOWN if values.get(name) is not None]
    return "  ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown)
