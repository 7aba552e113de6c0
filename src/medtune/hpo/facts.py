"""What a recipe comes to on its data: the numbers that rules about settings speak of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medtune.models.config import FullSettings, LoraSettings
from medtune.recipe import Recipe
from medtune.training.config import DEFAULT_WARMUP_RATIO, DeepSpeedSettings, NoDistribution

__all__ = ["Facts", "facts_of"]


@dataclass(frozen=True, slots=True)
class Facts:
    """Numbers of a recipe on ``num_rows`` training rows. What an adapter alone has is None for a full fine-tune.

    Attributes:
        rows_per_step: Rows of an optimizer step, all devices together; one device where the recipe leaves their number open.
        warmup_ratio: Share of the steps, also where the recipe counts steps.
        zero_stage: Of DeepSpeed; None without it.
    """

    num_rows: int
    rows_per_step: int
    num_steps: int
    epochs: float
    learning_rate: float
    schedule: str
    warmup_ratio: float
    rank: int | None
    alpha: float | None
    dropout: float | None
    rslora: bool | None
    targets: tuple[str, ...]
    zero_stage: int | None


def facts_of(recipe: Recipe, num_rows: int) -> Facts:
    """The numbers of a recipe on so many training rows (at least one)."""
    train, adapter, distributed = recipe.train, recipe.adapter, recipe.distributed
    num_devices = 1 if isinstance(distributed, NoDistribution) else distributed.num_processes or 1
    rows_per_step = train.batch_size * train.gradient_accumulation_steps * num_devices
    steps_per_epoch = math.ceil(num_rows / rows_per_step)
    num_steps = train.max_steps or math.ceil(train.epochs * steps_per_epoch)
    if train.warmup_steps is not None:
        warmup_ratio = train.warmup_steps / num_steps
    else:
        warmup_ratio = DEFAULT_WARMUP_RATIO if train.warmup_ratio is None else train.warmup_ratio
    lora = adapter if isinstance(adapter, LoraSettings) else None
    return Facts(
        num_rows=num_rows,
        rows_per_step=rows_per_step,
        num_steps=num_steps,
        epochs=num_steps / steps_per_epoch if train.max_steps else train.epochs,
        learning_rate=train.learning_rate,
        schedule=train.schedule,
        warmup_ratio=warmup_ratio,
        rank=lora.rank if lora else None,
        alpha=None if lora is None else 2.0 * lora.rank if lora.alpha is None else float(lora.alpha),
        dropout=lora.dropout if lora else None,
        rslora=lora.rslora if lora else None,
        targets=() if isinstance(adapter, FullSettings) else tuple(adapter.targets),
        zero_stage=distributed.zero_stage if isinstance(distributed, DeepSpeedSettings) else None,
    )
