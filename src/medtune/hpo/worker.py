"""``python -m medtune.hpo.worker``: does the trials that it is sent, one after the other.

One JSON object a line. On standard input: ``{"job": ...}``, and ``{"stop": true|false}`` as the answer to a loss. On standard
output: ``{"progress": [seed, done, total]}``, ``{"percent": ..., "loss": ...}`` (which waits for an answer) and
``{"outcome": ...}``.

The end of standard input means that the sweep is gone, however it went: the worker then stops as after Ctrl-C, with a
checkpoint, so that none is left behind on a GPU.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from typing import IO, Any

from medtune.hpo.trial import TrialJob, run_trial
from medtune.types import Event

__all__ = ["main"]

INTERRUPTED = 130
"""Exit status after the end of the sweep: 128 + SIGINT, as shells have it."""

_GRACE_SECONDS = 120.0
"""How long the current step and its checkpoint may take after that; then the process ends at once."""

_MIN_SECONDS_BETWEEN_PROGRESS = 0.5


class _Line:
    """The two pipes to the sweep."""

    def __init__(self, incoming: IO[str], outgoing: IO[str]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._last_progress = 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the sweep is gone."""
        return self._messages.get()

    def send(self, message: dict[str, Any]) -> None:
        self._outgoing.write(json.dumps(message) + "\n")
        self._outgoing.flush()

    def ask(self, percent: int, loss: float) -> bool:
        """Whether to stop the trial after this validation loss."""
        self.send({"percent": percent, "loss": loss})
        answer = self.receive()
        if answer is None:
            raise KeyboardInterrupt
        return bool(answer["stop"])

    def tell(self, event: Event) -> None:
        if event.kind == "progress" and event.total and time.monotonic() - self._last_progress > _MIN_SECONDS_BETWEEN_PROGRESS:
            self._last_progress = time.monotonic()
            self.send({"progress": [event.done, event.total]})

    def _listen(self) -> None:
        for line in self._incoming:
            self._messages.put(json.loads(line))
        self._messages.put(None)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(_GRACE_SECONDS)
        os._exit(INTERRUPTED)


def main() -> int:
    """Exit status: 130, when the sweep has closed the line."""
    # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Libraries print to standard output; what they say belongs to the log, not between two messages.
    outgoing = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        line = _Line(sys.stdin, outgoing)
        while (message := line.receive()) is not None:
            outcome = run_trial(TrialJob.model_validate(message["job"]), line.ask, line.tell)
            line.send({"outcome": outcome.model_dump(mode="json")})
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    # What is left to do is the interpreter's own farewell, in which torch may wait for its threads.
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
