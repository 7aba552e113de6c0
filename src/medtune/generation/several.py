"""Several processes on one machine that share the requests, one for each device.

Each loads the model for itself and gets its part of the requests at once; they know nothing of each other. What one has finished
comes back at once, so that one process alone writes the answers down, in whatever order they come. Greedy in float32 a request's
answer is the same from each of them, so it does not matter which one gets it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import JsonValue

from medtune.errors import GenerationError
from medtune.generation.check import check_requests
from medtune.generation.wire import read_error, read_event, request_line
from medtune.language import msg
from medtune.types import Generation, Generator, Listener, Request

__all__ = ["SeveralProcesses", "Workers", "deal", "places", "visible_gpus"]

_PICTURE_COST = 2000
"""What a picture costs, in characters of text: both are read only to share the work out."""


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named and count else [str(index) for index in range(count)]


def places(num_processes: int | None, gpus_each: int = 1) -> list[str | None]:
    """``CUDA_VISIBLE_DEVICES`` of each process, None = the CPU.

    Args:
        num_processes: At most so many; on a CPU exactly so many. Default: one for each group of GPUs; on a CPU one.
        gpus_each: GPUs of one process.
    """
    gpus = visible_gpus()
    if not gpus:
        return [None] * (num_processes or 1)
    groups: list[str | None] = [
        ",".join(gpus[start : start + gpus_each]) for start in range(0, len(gpus) - gpus_each + 1, gpus_each)
    ]
    return groups[: num_processes or len(groups)]


def deal(requests: Sequence[Request], num_parts: int) -> list[list[Request]]:
    """Parts of about the same work: the longest requests first, dealt out forth and back. Each request is in one part, and with at
    least as many requests as parts none is empty."""

    def cost(request: Request) -> int:
        return sum(len(message.content) for message in request.messages) + _PICTURE_COST * len(request.images)

    parts: list[list[Request]] = [[] for _ in range(num_parts)]
    for place, request in enumerate(sorted(requests, key=lambda request: (-cost(request), request.id))):
        turn, seat = divmod(place, num_parts)
        parts[seat if turn % 2 == 0 else num_parts - 1 - seat].append(request)
    return parts


@dataclass
class _Worker:
    """A process and the line to it."""

    index: int
    place: str | None
    log: Path
    process: subprocess.Popen[str]
    busy: bool = False
    waiting: set[str] = field(default_factory=set)

    @property
    def device(self) -> str:
        return "CPU" if self.place is None else f"GPU {self.place}"

    def send(self, lines: Sequence[str]) -> None:
        # A dead process cannot take a line; the end of its own, which is on its way, says what to do.
        stdin = self.process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError, ValueError):
            for line in lines:
                stdin.write(line)
            stdin.flush()

    def end(self) -> None:
        """At once: there is nothing in it that is not known here."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


Inbox = queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]


