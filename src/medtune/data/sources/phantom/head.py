"""A synthetic head in Hounsfield units: skull, brain, ventricles, one lesion. Geometry and densities are stated here.

Nothing is copied from a patient. Densities follow textbook ranges for non-contrast CT (Hounsfield scale as in DICOM
PS3.3 C.11.1.1.2, where Rescale Type is HU): air -1000, fat -100 to -50, water 0, cerebrospinal fluid 0 to 15, white matter
20 to 30, grey matter 30 to 40, fresh clotted blood 50 to 80, cortical bone above 700. They are rounded and simplified, and
a picture made from them looks like a brain CT only at a glance.

Coordinates: millimetres from the centre of the head, x to the right *of the picture* (the patient's left, radiological
convention), y downwards (to the back of the head), z upwards. Pictures are square, axial, seen from below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

FIELD_OF_VIEW_MM: Final = 220.0
AIR, SCALP, BONE = -1000.0, 20.0, 1000.0
FLUID, WHITE, GREY, FALX = 7.0, 27.0, 36.0, 46.0

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Head:
    """The anatomy of one synthetic patient.

    Attributes:
        half_width: Of the outer skull, mm, at the widest level.
        half_length: From front to back, mm.
        skull: Thickness, mm.
        scalp: Thickness, mm.
        tilt: Rotation in the picture plane, radians.
        centre: Of the head in the picture, mm from the picture's centre.
        ventricle: Size factor of the lateral ventricles, 1 = average.
        noise: Standard deviation of the scanner noise, HU.
        folds: Phases of the cortical folds.
    """

    half_width: float
    half_length: float
    skull: float
    scalp: float
    tilt: float
    centre: tuple[float, float]
    ventricle: float
    noise: float
    folds: tuple[float, float, float]

    @property
    def inner(self) -> tuple[float, float]:
        """Half axes of the brain at the widest level, mm."""
        shell = self.skull + self.scalp
        return self.half_width - shell, self.half_length - shell


@dataclass(frozen=True, slots=True)
class Lesion:
    """A region of another density: an ellipsoid, or a crescent along the inner skull.

    Attributes:
        shape: ``ellipsoid`` or ``crescent``.
        centre: (x, y, z), mm. Of a crescent: the point of the inner skull at its middle.
        axes: Half axes, mm: along, across, up. Of a crescent: half its length along the skull, its thickness, half its height.
        angle: Of the long axis in the picture plane, radians.
        density: HU.
        rim: Width of the surrounding oedema, mm; 0 = none.
        softness: Blur of the edge, mm.
        ripple: Amplitude of the irregular outline, share of the radius.
        phase: Of the irregular outline.
    """

    shape: str
    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    angle: float
    density: float
    rim: float = 0.0
    softness: float = 1.0
    ripple: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True, slots=True)
class Slice:
    """One axial picture: densities (size, size) in HU, and the lesion's pixels (size, size), all False when there is none."""

    hu: Array
    lesion: Mask


def draw_head(rng: np.random.Generator) -> Head:
    """Anatomy drawn from uniform distributions (ranges in the code), noise included."""
    return Head(
        half_width=rng.uniform(64, 74),
        half_length=rng.uniform(80, 92),
        skull=rng.uniform(5, 8),
        scalp=rng.uniform(3, 5),
        tilt=rng.uniform(-0.12, 0.12),
        centre=(rng.uniform(-7, 7), rng.uniform(-6, 6)),
        ventricle=rng.uniform(0.7, 1.5),
        noise=rng.uniform(2.0, 4.5),
        folds=(rng.uniform(0, 6.28), rng.uniform(0, 6.28), rng.uniform(0, 6.28)),
    )


def to_head(head: Head, x: Array, y: Array) -> tuple[Array, Array]:
    """From picture millimetres to the head's own axes."""
    cos, sin = np.cos(head.tilt), np.sin(head.tilt)
    dx, dy = x - head.centre[0], y - head.centre[1]
    return (dx * cos + dy * sin).astype(np.float32), (-dx * sin + dy * cos).astype(np.float32)


def to_picture(head: Head, x: float, y: float) -> tuple[float, float]:
    """From the head's own axes to picture millimetres."""
    cos, sin = float(np.cos(head.tilt)), float(np.sin(head.tilt))
    return x * cos - y * sin + head.centre[0], x * sin + y * cos + head.centre[1]


