"""How the display of a picture is told, and when two data sets differ in it."""

from __future__ import annotations

import pytest

from medtune.imaging.display import compare_displays, display_of, windows_of
from medtune.types import TransformRecord

TRIPLE = "0/2048 40/350 40/80"


def window(*windows: list[float], origin: str = "view") -> TransformRecord:
    return TransformRecord(name="window", parameters={"windows": list(windows), "function": "LINEAR", "origin": origin})


def test_the_display_of_a_picture() -> None:
    assert display_of([]) == "picture"
    assert display_of([TransformRecord(name="exif-turn"), TransformRecord(name="letterbox")]) == "picture"
    assert display_of([TransformRecord(name="volume-slice"), window([40.0, 80.0]), TransformRecord(name="clahe")]) == "40/80"
    assert display_of([window([0.0, 2048.0], [40.0, 350.0], [40.0, 80.0])]) == TRIPLE
    for step in (window([40.0, 80.0], origin="file"), *(TransformRecord(name=name) for name in ("voi-lut", "full-range"))):
        assert display_of([step]) == "own"


def test_windows_come_back() -> None:
    assert windows_of(TRIPLE) == ((0.0, 2048.0), (40.0, 350.0), (40.0, 80.0))
    assert windows_of("-600/1500") == ((-600.0, 1500.0),)
    assert windows_of("picture") == windows_of("own") == ()


@pytest.mark.parametrize(
    ("trained", "now", "difference"),
    [
        (["40/80"], ["40/80"], "none"),
        ([TRIPLE], [TRIPLE], "none"),
        ([TRIPLE, "picture"], ["picture"], "none"),
        ([TRIPLE], ["picture"], "colours"),
        ([TRIPLE], ["40/80"], "colours"),
        ([TRIPLE], ["-100/2250 40/350 40/80"], "colours"),
        (["40/80"], [TRIPLE], "colours"),
        (["picture"], [TRIPLE, "picture"], "colours"),
        (["40/80"], ["480/2500"], "greys"),
        (["picture"], ["own"], "greys"),
        ([], [TRIPLE], "none"),
        ([TRIPLE], [], "none"),
    ],
)
def test_differences(trained: list[str], now: list[str], difference: str) -> None:
    assert compare_displays(trained, now) == difference
