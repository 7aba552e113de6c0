"""Boxes that do not lie in their picture."""

from __future__ import annotations

from medtune.data.checks.check import Check, Place
from medtune.data.findings import CORRECT_SOURCE
from medtune.language import msg
from medtune.types import Sample

__all__ = ["Boxes"]


class Boxes(Check):
    """``metadata["box"]`` is [x1, y1, x2, y2] in pixels of the first picture. Keeps nothing."""

    names = ("boxes",)

    def row(self, sample: Sample, place: Place) -> None:
        box = sample.metadata.get("box")
        if box is None or not sample.images:
            return
        image = sample.images[0]
        try:
            x1, y1, x2, y2 = (float(edge) for edge in box)  # type: ignore[union-attr, arg-type]
            sound = 0 <= x1 < x2 <= image.width and 0 <= y1 < y2 <= image.height
        except (TypeError, ValueError):
            sound = False
        if not sound:
            self.findings.add(
                "box-outside",
                "error",
                msg(
                    "The box {box} does not lie in the picture of {width} x {height} pixels.",
                    box=str(box),
                    width=image.width,
                    height=image.height,
                ),
                CORRECT_SOURCE,
                split=place.split,
                sample=sample.id,
                file=str(place),
            )
