"""Which slices of a volume become pictures: a choice that DICOM series and NIfTI volumes share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medtune.data.sources.rows import RecordFault
from medtune.language import msg
from medtune.types import Fault, Settings

__all__ = ["AllSlices", "ExplicitSlices", "LargestMask", "MiddleSlice", "SliceChoice", "UniformSlices", "choose_slices"]


class AllSlices(Settings):
    """Every slice."""

    kind: Literal["all"] = "all"


class UniformSlices(Settings):
    """`count` slices at equal distances: the middle slice of each of `count` equal parts of the volume.

    So the outermost slices, which often show nothing, are not taken. A volume with no more slices gives all of them.
    """

    kind: Literal["uniform"] = "uniform"
    count: Annotated[int, Field(gt=0)] = 8
    """Slices for each volume."""


class MiddleSlice(Settings):
    """The one slice in the middle; of an even number the upper of the two (index count // 2)."""

    kind: Literal["middle"] = "middle"


class LargestMask(Settings):
    """The slice on which a segmentation covers most pixels; of several the first."""

    kind: Literal["largest-mask"] = "largest-mask"
    masks: Path | None = None
    """Folder of the segmentations. For DICOM: SEG objects, and left out: those that lie among the series. For NIfTI: files named as
    the volume."""


class ExplicitSlices(Settings):
    """The slices named, the same for each volume."""

    kind: Literal["explicit"] = "explicit"
    indices: Annotated[tuple[int, ...], Field(min_length=1)]
    """From 0, in spatial order; -1 is the last."""


SliceChoice = Annotated[
    AllSlices | UniformSlices | MiddleSlice | LargestMask | ExplicitSlices,
    Field(discriminator="kind"),
]


def choose_slices(choice: SliceChoice, count: int, *, areas: Sequence[int] | None = None) -> list[int]:
    """The indices of the chosen slices, from 0, ascending and without repeats.

    Args:
        choice: Which slices.
        count: Slices of the volume, at least 1.
        areas: Pixels of the mask on each slice; only for :class:`LargestMask`, None when the volume has no mask.

    Raises:
        RecordFault: A named slice does not exist (``slice-missing``), or there is no mask (``mask-missing``) or an empty one
            (``mask-empty``).
    """
    match choice:
        case AllSlices():
            return list(range(count))
        case UniformSlices(count=wanted):
            if wanted >= count:
                return list(range(count))
            return [(2 * part + 1) * count // (2 * wanted) for part in range(wanted)]
        case MiddleSlice():
            return [count // 2]
        case LargestMask():
            return [_largest(areas)]
        case ExplicitSlices(indices=indices):
            for index in indices:
                if not -count <= index < count:
                    raise RecordFault(
                        Fault(
                            "slice-missing",
                            msg("The volume has {count} slices; there is no slice {index}.", count=count, index=index),
                            msg("Name slices that every volume has, or use another choice of slices."),
                        )
                    )
            return sorted({index % count for index in indices})


def _largest(areas: Sequence[int] | None) -> int:
    if areas is None:
        raise RecordFault(
            Fault(
                "mask-missing",
                msg("The volume has no segmentation."),
                msg("Add the segmentation, or use another choice of slices."),
            )
        )
    if not max(areas, default=0):
        raise RecordFault(
            Fault(
                "mask-empty",
                msg("The segmentation of the volume is empty."),
                msg("Correct the segmentation, or use another choice of slices."),
            )
        )
    return max(range(len(areas)), key=lambda index: (areas[index], -index))
