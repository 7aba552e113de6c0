"""A line of events that a full disk or a crash has cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.runs import Run
from medtune.types import Event
from tiny_training import Setup


@pytest.mark.parametrize("torn", [b'{"time": 1.0, "kind": "no', b"\xe4\xb8"], ids=["a line", "half a character"])
@pytest.mark.parametrize("first", [True, False])
def test_the_next_event_begins_a_line_of_its_own(setup: Setup, tmp_path: Path, torn: bytes, first: bool) -> None:
    run: Run = setup.run(tmp_path / "run")
    if not first:
        run.append(Event("note", values={"step": 1}))
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(torn)
    run.append(Event("note", values={"step": 2}))
    run.append(Event("note", values={"step": 3}))
    assert [event["step"] for event in run.events()] == ([] if first else [1]) + [2, 3]
