"""The positions that the collator works out are those that transformers would work out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from medtune.models.config import ModelSettings
from medtune.models.encoder import load_encoder
from medtune.models.load import load_model
from medtune.types import Message
from tiny_models import tiny_model

SIZES = {"a": [(96, 64)], "b": [(64, 64), (128, 96)], "c": [], "d": [(160, 64)]}


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3-vl-moe"])
def test_equal_the_models_own(tmp_path: Path, family: str) -> None:
    settings = ModelSettings(base=str(tiny_model(tmp_path / "model", family)))
    encoder, model = load_encoder(settings), load_model(settings, device="cpu")
    features = []
    for name, sizes in SIZES.items():
        messages = [
            Message(role="user", content="<image>" * len(sizes[:1]) + "first " * len(name) + "<image>" * len(sizes[1:]) + "?"),
            Message(role="assistant", content="answer " * (1 + len(sizes))),
        ]
        features.append(encoder.encode(messages, [Image.new("RGB", size, "grey") for size in sizes], sample_id=name))
    inputs = encoder.collate(features, padding="right").inputs
    wanted, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    real = inputs["attention_mask"].bool()
    assert torch.equal(inputs["position_ids"][:, real], wanted[:, real])


def test_left_padding_leaves_positions_to_the_model(tmp_path: Path) -> None:
    encoder = load_encoder(ModelSettings(base=str(tiny_model(tmp_path / "model", "qwen3-vl"))))
    features = encoder.encode([Message(role="user", content="<image>?")], [Image.new("RGB", (64, 64))])
    assert "position_ids" not in encoder.collate([features], padding="left").inputs
