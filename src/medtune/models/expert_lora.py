"""LoRA on fused expert weights as two thin grouped products, instead of a delta the size of all experts; and on routers.

PEFT adapts a fused weight (E, out, in) by adding ``scaling * B @ A`` to all experts in every forward pass, and autograd keeps
the sum. Here the pairs of token and expert are sorted by expert once, and what LoRA adds is computed from the tokens, as in a
linear layer (Hu et al. 2021, arXiv:2106.09685, equation 3). The parameters are PEFT's own, and so is what is saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medtune.models.four_bit import four_bit_grouped_linear, four_bit_weight, grouped_linear

__all__ = ["keep_low_rank", "low_rank_experts"]

_WEIGHTS = ("gate_up_proj", "down_proj")


@contextlib.contextmanager
def low_rank_experts(model: nn.Module) -> Iterator[int]:
    """Run the experts of ``model`` in low rank while the context lasts.

    Served are fused gated experts as transformers writes them (``use_experts_implementation``) that carry an adapter or are
    packed in 4 bits, and adapted routers; every other module is left alone. Outputs and gradients are those of PEFT's own
    forward. The modules stay in place and only their class changes, so that all layers share one compiled graph.

    Yields:
        Blocks of experts that are served.
    """
    blocks = [(block, _forward) for block in _blocks(model)]
    served = [(module, type(module)) for module, _ in (*blocks, *_routers(model))]
    for module, forward in (*blocks, *_routers(model)):
        module.__class__ = _low_rank_class(type(module), forward)
    try:
        yield len(blocks)
    finally:
        for module, own_class in served:
            module.__class__ = own_class


def keep_low_rank(model: nn.Module) -> None:
    """Run adapted experts that are packed in 4 bits in low rank for good.

    PEFT's own forward would be wrong there: it lays its delta over the parameter for the time of a forward pass, and where
    something else (the unpacking) lies over it already, does not find its delta again to take it away (0.21; it warns).
    """
    for block in _blocks(model):
        wrappers, experts = _unwrap(block)
        if wrappers and any(four_bit_weight(experts, name) is not None for name in _WEIGHTS):
            block.__class__ = _low_rank_class(type(block), _forward)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The outermost module of every block that can be served: PEFT wraps experts once for each adapted weight."""
    inner: set[int] = set()
    found = []
    for module in model.modules():
        if id(module) in inner:
            continue
        wrappers, experts = _unwrap(module)
        inner |= {id(wrapper) for wrapper in wrappers.values()} | {id(experts)}
        if not _is_gated(experts) or not set(wrappers) <= set(_WEIGHTS):
            continue
        if wrappers or any(four_bit_weight(experts, name) is not None for name in _WEIGHTS):
            found.append(module)
    return found


def _unwrap(block: Any) -> tuple[dict[str, Any], Any]:
    """Name of a weight -> the PEFT wrapper that adapts it; the experts inside."""
    wrappers: dict[str, Any] = {}
    while hasattr(block, "parameter_name"):
        wrappers[block.parameter_name] = block
        block = block.base_layer
    return wrappers, block


def _is_gated(experts: Any) -> bool:
    """Whether a module is a block of fused experts of the one form that is computed here: act(gate(x)) * up(x), then down."""
    return (
        all(hasattr(experts, name) for name in ("_apply_gate", "num_experts", *_WEIGHTS))
        and bool(experts.has_gate)
        and not experts.has_bias
        and not getattr(experts, "has_post_expert_norm", False)
        and not getattr(experts, "_is_expert_parallel", False)
    )


_classes: dict[tuple[type[nn.Module], Callable[..., Any]], type[nn.Module]] = {}


def _low_rank_class(own_class: type[nn.Module], forward: Callable[..., Any]) -> type[nn.Module]:
    """``own_class`` with another forward pass; the same class for the same arguments."""
    if hasattr(own_class, "_own_forward"):
        return own_class
    key = own_class, forward
    if key not in _classes:
        # PEFT asks for the name of the class in places.
        _classes[key] = type(own_class.__name__, (own_class,), {"forward": forward, "_own_forward": own_class.forward})
    return _classes[key]


def _is_plain(wrapper: Any) -> bool:
    return not wrapper.disable_adapters and not wrapper.merged and len(wrapper.active_adapters) == 1


