"""What makes training fast, switched on around the training loop and taken away again.

Outside of it the model is a plain transformers or PEFT model. Inside, rows are packed, LoRA layers compute in the type of their
input, decoder layers are compiled, and some of them compute their activations again in the backward pass. Each of these is
exact: the loss and the gradients are the same with and without (up to rounding in 16 bits).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medtune.errors import TrainingError
from medtune.language import msg
from medtune.models.expert_lora import low_rank_experts
from medtune.models.fused_projections import fused_projections
from medtune.models.lora_forward import all_plain, low_rank_in_input_type
from medtune.models.packed_forward import causal_model, packed_forward, vision_tower
from medtune.models.replaced import replaced
from medtune.training.choice import Checkpointing, EngineChoice
from medtune.training.sharding import weights_are_divided, zero_stage

__all__ = ["decoder_layers", "engine", "needs_autocast"]


@contextlib.contextmanager
def engine(model: nn.Module, choice: EngineChoice) -> Iterator[None]:
    """Inside, ``model`` trains as ``choice`` says. Enter it before the model is wrapped for several devices.

    Raises:
        TrainingError: Activations are to be computed again, and the decoder layers are not to be found.
    """
    with contextlib.ExitStack() as stack:
        if choice.packing:
            stack.enter_context(packed_forward(model))
        if _has_adapter(model):
            if not weights_are_divided():
                stack.enter_context(fused_projections(model))
            stack.enter_context(low_rank_in_input_type(model))
        stack.enter_context(low_rank_experts(model))
        stack.enter_context(_without_cache(model))
        stack.enter_context(_layers_rebuilt(model, choice))
        yield


def needs_autocast(model: nn.Module) -> bool:
    """Whether a 16-bit computation has to be arranged by autocast: not when all is 16-bit but LoRA weights, which
    :func:`medtune.models.lora_forward.low_rank_in_input_type` turns by itself."""
    if not _has_adapter(model) or not all_plain(model):
        return True
    return any(
        parameter.dtype == torch.float32 for parameter in model.parameters() if not parameter.requires_grad and parameter.numel()
    )


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of the language model, first to last; empty where they are not to be found."""
    causal: Any = causal_model(model)
    inner = getattr(causal, "model", causal)
    text = getattr(inner, "language_model", inner)
    text = getattr(text, "model", text)
    layers = getattr(text, "layers", None)
    return list(layers) if isinstance(layers, nn.ModuleList) else []


@contextlib.contextmanager
def _layers_rebuilt(model: nn.Module, choice: EngineChoice) -> Iterator[None]:
    layers = decoder_layers(model)
    again = choice.checkpointing
    if again.every and not layers:
        raise TrainingError(msg("This model cannot recompute activations."), key="train.gradient_checkpointing")
    tower = vision_tower(model)
    blocks = list(getattr(tower, "blocks", ()))
    tower_learns = tower is not None and any(parameter.requires_grad for parameter in tower.parameters())
    compiles = choice.compile and zero_stage() != 3  # its hooks sit on every module inside a layer
    changed: list[tuple[nn.Module, Callable[..., Any]]] = []
    compiled: dict[type[nn.Module], Callable[..., Any]] = {}
    draws = any(map(_draws, model.modules()))
    for number, layer in enumerate([*layers, *blocks]):
        in_tower = number >= len(layers)
        if in_tower:
            is_again = bool(again.every) and tower_learns
        else:
            # Counted from the last layer: its activations live shortest, so it is the first to keep them.
            is_again = bool(again.every) and (len(layers) - 1 - number) % again.every == again.every - 1
        # A tower whose features are kept sees each picture once: too short to win back the time that compiling it takes.
        compiles_this = compiles and not (in_tower and choice.vision_cache != "none")
        if not is_again and not compiles_this:
            continue
        own = type(layer)
        if own not in compiled:
            forward: Callable[..., Any] = own.forward
            compiled[own] = torch.compile(forward, dynamic=True) if compiles_this else forward
        # A forward of the layer's own is somebody's hook around the class's, and is called as it is.
        call = vars(layer).get("forward") or functools.partial(compiled[own], layer)
        changed.append((layer, _Again(call, again, preserve_rng=draws) if is_again else call))
    with contextlib.ExitStack() as stack:
        for layer, call in changed:
            stack.enter_context(replaced(layer, "forward", call))
        yield


def _draws(module: nn.Module) -> bool:
    """Whether a module drops values at random: by itself, or as a number that it hands to its attention."""
    share = module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0.0)
    return isinstance(share, float) and share > 0


@contextlib.contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    """Keys and values of earlier tokens are for generation; a layer that is computed twice would append to them twice."""
    config: Any = getattr(causal_model(model), "config", None)
    configs = {id(item): item for item in (config, config.get_text_config()) if hasattr(item, "use_cache")} if config else {}
    before = {key: item.use_cache for key, item in configs.items()}
    for item in configs.values():
        item.use_cache = False
    try:
        yield
    finally:
        for key, item in configs.items():
            item.use_cache = before[key]


class _Again:
    """A layer's forward pass whose activations are computed again when the gradient needs them (Chen et al. 2016,
    arXiv:1604.06174)."""

    def __init__(self, call: Callable[..., Any], again: Checkpointing, *, preserve_rng: bool) -> None:
        self._call = call
        self._offload = again.offload
        self._preserve_rng = preserve_rng

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._call(*args, **kwargs)
        # These hooks see the layer's input alone: what happens inside is the checkpoint's own affair.
        rest = torch.autograd.graph.saved_tensors_hooks(_to_main_memory, _back) if self._offload else contextlib.nullcontext()
        with rest:
            return checkpoint(self._call, *args, use_reentrant=False, preserve_rng_state=self._preserve_rng, **kwargs)


def _to_main_memory(tensor: Tensor) -> tuple[torch.device, Tensor]:
    if tensor.device.type == "cpu" or not tensor.is_floating_point() or tensor.numel() < 2**16:
        return tensor.device, tensor
    kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    kept.copy_(tensor, non_blocking=True)
    return tensor.device, kept


def _back(packed: tuple[torch.device, Tensor]) -> Tensor:
    device, kept = packed
    return kept.to(device, non_blocking=True)


def _has_adapter(model: nn.Module) -> bool:
    return hasattr(model, "peft_config")
