"""``TrainSettings`` -> ``transformers.TrainingArguments``."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from pydantic import JsonValue
from transformers import TrainingArguments

from medtune.errors import MissingDependencyError, RecipeError, TrainingError
from medtune.language import Text, msg
from medtune.training.config import DEFAULT_WARMUP_RATIO, TrainSettings
from medtune.training.trackers import check_trackers

__all__ = ["check_hf", "num_workers", "training_arguments"]

_EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def check_hf(settings: TrainSettings) -> None:
    """Check the names in ``train.hf`` against ``TrainingArguments``, and that numbers are numbers.

    Raises:
        RecipeError: Some name is unknown; all faults at once, each with the nearest name. Or some value is no number.
    """
    known = [field.name for field in dataclasses.fields(TrainingArguments) if field.init]
    faults: list[tuple[str, Text]] = []
    for name in settings.hf:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            if nearest:
                fault = msg("TrainingArguments has no {name}; did you mean {nearest}?", name=name, nearest=nearest[0])
            else:
                fault = msg("TrainingArguments has no {name}.", name=name)
            faults.append((f"train.hf.{name}", fault))
    if faults:
        raise RecipeError(msg("train.hf holds arguments that this version of transformers does not have."), faults=faults)
    _with_numbers(settings.hf)


def _with_numbers(given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """``train.hf`` with ``1e-8`` as the number it is: YAML 1.1 reads it as text, and transformers takes it as it comes.

    Raises:
        RecipeError: An argument that is a number is other text.
    """
    kinds = get_type_hints(TrainingArguments)
    values: dict[str, JsonValue] = {}
    faults: list[tuple[str, Text]] = []
    for name, value in given.items():
        wanted = get_args(kinds[name]) or (kinds[name],)
        values[name] = _numbers_inside(value)
        if isinstance(value, str) and float in wanted and str not in wanted:
            try:
                values[name] = float(value)
            except ValueError:
                faults.append((f"train.hf.{name}", msg("A number is expected, not {given}.", given=repr(value))))
    if faults:
        raise RecipeError(msg("train.hf holds values of the wrong kind."), faults=faults)
    return values


def _numbers_inside(value: JsonValue) -> JsonValue:
    """Within groups such as ``lr_scheduler_kwargs`` nothing says which values are numbers: those that read like one."""
    if isinstance(value, dict):
        return {key: float(item) if isinstance(item, str) and _EXPONENT.fullmatch(item) else item for key, item in value.items()}
    return value


def use_bf16(settings: TrainSettings) -> bool:
    """Whether to compute in bfloat16 here.

    Raises:
        TrainingError: bf16 was asked for, but there is no device for it.
    """
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if settings.precision == "bf16" and not has_bf16:
        raise TrainingError(
            msg("There is no GPU here that computes in bfloat16."),
            key="train.precision",
            remedy=msg("Write train.precision=auto: bfloat16 where there is such a GPU, float32 elsewhere."),
        )
    return has_bf16 and settings.precision != "float32"


def num_workers(settings: TrainSettings, *, cached: bool) -> int:
    """Processes that load data. None when rows are cached: the cache lives in the process that trains."""
    if cached:
        return 0
    if settings.num_workers is not None:
        return settings.num_workers
    if not torch.cuda.is_available():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


def training_arguments(
    settings: TrainSettings,
    folder: Path,
    *,
    num_steps: int,
    cached: bool,
    optimizer: str = "adamw",
    autocast: bool = True,
) -> TrainingArguments:
    """The arguments for the trainer; when to evaluate and to save is decided by :mod:`medtune.training.callbacks`.

    Args:
        optimizer: :attr:`medtune.training.choice.EngineChoice.optimizer`.
        autocast: A 16-bit computation needs autocast; see :func:`medtune.training.engine.needs_autocast`.

    Raises:
        RecipeError: ``train.hf`` holds an unknown name, or a value that ``TrainingArguments`` refuses.
        MissingDependencyError: A tracker, or bitsandbytes for an optimizer with states in 8 bits, is not installed.
    """
    check_hf(settings)
    check_trackers(settings)
    workers = num_workers(settings, cached=cached)
    warmup_steps = settings.warmup_steps
    if warmup_steps is None:
        ratio = DEFAULT_WARMUP_RATIO if settings.warmup_ratio is None else settings.warmup_ratio
        warmup_steps = round(ratio * num_steps)
    on_gpu = torch.cuda.is_available()
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": num_steps,
        "learning_rate": settings.learning_rate,
        # To the trainer an optimizer step is one batch: medtune.training.batches cuts it.
        "per_device_train_batch_size": settings.batch_size * settings.gradient_accumulation_steps,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        "warmup_steps": warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": use_bf16(settings) and autocast,
        "seed": settings.seed,
        "logging_strategy": "steps",
        "logging_steps": settings.log_every,
        "logging_first_step": True,
        # The trainer's filter hides NaN losses from the log. medtune stops instead.
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        "dataloader_prefetch_factor": 4 if workers else None,
        "dataloader_pin_memory": on_gpu,
        "accelerator_config": {"non_blocking": on_gpu},
        "remove_unused_columns": False,
        "report_to": list(settings.trackers) or "none",
        "run_name": folder.parent.name,
        "disable_tqdm": True,
        "log_level": "error",
        "log_level_replica": "error",
        "use_cpu": not on_gpu,
        "ddp_find_unused_parameters": False,
        # Seconds that a process waits for the others: torch's default for NCCL. transformers would wait half an hour.
        "ddp_timeout": 600,
    }
    if optimizer == "adamw_8bit":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise MissingDependencyError("bitsandbytes", needed_for=msg("train.optimizer=adamw_8bit"), pip="'medtune[qlora]'")
        values["optim"] = optimizer
    values |= _with_numbers(settings.hf)
    try:
        arguments = TrainingArguments(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(msg("transformers refuses the settings: {error}", error=str(error)), key="train.hf") from error
    if arguments.n_gpu > 1:
        # One process that sees several GPUs would get nn.DataParallel, which nobody asked for.
        arguments._n_gpu = 1
    return arguments
