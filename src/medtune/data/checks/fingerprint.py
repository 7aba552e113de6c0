"""A picture as 64 bits and as 32 x 32 grey values, by which the same picture is known again in another file."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["SIDE", "measure", "perceptual_hash"]

SIDE = 32
"""Rows and columns of the thumbnail."""

_LOW = 8
"""Rows and columns of the frequencies that make the hash."""


def measure(image: Image) -> dict[str, Any]:
    """The fingerprint of a decoded RGB picture.

    Returns:
        ``pixels``: 64-bit key of size and pixels, equal for equal pixels in files of any format. ``hash``: see
        :func:`perceptual_hash`. ``thumbnail``: 1024 bytes, 32 x 32 grey values from 0 to 255, each the mean of its area.
        ``spread``: standard deviation of the thumbnail; nearly 0 for a blank picture, whose hash says nothing.
    """
    from PIL.Image import Resampling

    digest = blake2b(repr(image.size).encode(), digest_size=8)
    digest.update(image.tobytes())
    thumbnail = np.asarray(image.convert("L").resize((SIDE, SIDE), Resampling.BOX))
    return {
        "pixels": int.from_bytes(digest.digest(), "little"),
        "hash": perceptual_hash(thumbnail),
        "thumbnail": thumbnail.tobytes(),
        "spread": float(thumbnail.std()),
    }


def perceptual_hash(thumbnail: NDArray[np.uint8]) -> int:
    """64 bits of a (32, 32) grey thumbnail that survive other sizes, formats and qualities of the same picture.

    The 8 x 8 lowest frequencies of its discrete cosine transform, each 1 where it is above their median: the algorithm that
    Krawetz describes as pHash ("Looks Like It", hackerfactor.com, 2011). The median leaves out the mean brightness, which is
    far above all others; its own bit is 1 for every picture that is not black.
    """
    cosines = _cosines()
    low = (cosines @ thumbnail.astype(np.float64) @ cosines.T).ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


@cache
def _cosines() -> NDArray[np.float64]:
    """(8, 32): the first rows of the DCT-II matrix (Ahmed, Natarajan and Rao 1974), unscaled: the median does not care."""
    positions = np.arange(SIDE) + 0.5
    return np.cos(np.pi / SIDE * np.outer(np.arange(_LOW), positions))
