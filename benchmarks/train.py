"""Samples a second of ``medtune train`` beside LLaMA-Factory on the same pictures, model and card.

Run on a machine with a GPU::

    python benchmarks/train.py --model CONFIG --tokenizer FOLDER --work FOLDER --out train.json --peer-python PYTHON

``CONFIG`` is a folder with ``config.json``, the processor's settings and the chat template of a Qwen-VL model; no weights are
needed: they are drawn at random (``material.py``), which measures speed and memory, never quality. ``--peer-python`` is the Python
of an environment that LLaMA-Factory is installed in (``pip install llamafactory==0.9.5``); ``--peer-site`` is instead a folder made
by ``pip install --target``, put in front of what this Python has. Each program runs in a process of its own.

Both read the same folder: what ``medtune prepare`` makes is a LLaMA-Factory data set. 560 grey JPEG pictures of 512 x 512 pixels
with a caption of 150 words, 16 rows an optimizer step, LoRA of rank 8 on the language model's linear layers, vision tower frozen,
bf16.

Stages, in the order in which they run (``--only`` chooses):

- ``cached``: medtune, output of the vision tower kept. Two epochs; the first computes it, the second is the steady state.
- ``online``: medtune, every picture through the tower every time.
- ``peer-best``: LLaMA-Factory, 8 rows x 2, gradient checkpointing off.
- ``peer-8x2``, ``peer-2x8``: 8 rows x 2 and 2 rows x 8 with its default checkpointing. The last is the setting of its examples.
- ``peer-experts-best``, ``peer-experts-2x8``: for mixtures of experts, which LLaMA-Factory does not adapt by itself. It is given an
  adapter that PEFT has made for them (``peers/expert_adapter.py``) to go on with, else as ``peer-best`` and ``peer-2x8``.

medtune's settings are the defaults, but for ``compile``: a run as short as this one would not choose it by itself, a real run does
(``--compile auto`` leaves the choice to it). The first five steps count for nothing.

Losses: that of step 1 is, for both, the mean over the supervised tokens of 16 rows under the same base weights, before any update,
but not of the same rows. So the two agree to sampling noise and to the difference of the chat templates, not to the last digit.

Results are added to ``--out`` after every stage; a stage that runs into its limit leaves what it measured until then. ``--table``
prints the table of a file and measures nothing.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from material import Shape
from options import read_options, training_parser
from peer import Stages
from speed import Mark, marks_of, table, window
from stages import append_results, data_section, read_events, read_results, run

HERE = Path(__file__).parent
WARM_UP = 5
LOG_EVERY = 5
ROWS_A_STEP = 16
PEER_SETTINGS = {
    "peer-best": (8, 2, False),
    "peer-8x2": (8, 2, True),
    "peer-2x8": (2, 8, True),
    "peer-experts-best": (8, 2, False),
    "peer-experts-2x8": (2, 8, True),
}
"""(batch size, gradient accumulation steps, gradient checkpointing)."""
DEFAULT_STAGES = ("cached", "online", "peer-best", "peer-8x2", "peer-2x8")
STAGES = ("cached", "online", *PEER_SETTINGS)


class Benchmark(Stages):
    """The stages of one model, and where their results go."""

    # ------------------------------------------------------------------------------------------------------------ stages

    def medtune(self, stage: str) -> list[dict[str, Any]]:
        options = self.options
        folder = self.work / "runs" / stage
        shutil.rmtree(folder, ignore_errors=True)
        cached = stage == "cached"
        length = f"epochs: {options.epochs}" if cached else f"max_steps: {options.steps}"
        experts = ", targets: [language, experts]" if options.experts else ""
        recipe = self.work / f"{stage}.yaml"
        recipe.write_text(
            f"name: {stage}\n{data_section(self.work)}"
            f"model: {{base: '{self.work / 'model'}'}}\nadapter: {{kind: lora, rank: 8, alpha: 16{experts}}}\n"
            f"run: {{folder: '{folder}'}}\n"
            f"train: {{{length}, vision_cache: {'memory' if cached else 'none'}, compile: {options.compile}, learning_rate: 1.0e-4,"
            f" log_every: {LOG_EVERY}, hf: {{logging_first_step: true}}, save_every: never, evaluate_every: never,"
            f" keep_best: false{options.train}}}\n",
            encoding="utf-8",
        )
        began = time.time()
        fault = run(
            [sys.executable, "-m", "medtune", "train", recipe],
            self.work / f"{stage}.log",
            limit=self.limit(),
            environment=self.environment,
        )
        events = read_events(folder)
        marks = marks_of(events)
        first = next((event["time"] for event in events if event["kind"] == "log"), None)
        row = {
            "fault": fault,
            "seconds_before": None if first is None else round(first - began - marks[0].seconds, 1),
            "peak_memory_mib": max((event["peak_memory_mib"] for event in events if "peak_memory_mib" in event), default=None),
            "losses": [mark.loss for mark in marks],
            "said": [event["text"] for event in events if "text" in event],
        }
        row["tokens_per_sample"] = tokens_per_sample = _tokens_per_sample(events)
        epoch = self.options.rows // ROWS_A_STEP
        parts = {"first epoch": (WARM_UP, epoch), "later epochs": (epoch, None)} if cached else {"": (WARM_UP, None)}
        label = "vision cached" if cached else "vision online"
        return [
            {"setting": ", ".join(filter(None, (label, part))), **row, **self.speed(marks, start, end, tokens_per_sample)}
            for part, (start, end) in parts.items()
        ]

    def peer(self, stage: str) -> list[dict[str, Any]]:
        batch_size, accumulation, checkpointing = PEER_SETTINGS[stage]
        settings = {
            "do_train": True,
            "lora_rank": 8,
            "lora_target": "all",
            "freeze_vision_tower": True,
            "freeze_multi_modal_projector": True,
            "dataset": "speed_train",
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": accumulation,
            "disable_gradient_checkpointing": not checkpointing,
            "learning_rate": 1e-4,
            "lr_scheduler_type": "cosine",
            "max_steps": self.options.steps,
            "logging_steps": LOG_EVERY,
            "logging_first_step": True,
            "save_strategy": "no",
        }
        with_experts = stage.startswith("peer-experts")
        row, fault = self.run_peer(stage, settings, adapt_experts=with_experts)
        marks = [Mark(**mark) for mark in row.pop("marks", [])]
        setting = f"{batch_size} x {accumulation}, checkpointing {'on' if checkpointing else 'off'}"
        setting += ", experts adapted" if with_experts else ""
        row |= {"setting": setting, "fault": fault, "losses": [mark.loss for mark in marks]}
        return [{**row, **self.speed(marks, WARM_UP, None, row.get("tokens_per_sample"))}]

    def speed(self, marks: list[Mark], start: int, end: int | None, tokens: float | None) -> dict[str, Any]:
        found = window(marks, start, end, rows_a_step=ROWS_A_STEP)
        if found and tokens is not None:
            known = {name: self.made[name] for name in Shape.__dataclass_fields__}
            rate = found["samples_per_second"] * Shape(**known).useful_flops(tokens)
            found["useful_tflops"] = rate / 1e12
            found["mfu"] = rate / self.made["ceiling"] if self.made["ceiling"] else None
        return found

    def main(self) -> None:
        for stage in self.options.only:
            if self.limit() < 20:
                print(f"{stage}: not started, {self.deadline - time.monotonic():.0f} s are left of --budget", flush=True)
                continue
            started = time.monotonic()
            rows = self.peer(stage) if stage in PEER_SETTINGS else self.medtune(stage)
            program = "LLaMA-Factory" if stage in PEER_SETTINGS else "medtune"
            for row in rows:
                row |= {"model": self.name, "stage": stage, "program": program, "wall_seconds": time.monotonic() - started}
                row["machine"], row["ceiling"] = self.made["versions"], self.made["ceiling"]
                speed = row.get("samples_per_second")
                print(f"{self.name} {program} {row['setting']}: {'-' if speed is None else f'{speed:.2f} samples/s'}", flush=True)
            if rows[0]["fault"]:
                print(f"{stage}: {rows[0]['fault']}", flush=True)
            append_results(self.options.out, rows, names=("model", "stage", "setting"))


def _tokens_per_sample(events: list[dict[str, Any]]) -> float | None:
    """From the speed between two logs: a log says tokens a second, and when."""
    tokens, since, step = 0.0, 0.0, 0
    for event in events:
        if event["kind"] == "log" and "tokens_per_second" in event:
            tokens += event["tokens_per_second"] * (event["seconds"] - since)
            since, step = event["seconds"], event["done"]
    return tokens / (step * ROWS_A_STEP) if step else None


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(DEFAULT_STAGES), metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--peer-site", type=Path, help="folder with LLaMA-Factory's packages, for PYTHONPATH")
    parser.add_argument("--steps", type=int, default=20, help="of the stages that do not count epochs")
    parser.add_argument("--epochs", type=int, default=2, help="of the stage `cached`")
    options = read_options(parser)
    if not options.table:
        Benchmark(options).main()
    print(table(read_results(options.out)))


if __name__ == "__main__":
    main()
