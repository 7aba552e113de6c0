"""Rows one behind the other in one sequence, without padding and without attention across them.

Attention gets the borders of the rows (``cu_seq_lens_q``, cumulative lengths as FlashAttention names them; Dao 2023,
arXiv:2307.08691) and computes each row by itself: on a GPU in one kernel, ``torch.nn.attention.varlen``, elsewhere row by row
with ``scaled_dot_product_attention``, which is exact in any precision. It is registered through transformers'
``AttentionInterface``; no mask is ever built. Rows that are only told apart by position ids are not safe: with the three-row
positions of M-RoPE, transformers' own mask lets every row see the ones before it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "medtune_packed"

PACKED_TYPES = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3", "qwen3_moe"})
"""Values of ``model_type`` whose language model hands row borders on to its attention."""


def can_pack(model: nn.Module) -> bool:
    """Whether the language model hands row borders on to its attention: tried and tested for the Qwen families, without
    sliding windows or dropout in the attention, and where none but torch's or FlashAttention's was asked for."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "model_type", None) not in PACKED_TYPES:
        return False
    text = config.get_text_config()
    sliding = "sliding_attention" in (getattr(text, "layer_types", None) or ())
    drops = bool(getattr(text, "attention_dropout", 0.0))
    return not sliding and not drops and text._attn_implementation in ("sdpa", "flash_attention_2", NAME)


@contextlib.contextmanager
def packed_attention_on(model: nn.Module) -> Iterator[None]:
    """Inside, the language model of ``model`` reads packed sequences only. The vision tower stays as it is.

    A model that was loaded for a FlashAttention package keeps it: that implementation takes row borders, too.
    """
    from transformers import AttentionInterface

    config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
    before = config._attn_implementation
    _varlen_options()  # found out before anything is compiled
    if before == "sdpa":
        AttentionInterface.register(NAME, packed_attention)
        config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def packed_attention(
    module: nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row.

    Args:
        query: (1, heads, T, d); key and value may have fewer heads (Ainslie et al. 2023, arXiv:2305.13245).
        cu_seq_lens_q: (rows + 1,) int32, where each row begins, and T.
        max_length_q: No row is longer.

    Returns:
        (1, T, heads, d), None.
    """
    if dropout:
        raise ValueError("packed attention has no dropout")
    output = attend_rows(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        cu_seq_lens_q,
        max_length_q,
        scaling=scaling,
        causal=True,
    )
    return output.unsqueeze(0), None


def attend_rows(
    query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int, *, scaling: float | None, causal: bool
) -> Tensor:
    """Attention within rows that lie one behind the other.

    Args:
        query: (T, heads, d); key and value (T, heads of their own, d).
        borders: (rows + 1,) int32.
        longest: Tokens of the longest row, or more.

    Returns:
        (T, heads, d).
    """
    if has_varlen(query):
        from torch.nn.attention.varlen import varlen_attn

        options: dict[str, Any] = {"scale": scaling}
        if "window_size" in _varlen_options():
            options["window_size"] = (-1, 0) if causal else (-1, -1)
        else:
            options["is_causal"] = causal
        if query.shape[1] != key.shape[1] and "enable_gqa" in _varlen_options():
            options["enable_gqa"] = True  # before torch 2.13 the kernel does it without being told
        attended: Any = varlen_attn(query, key, value, borders, borders, longest, longest, **options)
        return attended  # type: ignore[no-any-return]
    return _one_by_one(query, key, value, borders.tolist(), scaling=scaling, causal=causal)


def has_varlen(tensor: Tensor) -> bool:
    """Whether torch's kernel for rows of different lengths takes this: a CUDA tensor of 16 bits, d a multiple of 8 up to 256."""
    import torch

    return (
        tensor.is_cuda
        and tensor.dtype in (torch.bfloat16, torch.float16)
        and tensor.shape[-1] % 8 == 0
        and tensor.shape[-1] <= 256
        and bool(_varlen_options())
    )


def _varlen_options() -> frozenset[str]:
    """Names of the kernel's parameters, which differ between versions of torch; empty where it cannot be used. Kept in a plain
    variable, which ``torch.compile`` can read."""
    global _options
    if _options is None:
        _options = _find_varlen()
    return _options


def _find_varlen() -> frozenset[str]:
    import torch

    # It is FlashAttention-2, which is written for Ampere and newer; an older card may still say that it computes in bfloat16.
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0):
        return frozenset()
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


_options: frozenset[str] | None = None


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, borders: list[int], *, scaling: float | None, causal: bool) -> Tensor:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    shared = query.shape[1] != key.shape[1]
    rows = []
    for start, end in pairwise(borders):
        if end > start:
            q, k, v = (states[start:end].transpose(0, 1).unsqueeze(0) for states in (query, key, value))
            row = scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scaling, enable_gqa=shared)
            rows.append(row[0].transpose(0, 1))
    return torch.cat(rows) if rows else query.new_empty(query.shape)
