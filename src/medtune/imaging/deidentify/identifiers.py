"""What identifies a patient, a person or a place in one file: to be found wherever else it stands.

The profile removes attributes; this finds values. A patient's name in a comment, in the description of a device, in a JPEG's
comment segment is not where Table E.1-1 looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from medtune.imaging.deidentify.profile import Action
from medtune.imaging.deidentify.values import DUMMY_TEXT

__all__ = ["ENCODINGS", "Identifiers", "is_well_known"]

ENCODINGS = ("utf-8", "latin-1", "gb18030", "shift_jis", "euc_kr", "utf-16-le", "utf-16-be")
"""In which a value is searched for: the single- and multi-byte character sets of PS3.3, C.12.1.1.2 that are in use, and UTF-16."""

_NOT_NAMES = frozenset({DUMMY_TEXT.casefold(), "anonymous", "anonymized", "anonymised", "patient", "unknown", "none", "test"})
_SHORTEST_NAME = 4
"""Letters; shorter ones (``Li``) are words of technical texts too. Outside ASCII two are enough."""
_SHORTEST_ID = 5
_SHORTEST_UID = 10
"""Placeholders such as ``0`` or ``1.2`` stand in other numbers."""
_IN_PIXELS = 8
"""Bytes below which a match in pixel data is likely to be chance: 2⁻⁶⁴ a place."""

_TEXT = frozenset({"PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE"})


class Identifiers:
    """The identifying values of an original file.

    Attributes:
        names: Words of person names, case-folded.
        values: Whole values of identifying attributes, case-folded.
        dates: ``YYYYMMDD`` of dates that may not stay.
        uids: UIDs that may not stay.
        num_short: Values that are too short to be searched for.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.values: set[str] = set()
        self.dates: set[str] = set()
        self.uids: set[str] = set()
        self.num_short = 0

    def add(self, vr: str, value: Any, *, action: Action, identifies: bool) -> None:
        """Note the value of an element that is not kept. ``identifies``: see :meth:`Profile.identifies`."""
        for text in _texts(value):
            if vr == "PN":
                for word in re.split(r"[\s^=,.()\"]+", text):
                    self._add_name(word.casefold())
                for group in text.split("="):
                    # Chinese and Japanese prose writes family and given name as one word; the family name alone is too short.
                    if not group.isascii():
                        self._add_name(re.sub(r"[\s^]+", "", group).casefold())
            elif vr == "UI":
                if action != "K" and len(text) >= _SHORTEST_UID and not is_well_known(text):
                    self.uids.add(text)
            elif vr in ("DA", "DT"):
                day = text.replace(".", "")[:8] if vr == "DA" else text[:8]
                if re.fullmatch(r"\d{8}", day):
                    self.dates.add(day)
            elif vr in _TEXT and identifies:
                self._add_value(text.casefold())

    def _add_name(self, word: str) -> None:
        if word in _NOT_NAMES or not word:
            return
        if len(word) >= (_SHORTEST_NAME if word.isascii() else 2):
            self.names.add(word)
        else:
            self.num_short += 1

    def _add_value(self, text: str) -> None:
        if text in _NOT_NAMES or not text:
            return
        if len(text) >= (_SHORTEST_ID if text.isascii() else 3):
            self.values.add(text)
        else:
            self.num_short += 1

    def in_text(self, text: str) -> bool:
        """Whether a text that is to be kept holds one of the values, in any case of letters."""
        folded = text.casefold()
        return any(_holds(folded, word) for word in self.names | self.values)

    def in_bytes(
        self, content: bytes, *, pixels: tuple[int, int] = (0, 0), allowed_dates: frozenset[str] = frozenset()
    ) -> set[str]:
        """The kinds of values that bytes still hold: ``name``, ``value``, ``date``, ``uid``.

        Args:
            content: A file, or a part of one.
            pixels: Start and stop of the pixel data, in which only values of at least 8 bytes are searched for.
            allowed_dates: Dates that stand in the file rightly: a shifted date may be another's original.
        """
        lower = content.lower()  # bytes.lower folds ASCII and leaves the rest, which is searched in its own forms
        searched = {
            "name": self.names,
            "value": self.values,
            "date": self.dates - allowed_dates,
            "uid": self.uids,
        }
        return {kind for kind, texts in searched.items() if any(_in_bytes(lower, text, pixels) for text in texts)}


def is_well_known(uid: str) -> bool:
    """Whether PS3.6 registers the UID: a class, a syntax, a frame of reference of an atlas. It names no patient."""
    from pydicom._uid_dict import UID_dictionary

    return uid in UID_dictionary


def _texts(value: Any) -> Iterator[str]:
    from pydicom.multival import MultiValue

    if value is None or isinstance(value, bytes):
        return
    for part in value if isinstance(value, (MultiValue, list)) else (value,):
        text = str(part).strip(" \t\r\n\0")
        if text:
            yield text


def _holds(folded: str, word: str) -> bool:
    """Whether ``word`` stands in the text; a short ASCII word must stand alone, or ``anna`` would be found in ``savannah``."""
    if len(word) >= 6 or not word.isascii():
        return word in folded
    return re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", folded) is not None


def _in_bytes(lower: bytes, text: str, pixels: tuple[int, int]) -> bool:
    for form in {text, text.upper(), text.title()} if not text.isascii() else {text}:
        for encoding in ENCODINGS:
            try:
                pattern = form.encode(encoding).lower()
            except UnicodeEncodeError:
                continue
            start = lower.find(pattern)
            while start >= 0:
                inside = pixels[0] <= start < pixels[1]
                if (len(pattern) >= _IN_PIXELS or not inside) and _stands_alone(lower, start, pattern, text):
                    return True
                # Within native pixels the next place of a short pattern is searched for behind them.
                start = lower.find(pattern, pixels[1] if inside and len(pattern) < _IN_PIXELS else start + 1)
    return False


def _stands_alone(lower: bytes, start: int, pattern: bytes, text: str) -> bool:
    if len(text) >= 6 and not text.isdigit():
        return True
    if not text.isascii():
        return True
    around = lower[start - 1 : start] + lower[start + len(pattern) : start + len(pattern) + 1]
    return not re.search(rb"[0-9]" if text.isdigit() else rb"[a-z0-9]", around)
