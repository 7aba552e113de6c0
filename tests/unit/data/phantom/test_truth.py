"""The truth is what the pixels show; left and right are those of radiology."""

from __future__ import annotations

import numpy as np
import pytest

from medtune.data.sources.phantom.finding import Truth, draw_patient, draw_slice, read_truth
from medtune.data.sources.phantom.head import FIELD_OF_VIEW_MM, Head, Mask, to_picture

SIZE = 100


def head(tilt: float = 0.0, centre: tuple[float, float] = (0.0, 0.0)) -> Head:
    """Brain half axes 60 and 80 mm."""
    return Head(70, 90, 6, 4, tilt, centre, 1.0, 3.0, (0.0, 0.0, 0.0))


def block(x1: int, y1: int, x2: int, y2: int) -> Mask:
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def at(place: Head, x: float, y: float) -> Truth:
    """The truth of a spot of 3 x 3 pixels about a point of the head's own axes (mm)."""
    column, row = (int((value + FIELD_OF_VIEW_MM / 2) * SIZE / FIELD_OF_VIEW_MM) for value in to_picture(place, x, y))
    return read_truth(block(column - 1, row - 1, column + 2, row + 2), place, "meningioma", "hyperdense")


def test_a_box_is_tight_and_ends_one_past_the_last_pixel() -> None:
    mask = block(10, 20, 30, 25)
    mask[40, 12] = True
    truth = read_truth(mask, head(), "meningioma", "hyperdense")
    assert truth.box == (10, 20, 30, 41)
    assert truth.area_percent == 1.0


def test_an_empty_mask_is_a_normal_slice() -> None:
    assert read_truth(block(0, 0, 0, 0), head(), "meningioma", "hyperdense") == Truth()


def test_the_left_of_the_picture_is_the_right_of_the_patient() -> None:
    seen_left = read_truth(block(20, 45, 30, 55), head(), "meningioma", "hyperdense")
    assert (seen_left.horizontal, seen_left.side) == ("left", "right")
    seen_right = read_truth(block(70, 45, 80, 55), head(), "meningioma", "hyperdense")
    assert (seen_right.horizontal, seen_right.side) == ("right", "left")


@pytest.mark.parametrize(
    ("centre", "word"), [(10, "left"), (43, "left"), (45, "center"), (55, "center"), (57, "right"), (90, "right")]
)
def test_horizontal_follows_the_centre_of_the_box(centre: int, word: str) -> None:
    assert read_truth(block(centre - 4, 50, centre + 4, 52), head(), "meningioma", "hyperdense").horizontal == word


@pytest.mark.parametrize(
    ("centre", "word"), [(10, "upper"), (41, "upper"), (43, "middle"), (57, "middle"), (59, "lower"), (90, "lower")]
)
def test_vertical_follows_the_centre_of_the_box(centre: int, word: str) -> None:
    assert read_truth(block(50, centre - 4, 52, centre + 4), head(), "meningioma", "hyperdense").vertical == word


@pytest.mark.parametrize("tilt", [-0.12, 0.0, 0.12])
@pytest.mark.parametrize("centre", [(0.0, 0.0), (7.0, -6.0), (-7.0, 6.0)])
@pytest.mark.parametrize(
    ("x", "y", "side", "lobe"),
    [
        (25, -50, "left", "frontal"),
        (-25, -50, "right", "frontal"),
        (40, 0, "left", "temporoparietal"),
        (-40, 10, "right", "temporoparietal"),
        (20, 60, "left", "occipital"),
        (-20, 60, "right", "occipital"),
        (0, -60, "midline", "frontal"),
        (0, 60, "midline", "occipital"),
    ],
)
def test_side_and_lobe_follow_the_head_when_it_is_tilted_and_off_centre(
    tilt: float, centre: tuple[float, float], x: float, y: float, side: str, lobe: str
) -> None:
    truth = at(head(tilt, centre), x, y)
    assert (truth.side, truth.lobe) == (side, lobe)


def test_a_tilted_midline_is_off_the_middle_of_the_picture() -> None:
    """What the test above would miss if the tilt were too small to matter."""
    column = to_picture(head(0.12), 0, -60)[0]
    assert abs(column) > 4
    assert read_truth(block(51, 20, 56, 25), head(), "meningioma", "hyperdense").side == "left"
    assert at(head(0.12), 0, -60).side == "midline"


def test_the_truth_of_a_drawn_slice_is_read_off_its_pixels() -> None:
    seen = 0
    for number in range(40):
        patient = draw_patient(11, number, 2)
        for index in range(2):
            image, truth = draw_slice(patient, index, seed=11, size=64)
            if patient.lesion is None:
                assert truth == Truth()
                continue
            seen += 1
            assert truth.box is not None
            pixels = [(column, row) for row in range(64) for column in range(64) if image.lesion[row, column]]
            columns, rows = [column for column, _ in pixels], [row for _, row in pixels]
            assert truth.box == (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
            assert truth.area_percent == pytest.approx(100 * len(pixels) / 64**2, abs=0.05)
            # The lesion's own centre, where the drawing put it, lies on the side that the pixels tell.
            if patient.lesion.shape == "ellipsoid" and abs(patient.lesion.centre[0]) > 12:
                assert truth.side == ("left" if patient.lesion.centre[0] > 0 else "right"), number
    assert seen > 50


def test_the_box_leaves_the_oedema_out() -> None:
    """A haemorrhage has a dark rim in the picture; the rim belongs to neither mask nor box."""
    for number in range(60):
        patient = draw_patient(12, number, 1)
        if patient.lesion is not None and patient.lesion.rim:
            image, truth = draw_slice(patient, 0, seed=12, size=128)
            assert truth.box is not None
            x1, y1, x2, y2 = truth.box
            inside = np.zeros_like(image.lesion)
            inside[y1:y2, x1:x2] = True
            assert not (image.lesion & ~inside).any()
            assert float(np.median(image.hu[image.lesion])) > 45
