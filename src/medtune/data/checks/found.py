"""What a check says of one row or picture: the engine adds split, sample and place."""

from __future__ import annotations

from typing import NamedTuple

from medtune.language import Text
from medtune.types import Severity

__all__ = ["Found"]


class Found(NamedTuple):
    """One finding. ``code`` is stable (kebab-case)."""

    code: str
    severity: Severity
    message: Text
    remedy: Text | None = None
