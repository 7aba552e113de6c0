"""What a finished run leaves: the adapter, or the tuned model, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from medtune.models.adapter import adapter_report
from medtune.models.contract import write_contract
from medtune.runs import Run, atomic_folder
from medtune.training.checkpoints import is_peft, save_weights
from medtune.types import AdapterContract

__all__ = ["save_result"]

_COMPANIONS = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*")
_NOT_COMPANIONS = ("config.json", "generation_config.json", "*.index.json", "adapter_config.json", "contract.json")


def save_result(
    run: Run, model: nn.Module, contract: AdapterContract, base_folder: Path, *, weights: Mapping[str, Tensor] | None = None
) -> Path:
    """Save ``adapter/``, or ``model/`` when the weights themselves were tuned.

    ``model/`` loads in plain transformers: it has the tokenizer, processor and chat template files of ``base_folder``.

    Args:
        weights: The gathered state dict, where the model's own is spread over several devices.
    """
    adapter = is_peft(model)
    target = run.folder / ("adapter" if adapter else "model")
    with atomic_folder(target) as folder:
        if adapter:
            for config in model.peft_config.values():  # type: ignore[operator]
                # PEFT writes the folder the base was loaded from, which is a place of this machine.
                config.base_model_name_or_path = contract.base_model
            save_weights(model, folder, weights)
        else:
            copy_companions(base_folder, folder)
            model.save_pretrained(folder, state_dict=weights)  # type: ignore[operator]
        write_contract(contract, folder)
        report = adapter_report(model)
        document = {
            "num_trainable": report.num_trainable,
            "num_total": report.num_total,
            "modules": [row._asdict() for row in report],
            "left_alone": [note.render("en") for note in report.notes],
        }
        (folder / "adapter_report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return target


def copy_companions(source: Path, target: Path) -> None:
    """Copy the files of a model folder that are neither weights nor written by ``save_pretrained``."""
    for pattern in _COMPANIONS:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and not any(path.match(unwanted) for unwanted in _NOT_COMPANIONS):
                shutil.copyfile(path, target / path.name)
