"""One training run, from rows and a model to an adapter in the run folder."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medtune import __version__
from medtune.errors import TrainingError
from medtune.language import msg
from medtune.models.packed_forward import causal_model
from medtune.models.packing import can_pack
from medtune.models.vision_layout import vision_layout
from medtune.runs import Run
from medtune.training.arguments import training_arguments
from medtune.training.batches import EvalBatches, StepSampler
from medtune.training.callbacks import EventCallback, Journal, ScheduleCallback, StopRequest
from medtune.training.checkpoints import all_checkpoints
from medtune.training.choice import Checkpointing, EngineChoice
from medtune.training.config import TrainSettings
from medtune.training.data import RowEncoder, RowSampler, StepCollator
from medtune.training.engine import engine, needs_autocast
from medtune.training.plan import Plan, make_plan, world_size
from medtune.training.plot import plot_losses
from medtune.training.result import save_result
from medtune.training.session import cpu_threads, failures_noted, left_as_it_came, memory_errors_explained, quiet_libraries
from medtune.training.trainer import TokenWeightedTrainer, best_step
from medtune.types import AdapterContract, Event, ImageRef, Listener, RunRecord, Sample

__all__ = ["train"]


def train(
    run: Run,
    *,
    model: nn.Module,
    encoder: RowEncoder,
    train_rows: Sequence[Sample],
    validation_rows: Sequence[Sample] = (),
    picture: Callable[[ImageRef], Path | bytes],
    settings: TrainSettings,
    contract: AdapterContract | None = None,
    listener: Listener | None = None,
    resume: bool = False,
) -> RunRecord:
    """Tune ``model`` on ``train_rows`` and leave the result in the run folder.

    Writes ``adapter/`` (``model/`` when the weights themselves are tuned) with ``contract.json`` and
    ``adapter_report.json``, ``loss.png``, ``checkpoints/``, ``events.jsonl``, ``run.json``, and ``left_out.jsonl`` where
    rows were left out. On return ``model`` holds the saved weights and is in eval mode.

    Takes hold of the run (:meth:`medtune.runs.Run.hold`) itself; the caller must not hold it. Under a launcher of several
    processes every process calls this with the same arguments, and the first one writes.

    Args:
        run: An existing run folder.
        model: With its adapter, as :func:`medtune.models.adapter.add_adapter` returns it; some parameters must require a
            gradient.
        encoder: Turns rows into tensors.
        train_rows: Rows to tune on.
        validation_rows: Rows for the validation loss; empty = none is measured.
        picture: The file or the bytes of a picture.
        settings: The recipe's section ``train``.
        contract: Saved beside the adapter; ``encoder.contract()`` when not given. Give one that holds the transforms of the
            data set.
        listener: Hears every event. It may raise ``KeyboardInterrupt`` to stop the run after the current step.
        resume: Go on from the last complete checkpoint, with the same losses as if the run had never stopped. Starts from
            the beginning where there is none yet.

    Returns:
        The run's record, with status ``trained``.

    Raises:
        TrainingError: There is nothing to train on, a row is longer than ``max_tokens``, the loss became NaN, memory ran
            out, or the checkpoint was made by other settings, rows or weights. The run is marked ``failed``.
        RecipeError: ``settings.hf`` holds an unknown argument.
        RunError: The run is held by another process.
        DataError: A picture or a row cannot be read.
        KeyboardInterrupt: Ctrl-C, SIGTERM or the listener. The step was finished, a checkpoint saved, and the run marked
            ``interrupted``.
    """
    is_first = int(os.environ.get("RANK", "0")) == 0
    stop = StopRequest()
    journal = Journal(run, listener, stop, silent=not is_first)
    with run.hold() if is_first else contextlib.nullcontext():
        _check_startable(run, resume)
        with failures_noted(run, enabled=is_first), quiet_libraries(), cpu_threads(), stop.listening():
            plan = make_plan(
                run,
                model=model,
                encoder=encoder,
                train_rows=train_rows,
                validation_rows=validation_rows,
                picture=picture,
                settings=settings,
                journal=journal,
                resume=resume,
            )
            counts = _count_parameters(model)
            if is_first:
                _clean(run.checkpoints)
                run.update(status="training", error=None, num_steps_planned=plan.num_steps, trainable=counts, versions=_versions())
            journal(
                Event(
                    "note",
                    msg(
                        "Training {trainable} of {total} parameters ({percent} %).",
                        trainable=f"{counts['trainable']:,}",
                        total=f"{counts['total']:,}",
                        percent=f"{100 * counts['trainable'] / counts['total']:.2f}",
                    ),
                    values=counts,
                )
            )
            return _fit(run, plan, model, settings, contract or encoder.contract(), journal, stop, is_first=is_first)


def _fit(
    run: Run,
    plan: Plan,
    model: nn.Module,
    settings: TrainSettings,
    contract: AdapterContract,
    journal: Journal,
    stop: StopRequest,
    *,
    is_first: bool,
) -> RunRecord:
    choice = decide(settings, model)
    with left_as_it_came(model), engine(model, choice):
        trainer, events = _make_trainer(run, plan, model, settings, choice, journal, stop)
        with memory_errors_explained(settings), contextlib.closing(trainer):
            trainer.train(resume_from_checkpoint=str(plan.checkpoint) if plan.checkpoint else None)
            trainer.check_finite()
    history = trainer.state.log_history
    step = int(trainer.state.global_step)
    if is_first:
        plot_losses(
            history,
            run.folder / "loss.png",
            title=run.record.name,
            num_train=len(plan.train),
            num_validation=len(plan.validation),
        )
    if stop.requested and step < plan.num_steps:
        raise KeyboardInterrupt
    if step < plan.num_steps:
        journal(Event("note", msg("Stopped early after step {step}: the validation loss no longer falls.", step=step)))
    best = best_step(history)
    kept_best = settings.keep_best and best is not None and best != step
    if kept_best:
        trainer.load_best(run.checkpoints / f"checkpoint-{best}")
        journal(Event("note", msg("Keeping the weights of step {step}, which have the lowest validation loss.", step=best or 0)))
    journal(Event("phase", msg("Saving the result.")))
    weights = trainer.gathered_weights()
    if is_first:
        save_result(run, model, contract, plan.train.encoder.folder, weights=weights)
    eval_losses = {int(entry["step"]): float(entry["eval_loss"]) for entry in history if "eval_loss" in entry}
    last_eval = eval_losses[max(eval_losses)] if eval_losses else None
    if not is_first:
        return run.record
    record = run.update(
        status="trained",
        num_steps=step,
        num_epochs=trainer.state.epoch,
        train_loss=mean_loss(history),
        eval_loss=eval_losses.get(best, last_eval) if settings.keep_best and best is not None else last_eval,
        best_step=best,
        seconds=round(events.seconds, 2),
    )
    journal(
        Event(
            "finished",
            msg("Trained {steps} steps in {seconds} s.", steps=step, seconds=f"{record.seconds or 0.0:.0f}"),
            values={
                "step": step,
                "train_loss": record.train_loss,
                "eval_loss": record.eval_loss,
                "best_step": record.best_step,
                "seconds": record.seconds,
            },
        )
    )
    return record


def _make_trainer(
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
    args = training_arguments(
        settings,
        run.checkpoints,
        num_steps=plan.num_steps,
        cached=plan.cached,
        autocast=not choice.packing or needs_autocast(model),
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
            micro_batch_rows=settings.batch_size,
            rank=rank,
            num_devices=world_size(),
        ),
        eval_batches=EvalBatches(
            plan.eval_lengths,
            micro_batch_tokens=tokens,
            micro_batch_rows=settings.batch_size,
            rank=rank,
            num_devices=world_size(),
        ),
        # Events first: a listener's wish to stop is then heard at the same step.
        callbacks=[events, schedule],
        description=plan.description,
        save_total_limit=settings.save_total_limit,
    )
    schedule.trainer = events.trainer = trainer
    return trainer, events


def _collator(plan: Plan, model: nn.Module, choice: EngineChoice) -> StepCollator:
    tower: Any = getattr(getattr(causal_model(model), "model", None), "visual", None)
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
    )


def decide(settings: TrainSettings, model: nn.Module) -> EngineChoice:
    """What the engine does here, where the recipe leaves it open."""
    on_gpu = torch.cuda.is_available()
    packing = can_pack(model) if settings.packing == "auto" else settings.packing
    if packing and not can_pack(model):
        raise TrainingError(
            msg("The rows of this model cannot be packed."),
            key="train.packing",
            remedy=msg("Write train.packing=auto, and load the model with model.attention=auto."),
        )
    asked = settings.gradient_checkpointing
    every = {"auto": 0, "none": 0, "all": 1, "offload": 1}[asked] if isinstance(asked, str) else asked
    tokens = settings.micro_batch_tokens
    return EngineChoice(
        packing=packing,
        micro_batch_tokens=(8192 if on_gpu else 2048) if tokens == "auto" else tokens,
        checkpointing=Checkpointing(every, offload=asked == "offload"),
        compile=on_gpu if settings.compile == "auto" else settings.compile,
    )


def mean_loss(history: Sequence[dict[str, Any]]) -> float | None:
    """Mean training loss over all steps; a log entry stands for the steps since the one before it."""
    total, last = 0.0, 0
    for entry in history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - last)
            last = entry["step"]
    return total / last if last else None


def _check_startable(run: Run, resume: bool) -> None:
    if run.adapter is not None:
        raise TrainingError(
            msg("This run has finished training already."),
            file=run.folder,
            remedy=msg("Start another run with run.name=..., or continue from its adapter with adapter.init_from=..."),
        )
    if not resume and all_checkpoints(run.checkpoints):
        raise TrainingError(
            msg("This run was started before and has checkpoints."),
            file=run.folder,
            remedy=msg("Continue it with --resume, or start another run with run.name=..."),
        )


def _clean(checkpoints: Path) -> None:
    """Take away what a crash left half-written."""
    if checkpoints.is_dir():
        for path in checkpoints.iterdir():
            if path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)


def _count_parameters(model: nn.Module) -> dict[str, int]:
    counts = {"trainable": 0, "total": 0}
    for parameter in model.parameters():
        # A 4-bit weight is packed, two values in a byte.
        count = parameter.numel() * (2 if type(parameter).__name__ == "Params4bit" else 1)
        counts["total"] += count
        counts["trainable"] += count if parameter.requires_grad else 0
    return counts


def _versions() -> dict[str, str]:
    import accelerate
    import peft
    import transformers

    return {
        "medtune": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "accelerate": accelerate.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
