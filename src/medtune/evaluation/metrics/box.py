"""Boxes: overlap and distance of centres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.imaging.boxes import SCALE, Box, iou, relative_box
from medtune.language import msg
from medtune.tasks.reading.boxes import read_boxes
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BoxOverlap", "centre_distance", "source_extent", "true_boxes"]

_THRESHOLDS = (0.1, 0.3, 0.5)


class BoxOverlap:
    """Intersection over union, and the share of boxes found at thresholds of it.

    ``iou`` (0 to 1): the mean overlap. ``accuracy-0.1``, ``-0.3``, ``-0.5`` (0 to 1): boxes whose overlap reaches the
    threshold; 0.5 is PASCAL VOC's (Everingham et al. 2010), the lower ones are for small lesions, where a shift of a few
    pixels costs half the overlap. ``centre-error`` (share of the stored picture's diagonal): how far the nearest predicted
    centre is.

    True and predicted boxes are paired one to one, best overlap first, and the sums are divided by the *larger* number of
    boxes: a model that sprinkles boxes over the picture does not gain. Truth is ``metadata["box"]`` in pixels of the stored
    picture where the sample has it, else the boxes of the reference answer.

    An answer without a readable box is 0 for overlap and accuracy, and unscored for the centre error, which has no worst value:
    read that number together with its count. A sample without a true box is unscored.
    """

    name = "box"
    values: tuple[MetricValue, ...] = (
        share("box/iou", msg("Box overlap (IoU)")),
        share("box/accuracy-0.1", msg("Boxes found (IoU ≥ 0.1)")),
        share("box/accuracy-0.3", msg("Boxes found (IoU ≥ 0.3)")),
        share("box/accuracy-0.5", msg("Boxes found (IoU ≥ 0.5)")),
        MetricValue(
            name="box/centre-error",
            title=msg("Distance of box centres").template,
            direction="lower",
            low=0.0,
            high=1.0,
            unit="of the diagonal",
        ),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        truths = true_boxes(sample)
        if not truths:
            return tuple(unscored(sample, value.name) for value in self.values)
        found = _predicted(prediction.answer)
        overlaps = _pair(truths, found)
        count = max(len(truths), len(found))
        mean = sum(overlaps) / count
        scores = [_ratio(sample, "box/iou", sum(overlaps), count, f"IoU {mean:.2f}" if found else "∅")]
        for limit in _THRESHOLDS:
            scores.append(_ratio(sample, f"box/accuracy-{limit}", sum(overlap >= limit for overlap in overlaps), count))
        if found:
            size = (sample.images[0].width, sample.images[0].height) if sample.images else (1, 1)
            distances = [min(centre_distance(_centre(truth), _centre(box), *size) for box in found) for truth in truths]
            scores.append(mean_score(sample, "box/centre-error", sum(distances) / len(distances)))
        else:
            scores.append(unscored(sample, "box/centre-error", "∅"))
        return tuple(scores)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


def true_boxes(sample: Sample) -> list[Box]:
    """The sample's true boxes in 0 to 1000 of the picture's sides; empty when it has none."""
    box = sample.metadata.get("box")
    if isinstance(box, list) and sample.images:
        try:
            return [relative_box(box, sample.images[0].width, sample.images[0].height)]  # type: ignore[arg-type]
        except ValueError:
            return []
    if sample.task != "detection":
        return []
    try:
        return read_boxes(reference(sample))[0]
    except ValueError:
        return []


def source_extent(sample: Sample) -> Box:
    """Where the source picture lies in the stored one, x1, y1, x2, y2 in pixels: all of it, unless a transform such as
    letterbox has put it into a part (``metadata["extent"]``).

    Boxes are of the stored picture, which the model sees. Words about position and area are of the source picture, which
    those who wrote them saw: to compare a box with words, look for it inside this extent.
    """
    extent = sample.metadata.get("extent")
    if isinstance(extent, list) and len(extent) == 4 and all(isinstance(edge, int | float) for edge in extent):
        x1, y1, x2, y2 = (float(edge) for edge in extent if isinstance(edge, int | float))
        if x1 < x2 and y1 < y2:
            return x1, y1, x2, y2
    return 0.0, 0.0, float(sample.images[0].width), float(sample.images[0].height)


def centre_distance(first: tuple[float, float], second: tuple[float, float], width: int, height: int) -> float:
    """The distance of two points (0 to 1000 of the sides) in a (width, height) picture, as a share of its diagonal."""
    across, along = (first[0] - second[0]) / SCALE * width, (first[1] - second[1]) / SCALE * height
    return math.hypot(across, along) / math.hypot(width, height)


def _pair(truths: Sequence[Box], found: Sequence[Box]) -> list[float]:
    """The overlaps of a one-to-one pairing, best first."""
    pairs = sorted(
        ((iou(truth, box), row, column) for row, truth in enumerate(truths) for column, box in enumerate(found)),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    rows: set[int] = set()
    columns: set[int] = set()
    overlaps = []
    for overlap, row, column in pairs:
        if overlap > 0 and row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            overlaps.append(overlap)
    return overlaps


def _predicted(answer: JsonValue) -> list[Box]:
    boxes = answer.get("boxes") if isinstance(answer, dict) else None
    if not isinstance(boxes, list):
        return []
    return [relative_box(box, SCALE, SCALE) for box in boxes if isinstance(box, list)]  # type: ignore[arg-type]


def _ratio(sample: Sample, name: str, part: float, count: int, explanation: str = "") -> Score:
    return Score(
        sample_id=sample.id, metric=name, value=part / count, statistics=(float(part), float(count)), explanation=explanation
    )


def _centre(box: Box) -> tuple[float, float]:
    return ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