def render(head: Head, lesions: tuple[Lesion, ...], *, z: float, size: int, rng: np.random.Generator) -> Slice:
    """Densities of the slice at height ``z`` (mm). ``rng`` draws the noise only; lesions count where they meet the brain."""
    steps = ((np.arange(size, dtype=np.float32) + 0.5) / size * FIELD_OF_VIEW_MM - FIELD_OF_VIEW_MM / 2).astype(np.float32)
    x, y = to_head(head, steps[None, :], steps[:, None])
    # The head narrows towards the top; 110 mm is the radius of a sphere with a head's curvature.
    scale = float(np.sqrt(max(0.3, 1 - (z / 110) ** 2)))
    radius_mm = head.half_width * scale
    outer = np.sqrt((x / (head.half_width * scale)) ** 2 + (y / (head.half_length * scale)) ** 2)
    depth: Array = ((1 - outer) * radius_mm).astype(np.float32)  # mm below the skin, roughly

    hu = np.full((size, size), AIR, dtype=np.float32)
    hu[depth > 0] = SCALP
    hu[depth > head.scalp] = BONE
    shell = head.scalp + head.skull
    brain = depth > shell
    hu[brain] = FLUID
    angle = np.arctan2(y, x)
    fold = 0.9 * np.sin(11 * angle + head.folds[0]) + 0.7 * np.sin(17 * angle + head.folds[1])
    hu[depth > shell + 1.6 + fold] = GREY
    hu[depth > shell + 6.0 + 1.4 * fold + 0.6 * np.sin(5 * angle + head.folds[2])] = WHITE
    _deep_structures(hu, head, x, y, z)
    hu[(np.abs(x) < 1.1) & (np.abs(y) > 0.42 * head.half_length * scale) & brain] = FALX

    below_skull: Array = (depth - shell).astype(np.float32)
    found = np.zeros((size, size), dtype=bool)
    for lesion in lesions:
        found |= _add_lesion(hu, lesion, x, y, z, brain=brain, depth=below_skull, pixel=FIELD_OF_VIEW_MM / size)

    # The scanner's own blur (partial volume).
    hu = np.asarray(cv2.GaussianBlur(hu, (0, 0), 0.55 * size / 128), dtype=np.float32)
    noise = cv2.GaussianBlur(rng.standard_normal((size, size), dtype=np.float32), (0, 0), 0.6 * size / 128)
    hu += noise * np.float32(head.noise / max(float(noise.std()), 1e-6))
    return Slice(hu, found)


def _deep_structures(hu: Array, head: Head, x: Array, y: Array, z: float) -> None:
    """Thalami and lateral ventricles: their size depends on the level, as in a head."""
    level = float(np.clip(1 - abs(z - 5) / 45, 0.15, 1))
    for side in (-1.0, 1.0):
        hu[((x - side * 13) / 9) ** 2 + ((y - 6) / 13) ** 2 < level] = GREY
        u = (x - side * 9 * level) * np.cos(0.22 * side) + (y + 6) * np.sin(0.22 * side)
        v = -(x - side * 9 * level) * np.sin(0.22 * side) + (y + 6) * np.cos(0.22 * side)
        # Bowed outwards like the horns of a lateral ventricle.
        bowed = u - side * 0.006 * v * v + side * 1.5
        hu[(bowed / (4.6 * head.ventricle * level)) ** 2 + (v / (25 * level)) ** 2 < 1] = FLUID
    if z < 8:
        hu[(x / 1.8) ** 2 + ((y - 4) / 10) ** 2 < 1] = FLUID


def _add_lesion(hu: Array, lesion: Lesion, x: Array, y: Array, z: float, *, brain: Mask, depth: Array, pixel: float) -> Mask:
    """Paint one lesion into ``hu`` in place; returns its pixels (without the oedema)."""
    rise = (z - lesion.centre[2]) / lesion.axes[2]
    if abs(rise) >= 1:
        return np.zeros_like(brain)
    shrink = float(np.sqrt(1 - rise**2))
    if lesion.shape == "crescent":
        middle = np.arctan2(lesion.centre[1], lesion.centre[0])
        off = np.angle(np.exp(1j * (np.arctan2(y, x) - middle)))
        reach = lesion.axes[0] * shrink / float(np.hypot(lesion.centre[0], lesion.centre[1]))
        thickness = lesion.axes[1] * shrink * np.clip(1 - (off / reach) ** 2, 0, None) ** 0.6
        inside = brain & (np.abs(off) < reach) & (depth < thickness)
        outside = inside
    else:
        cos, sin = np.cos(lesion.angle), np.sin(lesion.angle)
        dx, dy = x - lesion.centre[0], y - lesion.centre[1]
        u, v = dx * cos + dy * sin, -dx * sin + dy * cos
        outline = 1 + lesion.ripple * np.sin(3 * np.arctan2(v, u) + lesion.phase)
        distance = np.sqrt((u / (lesion.axes[0] * shrink)) ** 2 + (v / (lesion.axes[1] * shrink)) ** 2) / outline
        inside = brain & (distance < 1)
        outside = brain & (distance < 1 + lesion.rim / (lesion.axes[1] * shrink))
    if lesion.rim > 0:
        hu[outside] = np.minimum(hu[outside], 18.0)
    weight = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), max(lesion.softness / pixel, 0.3)) * brain
    hu += weight * (np.float32(lesion.density) - hu)
    return np.asarray(inside, dtype=np.bool_)
