"""Boxes: the one place where they pass from one convention to another, are cut to a picture, and are compared.

medtune keeps a box as [x1, y1, x2, y2] in pixels of a picture (corner to corner, edges between the pixels: a whole picture is
[0, 0, width, height]), and writes it into text in thousandths of the picture's sides. The model families were taught
otherwise in part:

- Qwen2-VL (arXiv:2409.12191, section 2.3.1) and Qwen3-VL (arXiv:2511.21631): 0 to 1000 of the sides, as medtune;
- Qwen2.5-VL (arXiv:2502.13923, section 2.1.1): pixels of the picture *as resized* by its processor: :func:`to_resized_pixels`,
  :func:`from_resized_pixels`.

Other people's files hold these, Florence-2's 1000 bins (arXiv:2311.06242, section 3), shares of 0 to 1, and COCO's
[x, y, width, height]: :func:`measure_box_convention` finds out which, from the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medtune.language import msg

__all__ = [
    "SCALE",
    "Box",
    "BoxConvention",
    "BoxKind",
    "Corners",
    "area",
    "clip",
    "from_relative",
    "from_resized_pixels",
    "giou",
    "into_extent",
    "iou",
    "measure_box_convention",
    "ordered_box",
    "out_of_extent",
    "relative_box",
    "to_pixels",
    "to_resized_pixels",
    "xywh",
    "xyxy",
]

SCALE = 1000
"""The end of a relative coordinate: the right or lower edge of the picture."""

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 with x1 <= x2 and y1 <= y2."""

BoxKind = Literal["pixels", "0-1", "0-999", "0-1000", "unknown"]
Corners = Literal["xyxy", "xywh", "unknown"]


# --------------------------------------------------------------------------------------------------------- arithmetic


def ordered_box(box: Sequence[object]) -> Box:
    """Four finite numbers as a box; corners in the wrong order are exchanged.

    Raises:
        ValueError: They are not four finite numbers.
    """
    numbers = _numbers(box)
    if numbers is None:
        raise ValueError(msg("A box is four numbers: x1, y1, x2, y2."))
    x1, y1, x2, y2 = numbers
    return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def relative_box(box: Sequence[float], width: float, height: float) -> Box:
    """A box in pixels of a (width, height) picture, in 0 to 1000 of its sides.

    Raises:
        ValueError: It is not four finite numbers, or the picture has no extent.
    """
    x1, y1, x2, y2 = ordered_box(box)
    _check_size(width, height)
    return (SCALE * x1 / width, SCALE * y1 / height, SCALE * x2 / width, SCALE * y2 / height)


def from_relative(box: Sequence[float], width: float, height: float) -> Box:
    """A box in 0 to 1000 of the sides, in pixels of a (width, height) picture: the inverse of :func:`relative_box`.

    Raises:
        ValueError: As :func:`relative_box`.
    """
    x1, y1, x2, y2 = ordered_box(box)
    _check_size(width, height)
    return (x1 * width / SCALE, y1 * height / SCALE, x2 * width / SCALE, y2 * height / SCALE)


def to_resized_pixels(box: Sequence[float], resized: tuple[int, int]) -> Box:
    """A box in 0 to 1000 of the sides, in pixels of the picture as the processor resizes it.

    Args:
        box: 0 to 1000; the same numbers for the stored and the resized picture, which have the same edges.
        resized: (width, height) after ``smart_resize``: the family's grid times its patch size.

    Raises:
        ValueError: As :func:`relative_box`.
    """
    return from_relative(box, *resized)


def from_resized_pixels(box: Sequence[float], resized: tuple[int, int]) -> Box:
    """What a model wrote in pixels of the resized picture (width, height), in 0 to 1000 of the sides.

    Raises:
        ValueError: As :func:`relative_box`.
    """
    return relative_box(box, *resized)


def into_extent(box: Sequence[float], extent: Sequence[float]) -> Box:
    """A box of the source picture (0 to 1000 of its sides), in pixels of the stored picture that holds it.

    Args:
        box: x1, y1, x2, y2.
        extent: Where the source picture lies in the stored one (``metadata["extent"]``), x1, y1, x2, y2 in pixels.
    """
    left, top, right, bottom = extent
    across, down = (right - left) / SCALE, (bottom - top) / SCALE
    return (left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down)


def out_of_extent(box: Sequence[float], extent: Sequence[float]) -> Box:
    """A box in pixels of the stored picture, in 0 to 1000 of the source picture inside it: the inverse of :func:`into_extent`.

    Raises:
        ValueError: The extent is empty.
    """
    left, top, right, bottom = extent
    return relative_box((box[0] - left, box[1] - top, box[2] - left, box[3] - top), right - left, bottom - top)


def xyxy(box: Sequence[float]) -> Box:
    """Corner, width and height as two corners."""
    x, y, width, height = box
    return (x, y, x + width, y + height)


