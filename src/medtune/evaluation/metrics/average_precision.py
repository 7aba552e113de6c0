"""Average precision of boxes as COCO defines it, from counts that add up: hits and boxes for each label and step of confidence.

Lin et al. 2014 (arXiv:1405.0312) and cocodataset.org, "Detection Evaluation": for each label and each of ten thresholds of IoU the
precision is averaged over 101 recalls, and the mean over thresholds and labels is mAP. The older rules of PASCAL VOC (11 recalls,
or the area under all steps) give other numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from medtune.evaluation.metrics.words import answer_words
from medtune.imaging.boxes import Box, iou

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["THRESHOLDS", "WIDTH", "average_precision", "category", "detection_counts", "labelled_counts"]

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""COCO's ten (Lin et al. 2014, arXiv:1405.0312; cocodataset.org, "Detection Evaluation"): 0.50, 0.55, ..., 0.95."""
_STEPS = 20
_BOXES = len(THRESHOLDS) * _STEPS
_TRUTHS = _BOXES + _STEPS
WIDTH = _TRUTHS + 1
"""Of a label's counts: hits of each threshold and step, boxes of each step, true boxes."""
_RECALLS = 101


def detection_counts(
    truths: Sequence[Box], found: Sequence[Box], confidences: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """(counts, their places in a vector of :data:`WIDTH`) of one picture and one label.

    Matching is COCO's, which is greedy by definition: boxes in falling confidence, each taking the free true box with which it
    overlaps most, if that reaches the threshold. Confidences (0 to 1) are kept in steps of 0.05, and those of one step rank alike;
    without any, all boxes stand in the highest step and are taken in the order of the answer.
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


def labelled_counts(
    truths: Sequence[tuple[Box, str]], found: Sequence[tuple[Box, str]], confidences: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """:func:`detection_counts` of each label, at the places of its block: boxes of different labels never match.

    A block's number is a hash of the label's words, so that no list of labels is needed: two of 1,000 labels share one with a
    probability below 1e-6.
    """
    counts: list[float] = []
    places: list[int] = []
    for name in sorted({category(label) for _, label in (*truths, *found)}):
        chosen = [place for place, (_, label) in enumerate(found) if category(label) == name]
        own, cells = detection_counts(
            [box for box, label in truths if category(label) == name],
            [found[place][0] for place in chosen],
            None if confidences is None else [confidences[place] for place in chosen],
        )
        # 40 bits: with the cell it fits the 53 that a double keeps exactly.
        first = int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=5).digest(), "big") * WIDTH
        counts.extend(own)
        places.extend(first + cell for cell in cells)
    return tuple(counts), tuple(places)


def category(label: str) -> str:
    """What of a label is compared: its words, in lower case and without articles. Synonyms are different labels."""
    return " ".join(answer_words(label))


def average_precision(totals: NDArray[np.float64], thresholds: int = len(THRESHOLDS)) -> NDArray[np.float64]:
    """(..., L * :data:`WIDTH`) -> (...): the mean over labels that have a true box, NaN where none has.

    Of a label: the mean over the first ``thresholds`` of AP = 1/101 sum over r in (0, 0.01, ..., 1) of max precision(r') for
    r' >= r, precision being 0 beyond the recall that is reached.
    """
    import numpy as np

    totals = np.asarray(totals, dtype=np.float64)
    totals = totals.reshape((*totals.shape[:-1], -1, WIDTH))
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
        with_truth = truths > 0
        mean: NDArray[np.float64] = np.where(with_truth, found / thresholds, 0.0).sum(axis=-1) / with_truth.sum(axis=-1)
    return mean
