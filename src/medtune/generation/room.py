"""How many answers fit into memory at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from medtune.generation.continuous import PREFILL_TOKENS
from medtune.generation.steps import whole_buckets

if TYPE_CHECKING:
    from medtune.models.decoder import Decoder

__all__ = ["CPU_ROWS", "rows_that_fit"]

CPU_ROWS = 16
"""A CPU computes no faster with more rows."""

_SCORE_BYTES = 12
"""Of one entry of the vocabulary, at most: scores in 16 bits, in float32, and a copy while a token is drawn."""


def rows_that_fit(decoder: Decoder, longest: int, *, most: int, share: float, drawn: bool) -> int:
    """Rows of a cache whose rows hold ``longest`` tokens.

    ``(share * free - prefill) / (slots * slot_bytes + vocabulary * score_bytes)``, where ``free`` is the memory that the card has
    left with the weights in it; ``prefill`` the activations of the prompts that are read at once
    (:attr:`~medtune.models.decoder.Decoder.bytes_per_prompt_token` each); ``slots`` is ``longest`` rounded up to a bucket;
    ``slot_bytes`` are keys and values of a token in all layers (2 x layers x key heads x head_dim x bytes of a number); and a
    score has 12 bytes, 24 where tokens are drawn.

    Args:
        most: Never more.
        share: Of the free memory that may be used.
        drawn: Tokens are sampled or penalised, and not simply the most probable ones.

    Returns:
        At least 1.
    """
    if decoder.device.type != "cuda":
        return min(most, CPU_ROWS)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(decoder.device)
    prefill = (PREFILL_TOKENS + longest) * decoder.bytes_per_prompt_token
    row = whole_buckets(longest) * decoder.bytes_per_slot + decoder.vocab_size * _SCORE_BYTES * (1 + drawn)
    return max(1, min(most, int((share * free - prefill) / row)))
