"""Setups of whole models for tests of the plan, without weights, tokenizer or data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medtune.models.adapter_size import adapter_size
from medtune.models.config import AdapterSettings, LoraSettings
from medtune.models.family import find_family
from medtune.models.size import ModelSize, size_of
from medtune.training.choose import Room
from medtune.training.devices import DEVICES, Device
from medtune.training.division import Division
from medtune.training.passes import Setup
from medtune.training.workload import Workload

GIB = 1024**3

QWEN3_VL_8B: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "tie_word_embeddings": False,
    "text_config": {
        "dtype": "bfloat16",
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "vocab_size": 151936,
    },
    "vision_config": {
        "deepstack_visual_indexes": [8, 16, 24],
        "depth": 27,
        "hidden_size": 1152,
        "in_channels": 3,
        "intermediate_size": 4304,
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 4096,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
"""Shapes of Qwen3-VL-8B (its technical report, arXiv:2511.21631)."""

QWEN3_VL_30B: dict[str, Any] = {
    "model_type": "qwen3_vl_moe",
    "tie_word_embeddings": False,
    "text_config": {
        **QWEN3_VL_8B["text_config"],
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    },
    "vision_config": {**QWEN3_VL_8B["vision_config"], "out_hidden_size": 2048},
}

ROOM = Room(memory=100 * GIB, disk=500 * GIB)


def model_8b() -> ModelSize:
    return size_of(QWEN3_VL_8B)


def workload(**changes: Any) -> Workload:
    """512 rows with a picture of 512 x 512 each: 430 tokens a row, 153 of them supervised; 16 rows a step."""
    rows = 512
    plain = Workload(
        num_rows=rows,
        num_tokens=rows * 430,
        num_squares=rows * 430 * 430,
        longest=430,
        num_targets=rows * 153,
        num_pictures=rows,
        num_distinct=rows,
        num_patches=rows * 1024,
        num_patch_squares=rows * 1024**2,
        most_patches=1024,
        largest_patches=1024,
        rows_per_step=16,
        num_steps=2000,
    )
    return replace(plain, **changes)


def setup(
    *,
    config: dict[str, Any] | None = None,
    adapter: AdapterSettings | None = None,
    device: Device = DEVICES["H100"],
    division: Division | None = None,
    **changes: Any,
) -> Setup:
    """``changes`` are the workload's."""
    size = size_of(config or QWEN3_VL_8B)
    family = find_family(config or QWEN3_VL_8B, None)
    return Setup(
        size=size,
        adapter=adapter_size(size, adapter or LoraSettings(), family),
        workload=workload(**changes),
        device=device,
        precision="bf16" if device.has_bf16 else "float32",
        weight_bytes=2.0,
        division=division or Division(),
        batch_size=2,
        num_workers=8,
    )
