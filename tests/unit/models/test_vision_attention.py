"""Grouped vision attention gives the same picture features as transformers' loop over pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from medtune.models.config import ModelSettings
from medtune.models.load import load_model
from medtune.models.vision_attention import NAME, grouped_attention, use_grouped_attention
from tiny_models import tiny_model

GRIDS = [(1, 4, 6), (1, 8, 4), (1, 4, 6), (1, 6, 6)]


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3-vl-moe"])
def test_same_features_and_gradients_as_one_picture_at_a_time(tmp_path: Path, family: str) -> None:
    folder = tiny_model(tmp_path / "model", family)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    config = model.config.vision_config
    channels = getattr(config, "in_channels", None) or config.in_chans
    width = channels * config.temporal_patch_size * config.patch_size**2
    grids = torch.tensor(GRIDS)
    torch.manual_seed(0)
    pixels = torch.randn(int(grids.prod(1).sum()), width)
    results = []
    for grouped in (False, True):
        if grouped:
            assert use_grouped_attention(model)
            assert model.model.visual.config._attn_implementation == NAME
        model.zero_grad()
        features = model.model.visual(pixels, grid_thw=grids).pooler_output
        features.square().sum().backward()
        gradient = model.model.visual.blocks[0].attn.qkv.weight.grad
        results.append((features.detach(), gradient.clone()))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-3, atol=1e-4)


def test_pictures_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 10, 4) for _ in range(3))
    bounds = torch.tensor([0, 4, 7, 10])
    before, _ = grouped_attention(torch.nn.Identity(), query, key, value, cu_seq_lens_q=bounds)
    value[:, :, 4:7] += 1
    after, _ = grouped_attention(torch.nn.Identity(), query, key, value, cu_seq_lens_q=bounds)
    changed = (before != after).any(dim=(0, 2, 3))
    assert changed.tolist() == [False] * 4 + [True] * 3 + [False] * 3


def test_loading_uses_it_unless_an_implementation_is_named(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", "qwen3-vl")
    by_default = load_model(ModelSettings(base=str(folder)), device="cpu")
    assert by_default.model.visual.config._attn_implementation == NAME
    assert by_default.model.language_model.config._attn_implementation == "sdpa"
    named = load_model(ModelSettings(base=str(folder), attention="sdpa"), device="cpu")
    assert named.model.visual.config._attn_implementation == "sdpa"
