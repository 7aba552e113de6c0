"""apply_window against the worked examples of DICOM PS3.3, C.11.2.1.2.1 (the LINEAR function, output range 0..255)."""

from __future__ import annotations

import numpy as np
import pytest

from medtune.imaging.window import WINDOW_PRESETS, apply_window


def test_center_2048_width_4096() -> None:
    # The standard: x <= 0 gives y_min, x > 4095 gives y_max, else ((x - 2047.5) / 4095 + 0.5) * (y_max - y_min) + y_min.
    values = np.array([-1.0, 0.0, 1.0, 2047.5, 2048.0, 4095.0, 4096.0])
    expected = [0, 0, round(255 / 4095), round(127.5), round((0.5 / 4095 + 0.5) * 255), 255, 255]
    assert apply_window(values, 2048, 4096).tolist() == expected


def test_center_0_width_100() -> None:
    # The standard: x <= -50 gives y_min, x > 49 gives y_max, else ((x + 0.5) / 99 + 0.5) * (y_max - y_min) + y_min.
    values = np.array([-51, -50, -49, 0, 49, 50])
    expected = [0, 0, round((-48.5 / 99 + 0.5) * 255), round((0.5 / 99 + 0.5) * 255), 255, 255]
    assert apply_window(values, 0, 100).tolist() == expected


@pytest.mark.parametrize(("center", "below", "above"), [(2048, 2047.5, 2047.6), (0, -0.5, -0.4)])
def test_width_1_is_a_threshold(center: float, below: float, above: float) -> None:
    # The standard: with width 1, x <= center - 0.5 gives y_min and everything else y_max.
    assert apply_window(np.array([below, above]), center, 1).tolist() == [0, 255]


def test_brain_window_by_hand() -> None:
    # The ramp runs from 0 to 79 HU; 39.5 HU is the middle. 60 HU (fresh blood): (20.5/79 + 0.5) * 255 = 193.67.
    window = WINDOW_PRESETS["brain"]
    assert apply_window(np.array([-1000, 0, 39.5, 60, 79, 1000]), window.center, window.width).tolist() == [
        0,
        0,
        128,
        194,
        255,
        255,
    ]


def test_shape_and_type_are_kept_and_nan_is_black() -> None:
    shown = apply_window(np.full((2, 3), np.nan), 40, 80)
    assert shown.shape == (2, 3)
    assert shown.dtype == np.uint8
    assert not shown.any()


def test_infinite_values_go_to_the_ends() -> None:
    assert apply_window(np.array([-np.inf, np.inf]), 40, 80).tolist() == [0, 255]


def test_width_below_1_is_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        apply_window(np.zeros(1), 40, 0.5)
