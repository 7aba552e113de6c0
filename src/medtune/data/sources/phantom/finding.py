"""Synthetic patients: which lesion, where, how large, how dense; and the truth read off the rendered pixels.

Distributions (all uniform unless stated): one patient in eight has no lesion; the others have one of five kinds with equal
probability. Position: anywhere in the part of the brain where the kind may lie. Extent and density: the ranges in
:data:`KINDS`. Densities follow the ranges that radiology texts give for non-contrast CT (see :mod:`.head`); frequencies and
sizes follow no population.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from medtune.data.sources.phantom.head import FIELD_OF_VIEW_MM, Head, Lesion, Mask, Slice, draw_head, render, to_head

NORMAL_SHARE: Final = 1 / 8
SLICE_SPACING_MM: Final = 5.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of lesion and its ranges: half axes in mm, density in HU."""

    name: str
    density_word: str
    along: tuple[float, float]
    across: tuple[float, float]
    hu: tuple[float, float]


KINDS: Final = (
    Kind("intracerebral haemorrhage", "hyperdense", (7, 20), (6, 15), (60, 76)),
    Kind("ischaemic infarct", "hypodense", (16, 30), (12, 22), (15, 20)),
    Kind("subdural haematoma", "hyperdense", (35, 65), (7, 15), (58, 72)),
    Kind("arachnoid cyst", "hypodense", (9, 20), (8, 16), (3, 8)),
    Kind("meningioma", "hyperdense", (9, 18), (8, 15), (46, 54)),
)


