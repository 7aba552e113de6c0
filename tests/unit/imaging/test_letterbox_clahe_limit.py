"""The transforms one by one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medtune.imaging.transforms import Clahe, Letterbox, LimitPixels


def test_letterbox_of_a_landscape() -> None:
    result = np.asarray(Letterbox(size=100, fill=7)(Image.new("RGB", (200, 100), (255, 255, 255))))
    assert result.shape == (100, 100, 3)
    assert (result[:25] == 7).all()
    assert (result[25:75] == 255).all()
    assert (result[75:] == 7).all()


def test_letterbox_maps_a_box() -> None:
    assert Letterbox(size=100).map_box((0, 0, 200, 100), 200, 100) == (0, 25, 100, 75)


def test_letterbox_enlarges_a_small_picture() -> None:
    assert Letterbox(size=100).map_box((1, 1, 9, 9), 10, 10) == (10, 10, 90, 90)


def test_limit_pixels_never_exceeds_the_limit() -> None:
    for width, height in [(1024, 1024), (3056, 2544), (4096, 100), (100, 4096), (20000, 3), (7, 7)]:
        limit = LimitPixels(max_pixels=262_144)
        result = limit(Image.new("RGB", (width, height)))
        assert result.width * result.height <= 262_144
    assert LimitPixels(max_pixels=50)(Image.new("RGB", (7, 7))).size == (7, 7)
    assert LimitPixels(max_pixels=10)(Image.new("RGB", (2000, 1))).size == (10, 1)


def test_clahe_raises_contrast_of_a_flat_grey_and_keeps_it_grey() -> None:
    ramp = np.tile(np.linspace(110, 140, 128), (128, 1)).astype(np.uint8)
    result = np.asarray(Clahe()(Image.fromarray(ramp).convert("RGB")))
    assert np.ptp(result) > np.ptp(ramp)
    assert (result[..., 0] == result[..., 2]).all()


def test_clahe_keeps_colour() -> None:
    result = np.asarray(Clahe()(Image.new("RGB", (64, 64), (200, 30, 30)))).astype(int)
    assert (result[..., 0] - result[..., 2] > 80).all()


@pytest.mark.parametrize("fault", [{"size": 0}, {"fill": 256}, {"sise": 448}])
def test_faulty_parameters(fault: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Letterbox(**fault)
