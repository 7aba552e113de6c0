"""Windowing: the part of a range of measured values (Hounsfield units, for CT) that is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medtune.imaging.window_presets import WINDOW_PRESETS, WINDOW_TRIPLES, Window, WindowTriple
from medtune.language import msg

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "WINDOW_PRESETS",
    "WINDOW_TRIPLES",
    "Window",
    "WindowChoice",
    "WindowTriple",
    "apply_range",
    "apply_window",
    "apply_windows",
    "find_windows",
    "modalities_of",
]

WindowChoice = str | tuple[float, float]
"""A window in a recipe: the name of a preset, or its center and width."""


def find_windows(chosen: Sequence[WindowChoice]) -> tuple[tuple[float, float], ...]:
    """The windows of a :class:`~medtune.types.View` that a recipe names.

    Args:
        chosen: Nothing; one window; the name of a triple; or three windows, for red, green and blue.

    Returns:
        (center, width) of none, one or three windows.

    Raises:
        ValueError: A name is not known, a width is below 1, or there are two windows or more than three.
    """
    if len(chosen) == 1 and isinstance(chosen[0], str) and chosen[0] in WINDOW_TRIPLES:
        return WINDOW_TRIPLES[chosen[0]].windows
    found = tuple(_window(each) for each in chosen)
    if len(found) not in (0, 1, 3):
        raise ValueError(msg("Name one window, or three for red, green and blue; not {count}.", count=len(found)))
    return found


def modalities_of(chosen: Sequence[WindowChoice]) -> frozenset[str]:
    """DICOM modality codes for whose values the named windows are meant; numbers are meant for whatever they are used on.

    Raises:
        KeyError: A name is not known.
    """
    return frozenset((WINDOW_TRIPLES.get(name) or WINDOW_PRESETS[name]).modality for name in chosen if isinstance(name, str))


def _window(chosen: WindowChoice) -> tuple[float, float]:
    if isinstance(chosen, str):
        if chosen not in WINDOW_PRESETS:
            known = ", ".join([*WINDOW_PRESETS, *WINDOW_TRIPLES])
            raise ValueError(msg("There is no window {name!r}; known are {known}, and [center, width].", name=chosen, known=known))
        return WINDOW_PRESETS[chosen].center, WINDOW_PRESETS[chosen].width
    center, width = chosen
    if not (math.isfinite(center) and math.isfinite(width) and width >= 1):
        raise ValueError(msg("A window is [center, width], the width at least 1; not {window}.", window=str(list(chosen))))
    return float(center), float(width)


def apply_window(hu: NDArray[np.generic], center: float, width: float) -> NDArray[np.uint8]:
    """Show values through a window, by the LINEAR function of DICOM PS3.3, C.11.2.1.2.1.

    The standard's half-unit shift and ``width - 1`` are kept: with center c and width w the ramp runs from
    c - 0.5 - (w - 1)/2 to c - 0.5 + (w - 1)/2.

    Args:
        hu: Values after the modality LUT (for CT, Hounsfield units), any shape.
        center: Window center.
        width: Window width, at least 1; 1 is a threshold.

    Returns:
        uint8 of the same shape, 0 below the window and 255 above it, rounded to the nearest, ties to even. NaN becomes 0.

    Raises:
        ValueError: ``width`` is below 1.
    """
    if not width >= 1:
        raise ValueError(f"window width must be at least 1, not {width}")
    values = hu.astype(np.float64)
    if width == 1:
        shown = np.where(values > center - 0.5, 255.0, 0.0)
    else:
        shown = np.clip(((values - (center - 0.5)) / (width - 1) + 0.5) * 255.0, 0.0, 255.0)
    rounded: NDArray[np.float64] = np.rint(np.nan_to_num(shown, nan=0.0))
    return rounded.astype(np.uint8)


def apply_windows(values: NDArray[np.generic], windows: Sequence[tuple[float, float]]) -> NDArray[np.uint8]:
    """Show values through one window in grey, or through three at once in red, green and blue.

    Args:
        values: As for :func:`apply_window`, (H, W).
        windows: (center, width), one or three.

    Returns:
        uint8 (H, W), or (H, W, 3).
    """
    channels = [apply_window(values, center, width) for center, width in windows]
    return channels[0] if len(channels) == 1 else np.stack(channels, axis=-1)


def apply_range(values: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    """Map values linearly, ``low`` to 0 and ``high`` to 255; what lies outside is cut off.

    Returns:
        uint8 of the same shape, rounded to the nearest, ties to even. NaN becomes 0, and everything does where ``low >= high``.
    """
    if not low < high:
        return np.zeros(values.shape, np.uint8)
    # Divided first: the difference of two floats near their limits is infinite.
    shown = np.clip(np.nan_to_num(values.astype(np.float64), nan=low), low, high)
    share: NDArray[np.float64] = np.rint((shown / 2 - low / 2) / (high / 2 - low / 2) * 255.0)
    return share.astype(np.uint8)
