"""Average precision of boxes as additive counts: hits and boxes for each step of confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medtune.imaging.boxes import Box, iou

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["THRESHOLDS", "WIDTH", "average_precision", "detection_counts"]

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""COCO's ten (Lin et al. 2014, arXiv:1405.0312; cocodataset.org, "Detection Evaluation"): 0.50, 0.55, ..., 0.95."""
_STEPS = 20
_BOXES = len(THRESHOLDS) * _STEPS
_TRUTHS = _BOXES + _STEPS
WIDTH = _TRUTHS + 1
"""Of the vector: hits of each threshold and step, boxes of each step, true boxes."""
_RECALLS = 101


def detection_counts(
    truths: Sequence[Box], found: Sequence[Box], confidences: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """(counts, their places in a vector of :data:`WIDTH`) of one picture.

    Matching is COCO's: boxes in falling confidence, each taking the free true box with which it overlaps most, if that reaches the
    threshold. Confidences (0 to 1) are kept in steps of 0.05; without any, all boxes stand in the highest step.
    """
    steps = [min(int(max(value, 0.0) * _STEPS), _STEPS - 1) for value in confidences] if confidences else [_STEPS - 1] * len(found)
    ranks = confidences or [1.0] * len(found)
    order = sorted(range(len(found)), key=lambda place: (-ranks[place], place))
    overlaps = [[iou(truth, box) for truth in truths] for box in found]
    counts: dict[int, float] = {_TRUTHS: float(len(truths))}
    for step in steps:
        counts[_BOXES + step] = counts.get(_BOXES + step, 0.0) + 1.0
    for number, threshold in enumerate(THRESHOLDS):
        free = set(range(len(truths)))
        for place in order:
            best = max(free, key=lambda truth: (overlaps[place][truth], -truth), default=None)
            if best is not None and overlaps[place][best] >= threshold:
                free.remove(best)
                cell = number * _STEPS + steps[place]
                counts[cell] = counts.get(cell, 0.0) + 1.0
    places = tuple(sorted(counts))
    return tuple(counts[place] for place in places), places


def average_precision(totals: NDArray[np.float64], thresholds: int = len(THRESHOLDS)) -> NDArray[np.float64]:
    """(..., :data:`WIDTH`) -> (...): the mean over the first ``thresholds`` of the average precision, NaN without a true box.

    Of each: the mean over 101 recalls (0, 0.01, ..., 1) of the highest precision at that recall or beyond.
    """
    import numpy as np

    totals = np.asarray(totals, dtype=np.float64)
    boxes = np.cumsum(totals[..., _BOXES:_TRUTHS][..., ::-1], axis=-1)
    truths = totals[..., _TRUTHS]
    found = np.zeros(truths.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        for number in range(thresholds):
            hits = np.cumsum(totals[..., number * _STEPS : (number + 1) * _STEPS][..., ::-1], axis=-1)
            precision = np.where(boxes > 0, hits / boxes, 0.0)
            envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
            recall = hits / truths[..., None]
            # How many of the recalls a step is the first to reach; rounding must not lose the last one.
            reached = np.floor(recall * (_RECALLS - 1) + 1e-9) + (hits > 0)
            new = np.diff(reached, axis=-1, prepend=0.0)
            found += (new * envelope).sum(axis=-1) / _RECALLS
        return np.where(truths > 0, found / thresholds, np.nan)
