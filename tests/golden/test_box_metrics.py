"""GIoU and average precision by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medtune.evaluation.metrics.average_precision import WIDTH, average_precision, detection_counts
from medtune.imaging.boxes import Box, giou


def total(*pictures: tuple[list[Box], list[Box], list[float] | None]) -> np.ndarray:
    vector = np.zeros(WIDTH)
    for truths, found, confidences in pictures:
        counts, places = detection_counts(truths, found, confidences)
        vector[list(places)] += counts
    return vector


def test_generalized_iou() -> None:
    # Two unit squares with a gap of one: nothing in common, and of the box around both (3 x 1) a third is empty.
    assert giou((0, 0, 1, 1), (2, 0, 3, 1)) == pytest.approx(-1 / 3)
    # Overlap 1 of 7, and the box around both (3 x 3) has 2 of 9 left over.
    assert giou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7 - 2 / 9)
    assert giou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert giou((1, 1, 1, 1), (1, 1, 1, 1)) == 0


SQUARE: Box = (0, 0, 100, 100)
FAR: Box = (500, 500, 600, 600)


def test_average_precision_by_hand() -> None:
    """Two true boxes; found with 0.9, a false one with 0.8, found with 0.7: precision 1 up to recall 0.5, then 2/3.

    The recalls 0, 0.01, ..., 0.5 are 51 of the 101.
    """
    counts = total(([SQUARE, FAR], [SQUARE, (800, 0, 900, 100), FAR], [0.9, 0.8, 0.7]))
    assert average_precision(counts, 1) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert average_precision(counts) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101), "the overlaps are 1: every threshold alike"


def test_thresholds_are_coco_s() -> None:
    # An overlap of 0.72 is a hit at 0.50, 0.55, 0.60, 0.65 and 0.70: five of ten.
    counts = total(([SQUARE], [(0, 0, 100, 72)], [0.5]))
    assert average_precision(counts, 1) == pytest.approx(1)
    assert average_precision(counts) == pytest.approx(0.5)


def test_without_confidences_there_is_one_operating_point() -> None:
    # One of two found, one false box: precision 1/2 up to recall 1/2, nothing beyond.
    assert average_precision(total(([SQUARE, FAR], [SQUARE, (800, 0, 900, 100)], None)), 1) == pytest.approx(51 / 101 / 2)


def test_a_true_box_is_found_once() -> None:
    twice = total(([SQUARE], [SQUARE, (0, 0, 100, 99)], [0.9, 0.8]))
    assert average_precision(twice, 1) == pytest.approx(1), "the second comes behind full recall"
    worse_first = total(([SQUARE], [(0, 0, 100, 60), SQUARE], [0.9, 0.8]))
    assert average_precision(worse_first, 1) == pytest.approx(1)
    # At 0.65 and above the first box is false and the second is right: precision 1/2. 3 thresholds with 1, 7 with 1/2.
    assert average_precision(worse_first) == pytest.approx((3 * 1 + 7 * 0.5) / 10)


def test_pictures_without_a_finding_count_against_a_model() -> None:
    alone = total(([SQUARE], [SQUARE], [0.5]))
    normal: tuple[list[Box], list[Box], list[float] | None] = ([], [FAR], [0.9])
    assert average_precision(alone, 1) == pytest.approx(1)
    assert average_precision(alone + total(normal), 1) == pytest.approx(0.5)
    assert np.isnan(average_precision(total(normal), 1))
    stacked = average_precision(np.stack([alone, alone + total(normal), total(normal)]))
    assert stacked[:2] == pytest.approx([1, 0.5])
    assert np.isnan(stacked[2])