def xywh(box: Sequence[float]) -> Box:
    """Two corners as corner, width and height."""
    x1, y1, x2, y2 = box
    return (x1, y1, x2 - x1, y2 - y1)


def clip(box: Sequence[float], width: float, height: float) -> Box:
    """The part of a box that lies in a (width, height) picture; a box outside it becomes empty, on the nearest edge."""
    x1, y1, x2, y2 = box
    return (min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height))


def area(box: Sequence[float]) -> float:
    """Width times height; 0 for corners in the wrong order."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union, 0 to 1; 0 when both are empty."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(width, 0.0) * max(height, 0.0)
    together = area(first) + area(second) - common
    return common / together if together > 0 else 0.0


def giou(first: Sequence[float], second: Sequence[float]) -> float:
    """Generalized IoU (Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1), -1 to 1: the IoU less the share of the smallest box
    around both that neither fills. Like the IoU it is the same in pixels and in shares of the sides."""
    width = max(first[2], second[2]) - min(first[0], second[0])
    height = max(first[3], second[3]) - min(first[1], second[1])
    around = max(width, 0.0) * max(height, 0.0)
    overlap = iou(first, second)
    common = max(min(first[2], second[2]) - max(first[0], second[0]), 0.0) * max(
        min(first[3], second[3]) - max(first[1], second[1]), 0.0
    )
    together = area(first) + area(second) - common
    return overlap - (around - together) / around if around > 0 else overlap


def _numbers(box: Sequence[object]) -> tuple[float, float, float, float] | None:
    if len(box) != 4 or not all(isinstance(side, int | float) and not isinstance(side, bool) for side in box):
        return None
    try:
        first, second, third, fourth = (float(side) for side in box)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return (first, second, third, fourth) if all(map(math.isfinite, (first, second, third, fourth))) else None


def _check_size(width: float, height: float) -> None:
    if not (width > 0 and height > 0):
        raise ValueError(msg("A picture of {width} x {height} pixels cannot hold a box.", width=width, height=height))


# -------------------------------------------------------------------------------------------------------- measurement

_KINDS: tuple[BoxKind, ...] = ("pixels", "0-1", "0-1000")
_CORNERS: tuple[Corners, ...] = ("xyxy", "xywh")
_TOLERANCE = 1.0
"""Pixels (or units of 0-999 and 0-1000) by which a sound box may pass the edge: some files round up, some count from 1."""
_USED = 0.9
"""Share of each side in which boxes are expected: lesions seldom touch the border. Without it a thousand boxes that stay off the
last 24 pixels of 1024-pixel pictures would prove a scale of 1000."""
_EVIDENCE = math.log(100.0)
"""Two scales are told apart when the numbers are 100 times as probable under one of them."""
_FAULTY = math.log(0.01)
"""Files hold faulty boxes: one in a hundred may contradict the right reading."""


@dataclass(frozen=True, slots=True)
class BoxConvention:
    """How a file writes its boxes, as measured.

    Attributes:
        kind: The unit; ``unknown`` when the numbers do not decide it.
        corners: Two corners, or corner and size; ``unknown`` when the numbers do not decide it.
        share: 0 to 1: boxes that fit this reading, of those that are four finite numbers. The best reading's, when unknown.
        counts: ``boxes`` read, ``malformed`` (not four finite numbers), and for each reading (``pixels xyxy``, ...) how many boxes
            fit it.
    """

    kind: BoxKind
    corners: Corners
    share: float
    counts: Mapping[str, int]


def measure_box_convention(
    boxes: Sequence[Sequence[float]], sizes: Sequence[tuple[float, float]], *, known: Sequence[Sequence[float] | None] = ()
) -> BoxConvention:
    """Find out from the numbers how boxes are written.

    A reading fits a box that lies in the picture with positive sides; one box in a hundred may be faulty. The unit is that under
    which the numbers are 100 times as probable as under any other, boxes being spread over the inner 0.9 of its range: five boxes
    that all stay below 512 in pictures of 512 pixels would be a rare accident on a scale of 1000. Numbers with a fraction are no
    bins. 0-999 and 0-1000 differ by a thousandth; a file that reaches 999 and never 1000 is taken for the former.

    Args:
        boxes: Four numbers each, as the file has them.
        sizes: (width, height) in pixels of each box's picture, upright.
        known: [x1, y1, x2, y2] in pixels of the same box from elsewhere in the file, where there is one. They decide: the
            reading under which the two overlap by half or more in the most rows is the file's.
    """
    if len(boxes) != len(sizes) or (known and len(known) != len(boxes)):
        raise ValueError("each box needs the size of its picture, and known boxes stand in the same order")
    rows = [
        (numbers, size, index) for index, (box, size) in enumerate(zip(boxes, sizes, strict=True)) if (numbers := _numbers(box))
    ]
    counts = {"boxes": len(rows), "malformed": len(boxes) - len(rows)}
    fits = {
        (kind, corners): [_fits(numbers, size, kind, corners) for numbers, size, _ in rows]
        for kind in _KINDS
        for corners in _CORNERS
    }
    counts |= {f"{kind} {corners}": sum(fit) for (kind, corners), fit in fits.items()}
    if not rows:
        return BoxConvention("unknown", "unknown", 0.0, counts)
    if known:
        votes = {
            reading: sum(
                fit[row] and (box := known[index]) is not None and iou(to_pixels(numbers, size, *reading), box) >= 0.5
                for row, (numbers, size, index) in enumerate(rows)
            )
            for reading, fit in fits.items()
        }
        most = max(votes.values())
        if most and list(votes.values()).count(most) == 1:
            kind, corners = next(reading for reading, count in votes.items() if count == most)
            return BoxConvention(_bins(kind, rows), corners, sum(fits[kind, corners]) / len(rows), counts)
    kind = _surest(fits, rows)
    within = {corners: sum(fit) for (of, corners), fit in fits.items() if kind in (of, "unknown")}
    if kind == "unknown":
        within = {corners: max(sum(fits[of, corners]) for of in _KINDS) for corners in _CORNERS}
    corners = max(within, key=lambda each: within[each]) if len(set(within.values())) == 2 else "unknown"
    return BoxConvention(_bins(kind, rows), corners, max(within.values()) / len(rows), counts)


def to_pixels(box: Sequence[float], size: tuple[float, float], kind: BoxKind, corners: Corners) -> Box:
    """A box of a file with the measured convention as [x1, y1, x2, y2] in pixels of its (width, height) picture.

    A bin of 0-999 stands for its middle, as Florence-2 decodes it.

    Raises:
        ValueError: ``kind`` or ``corners`` is ``unknown``: nothing is guessed.
    """
    if kind == "unknown" or corners == "unknown":
        raise ValueError("the convention of these boxes is not known")
    x1, y1, x2, y2 = box if corners == "xyxy" else xyxy(box)
    width, height = size
    if kind == "pixels":
        return (x1, y1, x2, y2)
    if kind == "0-1":
        return (x1 * width, y1 * height, x2 * width, y2 * height)
    shift = 0.5 if kind == "0-999" else 0.0
    across, down = width / SCALE, height / SCALE
    return ((x1 + shift) * across, (y1 + shift) * down, (x2 + shift) * across, (y2 + shift) * down)


_Row = tuple[tuple[float, float, float, float], tuple[float, float], int]


def _range(kind: str, size: tuple[float, float]) -> tuple[float, float]:
    return size if kind == "pixels" else (1.0, 1.0) if kind == "0-1" else (SCALE, SCALE)


def _fits(numbers: Box, size: tuple[float, float], kind: str, corners: str) -> bool:
    if kind == "0-1000" and not all(side == int(side) for side in numbers):
        return False
    width, height = _range(kind, size)
    slack = _TOLERANCE if kind != "0-1" else 0.001
    x1, y1, x2, y2 = numbers if corners == "xyxy" else xyxy(numbers)
    return -slack <= x1 < x2 <= width + slack and -slack <= y1 < y2 <= height + slack


def _surest(fits: Mapping[tuple[BoxKind, Corners], Sequence[bool]], rows: Sequence[_Row]) -> BoxKind:
    """The kind under which the numbers are so much more probable than under each other kind that it is proven."""
    sound = {kind: max((fits[kind, corners] for corners in _CORNERS), key=sum) for kind in _KINDS}
    for kind in _KINDS:
        if any(sound[kind]) and all(
            _advantage((kind, sound[kind]), (other, sound[other]), rows) >= _EVIDENCE for other in _KINDS if other != kind
        ):
            return kind
    return "unknown"


def _advantage(own: tuple[BoxKind, Sequence[bool]], other: tuple[BoxKind, Sequence[bool]], rows: Sequence[_Row]) -> float:
    """Natural logarithm of how much more probable the rows are under ``own`` than under ``other``."""
    total = 0.0
    for (_, size, _), fits, fits_other in zip(rows, own[1], other[1], strict=True):
        if not (fits and fits_other):
            total += _FAULTY * (fits_other - fits)
            continue
        for mine, theirs in zip(_range(own[0], size), _range(other[0], size), strict=True):
            gain = abs(math.log(theirs / mine)) + math.log(_USED)
            total += math.copysign(max(gain, 0.0), theirs - mine)
    return total


def _bins(kind: BoxKind, rows: Sequence[_Row]) -> BoxKind:
    if kind != "0-1000":
        return kind
    sides = [side for numbers, _, _ in rows for side in numbers]
    return "0-999" if max(sides) == SCALE - 1 else kind
