"""LLaMA-Factory as it was installed, timed from outside; the peer of ``benchmarks/train.py``.

Runs in LLaMA-Factory's own environment: ``python llamafactory_speed.py SETTINGS.json OUT.json``. The settings go to ``run_exp``,
which is what ``llamafactory-cli train`` calls; nothing of it is changed. ``OUT.json`` is written anew at every log, so that a run
which is cut short leaves what it measured.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import json
import resource
import sys
import time
import types
from pathlib import Path
from typing import Any

STARTED = time.time()

import torch  # noqa: E402


def stand_in() -> None:
    """For a rehearsal with torch for the CPU: what LLaMA-Factory imports and that build does not have.

    torchvision's wheel is of the CUDA build; its import describes two operators that its native library would have declared.
    torchaudio reads sounds only.
    """
    if torch.version.cuda is None:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        stand_in.kept = operators  # type: ignore[attr-defined]  # the operators go when the library does
    if importlib.util.find_spec("torchaudio") is None:
        audio = types.ModuleType("torchaudio")
        audio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = audio


stand_in()

from llamafactory.train.tuner import run_exp  # noqa: E402
from transformers import TrainerCallback  # noqa: E402


class Timing(TrainerCallback):
    """Notes step, seconds, loss and memory whenever the trainer logs a loss."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.found: dict[str, Any] = {
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("llamafactory", "torch", "transformers", "peft", "accelerate", "datasets", "trl")
            },
            "import_seconds": round(time.time() - STARTED, 1),
            "marks": [],
        }
        self.began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        rows = given["train_dataloader"].dataset
        weights = list(given["model"].parameters())
        self.found["tokens_per_sample"] = sum(len(row["input_ids"]) for row in rows) / len(rows)
        self.found["targets_per_sample"] = sum(sum(label != -100 for label in row["labels"]) for row in rows) / len(rows)
        self.found["num_rows"] = len(rows)
        self.found["trainable"] = sum(weight.numel() for weight in weights if weight.requires_grad)
        adapted = {name.rsplit(".", 2)[0].rsplit(".", 1)[-1] for name, _ in given["model"].named_modules() if ".lora_A." in name}
        self.found["adapted"] = sorted(adapted)
        self.found["seconds_before"] = round(time.time() - STARTED, 1)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:  # noqa: ARG002
        if not logs or "loss" not in logs:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() // 2**20
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
        mark = {"step": state.global_step, "seconds": time.monotonic() - self.began, "loss": float(logs["loss"])}
        self.found["marks"].append(mark)
        self.found["peak_memory_mib"] = peak
        self.out.write_text(json.dumps(self.found), encoding="utf-8")


def main() -> None:
    settings, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    sys.argv = sys.argv[:1]  # LLaMA-Factory reads it as well
    run_exp(settings, callbacks=[Timing(out)])


if __name__ == "__main__":
    main()
