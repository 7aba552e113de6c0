"""Limits on picture files, checked before a decoder sees them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medtune.types import Settings

__all__ = ["Limits"]


class Limits(Settings):
    """What a picture file may be at most. A file beyond a limit is refused by name, never shrunk in silence."""

    max_bytes: Annotated[int, Field(gt=0)] = 256 * 1024 * 1024
    """Bytes of the file."""
    max_pixels: Annotated[int, Field(gt=0)] = 89_478_485
    """Width times height, as the header states them. The default is the size above which Pillow suspects a decompression bomb
    (a quarter of a GiB at three bytes a pixel)."""
    max_ratio: Annotated[float, Field(ge=1.0)] = 200.0
    """Longer side over shorter side. Qwen's image processors refuse more than 200 (``smart_resize``)."""
