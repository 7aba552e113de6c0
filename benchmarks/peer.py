"""A benchmark's stages of one model, medtune's and LLaMA-Factory's, on the same folder."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from stages import HERE, make, run

TEMPLATES = {"qwen2_vl": "qwen2_vl", "qwen3_vl": "qwen3_vl_nothink", "qwen3_vl_moe": "qwen3_vl_nothink"}
"""Model type to LLaMA-Factory's name of its chat template."""


class Stages:
    """What all stages share: the material, and the time that is left.

    Args:
        options: ``work``, ``budget``, ``limit``, ``peer_python``, ``peer_site`` of the command line, and what ``make`` reads.
        material: Further arguments of ``make``.
    """

    def __init__(self, options: argparse.Namespace, **material: Any) -> None:
        self.options = options
        self.work: Path = options.work.absolute()
        self.deadline: float = time.monotonic() + options.budget
        self.name = options.model.name + (f", {options.layers} layers" if options.layers else "")
        self.environment = {**os.environ, "HF_HOME": str(self.work / "cache"), "HF_HUB_OFFLINE": "1"}
        self.made = make(options, self.work, limit=self.limit(), environment=self.environment, **material)

    def limit(self) -> float:
        """Seconds that the next stage may take."""
        limit: float = self.options.limit
        return min(limit, self.deadline - time.monotonic())

    def run_peer(self, stage: str, settings: dict[str, Any], *, adapt_experts: bool = False) -> tuple[dict[str, Any], str | None]:
        """Run LLaMA-Factory on the model and data of the folder.

        Args:
            settings: Of this stage, besides those that every stage has.
            adapt_experts: Let it go on with an adapter that PEFT has made for the experts.

        Returns:
            What it wrote down, and why it did not end well.
        """
        options = self.options
        on_gpu = self.made["ceiling"] is not None
        config = json.loads((self.work / "model" / "config.json").read_text(encoding="utf-8"))
        output = self.work / "runs" / stage
        settings = {
            "stage": "sft",
            "finetuning_type": "lora",
            "model_name_or_path": str(self.work / "model"),
            "template": TEMPLATES[config["model_type"]],
            "dataset_dir": str(self.work / "data"),
            "cutoff_len": 2048,
            "image_max_pixels": 589824,
            # Its examples say 16. Each process takes about two seconds to start, and none of it is measured here.
            "preprocessing_num_workers": 1,
            "dataloader_num_workers": 4 if on_gpu else 0,
            "flash_attn": "auto",
            "bf16": on_gpu,
            "use_cpu": not on_gpu,
            "report_to": "none",
            "output_dir": str(output),
            **settings,
        }
        environment = {name: value for name, value in self.environment.items() if name != "PYTHONPATH"}
        if options.peer_site is not None:
            environment["PYTHONPATH"] = str(options.peer_site.absolute())
        fault = None
        if adapt_experts:
            adapter = self.work / "expert-adapter"
            settings["adapter_name_or_path"] = str(adapter)
            command = [options.peer_python, HERE / "peers" / "expert_adapter.py", self.work / "model", adapter]
            fault = run(command, self.work / "expert-adapter.log", limit=self.limit(), environment=environment)
        wanted, found = self.work / f"{stage}.json", self.work / f"{stage}-found.json"
        wanted.write_text(json.dumps(settings), encoding="utf-8")
        found.unlink(missing_ok=True)
        shutil.rmtree(output, ignore_errors=True)  # it refuses a folder that holds something
        command = [options.peer_python, HERE / "peers" / "llamafactory_speed.py", wanted, found]
        fault = fault or run(command, self.work / f"{stage}.log", limit=self.limit(), environment=environment)
        row: dict[str, Any] = json.loads(found.read_text(encoding="utf-8")) if found.is_file() else {}
        return row, fault
