"""Who listens to a verb, is told."""

from __future__ import annotations

from medtune.types import Event, Listener


def say(listener: Listener | None, event: Event) -> None:
    """Tell the listener, when there is one."""
    if listener is not None:
        listener(event)
