"""Boxes: overlap, distance, and average precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.evaluation.metrics.average_precision import THRESHOLDS, WIDTH, average_precision, detection_counts
from medtune.imaging.boxes import SCALE, Box, area, giou, iou, relative_box
from medtune.language import msg
from medtune.tasks.reading.boxes import read_boxes
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BoxOverlap", "centre_distance", "source_extent", "true_boxes"]

_THRESHOLDS = (0.1, 0.3, 0.5)
_THRESHOLDS_OF = {"box/ap-50": 1, "box/map": len(THRESHOLDS)}
_MOST_BOXES = 100
"""Of an answer, in its order; COCO takes as many. A text of nothing but boxes must not take hours."""


class BoxOverlap:
    """True and predicted boxes of a picture.

    Boxes are paired one to one, best overlap first (greedily, not by the Hungarian method: the two differ only where boxes of one
    picture overlap several others), and the sums are divided by the *larger* number of boxes: a model that sprinkles boxes over
    the picture does not gain.

    - ``iou`` (0 to 1): intersection over union. ``accuracy-0.1``, ``-0.3``, ``-0.5`` (0 to 1): boxes whose overlap reaches the
      threshold; 0.5 is PASCAL VOC's (Everingham et al. 2010, doi:10.1007/s11263-009-0275-4), the lower ones are for small lesions,
      where a shift of a few pixels costs half the overlap.
    - ``giou`` (-1 to 1): generalized IoU (Rezatofighi et al. 2019, arXiv:1902.09630), which also tells how far apart boxes are
      that do not meet; a box without a partner counts -1.
    - ``pointing`` (0 to 1): the pointing game (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x): true boxes that hold the centre
      of a predicted one, each centre used once.
    - ``centre-error`` (share of the stored picture's diagonal, lower is better): how far the nearest predicted centre is.
    - ``ap-50`` and ``map`` (0 to 1): average precision at IoU 0.5, and its mean over 0.50, 0.55, ..., 0.95, matched and
      interpolated as COCO does (:mod:`.average_precision`), over all boxes of all pictures and without regard to labels. A
      picture's own value is that of the picture. Boxes are ranked by the confidence that the answer states ("confidence" or
      "score", steps of 0.05); a model that states none has one operating point only, and its number must not be compared with
      that of a detector.
    - ``specificity`` (0 to 1): of the pictures whose reference says that there is no box, those whose answer says so too.

    The picture is the stored one. IoU and GIoU do not depend on the scale of the axes, so boxes in thousandths of the sides give
    what pixels give; distances are measured in pixels. Truth is ``metadata["box"]``, one or a list, in pixels of the stored picture
    where the sample has it, else the boxes of the reference answer.

    An answer without a readable box is the worst value everywhere, and unscored for the centre error, which has none: read that
    number together with its count. Boxes on a picture whose reference has none count as wrong in ``ap-50``, ``map`` and
    ``specificity``, and the other values are unscored there; without a readable reference all are.
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
        MetricValue(name="box/giou", title=msg("Generalized IoU").template, direction="higher", low=-1.0, high=1.0),
        share("box/pointing", msg("Centre inside the true box")),
        share("box/ap-50", msg("Average precision (IoU ≥ 0.5)")),
        share("box/map", msg("Average precision, mean over IoU 0.5 to 0.95")),
        share("box/specificity", msg("No box where there is none")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        truths = true_boxes(sample)
        if not truths:
            return self._without_truth(prediction, sample)
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
        scores.append(_ratio(sample, "box/giou", _generalized(truths, found), count))
        scores.append(_ratio(sample, "box/pointing", _pointed(truths, found), count))
        scores.extend(_precisions(sample, truths, found, _confidences(prediction.answer, len(found))))
        return tuple(scores)

    def _without_truth(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        scores = {value.name: unscored(sample, value.name) for value in self.values}
        if _says_none(sample):
            found = _predicted(prediction.answer)
            right = isinstance(prediction.answer, dict) and not found
            scores["box/specificity"] = mean_score(sample, "box/specificity", right)
            if found:
                for score in _precisions(sample, [], found, _confidences(prediction.answer, len(found))):
                    scores[score.metric] = score
        return tuple(scores.values())

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        if name in _THRESHOLDS_OF:
            return average_precision(totals, _THRESHOLDS_OF[name])
        return mean_of(totals)


def true_boxes(sample: Sample) -> list[Box]:
    """The sample's true boxes in 0 to 1000 of the picture's sides; empty when it has none."""
    known = sample.metadata.get("box")
    if isinstance(known, list) and sample.images:
        boxes = known if known and isinstance(known[0], list) else [known]
        try:
            return [relative_box(box, sample.images[0].width, sample.images[0].height) for box in boxes]  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return []
    if sample.task != "detection":
        return []
    try:
        return read_boxes(reference(sample))[0]
    except ValueError:
        return []


def _says_none(sample: Sample) -> bool:
    """Whether the reference of a detection is that there is nothing to find."""
    if sample.task != "detection" or "box" in sample.metadata:
        return False
    try:
        return not read_boxes(reference(sample))[0]
    except ValueError:
        return False


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
    return [relative_box(box, SCALE, SCALE) for box in boxes[:_MOST_BOXES] if isinstance(box, list)]  # type: ignore[arg-type]


def _confidences(answer: JsonValue, number: int) -> list[float] | None:
    stated = answer.get("confidences") if isinstance(answer, dict) else None
    if not isinstance(stated, list) or len(stated) < number or not number:
        return None
    return [float(value) if isinstance(value, int | float) else 0.0 for value in stated[:number]]


def _generalized(truths: Sequence[Box], found: Sequence[Box]) -> float:
    """The sum of GIoU over a one-to-one pairing, best first, and -1 for each box that has no partner."""
    pairs = sorted(
        ((giou(truth, box), row, column) for row, truth in enumerate(truths) for column, box in enumerate(found)),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    rows: set[int] = set()
    columns: set[int] = set()
    total = 0.0
    for value, row, column in pairs:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            total += value
    return total - abs(len(truths) - len(found))


def _pointed(truths: Sequence[Box], found: Sequence[Box]) -> int:
    """How many true boxes hold a centre of their own; a centre in several goes to the smallest that is free."""
    free = sorted(range(len(truths)), key=lambda row: area(truths[row]))
    hits = 0
    for box in found:
        x, y = _centre(box)
        inside = next(
            (row for row in free if truths[row][0] <= x <= truths[row][2] and truths[row][1] <= y <= truths[row][3]), None
        )
        if inside is not None:
            free.remove(inside)
            hits += 1
    return hits


def _holds(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def _precisions(
    sample: Sample, truths: Sequence[Box], found: Sequence[Box], confidences: Sequence[float] | None
) -> tuple[Score, ...]:
    import numpy as np

    counts, places = detection_counts(truths, found, confidences)
    vector = np.zeros(WIDTH)
    vector[list(places)] = counts
    return tuple(
        Score(
            sample_id=sample.id,
            metric=name,
            value=float(average_precision(vector, thresholds)) if truths else 0.0,
            statistics=counts,
            places=places,
            width=WIDTH,
        )
        for name, thresholds in _THRESHOLDS_OF.items()
    )


def _ratio(sample: Sample, name: str, part: float, count: int, explanation: str = "") -> Score:
    return Score(
        sample_id=sample.id, metric=name, value=part / count, statistics=(float(part), float(count)), explanation=explanation
    )


def _centre(box: Box) -> tuple[float, float]:
    return ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
