"""Picture transforms. Each is a frozen record of its parameters, and maps boxes as it maps pixels.

None is on by default: Qwen's processors take any resolution, and no comparison with medical vision-language models was found
that favours letterboxing or CLAHE. Both exist so that it can be measured, and so that published systems can be repeated.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from medtune.types import Settings

__all__ = ["Clahe", "Letterbox", "LimitPixels"]

Box = tuple[float, float, float, float]


class Letterbox(Settings):
    """Scale the picture to fit a square, keep its proportions, and fill the rest evenly on both sides."""

    name: Literal["letterbox"] = "letterbox"
    size: Annotated[int, Field(gt=0, le=16384)] = 448
    """Side of the square in pixels."""
    fill: Annotated[int, Field(ge=0, le=255)] = 0
    """Grey of the added borders; 0 = black."""

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height, left, top = self._place(*image.size)
        square = Image.new("RGB", (self.size, self.size), (self.fill,) * 3)
        square.paste(image.resize((width, height), Image.Resampling.BICUBIC), (left, top))
        return square

    def map_box(self, box: Box, width: int, height: int) -> Box:
        new_width, new_height, left, top = self._place(width, height)
        return _scaled(box, new_width / width, new_height / height, left, top)

    def _place(self, width: int, height: int) -> tuple[int, int, int, int]:
        scale = self.size / max(width, height)
        new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
        return new_width, new_height, (self.size - new_width) // 2, (self.size - new_height) // 2


class Clahe(Settings):
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994), as OpenCV has it.

    A picture without colour is equalised on its greys; one with colour on the lightness of CIE L*a*b*, so that colour stays.
    """

    name: Literal["clahe"] = "clahe"
    clip_limit: Annotated[float, Field(gt=0.0)] = 2.0
    """OpenCV's ``clipLimit``; not the 0 to 1 scale of scikit-image."""
    tiles: Annotated[int, Field(gt=0, le=64)] = 8
    """Tiles along each side."""
    backend: Literal["opencv"] = "opencv"
    """Recorded because implementations differ."""

    def __call__(self, image: Image.Image) -> Image.Image:
        import cv2

        equalise = cv2.createCLAHE(clipLimit=self.clip_limit, tileGridSize=(self.tiles, self.tiles)).apply
        pixels = np.asarray(image.convert("RGB"))
        if (pixels[..., :1] == pixels).all():
            return Image.fromarray(equalise(np.ascontiguousarray(pixels[..., 0]))).convert("RGB")
        lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
        lab[..., 0] = equalise(np.ascontiguousarray(lab[..., 0]))
        return Image.fromarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))

    def map_box(self, box: Box, width: int, height: int) -> Box:  # noqa: ARG002
        return box


class LimitPixels(Settings):
    """Shrink a picture with more than ``max_pixels`` pixels, keeping its proportions. Smaller pictures stay as they are."""

    name: Literal["limit-pixels"] = "limit-pixels"
    max_pixels: Annotated[int, Field(gt=0)] = 768 * 768
    """Width times height. The default is LLaMA-Factory's ``image_max_pixels``."""

    def __call__(self, image: Image.Image) -> Image.Image:
        size = self._size(*image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)

    def map_box(self, box: Box, width: int, height: int) -> Box:
        new_width, new_height = self._size(width, height)
        return _scaled(box, new_width / width, new_height / height, 0, 0)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if width * height <= self.max_pixels:
            return width, height
        scale = math.sqrt(self.max_pixels / (width * height))
        # Rounding down, so that the limit holds strictly; a side of a very long picture never becomes 0.
        new_width, new_height = max(1, int(width * scale)), max(1, int(height * scale))
        if new_width * new_height > self.max_pixels:
            new_width, new_height = min(new_width, self.max_pixels), min(new_height, self.max_pixels)
        return new_width, new_height


def _scaled(box: Box, horizontal: float, vertical: float, left: int, top: int) -> Box:
    x1, y1, x2, y2 = box
    return x1 * horizontal + left, y1 * vertical + top, x2 * horizontal + left, y2 * vertical + top
