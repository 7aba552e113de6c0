"""Instances become volumes: the slices of a series in their spatial order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medtune.imaging.dicom_index import Instance
from medtune.imaging.dicom_segmentation import MaskedFrame
from medtune.imaging.geometry import Plane, Vector, gantry_tilt, is_same_direction, normal_of, position_along, spacing_faults

__all__ = ["Slice", "Volume", "mask_areas", "volumes_of"]

_TILT = 0.5
"""Degrees from which a stack counts as tilted."""
_VOLUMETRIC = frozenset({"CT", "MR", "PT", "NM", "OPT"})
"""Modalities whose slices are expected to have positions."""
_SAME_SLICE = 0.1
"""A mask's frame within this many millimetres along the normal belongs to a slice."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of an instance. ``plane`` is None where the file does not say where it lies."""

    instance: Instance
    frame: int
    plane: Plane | None


@dataclass(slots=True)
class Volume:
    """Slices of one series that lie in one stack, in spatial order, and what is odd about them.

    Attributes:
        slices: Along the normal, from its tail to its tip; where positions are not known, by Instance Number and frame.
        number: Which volume of its series, from 0.
        tilt: Degrees of the gantry's tilt, 0.0 for a straight stack.
        notes: ``positions-repeated``, ``positions-missing``, ``positions-unknown``, ``orientations-mixed``, ``gantry-tilt``,
            ``pixels-not-square``, ``burned-in-annotation``.
        places: Where each of the slices lies in the whole volume, from 0, when they are only some of it.
    """

    slices: list[Slice]
    number: int = 0
    tilt: float = 0.0
    notes: list[str] = field(default_factory=list)
    places: list[int] | None = None

    @property
    def first(self) -> Instance:
        return self.slices[0].instance

    def place_of(self, index: int) -> int:
        """Where ``slices[index]`` lies in the whole volume, from 0."""
        return index if self.places is None else self.places[index]

    def by_instance(self) -> list[Volume]:
        """The slices of each instance as a volume of their own, which knows where they lie in this one."""
        places: dict[Path, list[int]] = {}
        for index, one in enumerate(self.slices):
            places.setdefault(one.instance.path, []).append(index)
        return [
            Volume([self.slices[index] for index in some], self.number, self.tilt, self.notes, some) for some in places.values()
        ]


def volumes_of(instances: Sequence[Instance]) -> list[Volume]:
    """The volumes of one series. Slices of other orientations are volumes of their own; so is each film without positions (a
    multi-frame ultrasound).

    Args:
        instances: Of one series, in any order; the result does not depend on it.
    """
    stacks: list[tuple[Vector, list[Slice]]] = []
    films: list[list[Slice]] = []
    loose: list[Slice] = []
    for instance in sorted(instances, key=lambda one: (one.number, one.uid)):
        slices = [Slice(instance, frame, plane) for frame, plane in enumerate(instance.planes)]
        if len(slices) > 1 and len({one.plane for one in slices}) == 1:
            films.append(slices)  # no positions, or the same for all frames
            continue
        for one in slices:
            if one.plane is None:
                loose.append(one)
            else:
                _stack(stacks, one.plane).append(one)
    made = [_ordered(normal, slices) for normal, slices in sorted(stacks, key=lambda stack: stack[0])]
    made += [Volume(slices) for slices in ([loose] if loose else []) + films]
    if len(stacks) > 1:
        for volume in made[: len(stacks)]:
            volume.notes.append("orientations-mixed")
    for number, volume in enumerate(made):
        volume.number = number
        _note(volume)
    return made


def mask_areas(volume: Volume, masks: Iterable[MaskedFrame]) -> list[int] | None:
    """Pixels of the masks on each slice: by the SOP instance that a frame refers to, else by its place. None without a mask."""
    by_instance = {one.instance.uid: index for index, one in enumerate(volume.slices) if one.instance.frames == 1}
    series = volume.first.series
    place_of = _places(volume)
    areas = [0] * len(volume.slices)
    found = False
    for mask in masks:
        if mask.series != series:
            continue
        found = True
        index = by_instance.get(mask.instance)
        if index is None and mask.position is not None and place_of is not None:
            index = place_of(mask.position)
        if index is not None:
            areas[index] += mask.area
    return areas if found else None


def _places(volume: Volume) -> Callable[[Vector], int | None] | None:
    """Which slice a point lies on."""
    planes = [one.plane for one in volume.slices if one.plane is not None]
    if len(planes) != len(volume.slices):
        return None
    normal = normal_of(planes[0])
    along = [position_along(plane, normal) for plane in planes]

    def nearest(point: Vector) -> int | None:
        place = sum(part * direction for part, direction in zip(point, normal, strict=True))
        index = min(range(len(along)), key=lambda each: abs(along[each] - place))
        return index if abs(along[index] - place) <= _SAME_SLICE else None

    return nearest


def _stack(stacks: list[tuple[Vector, list[Slice]]], plane: Plane) -> list[Slice]:
    normal = normal_of(plane)
    for direction, slices in stacks:
        if is_same_direction(direction, normal):
            return slices
    stacks.append((normal, []))
    return stacks[-1][1]


def _ordered(normal: Vector, slices: list[Slice]) -> Volume:
    placed = [(position_along(one.plane, normal), one) for one in slices if one.plane is not None]
    # Slices at one place (echoes, phases, diffusion directions) keep the order of their numbers: the sort is stable.
    placed.sort(key=lambda pair: round(pair[0], 2))
    volume = Volume([one for _, one in placed], notes=spacing_faults([place for place, _ in placed]))
    first, last = volume.slices[0], volume.slices[-1]
    if first.plane is not None and last.plane is not None:  # a single slice has only the tag
        volume.tilt = gantry_tilt(first.plane, last.plane) if len(placed) > 1 else abs(first.instance.tilt)
    if volume.tilt < _TILT:
        volume.tilt = 0.0
    else:
        volume.notes.append("gantry-tilt")
    return volume


def _note(volume: Volume) -> None:
    instances = [one.instance for one in volume.slices]
    if len(volume.slices) > 1 and volume.first.modality in _VOLUMETRIC and any(one.plane is None for one in volume.slices):
        volume.notes.append("positions-unknown")
    if any(one.aspect != 1.0 for one in instances):
        volume.notes.append("pixels-not-square")
    if any(one.burned_in for one in instances):
        volume.notes.append("burned-in-annotation")
