"""M-RoPE positions and vision attention of a batch: transformers' own way against medtune's, side by side in one process.

Run: ``python benchmarks/batch_positions.py [--rows 256] [--device cuda]``. Prints milliseconds (median of the repeats) and
ratios. Uses the embedded model's configuration; the time does not depend on the weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from medtune.models.config import ModelSettings
from medtune.models.encoder import load_encoder
from medtune.models.load import load_model
from medtune.models.positions import picture_positions
from medtune.types import Message


def milliseconds(call: Callable[[], Any], device: str, repeats: int) -> float:
    """Median wall time of ``call``, the device idle before and after."""
    taken = []
    for repeat in range(repeats + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        if repeat:
            taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--base", default="medtune-nano", help="a Qwen-VL model folder or id")
    options = parser.parse_args()

    ours = ModelSettings(base=options.base)
    encoder = load_encoder(ours)
    assert encoder.pictures is not None
    picture = Image.effect_noise((128, 128), 40).convert("RGB")
    messages = [Message(role="user", content="<image>Where is the spot?"), Message(role="assistant", content="At the top left.")]
    row = encoder.encode(messages, [picture])
    inputs = encoder.collate([row] * options.rows).inputs
    on_device = {name: tensor.to(options.device) for name, tensor in inputs.items()}
    grouped = load_model(ours, device=options.device)
    looped = load_model(ours.model_copy(update={"attention": "sdpa"}), device=options.device)

    def their_positions() -> Any:
        return grouped.model.get_rope_index(
            on_device["input_ids"],
            mm_token_type_ids=on_device["mm_token_type_ids"],
            image_grid_thw=on_device["image_grid_thw"],
            attention_mask=on_device["attention_mask"],
        )

    def our_positions() -> Any:
        merge_size = encoder.pictures.merge_size  # type: ignore[union-attr]
        return picture_positions(
            inputs["mm_token_type_ids"], inputs["attention_mask"], inputs["image_grid_thw"], merge_size=merge_size
        )

    def vision(model: Any) -> Callable[[], Any]:
        def run() -> Any:
            with torch.no_grad():
                return model.model.visual(on_device["pixel_values"], grid_thw=on_device["image_grid_thw"])

        return run

    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; torch {torch.__version__}; {options.rows} rows, one picture each; {Path(options.base).name}")
    print(f"{'':34}{'transformers':>14}{'medtune':>10}{'ratio':>8}")
    pairs = (
        ("positions, ms", milliseconds(their_positions, options.device, options.repeats), our_positions),
        ("vision tower, ms", milliseconds(vision(looped), options.device, options.repeats), vision(grouped)),
    )
    for title, theirs, call in pairs:
        mine = milliseconds(call, options.device, options.repeats)
        print(f"{title:34}{theirs:14.1f}{mine:10.1f}{theirs / mine:8.2f}")


if __name__ == "__main__":
    main()
