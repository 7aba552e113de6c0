"""Boxes: overlap, distance, and average precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, statistics_of, unscored
from medtune.evaluation.metrics.assignment import largest_gain
from medtune.evaluation.metrics.average_precision import (
    THRESHOLDS,
    WIDTH,
    average_precision,
    category,
    detection_counts,
    labelled_counts,
)
from medtune.imaging.boxes import SCALE, Box, giou, iou, relative_box
from medtune.language import msg
from medtune.tasks.reading.boxes import read_boxes
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BoxOverlap", "centre_distance", "source_extent", "true_boxes"]

_THRESHOLDS = (0.1, 0.3, 0.5)
_THRESHOLDS_OF = {"box/ap-50": 1, "box/map": len(THRESHOLDS), "box/ap-50-any-label": 1, "box/map-any-label": len(THRESHOLDS)}
_MOST_BOXES = 100
"""Of an answer, in its order; COCO takes as many. A text of nothing but boxes must not take hours."""


class BoxOverlap:
    """True and predicted boxes of a picture: overlap, distance, average precision.

    With n true boxes t and m predicted boxes b, the values of the first group are (1 / max(n, m)) times the largest sum of g(t, b)
    over pairings in which each box stands at most once (:func:`.assignment.best_pairing`, exact): each value is that of the pairing
    which is best for it. Dividing by the *larger* number means that a model that sprinkles boxes over the picture does not gain.
    Labels do not matter here; sums add up over pictures.

    - ``iou`` (0 to 1, higher is better): g = area(t ∩ b) / area(t ∪ b) (Jaccard 1901).
    - ``accuracy-0.1``, ``accuracy-0.3``, ``accuracy-0.5`` (0 to 1, higher is better): g = 1 where IoU reaches the threshold, else
      0; 0.5 is PASCAL VOC's (Everingham et al. 2010, doi:10.1007/s11263-009-0275-4), the lower ones are for small lesions, where a
      shift of a few pixels costs half the overlap.
    - ``giou`` (-1 to 1, higher is better): g = IoU - (area(c) - area(t ∪ b)) / area(c), c the smallest box around both (Rezatofighi
      et al. 2019, arXiv:1902.09630), which also tells how far apart boxes are that do not meet; a box without a partner counts -1.
    - ``pointing`` (0 to 1, higher is better): the pointing game (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x): g = 1 where the
      centre of b lies in t.

    - ``centre-error`` (0 to 1 of the diagonal, lower is better): mean over true boxes of the distance from their centre to the
      nearest predicted one, in pixels, divided by the diagonal of the original picture in pixels. A distance has no worst value, so
      a picture without a predicted box is unscored: read this number together with its count.
    - ``ap-50``, ``map`` (0 to 1, higher is better): average precision at IoU 0.5, and its mean over 0.50, 0.55, ..., 0.95, of each
      label over all pictures, then the mean over the labels that have a true box: COCO's AP with its matching and its 101 recalls
      (Lin et al. 2014, arXiv:1405.0312; :mod:`.average_precision`). Two labels are the same where their words are
      (:func:`.average_precision.category`); where the true boxes of a picture have no label, those of the answer are ignored. Boxes
      are ranked by the confidence that the answer states ("confidence" or "score", steps of 0.05). A model that states none has one
      operating point: AP is then the precision there for each recall up to the one reached and 0 beyond, and must not be compared
      with that of a detector.
    - ``ap-50-any-label``, ``map-any-label`` (0 to 1, higher is better): the same with all boxes under one label.
    - ``specificity`` (0 to 1, higher is better): pictures whose answer says that there is no box / pictures whose reference does
      (Altman & Bland 1994, doi:10.1136/bmj.308.6943.1552).

    Everything is as in pixels of the original picture: IoU, GIoU and the pointing game do not depend on the scale of the axes, so
    thousandths of the sides give what pixels give, and the distance is measured in pixels without borders that a transform has
    added. Truth is ``metadata["box"]``, one or a list, in pixels of the stored picture where the sample has it, else the boxes of
    the reference answer.

    An answer without a readable box is the worst value everywhere but for ``centre-error``. Boxes on a picture whose reference has
    none count as wrong in the average precisions (``ap-50`` and ``map``: of their label) and ``specificity``, and the other values
    are unscored there; without a readable reference all are.
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
        share("box/ap-50", msg("Average precision (IoU ≥ 0.5), mean over labels")),
        share("box/map", msg("Average precision, mean over IoU 0.5 to 0.95 and labels")),
        share("box/ap-50-any-label", msg("Average precision (IoU ≥ 0.5), labels ignored")),
        share("box/map-any-label", msg("Average precision, mean over IoU 0.5 to 0.95, labels ignored")),
        share("box/specificity", msg("No box where there is none")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        truths = true_boxes(sample)
        if not truths:
            return self._without_truth(prediction, sample)
        found = _predicted(prediction.answer)
        count = max(len(truths), len(found))
        overlaps = [[iou(truth, box) for box in found] for truth in truths]
        total = largest_gain(overlaps)
        scores = [_ratio(sample, "box/iou", total, count, f"IoU {total / count:.2f}" if found else "∅")]
        for limit in _THRESHOLDS:
            reached = [[float(overlap >= limit) for overlap in row] for row in overlaps]
            scores.append(_ratio(sample, f"box/accuracy-{limit}", largest_gain(reached), count))
        scores.append(_centre_error(sample, truths, found))
        generalized = largest_gain([[giou(truth, box) for box in found] for truth in truths]) - abs(len(truths) - len(found))
        scores.append(_ratio(sample, "box/giou", generalized, count))
        pointed = largest_gain([[float(_holds(truth, *_centre(box))) for box in found] for truth in truths])
        scores.append(_ratio(sample, "box/pointing", pointed, count))
        scores.extend(_precisions(sample, truths, prediction.answer))
        return tuple(scores)

    def _without_truth(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        scores = {value.name: unscored(sample, value.name) for value in self.values}
        if _says_none(sample):
            found = _predicted(prediction.answer)
            right = isinstance(prediction.answer, dict) and not found
            scores["box/specificity"] = mean_score(sample, "box/specificity", right)
            if found:
                for score in _precisions(sample, [], prediction.answer):
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


def _centre_error(sample: Sample, truths: Sequence[Box], found: Sequence[Box]) -> Score:
    if not found:
        return unscored(sample, "box/centre-error", "∅")
    width, height, borders = 1, 1, 1.0
    if sample.images:
        width, height = sample.images[0].width, sample.images[0].height
        x1, y1, x2, y2 = source_extent(sample)
        borders = math.hypot(width, height) / math.hypot(x2 - x1, y2 - y1)
    nearest = [min(centre_distance(_centre(truth), _centre(box), width, height) for box in found) for truth in truths]
    # An answer in the borders can be further off than the original picture's diagonal.
    return mean_score(sample, "box/centre-error", sum(min(distance * borders, 1.0) for distance in nearest) / len(nearest))


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


def _holds(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def _precisions(sample: Sample, truths: Sequence[Box], answer: JsonValue) -> tuple[Score, ...]:
    found = _predicted(answer)
    confidences = _confidences(answer, len(found))
    names, written = _true_labels(sample, len(truths)), _labels(answer, len(found))
    if truths and not any(category(name) for name in names):
        written = [""] * len(found)
    by_label = labelled_counts(list(zip(truths, names, strict=True)), list(zip(found, written, strict=True)), confidences)
    of_all = detection_counts(truths, found, confidences)
    scores = []
    for name, thresholds in _THRESHOLDS_OF.items():
        counts, places = of_all if name.endswith("any-label") else by_label
        score = Score(sample_id=sample.id, metric=name, value=0.0, statistics=counts, places=places, width=WIDTH)
        own = float(average_precision(statistics_of([score])[0], thresholds)) if truths else 0.0
        scores.append(score.model_copy(update={"value": own}))
    return tuple(scores)


def _true_labels(sample: Sample, number: int) -> list[str]:
    """Of the true boxes: what the reference answer calls them, else ``metadata["kind"]``, else nothing."""
    try:
        labels = read_boxes(reference(sample))[1]
    except ValueError:
        labels = []
    kind = sample.metadata.get("kind")
    return labels if len(labels) == number else [kind if isinstance(kind, str) else ""] * number


def _labels(answer: JsonValue, number: int) -> list[str]:
    stated = answer.get("labels") if isinstance(answer, dict) else None
    labels = [label if isinstance(label, str) else "" for label in stated[:number]] if isinstance(stated, list) else []
    return labels + [""] * (number - len(labels))


def _ratio(sample: Sample, name: str, part: float, count: int, explanation: str = "") -> Score:
    return Score(
        sample_id=sample.id, metric=name, value=part / count, statistics=(float(part), float(count)), explanation=explanation
    )


def _centre(box: Box) -> tuple[float, float]:
    return ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
