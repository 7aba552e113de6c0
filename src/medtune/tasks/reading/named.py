"""The first thing that a text names out of a vocabulary, unless it hedges."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

__all__ = ["first_named"]

_HEDGE = re.compile(r"\s*(?:,|/|、|\bor\b|,\s*or\b|或者?|还是)\s*(?:an?\b|the\b)?\s*", re.IGNORECASE)


def first_named(
    text: str, vocabulary: Mapping[str, re.Pattern[str]], *, same: Callable[[str, str], bool] | None = None
) -> str | None:
    """The name whose pattern matches first in ``text``; of two at the same place, the longer match.

    None when nothing matches, and when the first match is offered as one of several ("tumour or abscess", "A, B or C"): a list
    of alternatives is not an answer. ``same`` says of two names that they do not exclude each other.
    """
    found = sorted(
        ((match.start(), -match.end(), name) for name, pattern in vocabulary.items() for match in pattern.finditer(text)),
    )
    if not found:
        return None
    _, end, name = found[0]
    for start, _, other in found[1:]:
        if start < -end:
            continue
        if other != name and not (same is not None and same(name, other)) and _HEDGE.fullmatch(text, -end, start):
            return None
        break
    return name
