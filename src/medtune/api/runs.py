"""Runs for readers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medtune import runs
from medtune.api.given import RunLike, find_run
from medtune.runs import Run
from medtune.types import Report, RunRecord


@dataclass(frozen=True, slots=True)
class RunView:
    """A run for readers. ``report`` is None before the run was evaluated, ``evaluations`` are the conditions asked so far."""

    folder: Path
    record: RunRecord
    evaluations: tuple[str, ...]
    report: Report | None
    next_command: str


def list_runs(folder: Path = Path("runs")) -> list[Run]:
    """The runs in a folder, the latest change first; one whose ``run.json`` is damaged comes last."""
    return runs.list_runs(folder)


def show_run(run: RunLike) -> RunView:
    """What a run is, how far it came, what it measured, and the command that goes on.

    Raises:
        RunError: There is no such run, or its ``run.json`` is damaged.
    """
    from medtune.evaluation.evaluate import read_report

    opened = find_run(run)
    record = opened.record
    report = read_report(opened.folder) if (opened.folder / "report.json").is_file() else None
    if record.status != "trained":
        command = f"medtune train {opened.folder} --resume"
    else:
        command = f"medtune {'evaluate' if report is None else 'chat'} {opened.folder}"
    evaluations = tuple(sorted(path.parent.name for path in (opened.folder / "evaluations").glob("*/predictions.jsonl")))
    return RunView(opened.folder, record, evaluations, report, command)
