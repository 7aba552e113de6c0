"""Boxes between conventions, and the convention of a file found from its numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from medtune.imaging.boxes import (
    area,
    clip,
    from_relative,
    from_resized_pixels,
    into_extent,
    iou,
    measure_box_convention,
    ordered_box,
    out_of_extent,
    relative_box,
    to_pixels,
    to_resized_pixels,
    xywh,
    xyxy,
)
from medtune.imaging.transforms import Letterbox, LimitPixels

Box = tuple[float, float, float, float]


def random_box(draw: random.Random, width: float, height: float) -> Box:
    """A lesion: its centre near the middle of the picture rather than at its border, a twentieth to a third of the sides."""
    across, down = draw.uniform(0.05, 0.33) * width, draw.uniform(0.05, 0.33) * height
    x, y = draw.betavariate(2, 2) * (width - across), draw.betavariate(2, 2) * (height - down)
    return x, y, x + across, y + down


def test_by_hand() -> None:
    assert relative_box([64, 32, 192, 96], 256, 128) == (250, 250, 750, 750)
    assert from_relative([250, 250, 750, 750], 256, 128) == (64, 32, 192, 96)
    assert xywh((10, 20, 40, 80)) == (10, 20, 30, 60)
    assert xyxy((10, 20, 30, 60)) == (10, 20, 40, 80)
    assert clip((-5, 10, 120, 60), 100, 50) == (0, 10, 100, 50)
    assert area(clip((200, 10, 220, 20), 100, 50)) == 0
    assert area((3, 1, 2, 5)) == 0
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert ordered_box([9, 8, 1, 2]) == (1, 2, 9, 8)


def test_qwen2_5_pixels_are_those_of_the_resized_picture() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    height, width = smart_resize(700, 1000, factor=28, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    assert (width, height) == (1008, 700)
    box = relative_box((100, 70, 500, 350), 1000, 700)
    assert to_resized_pixels(box, (1008, 700)) == pytest.approx((100.8, 70, 504, 350))
    assert from_resized_pixels(to_resized_pixels(box, (1008, 700)), (1008, 700)) == pytest.approx(box)


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, math.nan], [1, 2, 3, "4"], [1, 2, 3, True], [1, 2, 3, 10**400]])
def test_what_is_no_box(box: list[Any]) -> None:
    with pytest.raises(ValueError):
        ordered_box(box)


def test_there_and_back_over_random_pictures() -> None:
    draw = random.Random(7)
    for _ in range(500):
        width, height = draw.randint(1, 4000), draw.randint(1, 4000)
        box = random_box(draw, width, height)
        assert from_relative(relative_box(box, width, height), width, height) == pytest.approx(box, abs=1e-6)
        assert xyxy(xywh(box)) == pytest.approx(box)
        extent = random_box(draw, 448, 448)
        assert out_of_extent(into_extent(relative_box(box, width, height), extent), extent) == pytest.approx(
            relative_box(box, width, height), abs=1e-6
        )


@pytest.mark.parametrize(
    "make", [lambda draw: Letterbox(size=draw.randint(16, 1024)), lambda draw: LimitPixels(max_pixels=draw.randint(400, 300_000))]
)
def test_a_box_comes_back_through_a_transform_by_the_extent(make: Callable[[random.Random], Any]) -> None:
    """What a row keeps: the box and the extent, both rounded to a thousandth of a pixel. 0.01 px of the source where the
    picture was not shrunk; shrunk n times, the rounding counts n times."""
    draw = random.Random(11)
    for _ in range(500):
        width, height = draw.randint(8, 3000), draw.randint(8, 3000)
        box = random_box(draw, width, height)
        transform = make(draw)
        moved = tuple(round(edge, 3) for edge in transform.map_box(box, width, height))
        extent = tuple(round(edge, 3) for edge in transform.map_box((0.0, 0.0, float(width), float(height)), width, height))
        back = from_relative(out_of_extent(moved, extent), width, height)
        shrunk = max(1.0, width / (extent[2] - extent[0]), height / (extent[3] - extent[1]))
        assert back == pytest.approx(box, abs=0.002 * shrunk)


WRITERS: dict[tuple[str, str], Callable[[Box, float, float], list[float]]] = {
    ("pixels", "xyxy"): lambda box, _w, _h: [math.ceil(edge) for edge in box],
    ("pixels", "xywh"): lambda box, _w, _h: [round(edge, 1) for edge in xywh(box)],
    ("0-1", "xyxy"): lambda box, w, h: [round(edge / side, 4) for edge, side in zip(box, (w, h, w, h), strict=True)],
    ("0-1", "xywh"): lambda box, w, h: [round(edge / side, 4) for edge, side in zip(xywh(box), (w, h, w, h), strict=True)],
    ("0-1000", "xyxy"): lambda box, w, h: [round(1000 * edge / side) for edge, side in zip(box, (w, h, w, h), strict=True)],
    ("0-1000", "xywh"): lambda box, w, h: [round(1000 * edge / side) for edge, side in zip(xywh(box), (w, h, w, h), strict=True)],
}


@pytest.mark.parametrize(("kind", "corners"), WRITERS)
@pytest.mark.parametrize("size", [(512, 512), (256, 224), (2048, 2500)])
def test_fifty_lesions_tell_the_convention(kind: str, corners: str, size: tuple[int, int]) -> None:
    for seed in range(20):
        draw = random.Random(seed)
        true = [random_box(draw, *size) for _ in range(50)]
        found = measure_box_convention([WRITERS[kind, corners](box, *size) for box in true], [size] * 50)
        assert (found.kind, found.corners, found.share) == (kind, corners, 1.0), seed
        written = WRITERS[kind, corners](true[0], *size)
        assert iou(to_pixels(written, size, found.kind, found.corners), true[0]) > 0.85


@pytest.mark.parametrize(("kind", "corners"), WRITERS)
def test_faulty_boxes_do_not_mislead(kind: str, corners: str) -> None:
    size = (512, 512)
    draw = random.Random(3)
    boxes: list[list[float]] = [WRITERS[kind, corners](random_box(draw, *size), *size) for _ in range(200)]
    boxes[5], boxes[50] = [9000, 9000, 9500, 9500], [400, 400, 4000, 3000]
    boxes[7] = [1, 2, 3]
    found = measure_box_convention(boxes, [size] * 200)
    assert (found.kind, found.corners) == (kind, corners)
    assert found.counts["malformed"] == 1
    assert found.share == pytest.approx(197 / 199)


def test_never_the_wrong_unit_from_few_boxes_or_pictures_of_a_thousand_pixels() -> None:
    """What the numbers cannot decide is unknown, not guessed."""
    wrong = decided = 0
    for (kind, corners), write in WRITERS.items():
        for size in ((512, 512), (1000, 1000), (1024, 1024), (640, 480)):
            for count in (1, 2, 5, 20, 1000):
                for seed in range(3 if count == 1000 else 20):
                    draw = random.Random(seed)
                    found = measure_box_convention([write(random_box(draw, *size), *size) for _ in range(count)], [size] * count)
                    decided += found.kind != "unknown"
                    wrong += found.kind not in (kind, "unknown")
                    wrong += found.corners not in (corners, "unknown") and count >= 20
    assert decided > 1000
    assert wrong == 0


def test_a_known_box_decides_at_once() -> None:
    # Two readings of one row: location tokens, and the pixels that stand beside them.
    found = measure_box_convention([[213, 204, 253, 344]], [(512, 512)], known=[[212.7, 203.5, 252.2, 343.8]])
    assert (found.kind, found.corners) == ("pixels", "xyxy")
    assert measure_box_convention([[213, 204, 253, 344]], [(512, 512)]).kind == "unknown"


def test_florence_bins() -> None:
    draw = random.Random(5)
    true = [random_box(draw, 512, 512) for _ in range(60)]
    bins = [[min(999, math.floor(edge / 512 * 1000)) for edge in box] for box in true]
    bins.append([900, 900, 999, 999])
    found = measure_box_convention(bins, [(512, 512)] * 61)
    assert (found.kind, found.corners) == ("0-999", "xyxy")
    assert to_pixels((415, 397, 492, 671), (512, 512), "0-999", "xyxy") == pytest.approx((212.736, 203.52, 252.16, 343.808))
    with pytest.raises(ValueError):
        to_pixels((0, 0, 1, 1), (512, 512), "unknown", "xyxy")


def test_nothing_to_measure() -> None:
    assert measure_box_convention([], []).kind == "unknown"
    assert measure_box_convention([[1, 2]], [(10, 10)]).counts == {"boxes": 0, "malformed": 1} | dict.fromkeys(
        [f"{kind} {corners}" for kind in ("pixels", "0-1", "0-1000") for corners in ("xyxy", "xywh")], 0
    )
