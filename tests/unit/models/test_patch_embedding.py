"""The matrix product gives what the convolution gives, forward and backward."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from medtune.models.patch_embedding import use_matrix_product
from tiny_models import tiny_model


def with_projection(projection: nn.Module) -> Any:
    embedding = nn.Module()
    embedding.proj = projection
    return SimpleNamespace(model=SimpleNamespace(visual=SimpleNamespace(patch_embed=embedding)))


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_every_family_s_own_embedding(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(tiny_model(tmp_path / family, family))
    embedding = model.model.visual.patch_embed
    names = set(model.state_dict())
    weight = embedding.proj.weight
    patches = torch.randn(6, weight[0].numel(), generator=torch.Generator().manual_seed(0))
    own = embedding(patches)
    scale = torch.linspace(0.1, 1.0, own.numel()).view_as(own)
    (own * scale).sum().backward()
    gradient, weight.grad = weight.grad, None

    assert use_matrix_product(model)
    product = embedding(patches)
    (product * scale).sum().backward()
    torch.testing.assert_close(product, own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad, gradient, rtol=1e-5, atol=1e-5)
    assert set(model.state_dict()) == names


@pytest.mark.parametrize(
    "projection",
    [
        nn.Conv3d(3, 4, (2, 4, 4), stride=(2, 2, 2)),
        nn.Conv3d(3, 4, (2, 4, 4), stride=(2, 4, 4), padding=1),
        nn.Conv3d(4, 4, (2, 4, 4), stride=(2, 4, 4), groups=2),
        nn.Linear(3, 4),
    ],
    ids=["overlapping", "padded", "grouped", "a product already"],
)
def test_what_is_no_plain_product_stays(projection: nn.Module) -> None:
    model = with_projection(projection)
    assert not use_matrix_product(model)
    assert "forward" not in vars(model.model.visual.patch_embed)


def test_a_model_without_a_tower_stays() -> None:
    assert not use_matrix_product(nn.Linear(2, 2))