@dataclass(frozen=True, slots=True)
class Patient:
    """A head, at most one lesion, and the heights of the slices (mm)."""

    number: int
    head: Head
    kind: Kind | None
    lesion: Lesion | None
    levels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in one slice, read off its pixels.

    Attributes:
        kind: Name of the lesion kind; None when there is no lesion in the slice.
        density: ``hyperdense`` or ``hypodense`` against grey matter.
        box: [x1, y1, x2, y2], pixels, of the lesion without its oedema; x2 and y2 lie one past the last pixel.
        area_percent: Of the picture, 0 to 100, by the lesion's pixels.
        horizontal: ``left``, ``center`` or ``right`` of the *picture*, by the box centre (thirds of the head's usual extent).
        vertical: ``upper``, ``middle`` or ``lower`` of the picture.
        side: Of the *patient*: pictures are in radiological convention, so the picture's left is the patient's right.
        lobe: ``frontal``, ``temporoparietal`` or ``occipital``, by the position along the head's own long axis.
    """

    kind: str | None = None
    density: str | None = None
    box: tuple[int, int, int, int] | None = None
    area_percent: float = 0.0
    horizontal: str | None = None
    vertical: str | None = None
    side: str | None = None
    lobe: str | None = None


def draw_patient(seed: int, number: int, num_slices: int) -> Patient:
    """Patient ``number`` of the population ``seed``: the same every time, whatever was drawn before."""
    rng = np.random.default_rng([seed, number])
    head = draw_head(rng)
    if rng.random() < NORMAL_SHARE:
        start = float(rng.uniform(-15, 15))
        return Patient(number, head, None, None, tuple(start + SLICE_SPACING_MM * index for index in range(num_slices)))
    kind = KINDS[int(rng.integers(len(KINDS)))]
    lesion = draw_lesion(rng, head, kind)
    offsets = (np.arange(num_slices) - (num_slices - 1) / 2) * SLICE_SPACING_MM
    # Every slice must meet the lesion, or its text would describe what cannot be seen.
    offsets *= min(1.0, 0.75 * lesion.axes[2] / max(abs(float(offsets[0])), 1e-6)) if num_slices > 1 else 1.0
    return Patient(number, head, kind, lesion, tuple(float(lesion.centre[2] + offset) for offset in offsets))


def draw_lesion(rng: np.random.Generator, head: Head, kind: Kind) -> Lesion:
    """A lesion of ``kind`` at a place where such a lesion may lie."""
    along, across = rng.uniform(*kind.along), rng.uniform(*kind.across)
    across = min(across, along)
    density, z = rng.uniform(*kind.hu), rng.uniform(-12, 18)
    width, length = head.inner
    phase = rng.uniform(0, 6.28)
    if kind.name == "subdural haematoma":
        # On either side, away from the midline in front and behind.
        direction = rng.uniform(-1.0, 1.0) + (0 if rng.random() < 0.5 else np.pi)
        x, y = width * np.cos(direction), length * np.sin(direction)
        return Lesion("crescent", (float(x), float(y), z), (along, across, rng.uniform(18, 26)), 0.0, density, softness=0.8)
    direction = rng.uniform(0, 2 * np.pi)
    if kind.name in ("arachnoid cyst", "meningioma"):
        # Outside the brain tissue: they touch the inner skull.
        reach = 1 - 0.75 * across / width
        angle = float(np.arctan2(length * np.sin(direction), width * np.cos(direction)) + np.pi / 2)
    else:
        reach = rng.uniform(0.35, 0.78) if kind.name == "ischaemic infarct" else rng.uniform(0.2, 0.72)
        angle = rng.uniform(0, np.pi)
    x, y = reach * width * np.cos(direction), reach * length * np.sin(direction)
    bleeding = kind.name == "intracerebral haemorrhage"
    return Lesion(
        "ellipsoid",
        (float(x), float(y), z),
        (along, across, rng.uniform(12, 20)),
        angle,
        density,
        rim=rng.uniform(3, 6) if bleeding else 0.0,
        softness=2.2 if kind.name == "ischaemic infarct" else 0.8,
        ripple=0.16 if bleeding else 0.12 if kind.name == "ischaemic infarct" else 0.0,
        phase=phase,
    )


def draw_slice(patient: Patient, index: int, *, seed: int, size: int) -> tuple[Slice, Truth]:
    """Render slice ``index`` of a patient, ``size`` pixels wide, and read the truth off it."""
    rng = np.random.default_rng([seed, patient.number, index + 1])
    lesions = () if patient.lesion is None else (patient.lesion,)
    image = render(patient.head, lesions, z=patient.levels[index], size=size, rng=rng)
    if patient.kind is None:
        return image, Truth()
    return image, read_truth(image.lesion, patient.head, patient.kind.name, patient.kind.density_word)


def read_truth(mask: Mask, head: Head, kind: str, density: str) -> Truth:
    """The truth of a lesion whose pixels are ``mask`` (size, size); an empty mask gives the truth of a normal slice."""
    if not mask.any():
        return Truth()
    size = mask.shape[0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    x, y = (box[0] + box[2]) / 2 / size, (box[1] + box[3]) / 2 / size
    mean_row, mean_column = (float(values.mean()) for values in np.nonzero(mask))
    to_mm = FIELD_OF_VIEW_MM / size
    head_x, head_y = (
        float(value)
        for value in to_head(
            head,
            np.float32((mean_column + 0.5) * to_mm - FIELD_OF_VIEW_MM / 2),  # type: ignore[arg-type]
            np.float32((mean_row + 0.5) * to_mm - FIELD_OF_VIEW_MM / 2),  # type: ignore[arg-type]
        )
    )
    along = head_y / head.inner[1]
    return Truth(
        kind=kind,
        density=density,
        box=box,
        area_percent=round(100 * float(mask.mean()), 1),
        horizontal="left" if x < 0.44 else "right" if x > 0.56 else "center",
        vertical="upper" if y < 0.42 else "lower" if y > 0.58 else "middle",
        side="midline" if abs(head_x) < 4 else "left" if head_x > 0 else "right",
        lobe="frontal" if along < -0.3 else "occipital" if along > 0.45 else "temporoparietal",
    )
