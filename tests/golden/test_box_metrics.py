"""Boxes by hand: pairing, overlap, pointing, distance, and average precision, also against COCO's definition written out."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

from medtune.evaluation.metrics.additive import statistics_of
from medtune.evaluation.metrics.assignment import best_pairing, largest_gain
from medtune.evaluation.metrics.average_precision import (
    THRESHOLDS,
    WIDTH,
    average_precision,
    detection_counts,
    labelled_counts,
)
from medtune.evaluation.metrics.box import BoxOverlap
from medtune.imaging.boxes import Box, giou, iou
from medtune.tasks.detection import Detection
from medtune.types import Generation, ImageRef, Message, Prediction, Sample, Score


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


# ------------------------------------------------------------------------------------------------------------ pairing


def test_the_best_pair_first_is_not_the_best_pairing() -> None:
    gains = [[0.6, 0.5], [0.5, 0.0]]
    assert best_pairing(gains) == [(0, 1), (1, 0)]
    assert largest_gain(gains) == 1.0
    assert best_pairing([[0.1, 0.9]]) == [(0, 1)]
    assert best_pairing([[0.1], [0.9]]) == [(1, 0)]
    assert best_pairing([]) == best_pairing([[], []]) == []
    assert largest_gain([[-1.0, -0.5], [-0.25, -1.0]]) == -0.75, "as many pairs as can be made, also at a loss"


def test_a_pairing_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        rows, columns = (int(number) for number in rng.integers(1, 6, size=2))
        gains = rng.integers(-4, 5, size=(rows, columns)).astype(float)
        tall = gains if rows >= columns else gains.T
        possible = itertools.permutations(range(tall.shape[0]), tall.shape[1])
        best = max(sum(tall[row, column] for column, row in enumerate(order)) for order in possible)
        pairs = best_pairing(gains)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == min(rows, columns)
        assert sum(gains[pair] for pair in pairs) == best


def sample(boxes: list[tuple[Box, str]], **metadata: Any) -> Sample:
    """A picture of 400 x 300 pixels with true boxes in thousandths of its sides."""
    target = json.dumps([{"bbox_2d": box, "label": label} for box, label in boxes])
    return Sample(
        id="s",
        task="detection",
        images=(ImageRef(path="images/x.png", sha256="0" * 64, width=400, height=300),),
        messages=(Message(role="user", content="<image>?"), Message(role="assistant", content=target)),
        target=target,
        group="g",
        source="t",
        metadata=metadata,
    )


def scores(text: str, of: Sample) -> dict[str, Score]:
    answer = Detection().parse(text, of)
    prediction = Prediction(sample_id="s", generation=Generation(id="s", text=text, finish_reason="stop"), answer=answer)
    return {score.metric.partition("/")[2]: score for score in BoxOverlap().score(prediction, of)}


def values(text: str, of: Sample) -> dict[str, float | None]:
    return {name: score.value for name, score in scores(text, of).items()}


def written(*boxes: tuple[Box, str]) -> str:
    return json.dumps([{"bbox_2d": box, "label": label} for box, label in boxes])


def test_overlap_values_take_the_pairing_that_is_best_for_them() -> None:
    """True strips A = 0..100 and B = 90..190, written C = 20..120 (IoU with A 80/120, with B 30/170), D = 30..110 (70/110, 20/160).

    Greed takes A&C = 2/3 and is left with B&D = 1/8; A&D = 7/11 with B&C = 3/17 has the larger sum, 0.813 against 0.792.
    """
    of = sample([((0, 0, 100, 100), "x"), ((90, 0, 190, 100), "x")])
    found = values(written(((20, 0, 120, 100), "x"), ((30, 0, 110, 100), "x")), of)
    assert found["iou"] == pytest.approx((7 / 11 + 3 / 17) / 2)
    # At 0.1 both pairs of either pairing count; at 0.5 only one can, whichever it is.
    assert (found["accuracy-0.1"], found["accuracy-0.3"], found["accuracy-0.5"]) == (1, 0.5, 0.5)
    # GIoU: the union of overlapping strips is the box around both, so it is the IoU.
    assert found["giou"] == pytest.approx(found["iou"])
    # The centres are at 70: both in A, none in B.
    assert found["pointing"] == 0.5


def test_more_boxes_than_truths_share_one_denominator() -> None:
    of = sample([((0, 0, 100, 100), "x")])
    found = values(written(((0, 0, 100, 100), "x"), ((200, 0, 300, 100), "x"), ((0, 0, 100, 50), "x")), of)
    assert found["iou"] == pytest.approx(1 / 3)
    assert found["accuracy-0.5"] == pytest.approx(1 / 3)
    assert found["giou"] == pytest.approx((1 - 1 - 1) / 3)
    assert found["pointing"] == pytest.approx(1 / 3)


def test_a_distance_is_of_the_original_picture() -> None:
    """Centres 100 thousandths of 400 pixels apart: 40 pixels, of a diagonal of 500."""
    of = sample([((0, 0, 100, 100), "x")])
    moved = written(((100, 0, 200, 100), "x"))
    assert values(moved, of)["centre-error"] == pytest.approx(40 / 500)
    # The picture was 400 x 100 pixels and stands in the middle of one of 400 x 300.
    padded = sample([((0, 0, 100, 100), "x")], extent=[0, 100, 400, 200])
    assert values(moved, padded)["centre-error"] == pytest.approx(40 / math.hypot(400, 100))


# ------------------------------------------------------------------------------------------------- average precision


def test_labels_are_averaged_and_not_boxes() -> None:
    """Cyst: found. Mass: the box has the wrong name. Fracture: no true box, so its wrong box is no label's."""
    of = sample([((0, 0, 100, 100), "cyst"), ((500, 500, 600, 600), "a Mass")])
    text = written(((0, 0, 100, 100), "Cyst."), ((500, 500, 600, 600), "cyst"), ((800, 0, 900, 100), "fracture"))
    found = values(text, of)
    # Cyst: its box comes first, the misnamed one in the same step of confidence behind it: precision 1/2 at recall 1.
    assert found["ap-50"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["map"] == found["ap-50"]
    # Labels ignored: two of two found, three boxes.
    assert found["ap-50-any-label"] == pytest.approx(2 / 3)
    right = values(written(((0, 0, 100, 100), "cyst"), ((500, 500, 600, 600), "mass")), of)
    assert (right["ap-50"], right["map"]) == (1, 1)


def test_truths_without_labels_take_any() -> None:
    of = sample([((0, 0, 100, 100), "")])
    assert values(written(((0, 0, 100, 100), "mass")), of)["map"] == 1
    named = sample([((0, 0, 100, 100), "cyst")])
    assert values("[[0, 0, 100, 100]]", named)["map"] == 0, "a label was asked for"


def test_labels_stay_apart_over_pictures() -> None:
    """Cyst: 1 of 2 found in two pictures without a false box: 51/101. Mass: found: 1."""
    first = scores(written(((0, 0, 100, 100), "cyst")), sample([((0, 0, 100, 100), "cyst")]))
    second = scores(written(((0, 0, 100, 100), "mass")), sample([((0, 0, 100, 100), "mass"), ((500, 0, 600, 100), "cyst")]))
    third = scores(written(((0, 0, 100, 100), "fracture")), sample([]))
    table = statistics_of([part["map"] for part in (first, second, third)])
    assert table.shape == (3, 3 * WIDTH)
    assert BoxOverlap().aggregate("box/map", table.sum(axis=0)) == pytest.approx((51 / 101 + 1) / 2)
    assert BoxOverlap().aggregate("box/map", np.stack([table[0], table[2]]))[0] == 1
    assert np.isnan(BoxOverlap().aggregate("box/map", table[2]))


Shown = tuple[list[tuple[Box, str]], list[tuple[Box, str]], list[float]]


def coco(pictures: list[Shown]) -> float:
    """mAP as cocodataset.org, "Detection Evaluation", defines it, box by box and recall by recall; ties are left to the caller."""
    means = []
    for label in sorted({name for truths, _, _ in pictures for _, name in truths}):
        for threshold in THRESHOLDS:
            ranked = sorted(
                (-confidence, number, box)
                for number, (_, found, confidences) in enumerate(pictures)
                for (box, name), confidence in zip(found, confidences, strict=True)
                if name == label
            )
            free = {number: [box for box, name in truths if name == label] for number, (truths, _, _) in enumerate(pictures)}
            num_truths = sum(map(len, free.values()))
            points, hits = [], 0
            for rank, (_, number, box) in enumerate(ranked, start=1):
                best = max(free[number], key=lambda truth: iou(truth, box), default=None)
                if best is not None and iou(best, box) >= threshold:
                    free[number].remove(best)
                    hits += 1
                points.append((hits / num_truths, hits / rank))
            recalls = [step / 100 for step in range(101)]
            means.append(np.mean([max((p for r, p in points if r >= recall - 1e-12), default=0.0) for recall in recalls]))
    return float(np.mean(means))


def test_average_precision_is_cocos() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        pictures: list[Shown] = []
        # Confidences in the middle of different steps: COCO's order is unique, and no two share a step of a label.
        steps = {label: list((rng.permutation(20) + 0.5) / 20) for label in ("a", "b")}
        for _ in range(4):
            truths = [(_box(rng), str(rng.choice(["a", "b"]))) for _ in range(int(rng.integers(0, 4)))]
            found = [(_near(rng, box), str(rng.choice(["a", "b"]))) for box, _ in truths] + [(_box(rng), "a")]
            pictures.append((truths, found, [float(steps[label].pop()) for _, label in found]))
        if not any(truths for truths, _, _ in pictures):
            continue
        parts = [
            Score(sample_id="s", metric="m", value=0.0, statistics=counts, places=places, width=WIDTH)
            for counts, places in (labelled_counts(*picture) for picture in pictures)
        ]
        assert float(average_precision(statistics_of(parts).sum(axis=0))) == pytest.approx(coco(pictures))


def _box(rng: np.random.Generator) -> Box:
    x, y, width, height = (float(number) for number in rng.integers((0, 0, 50, 50), (700, 700, 300, 300)))
    return (x, y, x + width, y + height)


def _near(rng: np.random.Generator, box: Box) -> Box:
    shift = rng.integers(-15, 16, size=4)
    x1, y1, x2, y2 = (float(side + by) for side, by in zip(box, shift, strict=True))
    return (x1, y1, x2, y2)
