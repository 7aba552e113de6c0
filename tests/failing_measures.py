"""A measure of pictures that fails in the ways in which decoders fail, by the picture's width. Runs in a child process."""

from __future__ import annotations

import os
import time
from typing import Any

__all__ = ["CRASHES", "HANGS", "MEASURE", "NEEDS_MEMORY", "measure"]

CRASHES, HANGS, NEEDS_MEMORY = 33, 34, 35

MEASURE = f"{__name__}:measure"


def measure(image: Any) -> int:
    """The picture's width, if it lives."""
    if image.width == CRASHES:
        os.abort()
    if image.width == HANGS:
        time.sleep(60)
    if image.width == NEEDS_MEMORY:
        raise MemoryError
    return int(image.width)
