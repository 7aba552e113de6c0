"""Text in pictures, found by an OCR model on this machine (``rapidocr-onnxruntime``, whose models are in its package)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from medtune.imaging.deidentify.pixels import Rectangle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FoundText", "find_text", "has_ocr"]

_MIN_SCORE = 0.5
"""Of the recogniser, 0 to 1: its own default, below which RapidOCR drops a line."""

_MAX_FRAMES = 8
"""Frames of a loop that are searched one by one; of a longer one, as many evenly spaced, and the brightest of all frames."""

_MARGIN = 3
"""Pixels around a box: the detector cuts close."""


class FoundText(NamedTuple):
    """Where text stands (pixels). ``num_uncertain`` counts places that look like text and could not be read as such."""

    boxes: tuple[Rectangle, ...]
    num_uncertain: int


def has_ocr() -> bool:
    """Whether the OCR packages are installed."""
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("rapidocr_onnxruntime", "onnxruntime"))


def find_text(pixels: NDArray[Any], *, frames: bool, colour: bool) -> FoundText:
    """Search pictures for text.

    Args:
        pixels: ([frames,] rows, columns[, 3]) of any depth; of greys, minimum and maximum become black and white.
        frames: The first axis counts frames.
        colour: The last axis counts red, green and blue.

    A single letter or digit is no text here: side marks (L, R) and scales say nothing of a person.
    """
    import numpy as np

    pictures = _pictures(pixels) if frames else [pixels]
    boxes: list[Rectangle] = []
    uncertain = 0
    height, width = pixels.shape[1:3] if frames else pixels.shape[:2]
    for picture in pictures:
        grey = _grey(picture)
        shown = np.ascontiguousarray(picture if colour and picture.dtype == np.uint8 else np.repeat(grey[..., None], 3, axis=2))
        lines, _ = _engine()(shown)
        for corners, text, score in lines or ():
            if sum(character.isalnum() for character in text) < 2:
                continue
            if float(score) < _MIN_SCORE:
                uncertain += 1
                continue
            xs, ys = [float(x) for x, _ in corners], [float(y) for _, y in corners]
            left, top = max(0, int(min(xs)) - _MARGIN), max(0, int(min(ys)) - _MARGIN)
            boxes.append((left, top, min(width, int(max(xs)) + 1 + _MARGIN), min(height, int(max(ys)) + 1 + _MARGIN)))
    return FoundText(tuple(dict.fromkeys(boxes)), uncertain)


def _pictures(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    import numpy as np

    if len(pixels) <= _MAX_FRAMES:
        return list(pixels)
    chosen = np.linspace(0, len(pixels) - 1, _MAX_FRAMES).round().astype(int)
    return [*(pixels[index] for index in chosen), pixels.max(axis=0)]


def _grey(picture: NDArray[Any]) -> NDArray[np.uint8]:
    from medtune.imaging.read import scale_grey

    return scale_grey(picture if picture.ndim == 2 else picture.mean(axis=-1))


@cache
def _engine() -> Any:
    from rapidocr_onnxruntime import RapidOCR

    # One thread: callers run as many processes as they want cores. The score is judged here, so that doubt can be counted.
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1, text_score=0.0)
