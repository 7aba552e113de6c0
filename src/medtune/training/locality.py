"""The lock of a data set that may not leave this machine, on the doors of a training run: trackers and hubs.

The lock is inherited: the adapter's contract has it, and so has every adapter that training goes on from it.
"""

from __future__ import annotations

from pathlib import Path

from medtune.data.dataset import Dataset
from medtune.errors import RecipeError
from medtune.language import Text, msg
from medtune.models.config import AdapterSettings, LoraSettings
from medtune.models.contract import read_contract
from medtune.training.config import TrainSettings

__all__ = ["locked_by", "refuse_sending"]

_STAYS_HERE = frozenset({"tensorboard"})
"""Trackers that write files and nothing else. All others are services, or may be set up to talk to one."""

_TO_HUB = ("push_to_hub", "hub_model_id", "push_to_hub_model_id", "push_to_hub_organization", "trackio_space_id")
"""Arguments of ``transformers.TrainingArguments`` that send weights or numbers to a hub."""


def locked_by(dataset: Dataset, adapter: AdapterSettings) -> Path | None:
    """The data set, or the adapter that training goes on from, that may not leave this machine; None when both may.

    Raises:
        ModelError: The contract of the adapter to go on from cannot be read.
    """
    if dataset.manifest.local_only:
        return dataset.folder
    begun = adapter.init_from if isinstance(adapter, LoraSettings) else None
    return begun if begun is not None and read_contract(begun).local_only else None


def refuse_sending(settings: TrainSettings, lock: Path | None) -> None:
    """Refuse settings that send anything of a locked training run to another machine.

    Args:
        lock: See :func:`locked_by`.

    Raises:
        RecipeError: A tracker may send, or ``train.hf`` asks for a hub; every such setting is named.
    """
    if lock is None:
        return
    faults: list[tuple[str, Text]] = []
    for name in settings.trackers if settings.trackers_online else ():
        if name not in _STAYS_HERE:
            faults.append(("train.trackers_online", msg("{name} may send numbers and texts to another machine.", name=name)))
    faults += [(f"train.hf.{name}", msg("This sends to a hub.")) for name in _TO_HUB if settings.hf.get(name)]
    if faults:
        raise RecipeError(
            msg("This data may not leave this machine (local_only), and the recipe asks for a tracker or a hub."),
            faults=faults,
            file=lock,
            remedy=msg("Leave these settings out: events.jsonl, loss.png and trackers that are not online stay on this machine."),
        )
