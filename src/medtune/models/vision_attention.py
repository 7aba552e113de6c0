"""Attention of a vision tower over many pictures at once.

transformers runs the vision attention of Qwen-VL picture by picture in a Python loop unless a FlashAttention package is
installed. On a GPU torch's own kernel for rows of different lengths takes all pictures at once. Elsewhere, the pictures of a
batch are often of one size, and then one call over all of them computes the same numbers: the sequences are grouped by length,
each group is one batched ``scaled_dot_product_attention``. It is registered through transformers' own ``AttentionInterface``;
nothing is patched.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from medtune.models.packing import attend_rows, has_varlen

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "medtune_grouped_flash_interface"
"""transformers hands ``cu_seq_lens_q`` to implementations with ``flash`` in their name, and loops for all others."""


def use_grouped_attention(model: nn.Module) -> bool:
    """Let the vision tower of ``model`` attend in groups. Returns whether the model has a tower that can.

    Towers whose configuration asks for a FlashAttention package, or for ``eager``, are left as they are.
    """
    from transformers import AttentionInterface

    tower = getattr(getattr(model, "model", None), "visual", None)
    config = getattr(tower, "config", None)
    if config is None or getattr(config, "_attn_implementation", None) != "sdpa":
        return False
    AttentionInterface.register(NAME, grouped_attention)
    config._attn_implementation = NAME
    return True


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Full attention inside each sequence, none across.

    Args:
        query: (1, heads, tokens, head_dim), all sequences one after the other; likewise ``key`` and ``value``.
        cu_seq_lens_q: (num_sequences + 1,), cumulative lengths, from 0 to tokens.
        max_length_q: Tokens of the longest sequence.

    Returns:
        (1, tokens, heads, head_dim), and no attention weights.
    """
    import torch

    del module, attention_mask, kwargs
    _, num_heads, num_tokens, head_dim = query.shape
    if cu_seq_lens_q is not None and max_length_q is not None and not dropout and has_varlen(query):
        q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
        return attend_rows(q, k, v, cu_seq_lens_q, max_length_q, scaling=scaling, causal=False).unsqueeze(0), None
    bounds = [0, num_tokens] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    lengths = [end - start for start, end in pairwise(bounds)]
    if len(set(lengths)) == 1:
        return _attend(query, key, value, lengths[0], scaling, dropout), None
    output = query.new_empty(1, num_tokens, num_heads, head_dim)
    for length in sorted(set(lengths)):
        starts = [start for start, own in zip(bounds, lengths, strict=False) if own == length]
        rows = (torch.tensor(starts, device=query.device)[:, None] + torch.arange(length, device=query.device)).flatten()
        group = _attend(query[:, :, rows], key[:, :, rows], value[:, :, rows], length, scaling, dropout)
        output = output.index_copy(1, rows, group)
    return output, None


def _attend(query: Tensor, key: Tensor, value: Tensor, length: int, scaling: float | None, dropout: float) -> Tensor:
    """Sequences of one length: (1, heads, n * length, d) -> (1, n * length, heads, d)."""
    from torch.nn.functional import scaled_dot_product_attention

    _, num_heads, num_tokens, head_dim = query.shape

    def by_sequence(states: Tensor) -> Tensor:
        return states.view(num_heads, num_tokens // length, length, head_dim).transpose(0, 1)

    attended = scaled_dot_product_attention(
        by_sequence(query), by_sequence(key), by_sequence(value), dropout_p=dropout, scale=scaling
    )
    return attended.transpose(1, 2).reshape(1, num_tokens, num_heads, head_dim)