def _forward(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """(T, hidden), (T, k) experts of each token, (T, k) their weights -> (T, hidden)."""
    wrappers, experts = _unwrap(self)
    if not all(_is_plain(wrapper) for wrapper in wrappers.values()):
        plain: Tensor = self._own_forward(hidden_states, top_k_index, top_k_weights)
        return plain
    num_tokens, k = top_k_index.shape
    sorted_experts, order = torch.sort(top_k_index.reshape(-1))
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    offsets = _group_ends(sorted_experts, experts.num_experts)
    rows: Tensor = _ToExperts.apply(hidden_states, order, place, k)  # type: ignore[no-untyped-call]
    gate_up = _project(rows, experts, "gate_up_proj", wrappers.get("gate_up_proj"), offsets)
    down = _project(experts._apply_gate(gate_up), experts, "down_proj", wrappers.get("down_proj"), offsets)
    weighted: Tensor = _Reordered.apply(  # type: ignore[no-untyped-call]
        down * top_k_weights.reshape(-1)[order, None], place, order
    )
    return weighted.view(num_tokens, k, -1).sum(dim=1).to(hidden_states.dtype)


class _ToExperts(torch.autograd.Function):
    """A row for each pair of token and expert, sorted by expert.

    Autograd would add the gradients of a token's k rows one by one into its place, in any order and slowly. Where each of them
    lies is known, so they are read from there and summed.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, order: Tensor, place: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(place)
        ctx.k = k
        return tokens[order // k]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (place,) = grads, ctx.saved_tensors
        return grad[place].view(-1, ctx.k, grad.shape[-1]).sum(dim=1), None, None, None


class _Reordered(torch.autograd.Function):
    """``rows[order]`` for an ``order`` that holds each row once, so that ``inverse`` takes the gradient back without adding."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows[order]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (inverse,) = grads, ctx.saved_tensors
        return grad[inverse], None, None


def _routers(model: nn.Module) -> list[tuple[nn.Module, Callable[..., Any]]]:
    """Adapted routers: a single matrix, whose delta is small enough to be added."""
    return [
        (module, _router_forward)
        for module in model.modules()
        if getattr(module, "parameter_name", None) == "weight" and getattr(module, "num_experts", 0) == 1
    ]


def _router_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    """As PEFT computes it, without registering a parametrization in every pass, which torch.compile cannot follow."""
    if not _is_plain(self):
        return self._own_forward(*args, **kwargs)
    adapter = self.active_adapters[0]
    weight: Tensor = self.base_layer.weight
    delta = (self.lora_B[adapter].weight @ self.lora_A[adapter].weight) * self.scaling[adapter]
    return functional_call(self.base_layer, {"weight": weight + delta.to(weight.dtype)}, args, kwargs)


def _group_ends(sorted_experts: Tensor, num_experts: int) -> Tensor:
    """(E,) int32: how many pairs belong to the experts up to each. Searched, not counted: neither waits for the GPU, and this
    one exists for every device and type."""
    experts = torch.arange(num_experts, device=sorted_experts.device, dtype=sorted_experts.dtype)
    return torch.searchsorted(sorted_experts, experts, right=True).to(torch.int32)


def _project(x: Tensor, experts: Any, name: str, wrapper: Any, offsets: Tensor) -> Tensor:
    """The base weight of each row's expert times the row, plus LoRA's part: (N, in) -> (N, out)."""
    packed = four_bit_weight(experts, name)
    if packed is not None:
        dtype = packed[1].state.dtype
        out = four_bit_grouped_linear(x.to(dtype), *packed, offsets, experts.is_transposed)
    else:
        weight: Tensor = getattr(experts, name)
        dtype = weight.dtype
        out = grouped_linear(x, weight, offsets, is_transposed=experts.is_transposed)
    if wrapper is None:
        return out
    down, up, scaling = _factors(wrapper, experts.is_transposed, dtype)
    low = grouped_linear(x, down, offsets, is_transposed=True)
    return torch.add(out, grouped_linear(low, up, offsets, is_transposed=True), alpha=scaling)


def _factors(wrapper: Any, is_transposed: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """The adapter of one weight: (E, in, r), (E, r, out), scaling.

    PEFT keeps (r E, .) with the expert outermost in A, and (., r E) with the expert innermost in B. A reads the layer's input
    where PEFT swaps the axes of a weight that is not ``is_transposed``; PEFT 0.18 does not, and there A is beside the output.
    """
    adapter = wrapper.active_adapters[0]
    num_experts: int = wrapper.num_experts
    first: Tensor = wrapper.lora_A[adapter].weight
    second: Tensor = wrapper.lora_B[adapter].weight
    rank: int = wrapper.r[adapter]
    by_expert: Tensor = first.to(dtype).view(num_experts, rank, -1)
    by_rank: Tensor = second.to(dtype).view(second.shape[0], rank, num_experts)
    # grouped_mm wants rows of whole 16 bytes; zeros beyond the rank add nothing.
    missing = -rank % (16 // dtype.itemsize)
    if missing:
        by_expert = nn.functional.pad(by_expert, (0, 0, 0, missing))
        by_rank = nn.functional.pad(by_rank, (0, 0, 0, missing))
    if is_transposed or getattr(wrapper, "_did_swap_in_out_features", False):
        down, up = by_expert.transpose(1, 2), by_rank.permute(2, 1, 0).contiguous()
    else:
        down, up = by_rank.permute(2, 0, 1).contiguous(), by_expert
    return down, up, float(wrapper.scaling[adapter])
