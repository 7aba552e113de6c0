"""Plain words in Markdown."""

from __future__ import annotations

import re

__all__ = ["plain"]

_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~$&])")


def plain(text: str) -> str:
    """``text`` on one line, with every sign that Markdown or HTML would read escaped: names of runs and data sets come from
    others."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
