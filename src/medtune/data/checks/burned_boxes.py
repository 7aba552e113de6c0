"""Boxes that somebody drew into the pictures: a coloured rectangle's outline in a picture that is grey otherwise.

MedTrinity's captions were written with such boxes in the pictures, and users found them left in (its issue 8). A model that learns
from them learns to look for the green frame, which no patient has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medtune.data.checks.check import Check, PictureFacts, PictureUse
from medtune.language import Text, msg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["BurnedInBoxes", "Outline", "find_outlines", "measure"]

_COLOURED = 48
"""Largest minus smallest of R, G and B from which a pixel is coloured. A pure green line of one pixel keeps about 100 after
JPEG with halved colour resolution; JPEG noise of a grey picture stays below 10."""
_GREY_SHARE = 0.25
"""Share of coloured pixels up to which a picture counts as grey: above it, it is a photograph, histology or a colour map."""
_SMALLEST = 8
"""Pixels of the shorter side: smaller rectangles are letters and markers."""
_COVERED = 0.75
"""Share of each side of the rectangle along which the line must be seen; JPEG and dashes leave gaps."""
_LINE = 0.6
"""Share of a row from which it still belongs to the line: the two upright lines of a narrow frame reach half."""
_FILLED = 0.35
"""Share of coloured pixels inside, from which it is a patch of colour (Doppler, a colour bar), not a frame."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A rectangle's outline: pixels x1, y1, x2, y2 (the outer edge), and the line's colour."""

    box: tuple[int, int, int, int]
    colour: str


def find_outlines(pixels: NDArray[np.uint8]) -> list[Outline]:
    """The coloured outlines in a picture that is grey otherwise; none in a picture of colours.

    Args:
        pixels: (H, W, 3) RGB.
    """
    import cv2
    import numpy as np

    # Channel by channel in OpenCV: 0.9 ms for a picture of VQA-RAD, where numpy along the last axis takes 35.
    red, green, blue = cv2.split(pixels)
    spread = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    coloured = np.asarray(spread) >= _COLOURED
    if not coloured.any() or coloured.mean() > _GREY_SHARE:
        return []
    # A line that JPEG has broken is closed again over one pixel.
    closed = cv2.morphologyEx(coloured.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    _, _, parts, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    found = []
    for x, y, width, height in parts[1:, :4]:
        if min(width, height) < _SMALLEST:
            continue
        part = coloured[y : y + height, x : x + width]
        if _is_outline(part):
            line = pixels[y : y + height, x : x + width][part]
            found.append(Outline((int(x), int(y), int(x + width), int(y + height)), _colour_name(np.median(line, axis=0))))
    return sorted(found, key=lambda outline: outline.box)


def _is_outline(part: NDArray[np.bool_]) -> bool:
    """Whether a connected patch of colour is a rectangle's outline: lines along all four sides of it, and little inside them."""
    sides = [part, part[::-1], part.T, part.T[::-1]]
    lines = [_line(side) for side in sides]
    if any(line is None for line in lines):
        return False
    top, bottom, left, right = (line or 0 for line in lines)
    inside = part[top : part.shape[0] - bottom, left : part.shape[1] - right]
    return bool(inside.size and inside.mean() <= _FILLED and min(inside.shape) * 2 >= max(top, bottom, left, right))


def _line(part: NDArray[np.bool_]) -> int | None:
    """The row behind a line along the upper edge; None when there is no such line within the first rows."""
    reach = max(3, part.shape[0] // 12)
    rows = part.mean(axis=1)
    full = next((row for row in range(reach) if rows[row] >= _COVERED), None)
    if full is None:  # JPEG bends and breaks thin lines: taken together, the first rows may still hold one
        return reach if part[:reach].any(axis=0).mean() >= _COVERED else None
    end = full + 1
    while end < len(rows) and rows[end] > _LINE:
        end += 1
    return end


def _colour_name(rgb: NDArray[np.floating[Any]]) -> str:
    import colorsys

    hue = colorsys.rgb_to_hsv(*(float(value) / 255 for value in rgb))[0] * 360
    names = (
        (20, "red"),
        (45, "orange"),
        (70, "yellow"),
        (170, "green"),
        (200, "cyan"),
        (260, "blue"),
        (335, "magenta"),
        (361, "red"),
    )
    return next(name for limit, name in names if hue < limit)


def measure(image: Image) -> list[list[Any]]:
    """For :mod:`medtune.data.checks.measures`: ``[x1, y1, x2, y2, colour]`` of each outline."""
    import numpy as np

    return [[*outline.box, outline.colour] for outline in find_outlines(np.asarray(image.convert("RGB")))]


class BurnedInBoxes(Check):
    """Frames drawn into pictures. Keeps nothing of a picture."""

    names = ("burned-in-boxes",)
    needs = frozenset({"burned-boxes"})

    def picture(self, facts: PictureFacts, use: PictureUse) -> None:
        for x1, y1, x2, y2, colour in facts.measured.get("burned-boxes") or ():
            self.findings.add(
                "burned-in-box",
                "warning",
                msg(
                    "A {colour} frame is drawn into the picture at {box}.",
                    colour=str(_colours()[colour]),
                    box=f"[{x1}, {y1}, {x2}, {y2}]",
                ),
                msg("Use the pictures without the frame: a model learns to look for it, and no new picture has one."),
                split=use.splits[0] if use.splits else None,
                sample=None if use.row is None else self.context.rows.id(use.row),
                file=str(self.context.dataset.folder / facts.ref.path),
            )


def _colours() -> Mapping[str, Text]:
    return {
        "red": msg("red"),
        "orange": msg("orange"),
        "yellow": msg("yellow"),
        "green": msg("green"),
        "cyan": msg("cyan"),
        "blue": msg("blue"),
        "magenta": msg("magenta"),
    }
