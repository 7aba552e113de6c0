"""Attention over rows that lie one behind the other, and which models get it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from medtune.models import packing
from medtune.models.packing import attend_rows, can_pack, packed_attention, packed_attention_on
from tiny_training import make_setup

BORDERS = torch.tensor([0, 3, 3, 10, 11], dtype=torch.int32)
"""Rows of 3, 0, 7 and 1 tokens."""


def states(heads: int = 4, shared: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(11, number, 8, generator=generator) for number in (heads, shared, shared))  # type: ignore[return-value]


@pytest.mark.parametrize("causal", [True, False])
def test_each_row_is_attended_to_by_itself(causal: bool) -> None:
    query, key, value = states()
    attended = attend_rows(query, key, value, BORDERS, 7, scaling=0.3, causal=causal)
    # One attention over all, with a mask that says the same.
    row = torch.repeat_interleave(torch.arange(4), BORDERS.diff().long())
    mask = row[:, None] == row[None, :]
    if causal:
        mask &= torch.ones(11, 11, dtype=torch.bool).tril()
    whole = scaled_dot_product_attention(
        *(part.transpose(0, 1)[None] for part in (query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1))),
        attn_mask=mask,
        scale=0.3,
    )
    torch.testing.assert_close(attended, whole[0].transpose(0, 1))


def test_dropout_is_refused_not_forgotten() -> None:
    query, key, value = (part.transpose(0, 1)[None] for part in states())
    with pytest.raises(ValueError, match="dropout"):
        packed_attention(torch.nn.Module(), query, key, value, None, dropout=0.1, cu_seq_lens_q=BORDERS, max_length_q=7)


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        # An older signature, and that of torch 2.13.
        ("query key value cu_seq_q cu_seq_k max_q max_k is_causal scale", {"is_causal": True}),
        (
            "query key value cu_seq_q cu_seq_k max_q max_k scale window_size enable_gqa",
            {"window_size": (-1, 0), "enable_gqa": True},
        ),
    ],
    ids=["is_causal", "window_size"],
)
def test_the_kernel_is_called_by_the_names_it_knows(
    monkeypatch: pytest.MonkeyPatch, parameters: str, wanted: dict[str, Any]
) -> None:
    called: dict[str, Any] = {}

    def kernel(query: torch.Tensor, *_: Any, **options: Any) -> torch.Tensor:
        called.update(options)
        return query

    monkeypatch.setattr(packing, "_options", frozenset(parameters.split()))
    monkeypatch.setattr(packing, "has_varlen", lambda _: True)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", SimpleNamespace(varlen_attn=kernel))
    attend_rows(*states(), BORDERS, 7, scaling=0.3, causal=True)
    assert called == {"scale": 0.3, **wanted}


def test_without_the_kernel_rows_are_attended_to_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_options", None)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)  # as in a torch that has none
    assert packing._varlen_options() == frozenset()
    tensor = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16, shape=(11, 4, 64))
    assert not packing.has_varlen(tensor)  # type: ignore[arg-type]
    monkeypatch.setattr(packing, "_options", frozenset({"scale"}))
    assert packing.has_varlen(tensor)  # type: ignore[arg-type]
    for change in ({"is_cuda": False}, {"dtype": torch.float32}, {"shape": (11, 4, 60)}, {"shape": (11, 4, 512)}):
        assert not packing.has_varlen(SimpleNamespace(**{**vars(tensor), **change}))  # type: ignore[arg-type]


def test_who_can_pack(tmp_path: Path) -> None:
    model: Any = make_setup(tmp_path, family="qwen3-vl", num_rows=2).model()
    assert can_pack(model)
    text = model.config.get_text_config()
    with packed_attention_on(model):
        assert text._attn_implementation == packing.NAME
        assert model.config.vision_config._attn_implementation != packing.NAME, "the tower stays as it is"
        assert can_pack(model)
    assert text._attn_implementation == "sdpa"
    for name, value in {"attention_dropout": 0.1, "layer_types": ["sliding_attention"], "_attn_implementation": "eager"}.items():
        before = getattr(text, name, None)
        setattr(text, name, value)
        assert not can_pack(model), name
        setattr(text, name, before)
    assert can_pack(model)
    assert not can_pack(make_setup(tmp_path / "llava", family="llava", num_rows=2).model())
