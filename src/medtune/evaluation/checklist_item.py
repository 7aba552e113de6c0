"""One item of a reporting checklist."""

from __future__ import annotations

from dataclasses import dataclass

from medtune.language import Text

__all__ = ["Item"]


@dataclass(frozen=True, slots=True)
class Item:
    """``number`` is the published one; ``subjects`` name what :func:`medtune.evaluation.known.facts` says to it."""

    number: str
    part: Text
    text: Text
    subjects: tuple[str, ...] = ()
