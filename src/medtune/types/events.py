"""What happens while a verb works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from medtune.language import Text


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened while a verb worked. The CLI draws it, the server streams it, the run folder appends it.

    ``kind`` is one of ``phase`` (a named stage began), ``progress`` (``done`` of ``total``), ``log`` (numbers of a training
    step), ``epoch``, ``checkpoint``, ``note`` (a sentence for the reader) and ``finished``.
    """

    kind: Literal["phase", "progress", "log", "epoch", "checkpoint", "note", "finished"]
    text: Text | None = None
    done: int | None = None
    total: int | None = None
    values: Mapping[str, float | int | str | None] = field(default_factory=dict)


class Listener(Protocol):
    """Whoever wants to hear of events."""

    def __call__(self, event: Event, /) -> None: ...
