"""How measured values became the greys or colours of a picture, as one short text, so that data sets can be compared.

A model that was tuned on three windows in red, green and blue reads colour as density. Shown ordinary greys, or other windows in
the same colours, it answers all the same, and wrongly; so the adapter contract holds the displays of the training pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from medtune.types import TransformRecord

__all__ = ["PICTURE", "compare_displays", "display_of", "windows_of"]

PICTURE = "picture"
"""An ordinary picture file: somebody chose its greys before."""
_OWN = "own"
"""Measured values as the file itself says, or in all their range: another display for each file."""

DisplayDifference = Literal["none", "greys", "colours"]


def display_of(transforms: Iterable[TransformRecord]) -> str:
    """The display of a stored picture, from what was done to it (:attr:`ImageRef.transforms <medtune.types.ImageRef>`).

    Returns:
        ``picture``; ``own``; or the windows that were asked for, center/width: ``40/80``, ``0/2048 40/350 40/80``.
    """
    found = PICTURE
    for step in transforms:
        if step.name == "window" and step.parameters.get("origin") == "view":
            windows = step.parameters["windows"]
            assert isinstance(windows, list)
            return " ".join("/".join(f"{edge:g}" for edge in window) for window in windows if isinstance(window, list))
        if step.name in ("window", "voi-lut", "full-range", "grey-range"):
            found = _OWN
    return found


def windows_of(display: str) -> tuple[tuple[float, float], ...]:
    """The windows, (center, width), that a display names; none for ``picture`` and ``own``."""
    if display in (PICTURE, _OWN):
        return ()
    windows = [window.split("/") for window in display.split(" ")]
    return tuple((float(center), float(width)) for center, width in windows)


def compare_displays(trained: Collection[str], now: Collection[str]) -> DisplayDifference:
    """How the pictures that a model is asked about differ from those that it was trained on.

    Returns:
        ``colours`` when three windows stand against something else: the model cannot read such pictures. ``greys`` when other
        grey windows are used. ``none`` when all displays were trained, or one side is not known (empty).
    """
    new = set(now) - set(trained)
    if not trained or not now or not new:
        return "none"
    coloured = [len(windows_of(display)) == 3 for display in trained]
    return "colours" if all(coloured) or any(len(windows_of(display)) == 3 for display in new) else "greys"
