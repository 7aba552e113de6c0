"""From the stored values of a DICOM frame to greys on a screen, in the order of the standard's pipeline (PS3.4, N.2):
modality LUT, VOI LUT or window, and the inversion of MONOCHROME1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import JsonValue

from medtune.imaging.read import scale_grey
from medtune.imaging.window import apply_window
from medtune.types import TransformRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Grayscale", "LookupTable", "WindowFunction", "apply_table", "show_greys"]

WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
"""VOI LUT Function (0028,1056)."""


@dataclass(frozen=True, slots=True, eq=False)
class LookupTable:
    """A table of PS3.3, C.11.1.1.1: ``entries[0]`` is for the value ``first`` and all below it.

    Attributes:
        entries: (N,) unsigned integers.
        bits: Bits of an entry that count.
    """

    first: int
    entries: NDArray[np.generic]
    bits: int


@dataclass(frozen=True, slots=True, eq=False)
class Grayscale:
    """What a file says about the display of a frame.

    Attributes:
        slope: Rescale Slope (0028,1053).
        intercept: Rescale Intercept (0028,1052).
        modality: Modality LUT; used in place of slope and intercept.
        windows: (center, width) after the modality LUT; none, one or three.
        function: How a window is applied. Windows asked for by a view are LINEAR.
        from_view: The windows were asked for; else they are the file's own.
        voi: VOI LUT; used where there is no window.
        padding: Smallest and largest stored value of pixels that hold no measurement.
        inverted: MONOCHROME1: the smallest value is white.
    """

    slope: float = 1.0
    intercept: float = 0.0
    modality: LookupTable | None = None
    windows: tuple[tuple[float, float], ...] = ()
    function: WindowFunction = "LINEAR"
    from_view: bool = False
    voi: LookupTable | None = None
    padding: tuple[float, float] | None = None
    inverted: bool = False

    @property
    def records(self) -> tuple[TransformRecord, ...]:
        """The steps, for the record of a stored picture. They hold numbers only."""
        steps = []
        if self.modality is not None:
            steps.append(TransformRecord(name="modality-lut", parameters={"entries": len(self.modality.entries)}))
        elif (self.slope, self.intercept) != (1.0, 0.0):
            steps.append(TransformRecord(name="modality-lut", parameters={"slope": self.slope, "intercept": self.intercept}))
        if self.windows:
            windows: list[JsonValue] = [list(window) for window in self.windows]
            origin = "view" if self.from_view else "file"
            steps.append(
                TransformRecord(name="window", parameters={"windows": windows, "function": self.function, "origin": origin})
            )
        elif self.voi is not None:
            steps.append(TransformRecord(name="voi-lut", parameters={"entries": len(self.voi.entries)}))
        else:
            steps.append(TransformRecord(name="full-range"))
        if self.inverted:
            steps.append(TransformRecord(name="invert"))
        if self.padding is not None:
            steps.append(TransformRecord(name="padding-black", parameters={"from": self.padding[0], "to": self.padding[1]}))
        return tuple(steps)


def show_greys(stored: NDArray[np.generic], grayscale: Grayscale) -> NDArray[np.uint8]:
    """Greys of a frame as they are shown.

    Args:
        stored: (rows, columns) stored values, integers or floats.
        grayscale: What to do with them.

    Returns:
        uint8, (rows, columns), or (rows, columns, 3) with three windows: one in each of red, green and blue. Pixels of padding
        are 0 and take no part in the scaling.
    """
    # Every step works value by value: the few thousand values that occur are mapped, and then looked up for each pixel.
    values, places = _occurring(stored)
    padding = _is_padding(values, grayscale.padding)
    measured = _measured(values, grayscale)
    shown = _shown(np.where(padding, np.nan, measured), grayscale)
    if grayscale.inverted:
        shown = 255 - shown
    shown[padding] = 0
    return shown[places]


def apply_table(values: NDArray[np.generic], table: LookupTable, *, first: int | None = None) -> NDArray[np.generic]:
    """The entries for values; those outside the table get its first or last entry (PS3.3, C.11.1.1.1). NaN gets the first."""
    start = table.first if first is None else first
    index = np.clip(np.nan_to_num(values.astype(np.float64), nan=start) - start, 0, len(table.entries) - 1)
    return table.entries[np.rint(index).astype(np.intp)]


def _occurring(stored: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.intp]]:
    """The distinct values (N,) and for each pixel the index of its value."""
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        low = int(stored.min())
        shifted = stored.astype(np.intp) - low
        occurs = np.bincount(shifted.ravel()) > 0
        rank = np.cumsum(occurs) - 1
        return (np.flatnonzero(occurs) + low).astype(np.int64), rank[shifted].astype(np.intp)
    values, places = np.unique(stored, return_inverse=True)
    return values, places.reshape(stored.shape).astype(np.intp)


def _is_padding(values: NDArray[np.generic], padding: tuple[float, float] | None) -> NDArray[np.bool_]:
    if padding is None:
        return np.zeros(values.shape, np.bool_)
    found: NDArray[np.bool_] = (values.astype(np.float64) >= padding[0]) & (values.astype(np.float64) <= padding[1])
    return found


def _measured(values: NDArray[np.generic], grayscale: Grayscale) -> NDArray[np.float64]:
    if grayscale.modality is not None:
        return apply_table(values, grayscale.modality).astype(np.float64)
    rescaled: NDArray[np.float64] = values.astype(np.float64) * grayscale.slope + grayscale.intercept
    return rescaled


def _shown(measured: NDArray[np.float64], grayscale: Grayscale) -> NDArray[np.uint8]:
    if grayscale.windows:
        channels = [_windowed(measured, center, width, grayscale.function) for center, width in grayscale.windows]
        return channels[0] if len(channels) == 1 else np.stack(channels, axis=-1)
    if grayscale.voi is not None:
        table = grayscale.voi
        # Image files of implicit VR do not say whether the first value has a sign; where values have one, it has one too.
        signed = table.first >= 2**15 and measured.size > 0 and np.nanmin(measured, initial=0.0) < 0
        entries = apply_table(measured, table, first=table.first - 2**16 if signed else None).astype(np.float64)
        top = max(2**table.bits - 1, int(table.entries.max()))
        scaled: NDArray[np.float64] = np.rint(entries * (255.0 / top))
        return scaled.astype(np.uint8)
    return scale_grey(measured)


def _windowed(values: NDArray[np.float64], center: float, width: float, function: WindowFunction) -> NDArray[np.uint8]:
    match function:
        case "LINEAR":
            return apply_window(values, center, width)
        case "LINEAR_EXACT":  # PS3.3, C.11.2.1.3.2
            share = np.clip((values - center) / width + 0.5, 0.0, 1.0)
        case "SIGMOID":  # PS3.3, C.11.2.1.3.1
            share = 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))
    rounded: NDArray[np.float64] = np.rint(np.nan_to_num(share * 255.0, nan=0.0))
    return rounded.astype(np.uint8)
