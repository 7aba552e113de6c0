"""What a finished run leaves: the adapter, or the tuned model, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtune.models.adapter import adapter_report
from medtune.models.contract import write_contract
from medtune.models.pictures import write_limits
from medtune.runs import Run, atomic_folder
from medtune.training.weights import is_peft, save_weights
from medtune.types import AdapterContract

__all__ = ["LAST", "save_result"]

LAST = "adapter_last"
"""Folder of the adapter of the last step, where the result is another one."""

_COMPANIONS = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*")
_NOT_COMPANIONS = (
    "config.json",
    "generation_config.json",
    "*.index.json",
    "adapter_config.json",
    # What an earlier training left beside the base's weights is not about the weights saved here.
    "adapter_report.json",
    "contract.json",
    "training.json",
)


def save_result(
    run: Run,
    model: nn.Module,
    contract: AdapterContract,
    base_folder: Path,
    *,
    weights: Mapping[str, Tensor] | None = None,
    name: str = "adapter",
) -> Path:
    """Save ``adapter/``, or ``model/`` when the weights themselves were tuned.

    ``model/`` loads in plain transformers: it has the tokenizer, processor and chat template files of ``base_folder``, with
    the pixel limits of the contract, and its weights are of the type that the base's were loaded in.

    Args:
        weights: The gathered state dict, where the model's own is spread over several devices.
        name: Another name for the folder of an adapter.
    """
    adapter = is_peft(model)
    target = run.folder / (name if adapter else "model")
    with atomic_folder(target) as folder:
        if adapter:
            for config in model.peft_config.values():  # type: ignore[operator]
                # PEFT writes the folder the base was loaded from, which is a place of this machine.
                config.base_model_name_or_path = contract.base_model
            save_weights(model, folder, weights)
        else:
            copy_companions(base_folder, folder)
            if contract.min_pixels is not None and contract.max_pixels is not None:
                write_limits(folder, min_pixels=contract.min_pixels, max_pixels=contract.max_pixels)
            dtype = _stored_type(model)
            if weights is None:
                _cast(model, dtype)
            else:
                weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
            model.save_pretrained(folder, state_dict=weights)  # type: ignore[operator]
            _name_type(folder / "config.json", dtype)
        write_contract(contract, folder)
        report = adapter_report(model)
        document = {
            "num_trainable": report.num_trainable,
            "num_total": report.num_total,
            "modules": [row._asdict() for row in report],
            "left_alone": [note.render("en") for note in report.notes],
        }
        (folder / "adapter_report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors 0.8 writes 0600, and a colleague of the group could not read the result
    return target


def _stored_type(model: nn.Module) -> torch.dtype:
    """The type that the base's weights were loaded in; what is trained was raised to float32."""
    config: Any = model.config
    dtype: Any = config.dtype or torch.float32
    found: torch.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return found


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


def _name_type(path: Path, dtype: torch.dtype) -> None:
    """transformers writes the type of the model's first weight, which under a gathered state dict is not the saved one's."""
    config = json.loads(path.read_text(encoding="utf-8"))
    name = str(dtype).removeprefix("torch.")
    if config.get("dtype") != name:
        path.write_text(json.dumps({**config, "dtype": name}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_companions(source: Path, target: Path) -> None:
    """Copy the files of a model folder that are neither weights nor written by ``save_pretrained``."""
    for pattern in _COMPANIONS:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and not any(path.match(unwanted) for unwanted in _NOT_COMPANIONS):
                shutil.copyfile(path, target / path.name)
