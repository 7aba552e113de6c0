"""The end of a run: the weights to keep, the loss curve, the result, the record."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from medtune.language import msg
from medtune.runs import Run
from medtune.training.callbacks import EventCallback, Journal, StopRequest
from medtune.training.config import TrainSettings
from medtune.training.meter import peak_memory_mib
from medtune.training.outcome import Outcome, settle
from medtune.training.plan import Plan
from medtune.training.plot import plot_losses
from medtune.training.result import LAST, save_result
from medtune.training.trainer import TokenWeightedTrainer
from medtune.training.weights import is_peft
from medtune.types import AdapterContract, Event, Performance, RunRecord

__all__ = ["conclude", "finish", "mean_loss", "save", "save_last"]


def finish(
    run: Run,
    plan: Plan,
    trainer: TokenWeightedTrainer,
    settings: TrainSettings,
    journal: Journal,
    stop: StopRequest,
    save_last: Callable[[], None],
) -> Outcome:
    """Draw the loss curve and choose the weights to keep, when the training loop has ended.

    Raises:
        KeyboardInterrupt: The loop ended because somebody asked for it.
    """
    history = trainer.state.log_history
    step = int(trainer.state.global_step)
    if trainer.is_world_process_zero():
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
    return settle(trainer, run, settings, journal, save_last)


def save(
    run: Run,
    trainer: TokenWeightedTrainer,
    events: EventCallback,
    outcome: Outcome,
    contract: AdapterContract,
    base_folder: Path,
    journal: Journal,
) -> RunRecord:
    """Save the weights that are in the model. Every process must call it; the first one writes.

    Numbers first, then the result, then the status: a run that is killed in between is finished by ``--resume`` in a moment.
    """
    journal(Event("phase", msg("Saving the result.")))
    weights = trainer.gathered_weights()
    if not trainer.is_world_process_zero():
        return run.record
    history = trainer.state.log_history
    step = int(trainer.state.global_step)
    if outcome.kept == "last" or (outcome.kept == "best" and outcome.best_step == step):
        shutil.rmtree(run.folder / LAST, ignore_errors=True)
    eval_losses = [float(entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    run.update(
        num_steps=step,
        num_epochs=trainer.state.epoch,
        train_loss=mean_loss(history),
        eval_loss=outcome.losses.get(outcome.kept, eval_losses[-1] if eval_losses else None),
        best_step=outcome.best_step,
        validation_losses=outcome.losses,
        kept=outcome.kept,
        seconds=round(events.seconds, 2),
        diverged_step=None,
        num_divergences=0,
        measured=_measured(trainer, events.seconds),
    )
    save_result(run, trainer.tuned, contract, base_folder, weights=weights)
    return conclude(run, journal)


def _measured(trainer: TokenWeightedTrainer, seconds: float) -> Performance | None:
    steady = trainer.meter.steady_state(trainer.accelerator.num_processes)
    if steady is None:
        return None
    return Performance(
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        num_devices=trainer.accelerator.num_processes,
        peak_gib=round(peak_memory_mib() / 1024, 3),
        seconds_per_step=round(steady[0], 5),
        tokens_per_second=round(steady[1], 1),
        seconds=round(seconds, 1),
    )


def save_last(run: Run, trainer: TokenWeightedTrainer, contract: AdapterContract, base_folder: Path) -> None:
    """Save the adapter of the last step beside the result. Of a full fine-tune the last checkpoint has those weights."""
    weights = trainer.gathered_weights()
    if trainer.is_world_process_zero() and is_peft(trainer.tuned):
        save_result(run, trainer.tuned, contract, base_folder, weights=weights, name=LAST)


def conclude(run: Run, journal: Journal) -> RunRecord:
    """Mark a run as trained whose result is saved."""
    record = run.update(status="trained", error=None)
    journal(
        Event(
            "finished",
            msg("Trained {steps} steps in {seconds} s.", steps=record.num_steps or 0, seconds=f"{record.seconds or 0.0:.0f}"),
            values={
                "step": record.num_steps,
                "train_loss": record.train_loss,
                "eval_loss": record.eval_loss,
                "best_step": record.best_step,
                "seconds": record.seconds,
            },
        )
    )
    return record


def mean_loss(history: Sequence[dict[str, Any]]) -> float | None:
    """Mean training loss over all steps; a log entry stands for the steps since the one before it."""
    total, last = 0.0, 0
    for entry in history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - last)
            last = entry["step"]
    return total / last if last else None
