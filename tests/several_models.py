"""Models that the worker processes of :mod:`medtune.generation.several` make in tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medtune.errors import GenerationError
from medtune.language import msg
from medtune.types import Event, Generation, Listener, Request


class Telling:
    """Says who answers. ``die`` is the text of a question at which it meets its end, ``fail`` one that it refuses."""

    batch_size = 4

    def __init__(self, label: str, listener: Listener, seconds: float) -> None:
        self.label = label
        self.seconds = seconds
        listener(Event("phase", msg("Loading {model}", model=label)))
        listener(Event("note", msg("{detail}", detail=f"made {label}")))

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        print("libraries print, and it must not come between two messages")
        for request in requests:
            question = request.messages[-1].content
            if question == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if question == "break":
                raise RuntimeError("a fault of the program")
            if question == "fail":
                raise GenerationError(msg("There is no question."), sample=request.id, remedy=msg("Wait until it ends, or end it."))
            time.sleep(self.seconds)
            images = [len(image) if isinstance(image, bytes) else Path(str(image)).name for image in request.images]
            said = f"{self.label}: {question} {images} {request.sampling.max_new_tokens} {request.score_tokens}"
            yield Generation(id=request.id, text=said, finish_reason="stop")

    def stream(self, request: Request) -> Iterator[str]:
        yield request.id

    def close(self) -> None:
        pass


def telling(listener: Listener, seconds: float = 0.0) -> dict[str, Any]:
    return {label: (label, lambda label=label: Telling(label, listener, seconds)) for label in ("base", "tuned")}
