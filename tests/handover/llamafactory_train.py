"""Runs in LLaMA-Factory's environment: read a data set folder with its own code, and train a tiny random model on it.

    python llamafactory_train.py FAMILY TEMPLATE FOLDER ENTRY OUT STEPS

FAMILY is one of ``tiny_models``. With STEPS 0 nothing is trained. Prints one line of JSON: the rows that LLaMA-Factory made of the
entry (it drops some with a warning only), those with pictures, pictures, picture tokens, and the loss of each step.
"""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch

# torchvision's wheel is built for CUDA. With torch for the CPU its native library is not loaded, and the import fails as it
# describes two operators (non-maximum suppression) that the library would have declared. Declared here, everything that is
# written in Python works, the resizing of pictures included.
_operators = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
# LLaMA-Factory imports torchaudio where it reads pictures as well.
_audio = types.ModuleType("torchaudio")
_audio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = _audio

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer  # noqa: E402
from llamafactory.hparams import get_train_args  # noqa: E402
from llamafactory.model import load_tokenizer  # noqa: E402
from llamafactory.train.tuner import run_exp  # noqa: E402

from tiny_models import tiny_model  # noqa: E402


def main(family: str, template: str, folder: str, entry: str, out: str, steps: int) -> None:
    settings: dict[str, Any] = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(tiny_model(Path(out) / "model", family)),
        "dataset_dir": folder,
        "dataset": entry,
        "template": template,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "lora_target": "all",
        "cutoff_len": 2048,
        "max_samples": 100,
        "image_min_pixels": 1024,
        "image_max_pixels": 65536,
        "max_steps": max(steps, 1),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "output_dir": str(Path(out) / "run"),
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
    }
    model_args, data_args, training_args, _, _ = get_train_args(dict(settings))
    tokenizer = load_tokenizer(model_args)
    made = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data_args)
    rows = list(get_dataset(made, model_args, data_args, training_args, stage="sft", **tokenizer)["train_dataset"])
    picture_token = tokenizer["tokenizer"].convert_tokens_to_ids("<|image_pad|>")
    losses: list[float] = []
    if steps:
        run_exp(settings)
        log = (Path(out) / "run" / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [line["loss"] for line in map(json.loads, log) if "loss" in line]
    result = {
        "rows": len(rows),
        "rows_with_pictures": sum(bool(row["images"]) for row in rows),
        "pictures": sum(len(row["images"] or []) for row in rows),
        "picture_tokens": sum(row["input_ids"].count(picture_token) for row in rows),
        "losses": losses,
    }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:6], int(sys.argv[6]))
