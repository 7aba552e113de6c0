"""What becomes of a run whose memory ran out: the failed step is forgotten, the work before it kept, the choice made smaller."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from medtune.errors import TrainingError
from medtune.language import Text, msg
from medtune.runs import Run
from medtune.training.callbacks import Journal
from medtune.training.checkpoints import all_checkpoints
from medtune.training.choice import Checkpointing, EngineChoice, smaller
from medtune.training.config import TrainSettings
from medtune.training.plan import Plan, world_size
from medtune.training.trainer import TokenWeightedTrainer
from medtune.types import Event

__all__ = [
    "allocator_words",
    "free_memory",
    "is_out_of_memory",
    "make_smaller",
    "memory_explained",
    "note_choice",
    "out_of_memory",
    "remembered",
    "rescue",
    "words_for",
]

_WORDS = ("can't allocate memory", "out of memory", "_STATUS_ALLOC_FAILED")
"""Of errors that are no ``torch.OutOfMemoryError``: torch's CPU allocator; one that torch's compiler met and put into an error of
its own; what the CUDA runtime, NCCL or Triton could not have beside torch's allocator; and the workspaces of cuBLAS and cuDNN."""

_ASKED = ("packing", "micro_batch_tokens", "gradient_checkpointing", "vision_cache", "compile", "optimizer")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the GPU or of this process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(map(_says_so, str(error).splitlines()))


def allocator_words(error: BaseException) -> str:
    """The sentence of an error that says that memory ran out."""
    line = next(filter(_says_so, str(error).splitlines()), "") or str(error)
    return line.strip().split(". ")[0].rstrip(".") or type(error).__name__


def _says_so(line: str) -> bool:
    return any(words in line for words in _WORDS)


@contextlib.contextmanager
def memory_explained(run: Run) -> Iterator[None]:
    """Turn memory that ran out where nothing smaller is tried, such as while the model is loaded, into an error with a remedy.

    Raises:
        TrainingError: Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = msg(
            "Something else may hold the memory: `nvidia-smi` shows what. adapter.kind=qlora and a lower model.max_pixels need"
            " less. Then `medtune train {folder} --resume`.",
            folder=run.folder,
        )
        raise TrainingError(msg("Memory ran out: {error}", error=allocator_words(error)), file=run.folder, remedy=remedy) from error


def free_memory() -> None:
    """Give back what the failed pass held. Call it where the error is out of scope: its traceback holds every activation."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rescue(trainer: TokenWeightedTrainer, run: Run) -> Path | None:
    """A checkpoint of the last whole optimizer step: the one that was saved there, else one made now from what is in memory.

    Returns:
        The checkpoint; None where no step was made yet.

    Raises:
        TrainingError: Memory ran out while the optimizer changed weights, so what is in memory is half a step, and there is no
            checkpoint.
    """
    saved = dict(all_checkpoints(run.checkpoints))
    step = int(trainer.state.global_step)
    if step in saved:
        return saved[step]
    if trainer.updating:
        if saved:
            return saved[max(saved)]
        raise TrainingError(
            msg("Memory ran out while the weights were being changed, and there is no checkpoint yet."),
            file=run.folder,
            remedy=msg("`medtune train {folder} --resume` begins again, with the smaller settings.", folder=run.folder),
        )
    if step == 0:
        return None
    trainer.save_now()
    return run.checkpoints / f"checkpoint-{step}"


def note_choice(run: Run, settings: TrainSettings, choice: EngineChoice) -> None:
    """Keep in ``run.json`` what was asked for and what was chosen."""
    run.update(engine={"asked": _asked(settings), "chosen": asdict(choice)})


def remembered(run: Run, settings: TrainSettings, choice: EngineChoice) -> EngineChoice:
    """The choice of the run's earlier attempt, where the same was asked for; else ``choice``.

    A resumed run goes on as it was, also on a card where something else holds memory now; and one whose memory ran out does
    not begin with what did not fit.
    """
    engine: dict[str, Any] = run.record.engine
    if engine.get("asked") != _asked(settings):
        return choice
    chosen = dict(engine["chosen"])
    return EngineChoice(**{**chosen, "checkpointing": Checkpointing(**chosen["checkpointing"])})


def words_for(choice: EngineChoice, batch_size: int) -> Text:
    """The part of a choice that memory depends on."""
    again = choice.checkpointing
    layers = "offload" if again.offload else {0: "none", 1: "all"}.get(again.every, str(again.every))
    if choice.packing and choice.micro_batch_tokens:
        return msg("{tokens} tokens at once, gradient_checkpointing {layers}", tokens=choice.micro_batch_tokens, layers=layers)
    rows = choice.micro_batch_rows or batch_size
    return msg("{rows} rows at once, gradient_checkpointing {layers}", rows=rows, layers=layers)


def out_of_memory(run: Run, error: str, *, correction: Text | None) -> TrainingError:
    """The error of a run that ends because memory ran out.

    Args:
        error: The allocator's own words.
        correction: What ``--resume`` will do; None when nothing smaller gives the same result.
    """
    advice: Text
    if correction is None:
        advice = msg("Nothing smaller gives the same result. These change it: a lower model.max_pixels, adapter.kind=qlora.")
    else:
        advice = msg("`medtune train {folder} --resume` goes on with {correction}.", folder=run.folder, correction=str(correction))
    return TrainingError(msg("Memory ran out: {error}", error=error), file=run.folder, key="train.on_out_of_memory", remedy=advice)


def make_smaller(
    run: Run,
    plan: Plan,
    trainer: TokenWeightedTrainer,
    settings: TrainSettings,
    choice: EngineChoice,
    journal: Journal,
    ran_out: str,
) -> tuple[EngineChoice, Path | None]:
    """The next choice after memory ran out, and the checkpoint to go on from.

    Raises:
        TrainingError: There is no smaller choice, or the run may not go on by itself.
    """
    rows_per_step = settings.batch_size * settings.gradient_accumulation_steps
    longest = sorted(plan.lengths)[-rows_per_step:]
    less = smaller(choice, longest_row=longest[-1], step_tokens=sum(longest), batch_size=settings.batch_size)
    if less is None:
        raise out_of_memory(run, ran_out, correction=None)
    words = words_for(less, settings.batch_size)
    note_choice(run, settings, less)  # by whichever process it happens to
    if settings.on_out_of_memory == "stop" or world_size() > 1:
        # Of several processes, the others wait in a collective operation that this one has left.
        raise out_of_memory(run, ran_out, correction=words)
    checkpoint = rescue(trainer, run)
    step = int(trainer.state.global_step)
    journal(Event("note", msg("Memory ran out after step {step}. Going on with {words}.", step=step, words=str(words))))
    return less, checkpoint


def _asked(settings: TrainSettings) -> dict[str, JsonValue]:
    return {name: value for name, value in settings.model_dump(mode="json").items() if name in _ASKED}
