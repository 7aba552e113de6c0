"""Checkpoints: complete or absent, and tied to the settings and rows that made them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtune.errors import TrainingError
from medtune.language import msg
from medtune.runs import atomic_write
from medtune.training.config import TrainSettings
from medtune.types import Sample

__all__ = [
    "FREE_TO_CHANGE",
    "STAGING",
    "all_checkpoints",
    "check_same",
    "describe",
    "hash_rows",
    "is_peft",
    "load_weights",
    "publish",
    "remove_old",
    "save_weights",
    "write_description",
]

STAGING = ".saving"
"""Folder under ``checkpoints/`` in which a checkpoint is written before it gets its name."""

_DESCRIPTION = "medtune.json"
_WEIGHTS = "trainable.safetensors"

FREE_TO_CHANGE = frozenset({"log_every", "save_every", "save_total_limit", "num_workers", "cache_encoded", "keep_best", "patience"})
"""Settings that a resumed run may change: they do not touch what an optimizer step computes."""


def all_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every complete checkpoint, oldest first."""
    found = []
    if folder.is_dir():
        for path in folder.iterdir():
            match = re.fullmatch(r"checkpoint-(\d+)", path.name)
            if match:
                found.append((int(match[1]), path))
    return sorted(found)


def publish(staging: Path, folder: Path, step: int) -> Path:
    """Give the finished folder ``staging/checkpoint-<step>`` its place under ``folder``, flushed to disk before."""
    source = staging / f"checkpoint-{step}"
    for path in source.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    target = folder / source.name
    if target.exists():
        shutil.rmtree(target)
    os.replace(source, target)
    shutil.rmtree(staging, ignore_errors=True)
    return target


def remove_old(folder: Path, *, keep: int, best_step: int | None) -> None:
    """Delete all but the newest ``keep`` checkpoints and the best one."""
    for step, path in all_checkpoints(folder)[:-keep]:
        if step != best_step:
            # Out of sight first: a crash while deleting must not leave half a checkpoint under its name.
            doomed = path.with_name(f".{path.name}.old")
            os.replace(path, doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def save_weights(model: nn.Module, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Save what is trained: a PEFT adapter as PEFT saves it, else the trainable parameters under their names in the module.

    Args:
        weights: The gathered state dict, where the model's own is spread over several devices. Only for an adapter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_peft(model):
        # "auto" would ask the hub for the base model's config, to compare vocabulary sizes; medtune never resizes them.
        model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)  # type: ignore[operator]
        with contextlib.suppress(FileNotFoundError):
            (folder / "README.md").unlink()
        return
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous() for name, value in _trainable(model).items()}, folder / _WEIGHTS)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read back what :func:`save_weights` saved, into the same model.

    Raises:
        TrainingError: The checkpoint is of a model with other trainable weights.
    """
    from safetensors.torch import load_file

    problem = TrainingError(
        msg("The checkpoint does not hold the weights that this run trains."),
        file=folder,
        remedy=msg("Resume with the adapter settings that the run was started with, or start a new run."),
    )
    if is_peft(model):
        from peft import set_peft_model_state_dict

        path = folder / "adapter_model.safetensors"
        if not path.is_file():
            raise problem
        result: Any = set_peft_model_state_dict(model, load_file(path))
        if result.unexpected_keys:
            raise problem
        return
    path = folder / _WEIGHTS
    own = _trainable(model)
    saved = load_file(path) if path.is_file() else {}
    if saved.keys() != own.keys():
        raise problem
    with torch.no_grad():
        for name, value in saved.items():
            own[name].copy_(value)


def is_peft(model: nn.Module) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def hash_rows(rows: Sequence[Sample]) -> str:
    """sha256 over ids, messages and picture hashes of the rows, in their order; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for row in rows:
        parts = [
            row.id,
            *(f"{message.role}:{message.content}" for message in row.messages),
            *(image.sha256 for image in row.images),
        ]
        digest.update(json.dumps(parts).encode())
    return digest.hexdigest()[:16]


def describe(
    settings: TrainSettings, *, model: nn.Module, train_rows: Sequence[Sample], validation_rows: Sequence[Sample]
) -> dict[str, Any]:
    """What must be the same when a run is resumed."""
    shapes = sorted(f"{name} {tuple(parameter.shape)}" for name, parameter in _trainable(model).items())
    return {
        "settings": settings.model_dump(mode="json", exclude=set(FREE_TO_CHANGE)),
        "rows": {"train": hash_rows(train_rows), "validation": hash_rows(validation_rows)},
        "trainable": hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16],
        "num_processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def write_description(folder: Path, description: dict[str, Any]) -> None:
    atomic_write(folder / _DESCRIPTION, json.dumps(description, ensure_ascii=False, indent=2) + "\n")


def check_same(checkpoint: Path, now: dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint that other settings, rows or weights have made.

    Raises:
        TrainingError: Something differs; every difference is named.
    """
    path = checkpoint / _DESCRIPTION
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise TrainingError(msg("The checkpoint cannot be read: {error}", error=str(error)), file=path) from error
    for split in ("train", "validation"):
        if before["rows"][split] != now["rows"][split]:
            raise TrainingError(
                msg("The {split} rows are not the ones that the run was started with.", split=split),
                file=checkpoint,
                remedy=msg("Bring back the data set as it was, or start a new run."),
            )
    changed = [
        f"train.{key}: {before['settings'].get(key)} -> {value}"
        for key, value in now["settings"].items()
        if before["settings"].get(key) != value
    ]
    if changed:
        raise TrainingError(
            msg("Settings differ from the ones that the run was started with: {changed}", changed="; ".join(changed)),
            file=checkpoint,
            remedy=msg("Resume with the recipe.yaml of the run folder, or start a new run."),
        )
    if before["trainable"] != now["trainable"]:
        raise TrainingError(
            msg("The checkpoint does not hold the weights that this run trains."),
            file=checkpoint,
            remedy=msg("Resume with the adapter settings that the run was started with, or start a new run."),
        )
    if before["num_processes"] != now["num_processes"]:
        raise TrainingError(
            msg(
                "The run was started on {before} devices and cannot go on on {now}.",
                before=before["num_processes"],
                now=now["num_processes"],
            ),
            file=checkpoint,
            key="distributed",
            remedy=msg("Resume on as many devices as before, or start a new run."),
        )
