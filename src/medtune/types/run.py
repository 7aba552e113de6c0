"""What a run folder says of itself, and the conditions that an adapter was trained under."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from medtune.language import Text
from medtune.types.base import Document
from medtune.types.data import TransformRecord

RunStatus = Literal["created", "training", "interrupted", "failed", "trained"]


class Performance(Document):
    """What a training run needs of its machine: foretold by the plan, or measured."""

    device: str
    """Of one device."""
    num_devices: int = 1
    peak_gib: float
    """Most memory in use on one device, as torch's allocator counts it; of the process where there is no GPU. GiB."""
    seconds_per_step: float
    """Of an optimizer step, on average over the run; compilation, validation and checkpoints are not counted."""
    tokens_per_second: float
    """All devices together, without padding."""
    seconds: float
    """Of the whole run."""


class RunRecord(Document):
    """``run.json``: what a run is and how far it came."""

    format_version: Literal[1] = 1
    name: str
    status: RunStatus
    created: str
    """ISO 8601, UTC."""
    updated: str
    recipe: str
    """The recipe's name."""
    base_model: str
    base_revision: str | None = None
    dataset: str | None = None
    dataset_hash: str | None = None
    seed: int
    num_steps: int | None = None
    num_steps_planned: int | None = None
    num_epochs: float | None = None
    train_loss: float | None = None
    eval_loss: float | None = None
    best_step: int | None = None
    seconds: float | None = None
    trainable: dict[str, int] = {}
    """``trainable`` and ``total`` parameters."""
    planned: Performance | None = None
    """Before the first step."""
    measured: Performance | None = None
    """After the last one."""
    versions: dict[str, str] = {}
    error: Text | None = None
    diverged_step: int | None = None
    """The last step before a loss was no number; None when the latest attempt did not diverge."""
    num_divergences: int = 0
    """Attempts in a row that diverged there."""
    engine: dict[str, JsonValue] = {}
    """What was chosen for this machine where the recipe left it open, corrected where memory ran out."""
    validation_losses: dict[str, float] = {}
    """Of the weights that could be kept: ``best``, ``last`` and ``average``, as far as they were measured."""
    kept: Literal["best", "last", "average"] | None = None
    """Which weights the result holds."""


class AdapterContract(Document):
    """``contract.json`` beside an adapter: what must be the same when the adapter is used as when it was trained."""

    format_version: Literal[1] = 1
    base_model: str
    base_revision: str | None = None
    base_config_hash: str
    """sha256 of the base model's ``config.json``."""
    family: str
    chat_template_hash: str
    min_pixels: int | None = None
    max_pixels: int | None = None
    resize_backend: str | None = None
    """``pil`` or ``torchvision``: they do not round alike."""
    transforms: tuple[TransformRecord, ...] = ()
    displays: tuple[str, ...] = ()
    """How measured values became the training pictures (:mod:`medtune.imaging.display`); empty when that is not known."""
    box_convention: Literal["relative-1000", "pixels", "none"]
    """How boxes are written in text: 0-1000 of the picture's sides, or pixels of the resized picture."""
    system_prompt: str | None = None
    local_only: bool = False
    """Trained on data that may not leave the machine: neither may what is made with it."""
