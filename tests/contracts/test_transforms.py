"""What every registered picture transform keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from medtune import plugins
from medtune.types import ImageTransform

NAMES = plugins.names("transform")
SIZES = [(64, 48), (448, 448), (300, 901), (1500, 1100)]


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(params=NAMES)
def transform(request: pytest.FixtureRequest) -> Any:
    return plugins.resolve("transform", request.param)()


def test_there_are_transforms() -> None:
    assert {"letterbox", "clahe", "limit-pixels"} <= set(NAMES)


def test_follows_the_protocol(transform: Any) -> None:
    assert isinstance(transform, ImageTransform)
    assert transform.name in NAMES


def test_is_frozen_refuses_unknown_parameters_and_survives_json(transform: Any) -> None:
    kind = type(transform)
    assert kind.model_validate_json(transform.model_dump_json()) == transform
    with pytest.raises(ValidationError):
        kind(no_such_parameter=1)
    with pytest.raises(ValidationError):
        transform.name = "other"


@pytest.mark.parametrize("size", SIZES)
def test_is_deterministic_and_leaves_its_input_alone(transform: Any, size: tuple[int, int]) -> None:
    image = picture(*size)
    before = image.tobytes()
    first, second = transform(image), transform(image)
    assert first.mode == "RGB"
    assert first.tobytes() == second.tobytes()
    assert image.tobytes() == before


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_picture_stays_inside(transform: Any, size: tuple[int, int]) -> None:
    result = transform(Image.new("RGB", size))
    x1, y1, x2, y2 = transform.map_box((0, 0, *size), *size)
    assert -1e-6 <= x1 < x2 <= result.width + 1e-6
    assert -1e-6 <= y1 < y2 <= result.height + 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_a_box_follows_the_pixels_it_frames(transform: Any, size: tuple[int, int]) -> None:
    width, height = size
    box = (width // 4, height // 8, width // 4 + width // 2, height // 8 + height // 2)
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), box)
    bright = np.argwhere(np.asarray(transform(image))[..., 0] > 127)
    (top, left), (bottom, right) = bright.min(0), bright.max(0) + 1
    assert transform.map_box(box, width, height) == pytest.approx((left, top, right, bottom), abs=1.0)
