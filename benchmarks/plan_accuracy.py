"""What the plan foretold beside what was measured, of finished training runs.

    python benchmarks/plan_accuracy.py runs/a runs/b ...          a Markdown table
    python benchmarks/plan_accuracy.py --fit runs/a runs/b ...    new values for medtune/training/calibration.py

A run is read from its ``run.json`` (``planned``, ``measured``) and its ``events.jsonl``, whose event with ``planned_peak_gib``
holds the parts of the plan. Speed is that of the whole run without compilation, validation and checkpoints where ``run.json``
has it, else of the log events after the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.runs import Run
from medtune.training.calibration import CALIBRATION
from medtune.types import Performance

FIGURES = (("peak_gib", "peak GiB", 2), ("seconds_per_step", "s a step", 3), ("tokens_per_second", "tokens/s", 0))


@dataclass(frozen=True)
class Pair:
    """A run's figures. ``parts`` are the values of the event that told the plan."""

    name: str
    planned: Performance
    measured: Performance
    parts: Mapping[str, Any]


def read_pair(folder: Path) -> Pair:
    """The figures of a run folder.

    Raises:
        SystemExit: It holds no plan, or nothing was measured.
    """
    run = Run.open(folder)
    record, events = run.record, list(run.events())
    parts: Mapping[str, Any] = next((event for event in reversed(events) if "planned_peak_gib" in event), {})
    planned = record.planned
    if planned is None and parts:
        planned = Performance(**{name: parts[f"planned_{name}"] for name in Performance.model_fields})
    measured = record.measured or measured_from(events, planned)
    if planned is None or measured is None:
        raise SystemExit(f"{folder}: no plan, or fewer than two log events with a measured speed")
    return Pair(record.name, planned, measured, parts)


def measured_from(events: Iterable[Mapping[str, Any]], planned: Performance | None) -> Performance | None:
    """From the log events after the first, which has the compilation in it."""
    logs = [event for event in events if event["kind"] == "log" and "tokens_per_second" in event]
    if len(logs) < 2 or planned is None:
        return None
    first, last = logs[0], logs[-1]
    steps = last["step"] - first["step"]
    return Performance(
        device=planned.device,
        num_devices=planned.num_devices,
        peak_gib=max(event["peak_memory_mib"] for event in logs) / 1024,
        seconds_per_step=(last["seconds"] - first["seconds"]) / max(1, steps),
        tokens_per_second=statistics.median(event["tokens_per_second"] for event in logs[1:]),
        seconds=last["seconds"],
    )


def table(pairs: Sequence[Pair]) -> str:
    """Predicted, measured and their ratio, in Markdown."""
    head = ["run", "device", *(f"{title}: {column}" for _, title, _ in FIGURES for column in ("predicted", "measured", "ratio"))]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for pair in pairs:
        cells = [pair.name, f"{pair.planned.num_devices} x {pair.planned.device}"]
        for name, _, digits in FIGURES:
            planned, measured = getattr(pair.planned, name), getattr(pair.measured, name)
            cells += [f"{planned:,.{digits}f}", f"{measured:,.{digits}f}", f"{planned / measured:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fit(pairs: Sequence[Pair]) -> dict[str, float]:
    """Factors that would have made the plan right: medians over the runs that can tell.

    Memory that was missed goes to the activations, time to what is no matrix product (runs in which the vision tower takes less
    than a twentieth), and what is then still missed in the other runs to the vision tower.
    """
    found: dict[str, list[float]] = {}
    rest: list[Pair] = []
    for pair in pairs:
        parts = pair.parts
        if not parts:
            continue
        kind = "compiled" if parts["compile"] else "eager"
        if parts["gib_activations"] > 0.2 * pair.planned.peak_gib:
            missed = pair.measured.peak_gib - pair.planned.peak_gib
            factor = 1 + missed / parts["gib_activations"]
            found.setdefault(f"kept_{kind}", []).append(getattr(CALIBRATION, f"kept_{kind}") * factor)
        if parts["step_vision"] > 0.05 * pair.planned.seconds_per_step:
            rest.append(pair)
        else:
            missed = pair.measured.seconds_per_step - pair.planned.seconds_per_step
            factor = 1 + missed / parts["step_other"]
            found.setdefault(f"traffic_{kind}", []).append(getattr(CALIBRATION, f"traffic_{kind}") * factor)
    fitted = {name: statistics.median(values) for name, values in found.items()}
    shares = []
    for pair in rest:
        name = f"traffic_{'compiled' if pair.parts['compile'] else 'eager'}"
        more = pair.parts["step_other"] * (fitted.get(name, getattr(CALIBRATION, name)) / getattr(CALIBRATION, name) - 1)
        seconds = pair.parts["step_vision"] + pair.measured.seconds_per_step - pair.planned.seconds_per_step - more
        if seconds > 0:
            shares.append(CALIBRATION.vision_share * pair.parts["step_vision"] / seconds)
    if shares:
        fitted["vision_share"] = statistics.median(shares)
    return fitted


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Plan against measurement.")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--fit", action="store_true", help="print new values of the calibration as JSON")
    options = parser.parse_args(arguments)
    pairs = [read_pair(folder) for folder in options.runs]
    print(json.dumps({name: round(value, 4) for name, value in fit(pairs).items()}, indent=2) if options.fit else table(pairs))


if __name__ == "__main__":
    main()
