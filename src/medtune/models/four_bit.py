"""Fused expert weights in 4 bits: packed at rest, spread out to 16 bits for one matrix product at a time.

bitsandbytes packs the weights of ``nn.Linear``; a mixture of experts holds nine tenths of its weights in 3-D parameters,
which it and transformers leave in 16 bits. Here such a parameter is packed in the same format (NF4 in blocks of 64 with
quantized constants, Dettmers et al. 2023, arXiv:2305.14314, section 3) and stays readable under its own name through
``torch.nn.utils.parametrize``: whoever reads ``experts.gate_up_proj``, PEFT included, gets the 16-bit weight.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = [
    "BLOCK_SIZE",
    "FourBitWeight",
    "Packed",
    "as_plain_parameters",
    "attach",
    "four_bit_grouped_linear",
    "four_bit_weight",
    "grouped_linear",
    "pack",
]

BLOCK_SIZE = 64
"""Neighbouring values that share one constant (arXiv:2305.14314, section 4)."""


class FourBitWeight(nn.Module):
    """The parametrization of one packed weight: its forward spreads the weight out.

    The constants are no buffers: DistributedDataParallel sends buffers around in every step, and ``model.to(dtype)`` would
    round them.

    Args:
        state: bitsandbytes' ``QuantState``.
        shape: Of the weight.
    """

    def __init__(self, state: Any, shape: torch.Size) -> None:
        super().__init__()
        self.state = state
        self.shape = shape

    def forward(self, packed: Tensor) -> Tensor:
        from bitsandbytes import functional

        with torch.no_grad():
            weight: Tensor = functional.dequantize_4bit(packed, self.state)
            return weight.reshape(self.shape)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FourBitWeight:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.state.to(fn(torch.empty(0, device=self.state.absmax.device)).device)
        return self

    def extra_repr(self) -> str:
        return f"shape={tuple(self.shape)}, dtype={self.state.dtype}"


@dataclass(frozen=True, slots=True)
class Packed:
    """A quantized weight.

    Attributes:
        values: (N / 2, 1) uint8, two values in a byte.
        state: bitsandbytes' ``QuantState`` of the flat weight.
        shape: Of the weight.
    """

    values: Tensor
    state: Any
    shape: torch.Size


_shared_classes: dict[tuple[type[nn.Module], tuple[str, ...]], type[nn.Module]] = {}


def pack(weight: Tensor, *, quantization: str, double_quantization: bool) -> Packed:
    """Quantize a weight of any shape.

    Args:
        quantization: ``nf4`` or ``fp4``.
        double_quantization: Quantize the constants of the blocks too, to 8 bits in blocks of 256.
    """
    from bitsandbytes import functional

    # Flat, because bitsandbytes' kernel for the CPU starts a new block in every row: rows that are no multiple of 64 long
    # come back wrong (seen in 0.50.2). The bytes are the same either way.
    values, state = functional.quantize_4bit(
        weight.reshape(-1), blocksize=BLOCK_SIZE, quant_type=quantization, compress_statistics=double_quantization
    )
    return Packed(values, state, weight.shape)


def attach(module: nn.Module, weights: Mapping[str, Packed]) -> None:
    """Let ``module.<name>`` be the packed weight, spread out whenever it is read; frozen. Once for each module."""
    key = type(module), tuple(sorted(weights))
    # In the module's order, not the file's: see as_plain_parameters.
    for name in [name for name in module._parameters if name in weights]:
        weight = weights[name]
        module._parameters[name] = nn.Parameter(weight.values, requires_grad=False)
        # unsafe: a parametrization that changes shape and type, which is the point.
        parametrize.register_parametrization(module, name, FourBitWeight(weight.state, weight.shape), unsafe=True)
    # parametrize makes a class for every module, and torch.compile a graph for every class. The properties of one class serve
    # all modules with the same packed weights.
    module.__class__ = _shared_classes.setdefault(key, type(module))


def four_bit_weight(module: nn.Module, name: str) -> tuple[Tensor, FourBitWeight] | None:
    """The bytes of a packed weight and what spreads them out; None where the weight is not packed."""
    # Not parametrize.is_parametrized: torch.compile cannot look into it.
    parametrizations: Any = module._modules.get("parametrizations")
    if parametrizations is None or name not in parametrizations:
        return None
    entry = parametrizations[name]
    return (entry.original, entry[0]) if isinstance(entry[0], FourBitWeight) else None


@contextlib.contextmanager
def as_plain_parameters(model: nn.Module) -> Iterator[None]:
    """Inside, packed weights look like ordinary parameters of their shape, type and device, without content.

    For PEFT to put adapters on: it nests what it wraps around a module in the order of the module's parameters, but by name
    where they are parametrized, and the nesting is in the names of the saved adapter. It would not fit the unpacked model.
    """
    held: list[tuple[nn.Module, type[nn.Module], Any]] = []
    for module in list(model.modules()):
        parametrizations: Any = module._modules.get("parametrizations")
        if parametrizations is None or not all(isinstance(entry[0], FourBitWeight) for entry in parametrizations.values()):
            continue
        held.append((module, type(module), parametrizations))
        module.__class__ = type(module).__bases__[0]
        del module._modules["parametrizations"]
        for name, entry in parametrizations.items():
            # One number, seen as many.
            number = torch.zeros((), dtype=entry[0].state.dtype, device=entry.original.device)
            module._parameters[name] = nn.Parameter(number.expand(entry[0].shape), requires_grad=False)
    try:
        yield
    finally:
        for module, own_class, parametrizations in held:
            module.__class__ = own_class
            module._modules["parametrizations"] = parametrizations
            for name in parametrizations:
                del module._parameters[name]


def four_bit_grouped_linear(x: Tensor, packed: Tensor, weight: FourBitWeight, offsets: Tensor, is_transposed: bool) -> Tensor:
    """Each group of rows times its own packed matrix. Nothing but the bytes is kept for the backward pass, which spreads the
    weight out again: at no time are two weights of the model in 16 bits.

    Args:
        x: (N, in), sorted by group.
        offsets: (E,) int32, where each group ends.
        is_transposed: The weight is (E, in, out); else (E, out, in).

    Returns:
        (N, out).
    """
    out: Tensor = _FourBitGroupedLinear.apply(x, packed, weight, offsets, is_transposed)  # type: ignore[no-untyped-call]
    return out


class _FourBitGroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, weight: FourBitWeight, offsets: Tensor, is_transposed: bool) -> Tensor:
        ctx.save_for_backward(packed, offsets)
        ctx.weight, ctx.is_transposed = weight, is_transposed
        return grouped_linear(x, weight(packed), offsets, is_transposed=is_transposed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        packed, offsets = ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        weight = ctx.weight(packed)
        return grouped_linear(grads[0], weight, offsets, is_transposed=not ctx.is_transposed), None, None, None, None


def grouped_linear(x: Tensor, weight: Tensor, offsets: Tensor, *, is_transposed: bool) -> Tensor:
    """Each group of rows times its own matrix, in one kernel, in the type of ``weight``.

    What transformers runs fused experts with (``experts_implementation="grouped_mm"``): ``torch.nn.functional.grouped_mm``
    where torch and the device have it for these operands, else an exact loop behind a custom operator.

    Args:
        x: (N, in), sorted by group.
        weight: (E, out, in), or (E, in, out) when ``is_transposed``.
        offsets: (E,) int32, where each group ends.

    Returns:
        (N, out).
    """
    from transformers.integrations import moe

    matrices = weight if is_transposed else weight.transpose(-2, -1)
    product: Tensor = moe._grouped_mm(x, matrices, offs=offsets)
    return product
