"""Linear layers whose product with a few rows is one reading of their weights.

At up to some 64 rows a matrix product takes as long as its weights take to arrive from memory. What the products of a decoding
step then cost besides is what lies between them: another kernel for an activation, for an adapter, for a sum over the parts of a
long row. :mod:`medtune.models.product_kernels` does these while the weights are read; here is what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MOST_ROWS", "FewRows"]

MOST_ROWS = 64
"""Beyond it the products of a GPU's libraries are faster. Measured on an H100 with the widths of Qwen3-VL-8B: all of a layer's
products at 16 rows 141 microseconds against 155, one by one at 64 rows 2 to 6 % faster but for one that is 3 % slower, at 128 rows
up to two and a half times as slow."""

_DEPTH = 128
"""Numbers of a row that are read at a time; a weight's rows have to be whole multiples of it."""

_RANKS = (16, 32)
"""Rows of an adapter's first matrices that a kernel reads beside the weight; fewer are filled up with zeros."""


@dataclass(frozen=True, slots=True)
class FewRows:
    """``x @ weight.T + (x @ first.T) @ second + bias``, of one weight or of two that have one shape.

    Attributes:
        weights: (out, in) each, contiguous.
        first: (rank, in), an adapter's; rank is 16 or 32, with rows of zeros where the adapter's is smaller. None = no adapter.
        second: (rank, out), or (rank, 2 out) for two weights.
        bias: (out,); None where there is none.
    """

    weights: tuple[Tensor, ...]
    first: Tensor | None = None
    second: Tensor | None = None
    bias: Tensor | None = None

    @classmethod
    def of(cls, weights: tuple[Tensor, ...], first: Tensor | None, second: Tensor | None, bias: Tensor | None) -> FewRows | None:
        """None where the kernels do not serve it: numbers of 32 bits, rows that are no whole multiples of 128, an adapter of more
        than 32 rows, two weights with a bias.

        Args:
            first: (rank, in); likewise ``second`` (rank, out). Any rank.
        """
        weight = weights[0]
        alike = all(each.shape == weight.shape and each.is_contiguous() and each.dtype == weight.dtype for each in weights)
        if not alike or weight.dtype not in (torch.bfloat16, torch.float16) or weight.shape[1] % _DEPTH:
            return None
        if len(weights) > 2 or (len(weights) == 2 and bias is not None):
            return None
        if first is None or second is None:
            return cls(weights, bias=bias)
        rank = next((rank for rank in _RANKS if rank >= len(first)), None)
        if rank is None:
            return None
        if more := rank - len(first):
            first, second = (torch.cat([each, each.new_zeros(more, each.shape[1])]) for each in (first, second))
        return cls(weights, first, second, bias)
