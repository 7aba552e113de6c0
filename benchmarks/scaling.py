"""``medtune train`` on one and on several devices of a machine: samples a second, share of linear, losses beside each other.

Run: ``python benchmarks/scaling.py --model CONFIG --tokenizer FOLDER --work FOLDER --out scaling.json --devices 2``. Model,
pictures and adapter are those of ``train.py``. One device first, then the same effective batch on all of them: ``ddp``, ``fsdp``
(FSDP2), and ``zero2`` and ``zero3`` where DeepSpeed is installed. Rows of a step, learning rate and seed are the same, so the
losses have to be the same too, up to the order in which numbers are added; the last column says how far they are apart.

``--grow`` makes the effective batch grow with the devices instead: each keeps the rows that one device has. Then the losses differ,
because the steps do. ``linear`` is the samples a second over those of one device times the devices. Pictures go through the vision
tower every time unless ``--vision-cache memory``. On a machine without GPUs the devices are processes that talk through gloo, and
only ``ddp`` can be rehearsed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from options import read_options, training_parser
from speed import marks_of, window
from stages import append_results, data_section, make, read_events, read_results, run

WARM_UP = 5
KINDS = {
    "ddp": "kind: ddp",
    "fsdp": "kind: fsdp",
    "zero2": "kind: deepspeed, zero_stage: 2",
    "zero3": "kind: deepspeed, zero_stage: 3",
}
COLUMNS = ("kind", "devices", "rows a step", "samples/s", "linear", "s a step", "peak MiB of the first", "losses", "apart from one")


def train(
    options: argparse.Namespace, work: Path, kind: str, devices: int, *, limit: float, environment: dict[str, str]
) -> dict[str, Any]:
    name = f"{kind}-{devices}"
    rows_a_step = options.rows_a_step * (devices if options.grow else 1)
    if rows_a_step % devices:
        raise SystemExit(f"--rows-a-step {rows_a_step} cannot be shared by {devices} devices")
    folder, recipe = work / "runs" / name, work / f"{name}.yaml"
    shutil.rmtree(folder, ignore_errors=True)
    targets = ", targets: [language, experts]" if options.experts else ""
    spread = "kind: none" if devices == 1 else f"{KINDS[kind]}, num_processes: {devices}"
    recipe.write_text(
        f"name: {name}\n{data_section(work)}"
        f"model: {{base: '{work / 'model'}'}}\nadapter: {{kind: lora, rank: 8, alpha: 16{targets}}}\nrun: {{folder: '{folder}'}}\n"
        f"distributed: {{{spread}}}\n"
        f"train: {{max_steps: {options.steps}, batch_size: {rows_a_step // devices}, gradient_accumulation_steps: 1,"
        f" learning_rate: 1.0e-4, vision_cache: {options.vision_cache}, compile: {options.compile}, log_every: {options.log_every},"
        f" hf: {{logging_first_step: true}}, save_every: never, evaluate_every: never, keep_best: false{options.train}}}\n",
        encoding="utf-8",
    )
    # A recipe for one device would leave the others of this machine visible to every library.
    numbers = range(options.first_device, options.first_device + devices)
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, numbers))}
    command: list[str | Path] = [sys.executable, "-m", "medtune", "train", recipe]
    fault = run(command, work / f"{name}.log", limit=limit, environment={**environment, **visible})
    events = read_events(folder)
    marks = marks_of(events)
    return {
        "kind": kind if devices > 1 else "none",
        "devices": devices,
        "rows_a_step": rows_a_step,
        "fault": fault,
        "peak_memory_mib": max((event["peak_memory_mib"] for event in events if "peak_memory_mib" in event), default=None),
        "losses": {mark.step: mark.loss for mark in marks},
        **window(marks, WARM_UP, None, rows_a_step=rows_a_step),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a table for each model."""
    lines: list[str] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        one = next((row for row in own if row["devices"] == 1), {})
        lines += [model, "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        for row in own:
            speed, linear = row.get("samples_per_second"), None
            if speed is not None and "samples_per_second" in one:
                linear = speed / (one["samples_per_second"] * row["devices"])
            losses = [row["losses"][step] for step in sorted(row["losses"], key=int)]
            shared = row["losses"].keys() & one.get("losses", {}).keys()
            apart = max((abs(row["losses"][step] - one["losses"][step]) for step in shared), default=None)
            cells = [
                row["kind"] + (" (cut short)" if row["fault"] else ""),
                str(row["devices"]),
                str(row["rows_a_step"]),
                "-" if speed is None else f"{speed:.2f}",
                "-" if linear is None else f"{100 * linear:.1f} %",
                "-" if speed is None else f"{row['seconds_a_step']:.3f}",
                "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:,}",
                ", ".join(f"{loss:.4f}" for loss in losses) or "-",
                "-" if apart is None or row["rows_a_step"] != one["rows_a_step"] else f"{apart:.5f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        machines = dict.fromkeys(", ".join(f"{name} {version}" for name, version in row["machine"].items()) for row in own)
        lines += ["", *machines, ""]
    return "\n".join(lines)


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[2], help="numbers of devices besides one")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--first-device", type=int, default=0, help="leave the GPUs before this one to another benchmark")
    parser.add_argument("--without-one", action="store_true", help="not on one device: another call measures it")
    parser.add_argument("--rows-a-step", type=int, default=32, help="effective batch")
    parser.add_argument("--grow", action="store_true", help="--rows-a-step for each device")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--log-every", type=int, default=5, help="1 shows the loss of every step, and waits for the GPU in each")
    parser.add_argument("--vision-cache", choices=("none", "memory"), default="none")
    options = read_options(parser)
    if not options.table:
        measure(options)
    print(table(read_results(options.out)))


def measure(options: argparse.Namespace) -> None:
    deadline = time.monotonic() + options.budget
    work: Path = options.work.absolute()
    environment = {**os.environ, "HF_HOME": str(work / "cache"), "HF_HUB_OFFLINE": "1"}
    made = make(options, work, limit=options.limit, environment=environment)
    model = options.model.name + (f", {options.layers} layers" if options.layers else "")
    model += ", growing batch" if options.grow else ""
    one = [] if options.without_one else [(1, "none")]
    for devices, kind in [*one, *((devices, kind) for devices in options.devices for kind in options.kinds)]:
        if kind.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
            print(f"{kind}: DeepSpeed is not installed", flush=True)
            continue
        limit = min(float(options.limit), deadline - time.monotonic())
        if limit < 20:
            print(f"{kind} on {devices}: not started, --budget is spent", flush=True)
            continue
        row = train(options, work, kind, devices, limit=limit, environment=environment)
        row |= {"model": model, "machine": made["versions"]}
        speed = row.get("samples_per_second")
        print(f"{kind} on {devices}: {'-' if speed is None else f'{speed:.2f} samples/s'}", flush=True)
        if row["fault"]:
            print(f"{kind} on {devices}: {row['fault']}", flush=True)
        append_results(options.out, [row], names=("model", "kind", "devices"))


if __name__ == "__main__":
    main()
