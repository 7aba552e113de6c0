"""Linear layers with one input, for weights that do not change while they are used.

A LoRA layer (Hu et al. 2021, arXiv:2106.09685, equation 3) adds two thin products to a wide one. At one token a row they cost what
their launches cost, so the first matrices of all layers that read one input are one product, and the second product adds itself
to the wide one's result. The base weights stay apart from the adapter: merging them would round the sum, and in 16 bits most of a
small adapter would be rounded away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medtune.models.lora_forward import is_plain

__all__ = ["Projections"]


class Projections:
    """Calls ``members`` on one input.

    Args:
        members: Linear layers, or what an adapter has put around them. A plain LoRA layer's own weights are copied in the type
            of the base weight; other modules are called as they are.
        use_adapter: False leaves adapters out.
    """

    def __init__(self, members: Sequence[nn.Module], *, use_adapter: bool) -> None:
        self._calls: list[nn.Module] = []
        self._second: list[tuple[Tensor, float] | None] = []
        first: list[Tensor] = []
        for member in members:
            lora = _plain_lora(member) if use_adapter else None
            self._calls.append(member if lora is None and use_adapter else _base(member))
            self._second.append(None if lora is None else (lora.second, lora.scaling))
            if lora is not None:
                first.append(lora.first)
        self._first = torch.cat(first) if first else None
        self._ranks = [len(matrix) for matrix in first]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """(..., in) -> one (..., out) for each member."""
        results: list[Tensor] = [call(x) for call in self._calls]
        if self._first is None:
            return results
        low = iter(torch.split(nn.functional.linear(x.reshape(-1, x.shape[-1]), self._first), self._ranks, dim=-1))
        for result, second in zip(results, self._second, strict=True):
            if second is not None:
                matrix, scaling = second
                result.view(-1, result.shape[-1]).addmm_(next(low), matrix, alpha=scaling)
        return results


class _Lora:
    """``first`` (rank, in), ``second`` (rank, out)."""

    def __init__(self, layer: Any) -> None:
        name = layer.active_adapters[0]
        dtype = layer.base_layer.weight.dtype
        self.first: Tensor = layer.lora_A[name].weight.detach().to(dtype)
        self.second: Tensor = layer.lora_B[name].weight.detach().to(dtype).t().contiguous()
        self.scaling = float(layer.scaling[name])


def _plain_lora(member: Any) -> _Lora | None:
    if not hasattr(member, "lora_A"):
        return None
    from peft.tuners.lora.layer import Linear

    return _Lora(member) if type(member) is Linear and is_plain(member) and type(member.base_layer) is nn.Linear else None


def _base(member: Any) -> nn.Module:
    """The layer under its adapters; itself where there is none, or where an adapter has been merged into it."""
    if not hasattr(member, "base_layer") or getattr(member, "merged", False):
        module: nn.Module = member
        return module
    return _base(member.base_layer)
