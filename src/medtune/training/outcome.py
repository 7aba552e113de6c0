"""Which weights a run ends with: the last, the best measured, or the average of the last checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from medtune.errors import TrainingError
from medtune.language import msg
from medtune.runs import Run
from medtune.training.callbacks import Journal
from medtune.training.checkpoints import all_checkpoints
from medtune.training.config import TrainSettings
from medtune.training.seal import damage
from medtune.training.trainer import TokenWeightedTrainer, best_step
from medtune.training.weights import put_weights, read_weights, trained
from medtune.types import Event

__all__ = ["Outcome", "average", "check_average", "settle"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Attributes:
    kept: Which weights are in the model now.
    best_step: The step of the lowest validation loss; None where none was measured.
    losses: Validation losses of ``best``, ``last`` and ``average``, as far as they were measured.
    """

    kept: Literal["best", "last", "average"]
    best_step: int | None
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """The validation loss of what was kept."""
        return self.losses.get(self.kept)


def check_average(settings: TrainSettings, trainer: TokenWeightedTrainer) -> None:
    """Refuse at the start what could not be done at the end.

    Raises:
        TrainingError: Checkpoints are to be averaged, and none are saved, or their weights are spread over several devices.
    """
    if settings.average_last is None:
        return
    if settings.save_every == "never":
        raise TrainingError(
            msg("average_last needs checkpoints, but train.save_every is never."),
            key="train.average_last",
            remedy=msg("Set train.save_every, or leave train.average_last out."),
        )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise TrainingError(
            msg("Checkpoints that several devices share cannot be averaged."),
            key="train.average_last",
            remedy=msg("Leave train.average_last out, or use distributed.kind=ddp."),
        )


def settle(
    trainer: TokenWeightedTrainer, run: Run, settings: TrainSettings, journal: Journal, save_last: Callable[[], None]
) -> Outcome:
    """Put the weights to keep into the model, which holds the last ones.

    The best are kept if the recipe says so and they are not the last; then the average of the last checkpoints, if it is asked
    for and has a lower validation loss than those. Every process must call it.

    Args:
        save_last: Called before the last weights give way to others.
    """
    history = trainer.state.log_history
    step = int(trainer.state.global_step)
    measured = {int(entry["step"]): float(entry["eval_loss"]) for entry in history if "eval_loss" in entry}
    best = best_step(history)
    losses = {"best": measured[best]} if best is not None else {}
    if step in measured:
        losses["last"] = measured[step]
    kept: Literal["best", "last", "average"] = "last"
    if settings.average_last is not None or (settings.keep_best and best not in (None, step)):
        save_last()
    if settings.keep_best and best is not None:
        kept = "best"
        if best != step and not _load_best(trainer, run, best, journal):
            kept = "last"
    if settings.average_last is None:
        return Outcome(kept, best, losses)
    averaged, steps = average(run.checkpoints, settings.average_last)
    if len(steps) < 2:
        journal(Event("note", msg("There are no two whole checkpoints to average.")))
        return Outcome(kept, best, losses)
    own = {name: value.detach().clone() for name, value in trained(trainer.tuned).items()}
    put_weights(trainer.tuned, averaged, run.checkpoints)
    if trainer.eval_rows is not None:
        losses["average"] = _measure(trainer)
    if kept in losses and losses["average"] >= losses[kept]:
        with torch.no_grad():
            for name, value in trained(trainer.tuned).items():
                value.copy_(own[name])
        verdict = msg(
            "The average of the checkpoints of steps {steps} has a validation loss of {loss}, no lower than {other}: not kept.",
            steps=", ".join(map(str, steps)),
            loss=f"{losses['average']:.4f}",
            other=f"{losses[kept]:.4f}",
        )
    else:
        kept = "average"
        verdict = msg("Keeping the average of the checkpoints of steps {steps}.", steps=", ".join(map(str, steps)))
    journal(Event("note", verdict))
    return Outcome(kept, best, losses)


def average(folder: Path, number: int) -> tuple[dict[str, Tensor], list[int]]:
    """The mean of the trained weights of the newest ``number`` whole checkpoints, added up in float64; and their steps.

    The mean of LoRA's two factors is not the LoRA of the mean change; near each other, as the checkpoints of one run are, the
    two differ little, and the validation loss says whether too much.
    """
    total: dict[str, Tensor] = {}
    steps: list[int] = []
    types: dict[str, torch.dtype] = {}
    for step, path in all_checkpoints(folder)[-number:]:
        if damage(path) is not None:
            continue
        steps.append(step)
        for name, value in read_weights(path).items():
            types[name] = value.dtype
            total[name] = total[name] + value.double() if name in total else value.double()
    return {name: (value / len(steps)).to(types[name]) for name, value in total.items()}, steps


def _load_best(trainer: TokenWeightedTrainer, run: Run, best: int, journal: Journal) -> bool:
    checkpoint = run.checkpoints / f"checkpoint-{best}"
    problem = damage(checkpoint)
    if problem is not None:
        journal(
            Event(
                "note",
                msg(
                    "The checkpoint with the lowest validation loss, of step {step}, is damaged ({problem}): keeping the last.",
                    step=best,
                    problem=str(problem),
                ),
            )
        )
        return False
    trainer.load_best(checkpoint)
    journal(Event("note", msg("Keeping the weights of step {step}, which have the lowest validation loss.", step=best)))
    return True


def _measure(trainer: TokenWeightedTrainer) -> float:
    # Not trainer.evaluate(): that would enter the log as one more loss of the last step.
    result = trainer.evaluation_loop(trainer.get_eval_dataloader(), "average")
    return float((result.metrics or {})["eval_loss"])
