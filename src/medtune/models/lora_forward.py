"""LoRA layers that compute in the type of their input.

The weights of an adapter are kept in float32, because an optimizer's step is mostly too small for bfloat16. PEFT's layers turn
the input into float32 for them, and autocast turns it back: twice the traffic for nothing. Here the small weights are turned
into the input's type instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextlib.contextmanager
def low_rank_in_input_type(model: nn.Module) -> Iterator[int]:
    """Inside, plain LoRA layers of ``model`` compute as said above, beside 4-bit weights too; yields how many do.

    Layers with DoRA or another variant, merged ones, and those of several active adapters stay PEFT's. The same modules stay
    in place: only their class is another one for the time being, so that all layers share one compiled graph. The small layers
    inside are still called, not read: ZeRO-3 has their weights together only while they run.
    """
    layers: list[Any] = [module for module in model.modules() if type(module) in _classes() and is_plain(module)]
    parts = [part[layer.active_adapters[0]] for layer in layers for part in (layer.lora_A, layer.lora_B)]
    changed = [(module, type(module)) for module in (*layers, *parts)]
    for layer in layers:
        layer.__class__ = _classes()[type(layer)]
    for part in parts:
        part.__class__ = _small_linear()
    try:
        yield len(layers)
    finally:
        for module, own in changed:
            module.__class__ = own


def all_plain(model: nn.Module) -> bool:
    """Whether every trained weight of ``model`` sits in a LoRA layer that :func:`low_rank_in_input_type` serves, or adapts fused
    experts or a router, which :func:`medtune.models.expert_lora.low_rank_experts` serves in the same way."""
    from peft.tuners.lora.layer import ParamWrapper

    served: set[int] = set()
    known = tuple(_classes())
    for module in model.modules():
        if isinstance(module, known) and is_plain(module):
            served.update(map(id, module.parameters()))
        elif isinstance(module, ParamWrapper):
            served.update(id(value) for part in (module.lora_A, module.lora_B) for value in part.parameters())
    return all(id(parameter) in served for parameter in model.parameters() if parameter.requires_grad)


def is_plain(module: Any) -> bool:
    """Whether a LoRA layer is nothing but ``W x + scaling * B A x`` with one adapter."""
    names = list(module.active_adapters)
    if len(names) != 1 or names[0] not in module.lora_A or module.merged or module.disable_adapters:
        return False
    name = names[0]
    return (
        name not in getattr(module, "lora_variant", {})
        and not getattr(module, "use_dora", {}).get(name, False)
        and not module.fan_in_fan_out
        and module.lora_B[name].bias is None
    )


@cache
def _classes() -> dict[type[Any], type[Any]]:
    """PEFT's LoRA layers, and what stands in for each."""
    from peft.import_utils import is_bnb_4bit_available
    from peft.tuners.lora.layer import Linear

    kinds: list[type[Any]] = [Linear]
    if is_bnb_4bit_available():
        from peft.tuners.lora.bnb import Linear4bit

        kinds.append(Linear4bit)
    return {kind: type(f"Cast{kind.__name__}", (kind,), {"forward": _forward}) for kind in kinds}


@cache
def _small_linear() -> type[nn.Linear]:
    from torch import nn

    return type("InputTypeLinear", (nn.Linear,), {"forward": _in_input_type})


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    name = self.active_adapters[0]
    result: Tensor = self.base_layer(x, *args, **kwargs)
    up: Tensor = self.lora_B[name](self.lora_A[name](self.lora_dropout[name](x)))
    return result.add(up, alpha=self.scaling[name])


def _in_input_type(self: Any, x: Tensor) -> Tensor:
    from torch.nn.functional import linear

    return linear(x, self.weight.to(x.dtype))
