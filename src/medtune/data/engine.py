"""Who makes the shards: processes of this machine, or a Ray cluster. The function of a shard is the same."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from medtune.data.config import DataSettings
from medtune.data.shard import Job, position_in
from medtune.errors import DataError, MissingDependencyError
from medtune.imaging.child import Child, ChildDiedError, Death, borrow
from medtune.language import Text, msg

__all__ = ["local_engine", "ray_engine", "run_job"]

_LOOK_SECONDS = 0.5
_READING_SECONDS = 3600.0
"""The longest that a source may take for the records of a shard."""
_RAY_WINDOW = 256
"""Jobs that Ray is given at a time: their records wait in its object store."""


class Stop:
    """Ends the children of several threads: a decoder may sit on one picture for ``data.limits.seconds``."""

    def __init__(self) -> None:
        self.children: set[Child] = set()
        self._event = threading.Event()

    def is_ordered(self) -> bool:
        """Whether it is time to end."""
        return self._event.is_set()

    def order(self, running: set[Future[int]]) -> None:
        """End the children, and wait for the threads that look after them."""
        self._event.set()
        for future in running:
            future.cancel()
        while running:
            # More than once: a thread may be about to start its child.
            for child in tuple(self.children):
                child.kill()
            _, running = wait(running, timeout=0.1)


def run_job(settings: DataSettings, work: Path, job: Job, done: dict[int, int] | None = None, stop: Stop | None = None) -> int:
    """Make one shard in a child process, and make it again without the record at which the process died; the records done.

    Raises:
        DataError: The process died while it read the source itself, or twice at one record.
    """
    deaths: dict[int, tuple[Death, Text]] = {}
    stop = stop or Stop()
    num_records = 0
    while not stop.is_ordered():
        try:
            with borrow(max_memory=settings.limits.max_memory * 1024**2, seconds=settings.limits.seconds) as child:
                stop.children.add(child)
                child.may_be_silent = partial(_is_reading, work, job.number, time.monotonic())
                try:
                    with contextlib.closing(child.run("medtune.data.shard:make_shard", settings, work, job, deaths)) as numbers:
                        for num_records in map(int, numbers):
                            if done is not None:
                                done[job.number] = num_records
                            if stop.is_ordered():
                                break
                finally:
                    stop.children.discard(child)
            return num_records
        except ChildDiedError as error:
            if stop.is_ordered():
                break
            position = position_in(work, job.number)
            if not position or position in deaths:
                raise DataError(
                    msg("The process that read the source did not survive it. {what}", what=str(error.what)),
                    file=None if job.part is None else job.part.file,
                    key=f"data.sources.{job.source}",
                    remedy=msg("Fetch the file again from where it came; or give it more with data.limits.max_memory and seconds."),
                ) from error
            deaths[position] = (error.death, error.what)
    return num_records


def _is_reading(work: Path, number: int, started: float) -> bool:
    """Whether a shard's process is at the source and at no picture: the first to come may index a file of millions of rows."""
    return position_in(work, number) == 0 and time.monotonic() - started < _READING_SECONDS


def local_engine(settings: DataSettings, work: Path, jobs: Iterator[Job]) -> Generator[tuple[str, int], None, None]:
    """Make the shards with ``settings.num_workers`` processes; yields the source at work and the records done so far."""
    done: dict[int, int] = {}
    stop = Stop()
    running: set[Future[int]] = set()
    label = ""
    # One thread for each process: it waits for the process's replies.
    with ThreadPoolExecutor(settings.num_workers) as threads:
        try:
            for job in jobs:
                label = job.label
                running.add(threads.submit(run_job, settings, work, job, done, stop))
                # One job waits behind each that is being made, no more: jobs hold pictures.
                while len(running) >= 2 * settings.num_workers:
                    _collect(running)
                    yield label, _count(done)
            while running:
                _collect(running)
                yield label, _count(done)
        except BaseException:
            stop.order(running)
            raise


def _collect(running: set[Future[int]]) -> None:
    """Wait a moment; raise what a job raised, forget the jobs that are done."""
    ended, _ = wait(running, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
    running -= ended
    for future in ended:
        future.result()


def _count(done: dict[int, int]) -> int:
    return sum(list(done.values()))


def ray_engine(settings: DataSettings, work: Path, jobs: Iterator[Job]) -> Generator[tuple[str, int], None, None]:
    """Make the shards with Ray Data, on a cluster whose machines all see the same files; otherwise as :func:`local_engine`.

    Connects to the cluster that ``RAY_ADDRESS`` names, or starts Ray on this machine with ``settings.num_workers`` processors.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError("ray", needed_for=msg("data.engine: ray"), pip="'medtune[ray]'") from error
    started = not ray.is_initialized()
    if started:
        import os

        ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else settings.num_workers, log_to_driver=False)
    num_records = 0
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        while window := list(islice(jobs, _RAY_WINDOW)):
            packed = [{"work": pickle.dumps((settings, work.absolute(), job))} for job in window]
            made = ray.data.from_items(packed, override_num_blocks=len(packed)).map(_run_packed)
            for row in made.iter_rows():
                num_records += int(row["num_records"])
                yield window[0].label, num_records
    finally:
        if started:
            ray.shutdown()


def _run_packed(row: dict[str, Any]) -> dict[str, int]:
    settings, work, job = pickle.loads(row["work"])
    return {"num_records": run_job(settings, work, job)}
