"""What a run will do, known before its first step: which rows, how many steps, and where to go on from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medtune.errors import TrainingError
from medtune.language import Text, msg
from medtune.runs import Run, atomic_write
from medtune.training.callbacks import Journal
from medtune.training.checkpoints import check_same, describe, last_sound
from medtune.training.config import TrainSettings
from medtune.training.data import CACHE_LIMIT_BYTES, EncodedRows, RowEncoder, encoded_bytes, measure_lengths
from medtune.types import Event, ImageRef, Sample

__all__ = ["Measured", "Plan", "make_plan", "measure", "world_size"]


@dataclass(frozen=True, slots=True)
class Measured:
    """The rows of a run that fit into ``max_tokens``, and their tokens. No model is needed to know them.

    Attributes:
        train: Rows to train on; at least one.
        lengths: Their tokens.
        validation: Rows of the validation loss.
        eval_lengths: Their tokens.
    """

    train: Sequence[Sample]
    lengths: list[int]
    validation: Sequence[Sample]
    eval_lengths: list[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """Attributes:
    train: Rows that are trained on.
    lengths: Their tokens.
    validation: Rows of the validation loss.
    eval_lengths: Their tokens.
    num_steps: Optimizer steps in all.
    cached: Encoded rows stay in memory.
    description: What must be the same when the run is resumed.
    checkpoint: Where to go on from; None = start at the beginning.
    damaged: Newer checkpoints that are not whole.
    """

    train: EncodedRows
    lengths: list[int]
    validation: EncodedRows
    eval_lengths: list[int]
    num_steps: int
    cached: bool
    description: dict[str, Any]
    checkpoint: Path | None
    damaged: tuple[Path, ...] = ()


def world_size() -> int:
    """Processes that train together, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def measure(
    run: Run,
    *,
    encoder: RowEncoder,
    train_rows: Sequence[Sample],
    validation_rows: Sequence[Sample],
    settings: TrainSettings,
    journal: Journal,
) -> Measured:
    """Measure all rows without opening a picture, and leave out or refuse those that are too long.

    Raises:
        TrainingError: See :func:`medtune.training.train.train`.
    """
    num_rows = len(train_rows) + len(validation_rows)
    journal(Event("phase", msg("Measuring the length of {rows} rows.", rows=num_rows), total=num_rows))
    train_rows, lengths = _fitting("train", train_rows, encoder, settings, run, journal)
    validation_rows, eval_lengths = _fitting("validation", validation_rows, encoder, settings, run, journal)
    if not train_rows:
        raise TrainingError(
            msg("There are no rows to train on."), key="data", remedy=msg("`medtune validate` shows what became of the rows.")
        )
    if settings.patience is not None and not validation_rows:
        raise TrainingError(
            msg("Early stopping needs validation rows, and there are none."),
            key="train.patience",
            remedy=msg("Give the data set a validation split, or leave patience out."),
        )
    return Measured(train_rows, lengths, validation_rows, eval_lengths)


