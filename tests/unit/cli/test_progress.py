"""What a reader sees of events."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medtune.cli.progress import Progress
from medtune.language import msg
from medtune.types import Event

EVENTS = (
    Event("phase", msg("Loading {model}", model="a [b] model")),
    Event("progress", done=1, total=4),
    Event("log", values={"loss": 0.123456, "step": 1, "eval_loss": None}),
    Event("epoch", msg("Written: {file}", file="x")),
    Event("phase", msg("Checking the data set")),
    Event("log", values={"loss": 0.123456}),
    Event("log", values={"eval_loss": 2.5}),
    Event("progress", msg("Loading {model}", model="y"), done=4, total=4),
    Event("note", msg("Give another name.")),
)


def drawn(*, terminal: bool, timed: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)
    with Progress(timed=timed, console=console) as listener:
        for event in EVENTS:
            listener(event)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_without_a_terminal_there_are_lines_and_no_bars() -> None:
    assert drawn(terminal=False).splitlines() == [
        "Loading a [b] model",
        "  Written: x",
        "Checking the data set",
        "  Give another name.",
    ]


def test_stages_are_timed_when_asked() -> None:
    lines = drawn(terminal=False, timed=True).splitlines()
    assert lines[0] == "> Loading a [b] model"
    assert lines[2].endswith(" s")
    assert lines[-1].endswith(" s")


def test_a_terminal_sees_the_bar_and_the_numbers() -> None:
    text = drawn(terminal=True)
    assert "4/4" in text
    assert "loss 0.1235" in text
    assert "Loading a [b] model" in text
    assert "loss 0.1235  eval_loss 2.5" in text


def test_the_bars_are_taken_down_after_an_interrupt() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)

    def interrupted() -> None:
        with Progress(console=console) as listener:
            listener(EVENTS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor, hidden while bars move, is shown again
