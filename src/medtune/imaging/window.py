"""Windowing: the part of a CT's range of Hounsfield units that is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WINDOW_PRESETS", "Window", "apply_window"]


class Window(NamedTuple):
    """A window in Hounsfield units, and who uses it."""

    center: float
    width: float
    source: str


_OHIF = "OHIF Viewers, defaultWindowLevelPresets"
_REPORT_GENERATOR = "github.com/eduardofarina/MedGemma1.5ReportGenerator, README"

WINDOW_PRESETS: dict[str, Window] = {
    "soft-tissue": Window(40, 400, _OHIF),
    "lung": Window(-600, 1500, _OHIF),
    "liver": Window(90, 150, _OHIF),
    "bone": Window(480, 2500, _OHIF),
    "brain": Window(40, 80, _OHIF),
    "subdural": Window(75, 215, _REPORT_GENERATOR),
    "stroke": Window(32, 8, _REPORT_GENERATOR),
    "mediastinum": Window(50, 350, _REPORT_GENERATOR),
}
"""Presets differ between sites; these are starting points with their origin."""


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
