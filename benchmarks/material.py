"""What the training benchmarks train on: a model of real shape with random weights, and synthetic pictures with captions.

Random weights measure speed and memory, never quality. ``python material.py CONFIG TOKENIZER OUT [--layers N] [--tiny]
[--endless]`` writes the model folder in a process of its own, so that it leaves the GPU empty, and prints one line of JSON
(:class:`Shape`).
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PICTURE_SIZE = 512
WORDS = (
    "the",
    "a",
    "left",
    "right",
    "upper",
    "lower",
    "lung",
    "heart",
    "chest",
    "region",
    "lesion",
    "mass",
    "fluid",
    "small",
    "large",
    "bright",
    "dark",
    "clear",
    "normal",
    "shows",
    "seen",
)
"""Each is one token of Qwen's tokenizers where it follows a blank."""
NUM_WORDS = 150
"""Of a caption."""


@dataclass(frozen=True)
class Shape:
    """What the useful work of a row is counted from.

    Attributes:
        parameters: All of them.
        text_weights: Entries of the decoder's matrices that a token is multiplied with: of a mixture, the chosen experts.
        head_weights: Entries of the output head.
        vision_flops: Floating-point operations of the vision tower for one picture, forward.
    """

    parameters: int
    text_weights: int
    head_weights: int
    vision_flops: float

    def useful_flops(self, tokens: float) -> float:
        """Floating-point operations that LoRA on the language model cannot do without, for a row of so many tokens.

        2 for each weight and token in the forward pass, 2 in the backward pass for the gradient of the activations, none for
        frozen weights (Kaplan et al. 2020, arXiv:2001.08361, section 2.1, without its share for weight gradients); the frozen
        tower once, forward. Not counted: attention in the decoder, the adapters, anything that is computed twice. The head
        counts at every token and the tower for every row, whether a program saves that work or not, so that rates compare.
        """
        return 4.0 * (self.text_weights + self.head_weights) * tokens + self.vision_flops


def shape_of(model: Any, config: Any) -> Shape:
    """Count a Qwen-VL model; it may lie on the ``meta`` device."""
    text, vision = config.text_config, config.vision_config
    share = getattr(text, "num_experts_per_tok", 1) / getattr(text, "num_experts", 1)
    merge = vision.spatial_merge_size
    side = round(PICTURE_SIZE / (vision.patch_size * merge)) * merge
    patches = side * side
    text_weights, vision_flops, width = 0.0, 0.0, 0
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        if ".visual." in f".{name}":
            if "pos_embed" in name:
                continue
            rows = patches / merge**2 if "merger" in name else patches
            vision_flops += 2.0 * weight.numel() * rows
            width = weight.shape[1] if name.endswith("attn.qkv.weight") else width
        elif ".layers." in name:
            text_weights += weight.numel() * (share if ".experts." in name else 1.0)
    # Scores and the weighted sum of values: 2 x 2 x patches^2 x width in each block.
    vision_flops += 4.0 * patches**2 * width * vision.depth
    head = text.vocab_size * text.hidden_size
    return Shape(sum(weight.numel() for weight in model.parameters()), round(text_weights), head, vision_flops)


def write_model(
    config: Path, tokenizer: Path, folder: Path, *, layers: int | None = None, tiny: bool = False, endless: bool = False
) -> Shape:
    """Save a model with random weights of the configuration; bf16 where there is a GPU, float32 on the CPU.

    Args:
        config: Folder with ``config.json``, the processor's settings and the chat template.
        tokenizer: Folder with the tokenizer's files.
        layers: Decoder layers, instead of the configuration's number.
        tiny: Keep the kind of model, with two narrow layers: to rehearse on a CPU.
        endless: The output head's rows of all special tokens are zeros. A score of zero is never among the best of 150,000
            random ones, so every answer runs to its longest allowed length.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

    values = json.loads((config / "config.json").read_text(encoding="utf-8"))
    text = values.get("text_config", values)
    if layers is not None:
        text["num_hidden_layers"] = layers
    if tiny:
        _shrink(text, values["vision_config"])
    folder.mkdir(parents=True)
    for source in (tokenizer, config):
        for file in source.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    own = (folder / "config.json").read_bytes()
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    torch.manual_seed(0)
    loaded = AutoConfig.from_pretrained(folder)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(loaded, dtype=dtype)
    if endless:
        added = AutoTokenizer.from_pretrained(folder).added_tokens_decoder
        with torch.no_grad():
            model.lm_head.weight[sorted(added)] = 0
    model.save_pretrained(folder)
    # Saving writes the settings in the words of the newest transformers; the peer's is older.
    (folder / "config.json").write_bytes(own)
    return shape_of(model, loaded)


def _shrink(text: dict[str, Any], vision: dict[str, Any]) -> None:
    text.update(num_hidden_layers=2, hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2)
    text["rope_scaling"]["mrope_section"] = [4, 2, 2]
    if "head_dim" in text:
        text["head_dim"] = 16
    if "num_experts" in text:
        text.update(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32)
    vision.update(depth=2, num_heads=4)
    if "embed_dim" in vision:  # Qwen2-VL: hidden_size is the decoder's
        vision.update(embed_dim=64, hidden_size=64)
    else:
        vision.update(hidden_size=64, intermediate_size=128, out_hidden_size=64, deepstack_visual_indexes=[0, 1])


def write_pictures(file: Path, rows: int) -> None:
    """A Parquet file of ``rows`` grey JPEG pictures of noise, 512 x 512 pixels, each with a caption of 150 words."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    random = np.random.default_rng(0)
    images = []
    for _ in range(rows):
        buffer = io.BytesIO()
        pixels = random.normal(120, 30, (PICTURE_SIZE, PICTURE_SIZE)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        images.append({"bytes": buffer.getvalue(), "path": None})
    columns = {
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "id": [f"picture-{number}" for number in range(rows)],
        "caption": [" ".join(random.choice(WORDS, NUM_WORDS)) for _ in range(rows)],
    }
    pq.write_table(pa.table(columns), file, row_group_size=100)


def matmul_ceiling(size: int = 8192) -> float:
    """FLOP/s of a square bf16 product on the GPU, the mean of 20 after 5 that are not counted; of random numbers, which cost
    more power than zeros."""
    import torch

    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        left @ right
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    started.record()
    for _ in range(20):
        left @ right
    ended.record()
    torch.cuda.synchronize()
    milliseconds: float = started.elapsed_time(ended)
    return 20 * 2 * size**3 / (milliseconds / 1000)


def versions() -> dict[str, str]:
    """Card, driver and packages of this process."""
    import importlib.metadata
    import platform
    import subprocess

    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "peft", "accelerate", "triton", "deepspeed"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        cards = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        cards = []
    if cards:
        name, driver = cards[0].split(", ")
        found |= {"card": f"{len(cards)} x {name}" if len(cards) > 1 else name, "driver": driver}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--endless", action="store_true")
    options = parser.parse_args()
    shape = write_model(
        options.config, options.tokenizer, options.out, layers=options.layers, tiny=options.tiny, endless=options.endless
    )
    import torch

    ceiling = matmul_ceiling() if torch.cuda.is_available() else None
    print(json.dumps({**asdict(shape), "ceiling": ceiling, "versions": versions()}))
