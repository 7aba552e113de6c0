"""Checkpoints: complete or absent, verified before an older one goes, and tied to the settings and rows that made them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from medtune.errors import TrainingError
from medtune.language import Text, msg
from medtune.models.adapter import num_elements
from medtune.models.contract import write_contract
from medtune.runs import atomic_write
from medtune.schema import read_fault
from medtune.training.config import FREE_ON_RESUME, TrainSettings
from medtune.training.seal import damage, flush, flush_folder, write_seal
from medtune.training.weights import trained
from medtune.types import AdapterContract, Sample

__all__ = [
    "STAGING",
    "all_checkpoints",
    "check_same",
    "checkpoint_bytes",
    "describe",
    "hash_rows",
    "last_sound",
    "publish",
    "read_description",
    "remove_old",
    "set_aside",
    "write_description",
]

STAGING = ".saving"
"""Folder under ``checkpoints/`` in which a checkpoint is written before it gets its name."""

_DESCRIPTION = "medtune.json"


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
    """Give the finished folder ``staging/checkpoint-<step>`` its place under ``folder``, on the disk before and looked at after.

    Raises:
        TrainingError: What was written cannot be read back. Older checkpoints are still there.
    """
    source = staging / f"checkpoint-{step}"
    write_seal(source)
    flush_folder(source)
    target = folder / source.name
    if target.exists():
        _remove(target)
    os.replace(source, target)
    flush(folder)
    shutil.rmtree(staging, ignore_errors=True)
    problem = damage(target, contents=False)
    if problem is not None:
        raise TrainingError(
            msg("The checkpoint that was just written cannot be read back: {problem}.", problem=str(problem)),
            file=target,
            remedy=msg("Look at the disk and the free space there, then go on with --resume from the checkpoint before it."),
        )
    return target


def remove_old(folder: Path, *, keep: int, best_step: int | None) -> None:
    """Delete all but the newest ``keep`` checkpoints and the best one. Call it only after the newest was published."""
    for step, path in all_checkpoints(folder)[:-keep]:
        if step != best_step:
            _remove(path)


def _remove(path: Path) -> None:
    # Out of sight first: a crash while deleting must not leave half a checkpoint under its name.
    doomed = path.with_name(f".{path.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def last_sound(folder: Path) -> tuple[tuple[int, Path] | None, list[tuple[Path, Text]]]:
    """The newest checkpoint that is whole, and those newer ones that are not, with what is wrong with each. Changes nothing."""
    damaged: list[tuple[Path, Text]] = []
    for step, path in reversed(all_checkpoints(folder)):
        problem = damage(path)
        if problem is None:
            return (step, path), damaged
        damaged.append((path, problem))
    return None, damaged


def set_aside(checkpoint: Path) -> None:
    """Keep a damaged checkpoint as ``damaged-checkpoint-<step>``: there it does not push a sound one out."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(checkpoint, aside)


def checkpoint_bytes(folder: Path, model: nn.Module) -> int:
    """How large a checkpoint is: as the newest one, else estimated at three float32 numbers for each trained weight (itself and
    AdamW's two moments; Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2)."""
    saved = all_checkpoints(folder)
    if saved:
        return sum(path.stat().st_size for path in saved[-1][1].rglob("*") if path.is_file())
    return 12 * sum(num_elements(parameter) for parameter in trained(model).values())


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
    shapes = sorted(f"{name} {tuple(parameter.shape)}" for name, parameter in trained(model).items())
    return {
        "settings": settings.model_dump(mode="json", exclude=set(FREE_ON_RESUME)),
        "rows": {"train": hash_rows(train_rows), "validation": hash_rows(validation_rows)},
        "trainable": hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16],
        "num_processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def write_description(folder: Path, description: dict[str, Any], contract: AdapterContract | None = None) -> None:
    """Write what :func:`check_same` compares, and the contract, with which the folder is an adapter like any other."""
    if contract is not None:
        write_contract(contract, folder)
    atomic_write(folder / _DESCRIPTION, json.dumps(description, ensure_ascii=False, indent=2) + "\n")


def read_description(checkpoint: Path) -> dict[str, Any]:
    """What :func:`write_description` wrote.

    Raises:
        TrainingError: The file is missing or damaged.
    """
    path = checkpoint / _DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(msg("The checkpoint cannot be read: {error}", error=read_fault(error)), file=path) from error
    return description


def check_same(checkpoint: Path, now: dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint that other settings, rows or weights have made.

    Raises:
        TrainingError: Something differs; every difference is named.
    """
    before = read_description(checkpoint)
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
