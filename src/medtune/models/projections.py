"""Linear layers with one input, for weights that do not change while they are used.

A LoRA layer (Hu et al. 2021, arXiv:2106.09685, equation 3) adds two thin products to a wide one. At one token a row they cost what
their launches cost, so the first matrices of all layers that read one input are one product, and so are the second ones. The base
weights stay apart from the adapter: merging them would round the sum, and in 16 bits most of a small adapter would be rounded away.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from medtune.models.few_rows import FewRows
from medtune.models.lora_forward import is_plain

__all__ = ["Projections"]


class Projections:
    """Calls ``members`` on one input.

    Args:
        members: Linear layers, or what an adapter has put around them. A plain LoRA layer's own weights are copied in the type
            of the base weight; other modules are called as they are.
        use_adapter: False leaves adapters out.
        copied: Where all members are linear layers of 16 or 32 bits, copy their weights into one, so that they are one product.

    Attributes:
        adapters: Modules around linear layers that are never called, because what they add is computed, or left out, here.
    """

    def __init__(self, members: Sequence[nn.Module], *, use_adapter: bool, copied: bool = False) -> None:
        self._calls: list[nn.Module] = []
        self.adapters: list[nn.Module] = []
        loras: list[_Lora | None] = []
        for member in members:
            lora = _plain_lora(member) if use_adapter else None
            self._calls.append(member if lora is None and use_adapter else _base(member))
            loras.append(lora)
            self.adapters += _around(self._calls[-1], member)
        adapted = [lora for lora in loras if lora is not None]
        self._second = [None if lora is None else lora.second for lora in loras]
        self._ranks = [len(lora.first) for lora in adapted]
        self._first = torch.cat([lora.first for lora in adapted]) if adapted else None
        # Zeros where one member's first product would meet another's second: then the wide results stand side by side, and one
        # product adds to all of them. It is as cheap as a thin one, since both read little.
        whole = len(adapted) == len(members) > 1
        self._joined = torch.block_diag(*[lora.second for lora in adapted]) if whole else None  # type: ignore[no-untyped-call]
        self._weight: Tensor | None = None
        plain = [call for call in self._calls if _is_dense(call)]
        if copied and len(plain) == len(members) > 1 and len(adapted) in (0, len(members)):
            self._widths = [call.out_features for call in plain]
            self._weight, self._bias = _side_by_side(plain, self._first)

    @functools.cached_property
    def few(self) -> FewRows | None:
        """For products with few rows: one weight, or two of one shape; None where there are more, or other modules."""
        plain = [call for call in self._calls if _is_dense(call)]
        if len(plain) < len(self._calls):
            return None
        if self._weight is not None:
            width = sum(self._widths)
            bias = None if self._bias is None else self._bias[:width]
            return FewRows.of((self._weight[:width],), self._first, self._joined, bias)
        second = self._joined
        if second is None and self._first is not None:
            missing = self._first.new_zeros
            parts = [
                missing(0, call.out_features) if part is None else part for call, part in zip(plain, self._second, strict=True)
            ]
            second = torch.block_diag(*parts)  # type: ignore[no-untyped-call]
        biases = [call.bias.detach() for call in plain if call.bias is not None]
        bias = biases[0] if len(biases) == len(plain) == 1 else None
        if len(plain) > 2 or (biases and bias is None):
            return None
        return FewRows.of(tuple(call.weight.detach() for call in plain), self._first, second, bias)

    @property
    def widths(self) -> list[int]:
        """Of each member's result."""
        return [call.out_features for call in self._calls if isinstance(call, nn.Linear)]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """(..., in) -> one (..., out) for each member; the last dimension is contiguous, the others may not be."""
        flat = x.reshape(-1, x.shape[-1])
        if self._weight is not None:
            wide = nn.functional.linear(flat, self._weight, self._bias)
            results, low = wide[:, : sum(self._widths)], wide[:, sum(self._widths) :]
            if self._joined is not None:
                results.addmm_(low[:, : len(self._joined)], self._joined)
            return [part.view(*x.shape[:-1], -1) for part in torch.split(results, self._widths, dim=-1)]
        if self._first is None:
            return [call(x) for call in self._calls]
        low = nn.functional.linear(flat, self._first)
        if self._joined is not None:  # then every base layer is plain
            widths = [second.shape[1] for second in self._second if second is not None]
            parts = torch.split(torch.mm(low, self._joined), widths, dim=-1)
            for call, part in zip(self._calls, parts, strict=True):
                assert isinstance(call, nn.Linear)
                if call.bias is not None:
                    part += call.bias
                part.addmm_(flat, call.weight.t())
            return [part.view(*x.shape[:-1], -1) for part in parts]
        found: list[Tensor] = [call(x) for call in self._calls]
        each = iter(torch.split(low, self._ranks, dim=-1))
        for result, second in zip(found, self._second, strict=True):
            if second is not None:
                result.view(-1, result.shape[-1]).addmm_(next(each), second)
        return found


_ALIGNED = 16
"""Rows of a joined weight, in whole multiples: Triton builds its best kernels for strides of such (it asks for 16, and 16 bytes
would do for the widest read)."""


def _side_by_side(layers: Sequence[nn.Linear], first: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """One weight for ``layers`` and an adapter's first matrices, with rows of zeros at its end up to a whole multiple."""
    parts = [layer.weight.detach() for layer in layers] + ([] if first is None else [first])
    rows = sum(map(len, parts))
    weight = torch.cat([*parts, parts[0].new_zeros(-rows % _ALIGNED, parts[0].shape[1])])
    if all(layer.bias is None for layer in layers):
        return weight, None
    bias = weight.new_zeros(len(weight))
    start = 0
    for layer in layers:
        if layer.bias is not None:
            bias[start : start + layer.out_features] = layer.bias.detach()
        start += layer.out_features
    return weight, bias


class _Lora:
    """``first`` (rank, in), ``second`` (rank, out) with the adapter's scale in it."""

    def __init__(self, layer: Any) -> None:
        name = layer.active_adapters[0]
        dtype = layer.base_layer.weight.dtype
        self.first: Tensor = layer.lora_A[name].weight.detach().to(dtype)
        self.second: Tensor = (float(layer.scaling[name]) * layer.lora_B[name].weight.detach()).to(dtype).t().contiguous()


def _plain_lora(member: Any) -> _Lora | None:
    if not hasattr(member, "lora_A"):
        return None
    from peft.tuners.lora.layer import Linear

    return _Lora(member) if type(member) is Linear and is_plain(member) and _is_dense(member.base_layer) else None


def _is_dense(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether the weight is the numbers themselves: in layers of 4 bits it is not, nor where a subclass of ``Tensor`` packs it, as
    torchao does in plain ``nn.Linear``."""
    return type(layer) is nn.Linear and type(layer.weight.data) is Tensor


def _around(layer: nn.Module, member: Any) -> list[nn.Module]:
    """What ``member`` is around ``layer``, from the outside."""
    return [] if member is layer else [member, *_around(layer, member.base_layer)]


def _base(member: Any) -> nn.Module:
    """The layer under its adapters; itself where there is none, or where an adapter has been merged into it."""
    if not hasattr(member, "base_layer") or getattr(member, "merged", False):
        module: nn.Module = member
        return module
    return _base(member.base_layer)
