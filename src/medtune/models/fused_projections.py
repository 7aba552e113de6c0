"""LoRA layers that read the same input share its products.

The query, key and value projections of a layer have one input, and so have the two halves of a gated MLP (Shazeer 2020,
arXiv:2002.05202). A product with a rank of 8 costs what it takes to read its input; one product with all of their first LoRA
matrices at once reads it once. The backward pass gains the same way, and adds one gradient to the input instead of three. The
frozen weights of query, key and value are one matrix for the time being: key and value alone are too narrow for a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from medtune.models.lora_forward import is_plain

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUPS: tuple[tuple[tuple[str, ...], bool], ...] = ((("q_proj", "k_proj", "v_proj"), True), (("gate_proj", "up_proj"), False))
"""Names of projections with one input, in the order in which they are called, and whether their frozen weights are joined."""


@contextlib.contextmanager
def fused_projections(model: nn.Module) -> Iterator[int]:
    """Inside, the projections of :data:`GROUPS` share products where all of a group are plain LoRA layers without dropout; yields
    how many groups do.

    The first one that is called computes for all, the others hand out what it has computed. Modules and parameters stay in
    place, only classes change. Not for models whose weights are divided among devices.
    """
    first_class, other_class = _classes()
    groups = [
        (members, joined)
        for parent in model.modules()
        for names, joined in GROUPS
        if len(members := [getattr(parent, name, None) for name in names]) and _can_share(members)
    ]
    for members, joined in groups:
        _link(members, joined=joined)
        for place, member in enumerate(members):
            member.__class__ = other_class if place else first_class
    try:
        yield len(groups)
    finally:
        for members, joined in groups:
            _unlink(members, joined=joined)


def _can_share(members: list[Any]) -> bool:
    from peft.tuners.lora.layer import Linear
    from torch import nn

    if not all(type(member) is Linear and is_plain(member) and type(member.base_layer) is nn.Linear for member in members):
        return False
    first = members[0]
    name = first.active_adapters[0]
    return all(
        member.active_adapters[0] == name
        and member.base_layer.in_features == first.base_layer.in_features
        and member.base_layer.weight.dtype == first.base_layer.weight.dtype
        and not member.base_layer.weight.requires_grad
        and (member.base_layer.bias is None) == (first.base_layer.bias is None)
        and isinstance(member.lora_dropout[name], nn.Identity)
        for member in members
    )


def _link(members: list[Any], *, joined: bool) -> None:
    import torch

    stash: list[Tensor] = []
    for member in members:
        object.__setattr__(member, "_stash", stash)
    first = members[0]
    weight = bias = None
    if joined:
        weight = torch.cat([member.base_layer.weight.data for member in members])
        if first.base_layer.bias is not None:
            bias = torch.cat([member.base_layer.bias.data for member in members])
        start = 0
        for member in members:
            end = start + len(member.base_layer.weight)
            member.base_layer.weight.data = weight[start:end]  # no second copy
            start = end
    object.__setattr__(first, "_members", tuple(members))
    object.__setattr__(first, "_joint_weight", weight)
    object.__setattr__(first, "_joint_bias", bias)


def _unlink(members: list[Any], *, joined: bool) -> None:
    from peft.tuners.lora.layer import Linear

    for member in members:
        member.__class__ = Linear
        object.__delattr__(member, "_stash")
        if joined:
            # Weights that lie in one piece of memory could not be saved one by one.
            member.base_layer.weight.data = member.base_layer.weight.data.clone()
    for name in ("_members", "_joint_weight", "_joint_bias"):
        object.__delattr__(members[0], name)


@cache
def _classes() -> tuple[type[Any], type[Any]]:
    from peft.tuners.lora.layer import Linear

    return (
        type("FirstOfProjections", (Linear,), {"forward": _forward_of_first}),
        type("OtherProjection", (Linear,), {"forward": _forward_of_other}),
    )


def _forward_of_first(self: Any, x: Tensor) -> Tensor:
    import torch
    from torch.nn.functional import linear

    name = self.active_adapters[0]
    members = self._members
    self._stash.clear()
    first_matrices = torch.cat([member.lora_A[name].weight for member in members]).to(x.dtype)
    down = torch.split(linear(x, first_matrices), [member.lora_A[name].weight.shape[0] for member in members], dim=-1)
    if self._joint_weight is None:
        frozen = [member.base_layer(x) for member in members]
    else:
        joint = linear(x, self._joint_weight, self._joint_bias)
        frozen = list(torch.split(joint, [member.base_layer.weight.shape[0] for member in members], dim=-1))
    results = [
        kept.add(linear(part, member.lora_B[name].weight.to(x.dtype)), alpha=member.scaling[name])
        for kept, part, member in zip(frozen, down, members, strict=True)
    ]
    self._stash.extend(reversed(results[1:]))
    first: Tensor = results[0]
    return first


def _forward_of_other(self: Any, x: Tensor) -> Tensor:  # noqa: ARG001
    result: Tensor = self._stash.pop()
    return result
