"""The table of windows, how recipes name them, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medtune.imaging.window import WINDOW_PRESETS, WINDOW_TRIPLES, apply_range, apply_window, apply_windows, find_windows

PAGE = Path(__file__).parents[3] / "docs" / "windows.md"


def rows() -> list[str]:
    presets = [
        f"| `{name}` | {each.center:g} | {each.width:g} | {each.body_part} | {each.modality} | [{each.source}]({each.url}) |"
        for name, each in WINDOW_PRESETS.items()
    ]
    triples = [
        f"| `{name}` | {' | '.join(f'{center:g} / {width:g}' for center, width in each.windows)} | {each.modality} "
        f"| [{each.source}]({each.url}) |"
        for name, each in WINDOW_TRIPLES.items()
    ]
    return presets + triples


def test_the_page_shows_the_table() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    shown = [line for line in lines if line.startswith("| `")]
    assert shown == rows()


def test_published_values() -> None:
    """OHIF's five, and MedGemma 1.5's ranges -1024..1024, -135..215 and 0..80 as center and width."""
    assert [tuple(WINDOW_PRESETS[name][:2]) for name in ("soft-tissue", "lung", "liver", "bone", "brain")] == [
        (40, 400),
        (-600, 1500),
        (90, 150),
        (480, 2500),
        (40, 80),
    ]
    ranges = [(center - width / 2, center + width / 2) for center, width in WINDOW_TRIPLES["medgemma-1.5"].windows]
    assert ranges == [(-1024, 1024), (-135, 215), (0, 80)]


def test_every_window_has_an_origin() -> None:
    for each in (*WINDOW_PRESETS.values(), *WINDOW_TRIPLES.values()):
        assert each.url.startswith("https://")
        assert each.source
    assert not WINDOW_PRESETS.keys() & WINDOW_TRIPLES.keys()


def test_names_and_numbers() -> None:
    assert find_windows(()) == ()
    assert find_windows(["brain"]) == ((40.0, 80.0),)
    assert find_windows(["brain", (1, 2), "lung"]) == ((40.0, 80.0), (1.0, 2.0), (-600.0, 1500.0))
    assert find_windows(["medgemma-1"]) == ((-100, 2250), (40, 350), (40, 80))
    for wrong in (["brian"], ["brain", "lung"], ["medgemma-1", "brain", "lung"], [(0.0, 0.0)], [(float("nan"), 10.0)]):
        with pytest.raises(ValueError):
            find_windows(wrong)


def test_three_windows_are_three_channels() -> None:
    values = np.arange(-50, 150, dtype=np.int16).reshape(10, 20)
    shown = apply_windows(values, [(40, 80), (0, 400), (100, 1)])
    assert shown.shape == (10, 20, 3)
    assert np.array_equal(shown[..., 1], apply_window(values, 0, 400))
    assert apply_windows(values, [(40, 80)]).shape == (10, 20)


def test_a_range_is_linear_and_survives_strange_numbers() -> None:
    assert apply_range(np.array([-1, 0, 5, 10, 11]), 0, 10).tolist() == [0, 0, 128, 255, 255]
    assert apply_range(np.array([np.nan, -np.inf, np.inf]), 0, 10).tolist() == [0, 0, 255]
    assert apply_range(np.array([1, 2]), 3, 3).tolist() == [0, 0]
    big = np.finfo(np.float64).max
    assert apply_range(np.array([-big, 0.0, big]), -big, big).tolist() == [0, 128, 255]
