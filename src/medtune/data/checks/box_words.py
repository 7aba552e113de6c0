"""Boxes against the words that place and measure them, and the convention that all boxes of a source are written in.

Position words and area shares of ``metadata`` are about the source picture, the box is of the stored one; ``extent`` says where
the source lies in it when a transform has added borders. The patient's side is never compared: in radiological convention the
picture's left is the patient's right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from medtune.data.checks.check import Check, Context, Place
from medtune.data.checks.found import Found
from medtune.imaging.boxes import Box, area, measure_box_convention
from medtune.language import Text, msg
from medtune.types import Sample

__all__ = ["AREA_RATIO", "CRESCENT", "POSITION_TOLERANCE", "BoxWords", "box_of", "look"]

AREA_RATIO = (0.4, 2.5)
"""Share of the box over the stated share, outside which a pair is listed. A published row says 1.6 % beside a box of 2.1 %: the
statement is of the finding, the box is drawn around it, so the ratio is above 1 for an honest pair. Measured on the phantom, whose
shares and boxes are exact: 1.1 to 1.9 for compact lesions. Below 0.4 the finding would be far larger than the box that holds it."""

CRESCENT = 8.0
"""Ratio up to which a box may be that of a thin crescent, which is worth a note: the phantom's subdural haematomas have 1.4 to 7.9,
and 86 % of them more than 2.5. Above it, it is a warning."""

POSITION_TOLERANCE = 0.15
"""How far, as a share of the picture's side, the centre of a box may lie outside the third that the words name. The captions give
thirds (left, center, right); a finding at the edge of two may be called by either. A judgement."""

_MEASURED = 2000
"""Boxes of a source that its convention is measured on, the first ones: a convention is one of the whole file."""

_THIRDS = {
    "horizontal": {"left": 0, "center": 1, "right": 2},
    "vertical": {"upper": 0, "middle": 1, "lower": 2},
}


class BoxWords(Check):
    """Boxes of rows and what is said of them. Keeps the numbers of at most 2,000 boxes of each source."""

    names = ("box-convention", "box-words")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._boxes: dict[str, list[Box]] = {}
        self._sizes: dict[str, list[tuple[float, float]]] = {}

    def row(self, sample: Sample, place: Place) -> None:
        box = box_of(sample)
        if box is None or not sample.images:
            return
        for found in look(sample):
            self.findings.add(*found, split=place.split, sample=sample.id, file=str(place))
        kept = self._boxes.setdefault(sample.source, [])
        if len(kept) < _MEASURED:
            kept.append(box)
            self._sizes.setdefault(sample.source, []).append((sample.images[0].width, sample.images[0].height))

    def conclude(self) -> Mapping[str, Text]:
        if not self._boxes:
            return dict.fromkeys(self.names, msg("No row has a box."))
        for source, boxes in self._boxes.items():
            measured = measure_box_convention(boxes, self._sizes[source])
            if measured.kind in ("pixels", "unknown") and measured.corners != "xywh":
                continue
            self.findings.add(
                "box-convention",
                "error",
                msg(
                    "The {count} boxes of {source} read as {kind} {corners}, not as pixels with two corners.",
                    count=len(boxes),
                    source=source,
                    kind=measured.kind,
                    corners=measured.corners,
                ),
                msg("Convert them in the source to [x1, y1, x2, y2] in pixels of the upright picture, and prepare again."),
                count=len(boxes),
            )
        return {}


def box_of(sample: Sample) -> Box | None:
    """``metadata["box"]`` as four finite numbers, None when there is none or it is no box at all."""
    box = sample.metadata.get("box")
    if not isinstance(box, list) or len(box) != 4:
        return None
    edges = [float(edge) for edge in box if isinstance(edge, (int, float)) and not isinstance(edge, bool) and math.isfinite(edge)]
    return (edges[0], edges[1], edges[2], edges[3]) if len(edges) == 4 else None


def look(sample: Sample) -> Iterator[Found]:
    """Findings about the box of a row and the words about it; none for a box that does not lie in its picture."""
    box = box_of(sample)
    if box is None or not sample.images:
        return
    x1, y1, x2, y2 = box
    width, height = sample.images[0].width, sample.images[0].height
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        return
    left, top, right, bottom = _extent(sample, width, height)
    yield from _position(sample, "horizontal", ((x1 + x2) / 2 - left) / (right - left))
    yield from _position(sample, "vertical", ((y1 + y2) / 2 - top) / (bottom - top))
    stated = sample.metadata.get("area_percent")
    if isinstance(stated, (int, float)) and not isinstance(stated, bool) and stated > 0:
        share = 100 * area(box) / ((right - left) * (bottom - top))
        if not AREA_RATIO[0] <= share / stated <= AREA_RATIO[1]:
            yield Found(
                "box-area",
                "info" if AREA_RATIO[1] < share / stated <= CRESCENT else "warning",
                msg(
                    "The box covers {share:.1f} % of the picture; the text says {stated:.1f} %: a ratio of {ratio:.2f}.",
                    share=share,
                    stated=float(stated),
                    ratio=share / stated,
                ),
                _doubt(),
            )


def _position(sample: Sample, axis: str, centre: float) -> Iterator[Found]:
    word = sample.metadata.get(axis)
    third = _THIRDS[axis].get(word) if isinstance(word, str) else None
    if third is None or third / 3 - POSITION_TOLERANCE <= centre <= (third + 1) / 3 + POSITION_TOLERANCE:
        return
    if axis == "horizontal":
        message = msg(
            "The text places it at {word!r}; the centre of the box lies at {centre:.0%} of the picture's width.",
            word=str(word),
            centre=centre,
        )
    else:
        message = msg(
            "The text places it at {word!r}; the centre of the box lies at {centre:.0%} of the picture's height.",
            word=str(word),
            centre=centre,
        )
    yield Found("box-position", "warning", message, _doubt())


def _extent(sample: Sample, width: int, height: int) -> Box:
    extent = sample.metadata.get("extent")
    if isinstance(extent, list) and len(extent) == 4 and all(isinstance(edge, (int, float)) for edge in extent):
        left, top, right, bottom = (float(edge) for edge in extent)  # type: ignore[arg-type]
        if right > left and bottom > top:
            return left, top, right, bottom
    return 0.0, 0.0, float(width), float(height)


def _doubt() -> Text:
    return msg("Look at the picture: either the box or the words are another finding's.")
