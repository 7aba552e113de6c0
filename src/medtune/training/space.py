"""A disk that is full: found early where that is possible, and told with what is free, what is needed and where."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator

from torch import nn

from medtune.errors import TrainingError
from medtune.language import msg
from medtune.runs import Run
from medtune.training.checkpoints import STAGING, checkpoint_bytes

__all__ = ["check_space", "full_disk_explained", "is_full_disk"]

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "PytorchStreamWriter failed", "inline_container.cc")
"""torch and safetensors write with code of their own, which says in words what the operating system says with a number."""


def check_space(run: Run, model: nn.Module) -> None:
    """Refuse to start where not even one checkpoint has room.

    Raises:
        TrainingError: There is less space than a checkpoint will need.
    """
    needed = checkpoint_bytes(run.checkpoints, model)
    free = shutil.disk_usage(run.folder).free
    if free < needed:
        raise _full(run, free=free, needed=needed)


@contextlib.contextmanager
def full_disk_explained(run: Run, model: nn.Module) -> Iterator[None]:
    """Turn every form in which a full disk shows itself into one error, and give back what the half-written files took.

    Raises:
        TrainingError: The disk is full.
    """
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        free = shutil.disk_usage(run.folder).free
        needed = checkpoint_bytes(run.checkpoints, model)
        shutil.rmtree(run.checkpoints / STAGING, ignore_errors=True)
        raise _full(run, free=free, needed=needed) from error


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that nothing more can be written."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        if any(words in str(error) for words in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _full(run: Run, *, free: int, needed: int) -> TrainingError:
    return TrainingError(
        msg("The disk is full: {free} are free, a checkpoint needs {needed}.", free=_size(free), needed=_size(needed)),
        file=run.folder,
        key="run.folder",
        remedy=msg(
            "Make room there, then go on with `medtune train {folder} --resume` from the last checkpoint. train.save_total_limit"
            " and train.save_every say how many checkpoints are kept and how often one is made.",
            folder=run.folder,
        ),
    )


def _size(number: int) -> str:
    """``1.4 GB``: in powers of 1000, as disks are sold."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"
