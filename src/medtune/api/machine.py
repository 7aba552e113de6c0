"""What is known of this machine, and the demo on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from medtune import assembly
from medtune.api.evaluation import evaluate
from medtune.api.runs import RunView, show_run
from medtune.api.training import train
from medtune.environment import Finding, examine
from medtune.language import msg
from medtune.recipe import load_recipe, run_folder
from medtune.runs import Run, is_run
from medtune.types import Event, Listener, Report


def doctor(*, folder: Path = Path(), network: bool = False) -> list[Finding]:
    """Look at this machine: versions, processor, memory, accelerators, optional packages, disk.

    Args:
        folder: Where data sets and runs will be written.
        network: Also try to reach the model hubs; nothing leaves the machine otherwise.
    """
    return examine(folder=folder, network=network)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What ``demo`` made, and the command that goes on from there."""

    run: RunView
    report: Report
    next_command: str


def demo(folder: Path = Path(), *, listener: Listener | None = None) -> DemoResult:
    """The whole road on the embedded data and model: prepare, validate, train, evaluate.

    What an earlier demo finished is used again; one that was cut off goes on where it stopped.

    Args:
        folder: ``datasets/demo`` and ``runs/demo`` are made in it.
    """
    places = [
        f"{key}={json.dumps(str(folder / place))}" for key, place in (("data.folder", "datasets/demo"), ("run.folder", "runs/demo"))
    ]
    recipe = load_recipe("demo", places)
    run = Run(run_folder(recipe))
    if run.adapter is None:
        train(recipe, resume=is_run(run.folder), listener=listener)
    else:
        assembly.say(listener, Event("note", msg("Using the finished run {folder}.", folder=run.folder)))
    report = evaluate(run, listener=listener)
    view = show_run(run)
    return DemoResult(view, report, view.next_command)
