"""LoRA layers that compute in the type of their input.

The weights of an adapter are kept in float32, because an optimizer's step is mostly too small for bfloat16. PEFT's layers turn
the input into float32 for them, and autocast turns it back: twice the traffic for nothing. Here the small weights are turned
into the input's type instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextlib.contextmanager
def low_rank_in_input_type(model: nn.Module) -> Iterator[int]:
    """Inside, plain LoRA layers of ``model`` compute as said above; yields how many do.

    Layers with DoRA or another variant, merged ones, and those of several active adapters stay PEFT's. The same modules stay
    in place: only their class is another one for the time being, so that all layers share one compiled graph.
    """
    from peft.tuners.lora.layer import Linear

    fast_class = _fast_class()
    changed = [module for module in model.modules() if type(module) is Linear and _is_plain(module)]
    for module in changed:
        module.__class__ = fast_class
    try:
        yield len(changed)
    finally:
        for module in changed:
            module.__class__ = Linear


def all_plain(model: nn.Module) -> bool:
    """Whether every trained weight of ``model`` sits in a LoRA layer that :func:`low_rank_in_input_type` serves."""
    from peft.tuners.lora.layer import Linear

    served = {
        id(parameter)
        for module in model.modules()
        if type(module) in (Linear, _fast_class()) and _is_plain(module)
        for parameter in module.parameters()
    }
    return all(id(parameter) in served for parameter in model.parameters() if parameter.requires_grad)


def _is_plain(module: Any) -> bool:
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


_class: type[Any] | None = None


def _fast_class() -> type[Any]:
    global _class
    if _class is None:
        import torch
        from peft.tuners.lora.layer import Linear

        class CastLinear(Linear):  # type: ignore[misc, unused-ignore]
            """PEFT's LoRA layer with the forward pass of this module."""

            def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                name = self.active_adapters[0]
                result: Tensor = self.base_layer(x, *args, **kwargs)
                dropped = self.lora_dropout[name](x)
                first: Any = self.lora_A[name].weight
                second: Any = self.lora_B[name].weight
                down = torch.nn.functional.linear(dropped, first.to(x.dtype))
                up = torch.nn.functional.linear(down, second.to(x.dtype))
                return torch.add(result, up, alpha=self.scaling[name])

        _class = CastLinear
    return _class
