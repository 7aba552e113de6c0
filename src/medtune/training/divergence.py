"""A loss or a weight that is no longer a number: how it is told, and what a resumed run does about it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from medtune.errors import TrainingError
from medtune.language import msg
from medtune.runs import Run
from medtune.training.checkpoints import all_checkpoints
from medtune.training.sharding import own_part
from medtune.types import Event, Listener

__all__ = ["DivergenceError", "all_finite", "check_worth_resuming", "diverged"]


class DivergenceError(TrainingError):
    """The training has diverged.

    Attributes:
        step: The last optimizer step before it was seen; None while nobody knows.
    """

    step: int | None = None


def diverged(step: int, *, sample: str | None = None) -> DivergenceError:
    """The error for a loss, a gradient or a weight that is NaN or infinite.

    Args:
        sample: Ids of the rows of the micro-batch whose loss it was.
    """
    error = DivergenceError(
        msg("The loss is no longer a number after step {step}: the training has diverged.", step=step),
        sample=sample,
        key="train.learning_rate",
        remedy=msg(
            "Lower train.learning_rate, lengthen the warm-up or set train.max_grad_norm=1.0, and look at the samples named here."
        ),
    )
    error.step = step
    return error


def all_finite(weights: Iterable[Tensor]) -> bool:
    """Whether no weight of this process is NaN or infinite. On a GPU this waits for it once."""
    sums = [weight.detach().float().sum() for weight in map(own_part, weights) if weight.is_floating_point()]
    # A NaN or an infinity makes the sum one; finite weights cannot overflow float32, their number would have to.
    return not sums or bool(torch.isfinite(torch.stack([each.to(sums[0].device) for each in sums])).all())


def check_worth_resuming(run: Run, tell: Listener) -> None:
    """Say that the run diverged the last time; refuse when it has diverged at the same step twice.

    The same rows, random numbers and settings give the same losses, so going on is worth one trial: a fault of the machine
    does not come back, a learning rate that is too high does.

    Raises:
        TrainingError: It diverged at the same step in two attempts.
    """
    record = run.record
    if record.diverged_step is None:
        return
    saved = all_checkpoints(run.checkpoints)
    remedy = msg("Start another run with run.name=... and a lower train.learning_rate.")
    if saved:
        remedy = msg(
            "Start another run from the last good weights: run.name=..., adapter.init_from={folder}, a lower train.learning_rate.",
            folder=saved[-1][1],
        )
    if record.num_divergences > 1:
        raise TrainingError(
            msg("This run has diverged twice after step {step}; going on as before would do so again.", step=record.diverged_step),
            file=run.folder,
            key="train.learning_rate",
            remedy=remedy,
        )
    tell(
        Event(
            "note",
            msg(
                "The last attempt diverged after step {step}. This one goes on from before it with the same settings: if that was"
                " no fault of the machine, it will diverge again.",
                step=record.diverged_step,
            ),
        )
    )
