"""Where a slice lies in the patient: the order of slices along their normal, and what is odd about it.

Positions are in millimetres in the patient's system: x to the left, y to the back, z to the head (PS3.3, C.7.6.2.1.1).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Plane", "gantry_tilt", "is_same_direction", "normal_of", "position_along", "spacing_faults"]

Vector = tuple[float, float, float]

_SAME_DIRECTION = 1e-3
"""Largest difference in a component of two unit vectors that count as one direction: scanners write four to six digits, and
reconstructions of one volume differ by less (0.06 degrees)."""
_SAME_PLACE = 1e-2
"""Slices nearer than this, in millimetres, lie at one place."""
_GAP = 1.5
"""A step of this many usual steps (the median, of two the smaller) means that a slice is missing."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Image Position (Patient) (0020,0032) and Image Orientation (Patient) (0020,0037) of a slice: the place of its first pixel,
    and the directions of its rows and of its columns."""

    position: Vector
    row: Vector
    column: Vector


def normal_of(plane: Plane) -> Vector:
    """The unit vector across the slice: row direction x column direction.

    Raises:
        ValueError: The directions are parallel, or no directions.
    """
    (a, b, c), (d, e, f) = plane.row, plane.column
    cross = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*cross)
    if not (math.isfinite(length) and length > 0.1):  # sound directions give 1
        raise ValueError("the orientation gives no plane")
    return cross[0] / length, cross[1] / length, cross[2] / length


def position_along(plane: Plane, normal: Vector) -> float:
    """Millimetres along the normal. Slices sorted by it lie in the order of the volume, whatever their numbers are."""
    return sum(place * part for place, part in zip(plane.position, normal, strict=True))


def is_same_direction(first: Vector, second: Vector) -> bool:
    """Whether two normals count as one."""
    return all(abs(a - b) <= _SAME_DIRECTION for a, b in zip(first, second, strict=True))


def spacing_faults(places: Sequence[float]) -> list[str]:
    """What is odd about sorted places along the normal: ``positions-repeated``, ``positions-missing``."""
    steps = [after - before for before, after in itertools.pairwise(places)]
    faults = []
    if any(step < _SAME_PLACE for step in steps):
        faults.append("positions-repeated")
    apart = sorted(step for step in steps if step >= _SAME_PLACE)
    if apart and apart[-1] > _GAP * apart[(len(apart) - 1) // 2]:
        faults.append("positions-missing")
    return faults


def gantry_tilt(first: Plane, last: Plane) -> float:
    """Degrees between the slices' normal and the line from one slice's first pixel to another's; 0 for a straight stack.

    A tilted CT gantry shears the volume: each slice is right, a stack of them is not.
    """
    normal = normal_of(first)
    between = [b - a for a, b in zip(first.position, last.position, strict=True)]
    length = math.hypot(*between)
    if length < _SAME_PLACE:
        return 0.0
    along = abs(sum(a * b for a, b in zip(between, normal, strict=True))) / length
    return math.degrees(math.acos(min(1.0, along)))
