"""Weights that are divided among devices (FSDP2, ZeRO-3): what the engine must know, and how they are put together again."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtune.training.weights import is_peft, trained

__all__ = ["gather_trained", "keep_to_gloo", "mark_leaves", "own_part", "put_trained", "weights_are_divided", "zero_stage"]


def weights_are_divided() -> bool:
    """Whether a weight is whole only inside of its own module's call, and each call is a meeting of all devices."""
    return _is_set("ACCELERATE_USE_FSDP") or zero_stage() == 3


def zero_stage() -> int:
    """DeepSpeed's stage, as accelerate's launcher has put it into the environment; 0 without DeepSpeed."""
    if not _is_set("ACCELERATE_USE_DEEPSPEED"):
        return 0
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file not in ("", "none"):
        document: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
        return int(document.get("zero_optimization", {}).get("stage", 0))
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))


def keep_to_gloo() -> None:
    """Keep DeepSpeed from compiling a library of its own for processes of one machine without GPUs; call it before they meet.

    gloo does the same. The library needs a C++ compiler when it is used for the first time, and a run that is killed while it
    compiles leaves a lock behind (``torch.utils.file_baton``) for which every later run waits without end.
    """
    operations = import_module("deepspeed.ops")
    operations.__compatible_ops__["deepspeed_shm_comm"] = False


def mark_leaves(model: nn.Module) -> int:
    """Tell ZeRO-3 which modules use weights of the modules inside them; returns how many.

    ZeRO-3 gathers a module's weights when that module is called. A block of experts reads the weights of all that lies inside it,
    adapters included, and which experts get tokens differs from device to device. As a leaf it is gathered as one (DeepSpeed,
    "Mixture of Experts", ``set_z3_leaf_modules``). Call it in the engine, before the model is wrapped.

    The gradients of a leaf are taken from a backward hook of the whole module, and torch calls that hook too early, before there
    are gradients, where no input of the module asks for one: in the first layer, unless something before it learns. So with leaves
    the embeddings are made to ask for a gradient (as :meth:`~transformers.PreTrainedModel.enable_input_require_grads` does).
    """
    set_leaf = import_module("deepspeed.utils").set_z3_leaf_module

    leaves: list[nn.Module] = []
    inside: set[int] = set()
    for module in model.modules():
        if id(module) in inside or not _reads_inside(module):
            continue
        leaves.append(module)
        inside.update(map(id, module.modules()))
    for leaf in leaves:
        set_leaf(leaf, True)
    if leaves:
        embeddings: Any = model
        embeddings.get_input_embeddings().register_forward_hook(_ask_for_gradient)
    return len(leaves)


def _ask_for_gradient(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:  # noqa: ARG001
    return output.requires_grad_() if torch.is_grad_enabled() else output


def own_part(weight: Any) -> Tensor:
    """What this process holds of a weight: all of it, or its share where it is divided. Nothing is sent."""
    if hasattr(weight, "to_local"):  # FSDP2
        local: Tensor = weight.to_local()
        return local
    if not hasattr(weight, "ds_tensor"):
        whole: Tensor = weight
        return whole
    # ZeRO-3's weight itself is empty, but for the time in which it is gathered. The shares are equally long, and what the last
    # one has over was never written (deepspeed/runtime/zero/partition_parameters.py, 0.19.8, _partition_param): any bits.
    share: Tensor = weight.ds_tensor.flatten()
    before = share.numel() * torch.distributed.get_rank(group=weight.ds_process_group)
    return share[: max(0, min(share.numel(), weight.ds_numel - before))]


def gather_trained(model: nn.Module) -> dict[str, Tensor]:
    """Name -> the whole of each parameter that learns, on the CPU. Every process must call it; frozen weights stay where they
    are, so it costs what the adapter weighs."""
    with _whole(model, write=False) as parameters:
        return {name: _full(parameter.detach()).cpu().clone() for name, parameter in parameters.items()}


def put_trained(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Give every parameter that learns its part of ``weights``, which every process has whole.

    Args:
        weights: Named as they are saved: by PEFT for an adapter, else as in the module.

    Returns:
        Whether they are of this model. If not, nothing was changed.
    """
    names = _saved_names(model)
    if names.keys() != weights.keys():
        return False
    with _whole(model, write=True) as parameters, torch.no_grad():
        for saved, name in names.items():
            parameter: Any = parameters[name]
            value = weights[saved].to(parameter.device, parameter.dtype)
            if hasattr(parameter, "device_mesh"):
                from torch.distributed.tensor import distribute_tensor

                value = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
            parameter.copy_(value)
    return True


def _saved_names(model: nn.Module) -> dict[str, str]:
    """Name in a file -> name in the module."""
    names = list(trained(model))
    if not is_peft(model):
        return {name: name for name in names}
    from peft import get_peft_model_state_dict

    # PEFT renames: numbers in place of the weights show what becomes of each name.
    numbered = {name: torch.tensor(number) for number, name in enumerate(names)}
    saved = get_peft_model_state_dict(model, state_dict=numbered, save_embedding_layers=False)
    return {name: names[int(number)] for name, number in saved.items()}


@contextlib.contextmanager
def _whole(model: nn.Module, *, write: bool) -> Iterator[dict[str, nn.Parameter]]:
    parameters = trained(model)
    if zero_stage() != 3:
        yield parameters
        return
    gathered = import_module("deepspeed").zero.GatheredParameters
    with gathered(list(parameters.values()), modifier_rank=0 if write else None):
        yield parameters


def _full(value: Any) -> Tensor:
    whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole


def _reads_inside(module: nn.Module) -> bool:
    if hasattr(module, "parameter_name"):
        return True
    return hasattr(module, "num_experts") and any(hasattr(module, name) for name in ("gate_up_proj", "experts"))


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")
