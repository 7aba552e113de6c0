"""The region of interest: where it is in the picture, how large, how dense; and its description."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from medtune.language import msg
from medtune.tasks.asking import InstructedTask, Instructions
from medtune.tasks.reading.area import read_percent
from medtune.tasks.reading.finding import read_density, read_finding
from medtune.tasks.reading.position import read_position
from medtune.types import Sample

__all__ = ["REGION_FIELDS", "Region", "RegionDescription", "read_region"]

REGION_FIELDS = ("horizontal", "vertical", "side", "area_percent", "kind", "density")


def read_region(text: str) -> dict[str, JsonValue]:
    """What ``text`` says of a region, under the keys of :data:`REGION_FIELDS`; None where it says nothing.

    ``horizontal`` and ``vertical`` are of the picture, ``side`` is the patient's (see :mod:`medtune.tasks.reading.position`).
    """
    position = read_position(text)
    return {
        "horizontal": position.horizontal,
        "vertical": position.vertical,
        "side": position.side,
        "area_percent": read_percent(text),
        "kind": read_finding(text),
        "density": read_density(text),
    }


class Region(InstructedTask):
    """Where the region of interest is in the picture, what share of the area it takes, how dense it is.

    The position asked for is the picture's. ``parse`` reads whatever the answer says (:func:`read_region`), the patient's side
    among it.
    """

    name = "region"
    metrics = ("region", "llamafactory")
    instructions: ClassVar[Instructions] = {
        "en": "Where in this image is the region of interest, which percentage of the image area does it occupy, and is it "
        "hyperdense or hypodense? Give the position as you see it in the image (left, center or right; upper, middle or lower "
        "part), not the patient's side: in radiological convention the left of the image is the patient's right.",
        "zh": "感兴趣区位于图像的什么位置，占图像面积的百分之几，是高密度还是低密度？"
        "请按图像本身说明位置（左、中、右；上、中、下），"
        "不要按患者的左右：按放射学惯例，图像左侧是患者右侧。",
    }

    def parse(self, text: str, sample: Sample) -> JsonValue:
        """See :func:`read_region`.

        Raises:
            ValueError: The text says nothing of a region.
        """
        del sample
        found = read_region(text)
        if all(value is None for value in found.values()):
            raise ValueError(msg("The answer names no position, size, density or finding."))
        return found


class RegionDescription(InstructedTask):
    """The finding in the region, on which side of the patient it lies, and what surrounds it."""

    name = "region-description"
    metrics = ("region", "findings", "measurements", "terminology", "llamafactory", "bleu", "chrf", "rouge")
    instructions: ClassVar[Instructions] = {
        "en": "Describe the finding in the region of interest: its kind and density, where in the patient it lies "
        "(the patient's left or right, not the image's) and what surrounds it.",
        "zh": "描述感兴趣区的病变：性质和密度、在患者体内的位置（患者的左侧或右侧，而不是图像的左右）以及与周围结构的关系。",
    }