class Workers:
    """The processes. They are started when the first answers are needed, and end with this object, or when this process ends.

    Args:
        spots: From :func:`places`: one process for each.
        make: ``package.module:function`` that makes the models in a worker, by label.
        arguments: Its keyword arguments.
        logs: Folder for what the workers print, ``worker-<n>.log``. Empty logs are taken away.
        listener: Hears what the workers tell; the beginning of a stage from the first alone.
        min_share: No process is started for fewer requests than this.
    """

    def __init__(
        self,
        spots: Sequence[str | None],
        make: str,
        arguments: Mapping[str, JsonValue],
        *,
        logs: Path,
        listener: Listener | None = None,
        min_share: int = 1,
    ) -> None:
        self._spots = list(spots)
        self._task = json.dumps({"make": make, "arguments": dict(arguments)}) + "\n"
        self._logs = logs
        self._listener = listener
        self._min_share = min_share
        self._workers: list[_Worker] = []
        # Where an evaluation fails between two models nobody closes this, and a traceback may keep the pipes open for long.
        weakref.finalize(self, _end_all, self._workers)
        self._inbox: Inbox = queue.SimpleQueue()

    def num_for(self, num_requests: int) -> int:
        """How many processes so many requests are worth."""
        return max(1, min(len(self._spots), num_requests // self._min_share))

    def answer(self, label: str, requests: Sequence[Request]) -> Iterator[Generation | int]:
        """Generations of all workers as they come, and from each, when it has no more, how many rows it decodes together.

        Raises:
            GenerationError: A worker has died, or has told of a fault. What the others have sent by then comes first.
        """
        return self._ask(label, deal(requests, self.num_for(len(requests))))

    def load(self, label: str, num_requests: int) -> None:
        """Start the processes that so many requests are worth, and wait until each has loaded its model.

        Raises:
            GenerationError: As :meth:`answer`.
        """
        for _ in self._ask(label, [[]] * self.num_for(num_requests)):
            pass

    def _ask(self, label: str, parts: Sequence[Sequence[Request]]) -> Iterator[Generation | int]:
        while len(self._workers) < len(parts):
            self._workers.append(self._start(len(self._workers)))
        try:
            for worker, part in zip(self._workers, parts, strict=False):
                worker.busy, worker.waiting = True, {request.id for request in part}
                worker.send([json.dumps({"ask": label, "count": len(part)}) + "\n", *map(request_line, part)])
            failure: GenerationError | None = None
            while any(worker.busy for worker in self._workers) and failure is None:
                found, failure = self._look(*self._inbox.get())
                yield from found
            while failure is not None and not self._inbox.empty():  # nothing that has arrived is lost
                yield from self._look(*self._inbox.get())[0]
            if failure is not None:
                raise failure
        finally:
            if any(worker.busy for worker in self._workers):
                self.close()  # what they are at is wanted by nobody

    def close(self) -> None:
        """End all of them at once."""
        _end_all(self._workers)
        self._inbox = queue.SimpleQueue()

    def _look(self, worker: _Worker, message: dict[str, Any] | None) -> tuple[list[Generation | int], GenerationError | None]:
        if message is None:
            return [], self._died(worker) if worker.busy else None
        if "generation" in message:
            generation = Generation(**message["generation"])
            worker.waiting.discard(generation.id)
            return [generation], None
        if "event" in message:
            event = read_event(message["event"])
            if self._listener is not None and (worker.index == 0 or event.kind != "phase"):
                self._listener(event)
            return [], None
        worker.busy = False
        return ([], read_error(message["error"])) if "error" in message else ([int(message["done"])], None)

    def _died(self, worker: _Worker) -> GenerationError:
        status = worker.process.wait()
        how = signal.Signals(-status).name if status < 0 else str(status)
        return GenerationError(
            msg(
                "The process that answered on {device} ended ({status}); {count} of its requests are without an answer.",
                device=worker.device,
                status=how,
                count=len(worker.waiting),
            ),
            file=worker.log,
            remedy=msg("The end of this file may say why. The same command again asks only what is missing."),
        )

    def _start(self, index: int) -> _Worker:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"worker-{index}.log"
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        place = self._spots[index]
        if place is not None:
            environment["CUDA_VISIBLE_DEVICES"] = place
        with log.open("wb") as output:
            # A session of its own: Ctrl-C in the terminal is for us.
            process = subprocess.Popen(
                [sys.executable, "-m", "medtune.generation.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                start_new_session=True,
                text=True,
                encoding="utf-8",
            )
        worker = _Worker(index, place, log, process)
        assert process.stdout is not None
        threading.Thread(target=_listen, args=(worker, process.stdout, self._inbox), daemon=True).start()
        worker.send([self._task])
        return worker


def _end_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()
        with contextlib.suppress(OSError):
            if worker.log.stat().st_size == 0:
                worker.log.unlink()
    workers.clear()


def _listen(worker: _Worker, lines: IO[str], inbox: Inbox) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed from here
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # cut short by the end of the process
                inbox.put((worker, json.loads(line)))
    inbox.put((worker, None))


class SeveralProcesses:
    """A generator whose answers come from :class:`Workers`.

    Args:
        workers: They may be shared by several labels.
        label: Whose answers.
        alone: Makes the generator that answers in this process where the requests are not worth several.
        last: Nobody uses the workers after this: closing it ends them.
    """

    def __init__(self, workers: Workers, label: str, alone: Any, *, last: bool = False) -> None:
        self._workers = workers
        self._label = label
        self._make_alone = alone
        self._alone: Generator | None = None
        self._last = last
        self._rows = 1

    @property
    def batch_size(self) -> int:
        """Rows decoded together by all processes."""
        return self._rows if self._alone is None else getattr(self._alone, "batch_size", 1)

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Generations as they come, each request answered once.

        Raises:
            GenerationError: As the generator in each process; or a process has died.
        """
        check_requests(requests)
        if self._workers.num_for(len(requests)) == 1:
            return self._one().generate(requests)
        return self._run(requests)

    def load(self, num_requests: int) -> None:
        """Load the model where so many requests will be answered, so that answering them is all that is left."""
        if self._workers.num_for(num_requests) == 1:
            self._one()
        else:
            self._workers.load(self._label, num_requests)

    def _run(self, requests: Sequence[Request]) -> Iterator[Generation]:
        rows = 0
        for item in self._workers.answer(self._label, requests):
            if isinstance(item, Generation):
                yield item
            else:
                rows += item
        self._rows = rows or 1

    def stream(self, request: Request) -> Iterator[str]:
        """By the generator in this process."""
        return self._one().stream(request)

    def close(self) -> None:
        """End the workers, where nobody uses them after this."""
        if self._alone is not None:
            self._alone.close()
            self._alone = None
        if self._last:
            self._workers.close()

    def _one(self) -> Generator:
        if self._alone is None:
            self._alone = self._make_alone()
        return self._alone
