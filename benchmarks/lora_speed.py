"""Samples a second of ``medtune train`` with LoRA on a model of real size, weights drawn at random from its real configuration.

Run on a machine with a GPU: ``python benchmarks/lora_speed.py --model FOLDER --tokenizer FOLDER --work FOLDER``. ``--model`` is a
folder with ``config.json``, ``preprocessor_config.json`` and the chat template of a Qwen-VL model; no weights are needed. Random
weights measure speed and memory, never quality.

560 synthetic grey JPEG pictures of 512 x 512 pixels with a caption of 150 words each; rank 8 on the language model's linear layers,
vision tower frozen, 16 rows an optimizer step, every picture encoded every time. The first five steps are not counted.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

WORDS = (
    "the",
    "a",
    "left",
    "right",
    "lung",
    "lobe",
    "opacity",
    "nodule",
    "small",
    "shows",
    "seen",
    "without",
    "effusion",
    "normal",
)
SETTINGS = ((2, 8, True), (8, 2, True), (8, 2, False))
"""(batch size, gradient accumulation steps, gradient checkpointing)."""
WARM_UP = 5


def write_model(config: Path, tokenizer: Path, folder: Path) -> float:
    """Save a model with random weights; its parameters in billions."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    torch.manual_seed(0)
    on_gpu = torch.cuda.is_available()
    with torch.device("cuda" if on_gpu else "cpu"):
        dtype = torch.bfloat16 if on_gpu else torch.float32
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(config), dtype=dtype)
    model.save_pretrained(folder)
    for source in (tokenizer, config):
        for file in source.iterdir():
            if file.is_file() and file.name != "config.json":
                shutil.copy(file, folder)
    return sum(parameter.numel() for parameter in model.parameters()) / 1e9


def write_data(file: Path, rows: int = 560) -> None:
    random = np.random.default_rng(0)
    images = []
    for _ in range(rows):
        buffer = io.BytesIO()
        Image.fromarray(random.normal(120, 30, (512, 512)).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        images.append({"bytes": buffer.getvalue(), "path": None})
    columns = {
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "id": [f"picture-{number}" for number in range(rows)],
        "caption": [" ".join(random.choice(WORDS, 150)) for _ in range(rows)],
    }
    pq.write_table(pa.table(columns), file, row_group_size=100)


def train(work: Path, base: Path, batch_size: int, accumulation: int, checkpointing: bool, steps: int) -> str:
    name = f"{batch_size}x{accumulation}{'-checkpointing' if checkpointing else ''}"
    recipe = work / f"{name}.yaml"
    recipe.write_text(
        f"name: lora-speed\n"
        f"data: {{folder: '{work / 'data'}', sources: [{{source: medtrinity, options: {{path: '{work / 'train-0.parquet'}'}}}}],"
        f" split: {{fractions: {{train: 0.94, validation: 0.03, test: 0.03}}}}}}\n"
        f"model: {{base: '{base}'}}\nadapter: {{kind: lora, rank: 8, alpha: 16}}\nrun: {{folder: '{work / 'runs' / name}'}}\n"
        f"train: {{max_steps: {steps}, batch_size: {batch_size}, gradient_accumulation_steps: {accumulation},"
        f" gradient_checkpointing: {str(checkpointing).lower()}, log_every: 1, save_every: never, evaluate_every: never,"
        f" keep_best: false, learning_rate: 5.0e-5}}\n",
        encoding="utf-8",
    )
    subprocess.run([sys.executable, "-m", "medtune", "train", str(recipe)], check=True, stdout=subprocess.DEVNULL)
    events = (work / "runs" / name / "events.jsonl").read_text(encoding="utf-8").splitlines()
    log = [event for event in map(json.loads, events) if event["kind"] == "log" and "tokens_per_second" in event]
    first, last = log[min(WARM_UP, len(log) - 1) - 1], log[-1]
    samples = (last["done"] - first["done"]) * batch_size * accumulation / (last["seconds"] - first["seconds"])
    memory, loss = f"{last['peak_memory_mib']:7.0f} MiB", f"{log[0]['loss']:.4f} -> {last['loss']:.4f}"
    return f"{name:18} {samples:7.2f} samples/s  peak {memory}  loss {loss}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder with room for the weights (/dev/shm is fastest)")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    work: Path = options.work.absolute()
    work.mkdir(parents=True)
    write_data(work / "train-0.parquet")
    print(f"{write_model(options.model, options.tokenizer, work / 'base'):.2f} billion parameters", flush=True)
    for batch_size, accumulation, checkpointing in SETTINGS:
        print(train(work, work / "base", batch_size, accumulation, checkpointing, options.steps), flush=True)


if __name__ == "__main__":
    main()
