"""Texts as 64-bit keys, and columns of keys that are compared by sorting: ``array("Q")`` of keys, ``array("I")`` of row numbers.

Two different texts have the same key with a probability of 2**-64: among a million texts some pair does with 3e-8, among 25
million with 2e-5 (n**2 / 2**65).
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["as_numpy", "key", "normalised", "runs_of_equal"]


def key(*parts: str) -> int:
    """The 64-bit key of texts in their order; their borders count."""
    digest = blake2b(digest_size=8)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return int.from_bytes(digest.digest(), "little")


_DRESS = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """Letters and digits of a text in lower case, with single blanks: questions that differ only in dress are equal."""
    return _DRESS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def as_numpy(column: array[int]) -> NDArray[np.unsignedinteger[Any]]:
    """A column as a numpy array without a copy. The column must not grow while the array lives."""
    return np.frombuffer(column, dtype=np.dtype(column.typecode)) if len(column) else np.zeros(0, np.dtype(column.typecode))


def runs_of_equal(keys: NDArray[np.unsignedinteger[Any]]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Group equal keys.

    Returns:
        order: (N,) the positions sorted by key; among equals in their own order.
        starts: (G,) where each group begins in ``order``.
        sizes: (G,) members of each group.
    """
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1]))) if len(ranked) else np.zeros(0, np.intp)
    return order, starts, np.diff(np.append(starts, len(ranked)))
