"""Pictures of a data set, each decoded once, by several child processes, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from medtune.data.checks.check import PictureFacts
from medtune.data.dataset import Dataset
from medtune.imaging.child import ChildDiedError, borrow
from medtune.imaging.config import Limits
from medtune.language import Text, msg
from medtune.types import Fault, ImageRef

__all__ = ["BATCH", "read_pictures"]

BATCH = 32
"""Pictures that a child process is given at a time."""


def read_pictures(
    dataset: Dataset, refs: Iterable[ImageRef], needs: Iterable[str], *, limits: Limits | None = None, num_workers: int = 2
) -> Iterator[PictureFacts]:
    """The facts of each picture, in the order of ``refs``. Reads ahead by a few batches and no further.

    A picture that kills its process, asks for more memory than allowed or keeps a decoder busy for too long costs one fault;
    the pictures after it are read by a new process.

    Args:
        dataset: Where they lie.
        refs: The pictures.
        needs: The measures to take: see ``measures.MEASURES``.
        limits: What a picture may be at most; its ``max_memory`` and ``seconds`` are each process's.
        num_workers: Child processes.
    """
    limits = limits or Limits()
    wanted = sorted(needs)
    waiting: deque[Future[list[PictureFacts]]] = deque()
    with ThreadPoolExecutor(num_workers) as threads:
        try:
            rest = iter(refs)
            while batch := list(islice(rest, BATCH)):
                waiting.append(threads.submit(_read, dataset, batch, limits, wanted))
                if len(waiting) > 2 * num_workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read(dataset: Dataset, batch: list[ImageRef], limits: Limits, wanted: list[str]) -> list[PictureFacts]:
    facts: list[PictureFacts] = []
    with borrow(max_memory=limits.max_memory * 1024**2, seconds=limits.seconds) as child:
        while len(facts) < len(batch):
            jobs = [_job(dataset, ref) for ref in batch[len(facts) :]]
            try:
                for value in child.run("medtune.data.checks.measures:measure_pictures", jobs, limits, wanted):
                    facts.append(_facts(batch[len(facts)], value))
            except ChildDiedError as error:
                remedy = msg("Leave the picture out: a file that does this to a decoder is damaged or was made to do harm.")
                facts.append(PictureFacts(batch[len(facts)], Fault("image-unreadable", error.what, remedy), intact=False))
    return facts


def _job(dataset: Dataset, ref: ImageRef) -> list[Any]:
    # Absolute, because the child keeps the folder that it was started in. The index has refused paths outside the folder.
    file = str(dataset.image_path(ref).absolute())
    where = [None, None] if ref.shard is None else [ref.shard.offset, ref.shard.num_bytes]
    return [file, *where, ref.path, ref.sha256]


def _facts(ref: ImageRef, value: dict[str, Any]) -> PictureFacts:
    if "fault" in value:
        reason, message, remedy = value["fault"]
        return PictureFacts(ref, Fault(reason, Text(*message), Text(*remedy)), intact=value["intact"])
    width, height = value["size"]
    return PictureFacts(ref, None, intact=value["intact"], width=width, height=height, measured=value["measured"])
