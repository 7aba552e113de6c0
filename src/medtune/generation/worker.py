"""``python -m medtune.generation.worker``: one of several processes that answer, each on a device of its own.

One JSON object a line. On standard input: first ``{"make": "package.module:function", "arguments": {...}}``, which returns the
models by label; then, as often as wanted, ``{"ask": label, "count": n}`` and n requests. On standard output:
``{"generation": ...}`` for each as it is finished, ``{"event": ...}``, and at the end ``{"done": rows decoded together}`` or
``{"error": ...}``.

The end of standard input means that the asking process is gone, however it went: this one then ends at once. What it had finished
is written by then, and the rest is asked again by whoever goes on.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import IO, Any

from medtune.errors import MedtuneError
from medtune.generation.wire import error_fields, event_fields, read_request
from medtune.types import Event, Generator

__all__ = ["main"]

GONE = 130
"""Exit status after the end of standard input."""


class _Line:
    """The two pipes to the process that asks."""

    def __init__(self, incoming: IO[str], outgoing: IO[str]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._writing = threading.Lock()
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def receive(self) -> str:
        return self._lines.get()

    def send(self, message: Mapping[str, Any]) -> None:
        with self._writing:
            self._outgoing.write(json.dumps(message) + "\n")
            self._outgoing.flush()

    def tell(self, event: Event, /) -> None:
        self.send({"event": event_fields(event)})

    def _listen(self) -> None:
        for line in self._incoming:
            self._lines.put(line)
        os._exit(GONE)


def main() -> None:
    """Answers until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which then closes the line
    # Libraries print to standard output; what they say belongs to the log, not between two messages.
    outgoing = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    line = _Line(sys.stdin, outgoing)
    models: Mapping[str, Any] | None = None
    label, generator = "", None
    task = json.loads(line.receive())
    while True:
        order = json.loads(line.receive())
        requests = [read_request(line.receive()) for _ in range(order["count"])]
        try:
            if models is None:
                module, _, function = task["make"].partition(":")
                models = getattr(import_module(module), function)(**task["arguments"], listener=line.tell)
            if generator is None or label != order["ask"]:
                if generator is not None:
                    generator.close()
                label, generator = order["ask"], _made(models[order["ask"]][1])
            for generation in generator.generate(requests):
                line.send({"generation": generation.model_dump()})
            line.send({"done": getattr(generator, "batch_size", 1)})
        except MedtuneError as error:
            line.send({"error": error_fields(error)})


def _made(generator: Any) -> Generator:
    made: Generator = generator if isinstance(generator, Generator) else generator()
    return made


if __name__ == "__main__":
    main()
