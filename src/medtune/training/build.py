"""The trainer of a run, put together from its plan and from what the engine does."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import nn

from medtune.errors import MedtuneError, TrainingError
from medtune.language import msg
from medtune.models.packed_forward import causal_model, vision_tower
from medtune.models.packing import can_pack
from medtune.models.router_loss import returns_router_loss
from medtune.models.vision_layout import vision_layout
from medtune.runs import Run
from medtune.training.arguments import training_arguments
from medtune.training.batches import EvalBatches, StepSampler
from medtune.training.callbacks import EventCallback, Journal, ScheduleCallback, StopRequest
from medtune.training.choice import Checkpointing, EngineChoice
from medtune.training.choose import cannot_pack, optimizer_of
from medtune.training.config import TrainSettings
from medtune.training.data import RowSampler, StepCollator
from medtune.training.engine import needs_autocast
from medtune.training.forecast import Forecast
from medtune.training.plan import Plan, world_size
from medtune.training.sharding import keep_to_gloo, mark_leaves, weights_are_divided, zero_stage
from medtune.training.trainer import TokenWeightedTrainer
from medtune.training.vision_cache import can_keep
from medtune.types import Features

__all__ = ["decide", "make_trainer"]


def make_trainer(
    run: Run, plan: Plan, model: nn.Module, settings: TrainSettings, choice: EngineChoice, journal: Journal, stop: StopRequest
) -> tuple[TokenWeightedTrainer, EventCallback]:
    has_validation = len(plan.validation) > 0 and settings.evaluate_every != "never"
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    schedule = ScheduleCallback(settings, has_validation=has_validation, stop=stop)
    events = EventCallback(journal, run, seconds_before=run.record.seconds or 0.0 if plan.checkpoint else 0.0)
    rank = int(os.environ.get("RANK", "0"))
    order = RowSampler(
        plan.lengths, seed=settings.seed, group=settings.batch_size * world_size() if settings.group_by_length else 0
    )
    tokens = choice.micro_batch_tokens if choice.packing else 0
    if zero_stage() and not torch.cuda.is_available():
        keep_to_gloo()
    if zero_stage() == 3:
        mark_leaves(model)
    args = training_arguments(
        settings,
        run.checkpoints,
        num_steps=plan.num_steps,
        cached=plan.cached,
        optimizer=choice.optimizer,
        # DeepSpeed is told the type by the same flag: all weights become bfloat16, and float32 copies are kept of those that learn.
        autocast=not choice.packing or needs_autocast(model) or zero_stage() > 0,
    )
    trainer = TokenWeightedTrainer(
        model=model,
        args=args,
        train_dataset=plan.train,
        eval_dataset=plan.validation if has_validation else None,
        collator=_collator(plan, model, choice),
        sampler=StepSampler(
            order,
            rows_per_step=settings.batch_size * settings.gradient_accumulation_steps,
            micro_batch_tokens=tokens,
            micro_batch_rows=choice.micro_batch_rows or settings.batch_size,
            rank=rank,
            num_devices=world_size(),
        ),
        eval_batches=EvalBatches(
            plan.eval_lengths,
            micro_batch_tokens=tokens,
            micro_batch_rows=choice.micro_batch_rows or settings.batch_size,
            rank=rank,
            num_devices=world_size(),
        ),
        # Events first: a listener's wish to stop is then heard at the same step.
        callbacks=[events, schedule],
        description=plan.description,
        save_total_limit=max(settings.save_total_limit, settings.average_last or 0),
    )
    schedule.trainer = events.trainer = trainer
    return trainer, events


def _collator(plan: Plan, model: nn.Module, choice: EngineChoice) -> StepCollator:
    tower: Any = vision_tower(model)
    on_gpu = torch.cuda.is_available()
    return StepCollator(
        plan.train.encoder,
        packing=choice.packing,
        layout=vision_layout(tower) if choice.packing and tower is not None else None,
        longest=max([*plan.lengths, *plan.eval_lengths]),
        # Tensor cores want multiples of 8; a coarser step keeps the number of different shapes small.
        multiple=64 if on_gpu else 1,
        pixel_type=tower.dtype if on_gpu and tower is not None and tower.dtype != torch.float32 else None,
        blank=functools.partial(plan.train.__getitem__, 0),
        sight=_sight(plan, model, choice),
        routes=returns_router_loss(model),
    )


def _sight(
    plan: Plan, model: nn.Module, choice: EngineChoice
) -> Callable[[], Features | MedtuneError] | dict[str, torch.Tensor] | None:
    """What a micro-batch without a picture shows, where the vision tower must run in every pass: DDP waits for the gradient of
    every weight that learns, and divided weights are gathered by all devices at once.

    Raises:
        TrainingError: Such a tower, rows that cannot be packed, and none with a picture.
    """
    encoder: Any = plan.train.encoder
    family = getattr(encoder, "family", None)
    if "WORLD_SIZE" not in os.environ or choice.vision_cache != "none" or family is None:
        return None
    in_sight = [
        parameter for name, parameter in causal_model(model).named_parameters() if family.scope_of(name) in ("vision", "projector")
    ]
    if not in_sight or not (weights_are_divided() or any(parameter.requires_grad for parameter in in_sight)):
        return None
    if choice.packing:
        blank: dict[str, torch.Tensor] = encoder.pictures.tensors([Image.new("RGB", (32, 32))])
        return blank
    seeing = next((number for number, row in enumerate(plan.train.rows) if row.images), None)
    if seeing is None:
        raise TrainingError(
            msg("The vision tower is to learn on several devices, and no row has a picture."),
            key="distributed",
            remedy=msg("Freeze it (adapter.targets, adapter.freeze), or add rows with pictures."),
        )
    return functools.partial(plan.train.__getitem__, seeing)


def decide(settings: TrainSettings, model: nn.Module, forecast: Forecast | None) -> EngineChoice:
    """What the engine does: as foretold, but for what the loaded model turns out not to allow.

    Raises:
        TrainingError: Packing is asked for, and this model cannot.
    """
    choice = _choice(settings, model, forecast)
    # Rows that are padded would go through the model without their pictures: only the packed forward pass takes features.
    return choice if choice.packing and can_keep(model) else dataclasses.replace(choice, vision_cache="none")


def _choice(settings: TrainSettings, model: nn.Module, forecast: Forecast | None) -> EngineChoice:
    if forecast is not None and forecast.choice.packing <= can_pack(model):
        return forecast.choice
    on_gpu = torch.cuda.is_available()
    packing = can_pack(model) if settings.packing == "auto" else settings.packing
    if packing and not can_pack(model):
        raise cannot_pack()
    asked = settings.gradient_checkpointing
    every = {"auto": 0, "none": 0, "all": 1, "offload": 1}[asked] if isinstance(asked, str) else asked
    tokens = settings.micro_batch_tokens
    return EngineChoice(
        packing=packing,
        micro_batch_tokens=(8192 if on_gpu else 2048) if tokens == "auto" else tokens,
        checkpointing=Checkpointing(every, offload=asked == "offload"),
        vision_cache="none" if settings.vision_cache == "auto" else settings.vision_cache,
        compile=on_gpu if settings.compile == "auto" else settings.compile,
        optimizer=optimizer_of(settings),
    )
