"""Worker processes, one for each device, and the line to each.

Only this side touches the store of the sweep. A worker that dies is noticed by the end of its line, and a sweep that dies by
the end of the worker's: no heartbeat, no timeout, and nothing left running.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from medtune.hpo.trial import TrialJob

__all__ = ["Message", "Pool", "Worker", "devices"]

Message = dict[str, Any] | None
"""What a worker said; None = its process has ended."""

_GRACE_SECONDS = 150.0
"""How long workers may take to finish a step and save a checkpoint when the sweep ends."""


def devices(num_workers: int | None, gpus_per_trial: int = 1) -> list[str | None]:
    """``CUDA_VISIBLE_DEVICES`` of each worker: the GPUs that this process may use, in groups; None = the CPU.

    Args:
        num_workers: At most so many. Default: one for each group of GPUs, and one on a CPU. More workers than groups of GPUs
            are not started: they would share a card's memory.
    """
    import torch

    count = torch.cuda.device_count()
    if not count:
        return [None] * (num_workers or 1)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",")[:count] if visible else [str(index) for index in range(count)]
    size = min(gpus_per_trial, count)
    groups: list[str | None] = [",".join(names[start : start + size]) for start in range(0, count - size + 1, size)]
    return groups[: num_workers or len(groups)]


class Worker:
    """A process that does trials. ``job`` is the one it is at, None when it is free."""

    def __init__(self, index: int, device: str | None, log: Path, inbox: queue.Queue[tuple[Worker, Message]], lock: int) -> None:
        self.index = index
        self.device = device
        self.log = log
        self.job: TrialJob | None = None
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        with log.open("ab") as output:
            # A session of its own: Ctrl-C in the terminal must reach it once, through the line. The lock of the sweep goes
            # along: a second sweep in the folder then waits until the last worker of the first has ended.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "medtune.hpo.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                start_new_session=True,
                pass_fds=(lock,),
                text=True,
                encoding="utf-8",
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[str] = self._process.stdin
        threading.Thread(target=self._listen, args=(self._process.stdout, inbox), daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, job: TrialJob) -> None:
        """Send a trial."""
        self.job = job
        self._send({"job": job.model_dump(mode="json")})

    def answer(self, *, stop: bool) -> None:
        """Whether the trial shall stop after the loss that it told."""
        self._send({"stop": stop})

    def exit_status(self) -> int:
        """Waits for the end of the process; negative = the signal that ended it."""
        return self._process.wait()

    def close(self) -> None:
        """Close the line: the process ends after its step."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def end(self, seconds: float) -> None:
        """Wait for the end, and force it after so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        # A dead worker cannot take a message; the end of its line, which is on its way, says what to do.
        with contextlib.suppress(OSError):
            self._stdin.write(json.dumps(message) + "\n")
            self._stdin.flush()

    def _listen(self, line: IO[str], inbox: queue.Queue[tuple[Worker, Message]]) -> None:
        with line:
            for text in line:
                with contextlib.suppress(json.JSONDecodeError):  # a line cut short by the end of the process
                    inbox.put((self, json.loads(text)))
        inbox.put((self, None))


class Pool:
    """The workers of a sweep.

    Args:
        places: ``CUDA_VISIBLE_DEVICES`` of each, see :func:`devices`.
        folder: Where ``worker-<n>.log`` goes.
        lock: Descriptor of the sweep's lock.
    """

    def __init__(self, places: Sequence[str | None], folder: Path, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self._inbox: queue.Queue[tuple[Worker, Message]] = queue.Queue()
        folder.mkdir(parents=True, exist_ok=True)
        self.workers = [self._start(index, device) for index, device in enumerate(places)]

    def _start(self, index: int, device: str | None) -> Worker:
        return Worker(index, device, self._folder / f"worker-{index}.log", self._inbox, self._lock)

    def replace(self, worker: Worker) -> None:
        """Another process in the place of this one: it died, or what failed in it may have left its memory in pieces."""
        worker.close()
        worker.end(_GRACE_SECONDS)
        self.workers[worker.index] = self._start(worker.index, worker.device)

    def messages(self) -> Iterator[tuple[Worker, Message]]:
        """What the workers say, as long as one of them has a job. What a replaced process says is left out."""
        while any(worker.job is not None for worker in self.workers):
            worker, message = self._inbox.get()
            if self.workers[worker.index] is worker:
                yield worker, message

    def close(self) -> None:
        """End all workers, each after its step."""
        for worker in self.workers:
            worker.close()
        for worker in self.workers:
            worker.end(_GRACE_SECONDS)
