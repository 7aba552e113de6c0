"""LoRA layers that read the same input share its products.

The query, key and value projections of a layer have one input, and so have the two halves of a gated MLP (Shazeer 2020,
arXiv:2002.05202). A product with a rank of 8 costs what it takes to read its input; one product with all of their first LoRA
matrices at once reads it once. The backward pass gains the same way, and adds one gradient to the input instead of three.
(Joining their frozen weights as well was tried and gains nothing: docs/performance.md.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from medtune.models.lora_forward import is_plain

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of projections with one input, in the order in which they are called."""


@contextlib.contextmanager
def fused_projections(model: nn.Module) -> Iterator[int]:
    """Inside, the projections of :data:`GROUPS` share products where all of a group are plain LoRA layers without dropout (each
    has a dropout of its own to draw); yields how many groups do.

    The first one that is called computes for all, the others hand out what it has computed. Modules and parameters stay in
    place, only classes change. Not for models whose weights are divided among devices.
    """
    first_class, other_class = _classes()
    candidates = ([getattr(parent, name, None) for name in names] for parent in model.modules() for names in GROUPS)
    groups = [members for members in candidates if _can_share(members)]
    kinds = [[type(member) for member in members] for members in groups]
    for members in groups:
        stash: list[Tensor] = []
        for place, member in enumerate(members):
            object.__setattr__(member, "_stash", stash)
            object.__setattr__(member, "_members", tuple(members))
            member.__class__ = other_class if place else first_class
    try:
        yield len(groups)
    finally:
        for members, own in zip(groups, kinds, strict=True):
            for member, kind in zip(members, own, strict=True):
                member.__class__ = kind
                object.__delattr__(member, "_stash")
                object.__delattr__(member, "_members")


def _can_share(members: list[Any]) -> bool:
    from peft.tuners.lora.layer import Linear
    from torch import nn

    if not all(type(member) is Linear and is_plain(member) for member in members):
        return False
    first = members[0]
    name = first.active_adapters[0]
    return all(
        member.active_adapters[0] == name
        and member.in_features == first.in_features
        and isinstance(member.lora_dropout[name], nn.Identity)
        for member in members
    )


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
    results = [
        member.base_layer(x).add(linear(part, member.lora_B[name].weight.to(x.dtype)), alpha=member.scaling[name])
        for part, member in zip(down, members, strict=True)
    ]
    self._stash.extend(reversed(results[1:]))
    first: Tensor = results[0]
    return first


def _forward_of_other(self: Any, x: Tensor) -> Tensor:  # noqa: ARG001
    result: Tensor = self._stash.pop()
    return result
