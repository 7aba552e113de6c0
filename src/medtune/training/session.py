"""What surrounds the training loop: a run folder that tells of failures, quiet libraries, threads, a model left as it came."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from logging import ERROR
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn

from medtune.errors import MedtuneError
from medtune.language import Text, msg
from medtune.runs import Run
from medtune.training.checkpoints import all_checkpoints
from medtune.training.divergence import DivergenceError
from medtune.types import Event

__all__ = ["cpu_threads", "failures_noted", "left_as_it_came", "quiet_libraries"]


@contextlib.contextmanager
def failures_noted(run: Run, *, enabled: bool) -> Iterator[None]:
    """Leave a run folder that says what happened, whatever happened."""
    try:
        yield
    except KeyboardInterrupt:
        if enabled:
            saved = all_checkpoints(run.checkpoints)
            step = saved[-1][0] if saved else 0
            what = msg("Interrupted; the last checkpoint is of step {step}.", step=step)
            _note(run, what, values={"step": step}, status="interrupted")
        raise
    except Exception as error:
        if enabled:
            what = error.what if isinstance(error, MedtuneError) else Text("{error}", {"error": f"{type(error).__name__}: {error}"})
            changes: dict[str, Any] = {"status": "failed", "error": what}
            if isinstance(error, DivergenceError):
                changes |= _divergences(run, error.step)
            _note(run, what, **changes)
        raise


def _note(run: Run, what: Text, *, values: dict[str, int] | None = None, **changes: Any) -> None:
    # On a full disk not even this can be written; the error itself must still be seen.
    with contextlib.suppress(OSError, MedtuneError):
        run.update(**changes)
        run.append(Event("note", what, values=values or {}))


def _divergences(run: Run, step: int | None) -> dict[str, Any]:
    record = run.record
    again = step is not None and record.diverged_step == step
    return {"diverged_step": step, "num_divergences": record.num_divergences + 1 if again else 1}


@contextlib.contextmanager
def left_as_it_came(model: nn.Module) -> Iterator[None]:
    """Switch on what training needs, and take back afterwards what training has changed about the model besides its weights.

    Enter it before the trainer is built: that already changes ``config.use_cache``, which would make generation slow.
    """
    config: Any = getattr(model, "config", None)
    had_cache = hasattr(config, "use_cache")
    use_cache = getattr(config, "use_cache", None)
    try:
        yield
    finally:
        # Without the autocast that accelerate wraps around forward.
        extract_model_from_parallel(model, keep_fp32_wrapper=False)
        vars(model).pop("_is_accelerate_prepared", None)
        if had_cache:
            config.use_cache = use_cache
        elif hasattr(config, "use_cache"):
            del config.use_cache
        model.eval()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """No log lines below an error and no progress bars from transformers: progress is told by events."""
    from transformers.utils import logging as hf_logging

    logging: Any = hf_logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(ERROR)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def cpu_threads() -> Iterator[None]:
    """On a CPU, as many threads as cores that this process may use (not as the machine has), shared among local processes."""
    before = torch.get_num_threads()
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, min(before, cores)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