def make_plan(
    run: Run,
    measured: Measured,
    *,
    model: nn.Module,
    encoder: RowEncoder,
    picture: Callable[[ImageRef], Path | bytes],
    settings: TrainSettings,
    journal: Journal,
    resume: bool,
) -> Plan:
    """Count the steps and find the checkpoint.

    Raises:
        TrainingError: See :func:`medtune.training.train.train`.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TrainingError(
            msg("No weight of the model is trained."),
            key="adapter",
            remedy=msg("Widen adapter.targets or unfreeze a part of the model."),
        )
    train_rows, validation_rows = measured.train, measured.validation
    lengths, eval_lengths = measured.lengths, measured.eval_lengths
    train, validation = EncodedRows(train_rows, encoder, picture), EncodedRows(validation_rows, encoder, picture)
    cached = settings.cache_encoded is True
    if settings.cache_encoded == "auto" and not torch.cuda.is_available():
        # Beside a GPU, processes encode rows ahead of it for nothing; rows kept in the trainer would be collated by it.
        estimate = encoded_bytes(train, lengths) + encoded_bytes(validation, eval_lengths)
        cached = 0 < estimate <= CACHE_LIMIT_BYTES
    if cached:
        train.keep()
        validation.keep()
    rows_per_step = settings.batch_size * settings.gradient_accumulation_steps * world_size()
    steps_per_epoch = math.ceil(len(train_rows) / rows_per_step)
    description = describe(settings, model=model, train_rows=train_rows, validation_rows=validation_rows)
    checkpoint = None
    damaged: list[tuple[Path, Text]] = []
    if resume:
        found, damaged = last_sound(run.checkpoints)
        for path, problem in damaged:
            journal(Event("note", msg("{name} is damaged and is not used: {problem}.", name=path.name, problem=str(problem))))
        if found is not None:
            step, checkpoint = found
            check_same(checkpoint, description)
            journal(Event("note", msg("Continuing after step {step}.", step=step), values={"step": step}))
        else:
            journal(Event("note", msg("There is no checkpoint to continue from: starting from the beginning.")))
    return Plan(
        train=train,
        lengths=lengths,
        validation=validation,
        eval_lengths=eval_lengths,
        num_steps=settings.max_steps or math.ceil(settings.epochs * steps_per_epoch),
        cached=cached,
        description=description,
        checkpoint=checkpoint,
        damaged=tuple(path for path, _ in damaged),
    )


def _fitting(
    split: str, rows: Sequence[Sample], encoder: RowEncoder, settings: TrainSettings, run: Run, journal: Journal
) -> tuple[Sequence[Sample], list[int]]:
    """The rows that fit into ``max_tokens`` and the model's context, and their lengths."""
    lengths = measure_lengths(rows, encoder, progress=lambda done: journal(Event("progress", done=done, total=len(rows))))
    context = encoder.max_tokens
    limit = settings.max_tokens if context is None else min(settings.max_tokens, context)
    long = [index for index, length in enumerate(lengths) if length > limit]
    if long and settings.too_long == "error":
        shown = ", ".join(f"{rows[index].id} ({lengths[index]})" for index in long[:10])
        if context is not None and max(lengths) > context:
            remedy = msg(
                "The model reads {context} tokens: lower model.max_pixels, or leave them out with train.too_long=leave-out.",
                context=context,
            )
        else:
            remedy = msg(
                "Set train.max_tokens={longest}, lower model.max_pixels, or leave them out with train.too_long=leave-out.",
                longest=max(lengths),
            )
        raise TrainingError(
            msg(
                "{count} rows of {split} are longer than {max_tokens} tokens; the first ones: {shown}",
                count=len(long),
                split=split,
                max_tokens=limit,
                shown=shown,
            ),
            file=getattr(rows, "file", None),  # rows that lie in memory have none
            sample=rows[long[0]].id,
            key="train.max_tokens",
            remedy=remedy,
        )
    if long:
        lines = [
            {
                "split": split,
                "id": rows[index].id,
                "reason": "too-long",
                "num_tokens": lengths[index],
                "max_tokens": limit,
            }
            for index in long
        ]
        _write_left_out(run, split, lines)
        journal(
            Event(
                "note",
                msg(
                    "Left out {count} of {total} rows of {split}: longer than {max_tokens} tokens. left_out.jsonl lists them.",
                    count=len(long),
                    total=len(rows),
                    split=split,
                    max_tokens=limit,
                ),
                values={"split": split, "count": len(long)},
            )
        )
    if not long:
        return rows, lengths
    left_out = set(long)
    kept = [index for index in range(len(rows)) if index not in left_out]
    return [rows[index] for index in kept], [lengths[index] for index in kept]


def _write_left_out(run: Run, split: str, lines: list[dict[str, Any]]) -> None:
    if int(os.environ.get("RANK", "0")) != 0:
        return
    path = run.folder / "left_out.jsonl"
    earlier = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    kept = [line for line in earlier if line["split"] != split]
    atomic_write(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [*kept, *lines]))
