"""The weights that are trained: saved, read back, and put into the model again. safetensors only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtune.errors import TrainingError
from medtune.language import msg
from medtune.models.replaced import replaced

__all__ = ["is_peft", "load_weights", "other_weights", "put_weights", "read_weights", "save_weights", "trained"]

_ADAPTER = "adapter_model.safetensors"
_WEIGHTS = "trainable.safetensors"


def is_peft(model: nn.Module) -> bool:
    """Whether an adapter is trained, not the weights themselves."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by their names in the module."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_weights(model: nn.Module, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Save what is trained: a PEFT adapter as PEFT saves it, else the trainable parameters under their names in the module.

    Args:
        weights: What is trained, put together, where it is divided among devices
            (:func:`medtune.training.sharding.gather_trained`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_peft(model):
        # PEFT's own model card is for its hub, and takes longer to write than a small adapter.
        with replaced(model, "create_or_update_model_card", lambda _: None):
            # "auto" would ask the hub for the base model's config, to compare vocabulary sizes; medtune never resizes them.
            model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)  # type: ignore[operator]
        return
    from safetensors.torch import save_file

    values = trained(model) if weights is None else weights
    save_file({name: value.detach().cpu().contiguous() for name, value in values.items()}, folder / _WEIGHTS)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """What :func:`save_weights` saved, on the CPU; empty where there is nothing."""
    from safetensors.torch import load_file

    for name in (_ADAPTER, _WEIGHTS):
        if (folder / name).is_file():
            return load_file(folder / name)
    return {}


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read back what :func:`save_weights` saved, into the same model.

    Raises:
        TrainingError: The checkpoint is of a model with other trainable weights.
    """
    put_weights(model, read_weights(folder), folder)


def other_weights(folder: Path) -> TrainingError:
    """The error of a folder whose weights are not those of the model."""
    return TrainingError(
        msg("The checkpoint does not hold the weights that this run trains."),
        file=folder,
        remedy=msg("Resume with the adapter settings that the run was started with, or start a new run."),
    )


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Replace what is trained by ``weights``, named as :func:`read_weights` names them.

    Args:
        folder: Where they are from, for the error.

    Raises:
        TrainingError: They are of a model with other trainable weights.
    """
    problem = other_weights(folder)
    if is_peft(model):
        from peft import set_peft_model_state_dict

        result: Any = set_peft_model_state_dict(model, dict(weights)) if weights else None
        if result is None or result.unexpected_keys:
            raise problem
        return
    own = trained(model)
    if weights.keys() != own.keys():
        raise problem
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
