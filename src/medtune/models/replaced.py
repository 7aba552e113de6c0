"""A module's method replaced for a while, and given back as it was found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["replaced"]


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, ``owner.name`` is ``value``; the class and other objects of it are left alone.

    What an object had under that name itself comes back: accelerate's hooks, for example, give a module a ``forward`` of its
    own. What it had from its class alone is uncovered again.
    """
    own = vars(owner)
    had, before = name in own, own.get(name)
    # Not setattr: a module would register a module that it is given.
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if had:
            object.__setattr__(owner, name, before)
        else:
            object.__delattr__(owner, name)
