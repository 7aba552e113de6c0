"""Small pictures for pages that people browse."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SIDE", "measure"]

SIDE = 240
"""Pixels of the longer side at most."""


def measure(image: Image) -> dict[str, Any]:
    """For :mod:`medtune.data.checks.measures`: ``jpeg`` (bytes, at most :data:`SIDE` pixels a side) and ``size`` before."""
    size = list(image.size)
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=80)
    return {"jpeg": buffer.getvalue(), "size": size}
