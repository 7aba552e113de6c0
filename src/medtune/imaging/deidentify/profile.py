"""The Basic Application Level Confidentiality Profile with its options: what is done to each attribute.

The table (``confidentiality_profile.json``) is PS3.15, Table E.1-1; ``tools/confidentiality_profile.py`` writes it, and
docs/deidentify.md says from what, and how it was checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal

from medtune.imaging.deidentify.choices import Dates
from medtune.imaging.deidentify.settings import DeidentifySettings

__all__ = ["METHODS", "Action", "Profile", "read_table"]

Action = Literal["D", "Z", "X", "K", "C", "U"]
"""PS3.15, E.2.1: D dummy value, Z zero length, X remove, K keep (a sequence: clean its items), C clean, U other UID."""

METHODS: Mapping[str, tuple[str, str]] = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "clean-pixels": ("113101", "Clean Pixel Data Option"),
    "clean-descriptors": ("113105", "Clean Descriptors Option"),
    "keep": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "shift": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "retain-patient": ("113108", "Retain Patient Characteristics Option"),
    "retain-device": ("113109", "Retain Device Identity Option"),
    "retain-uids": ("113110", "Retain UIDs Option"),
    "retain-institution": ("113112", "Retain Institution Identity Option"),
}
"""What was done -> (code value, code meaning) of PS3.16, CID 7050, coding scheme DCM."""

_DATE_OPTION: Mapping[Dates, str] = {"shift": "modified-dates", "keep": "full-dates"}

_DATES = ("DA", "DT")
_LONG_TEXT = ("LT", "ST", "UC", "UT", "UR", "UN")
"""Representations that hold prose, links or anything at all."""


@cache
def read_table() -> Mapping[str, Any]:
    """The table as it stands in the file: ``standard``, ``edition``, ``attributes``, ..."""
    text = (resources.files(__package__) / "confidentiality_profile.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


@cache
def _rows() -> Mapping[int, Mapping[str, Any]]:
    """Tag -> row; the repeating groups and private attributes are rules of their own in :meth:`Profile.action`."""
    return {int(row["tag"], 16): row for row in read_table()["attributes"] if row["tag"] != "private" and "x" not in row["tag"]}


class Profile:
    """The profile under chosen options."""

    def __init__(self, settings: DeidentifySettings) -> None:
        self._dates = settings.dates
        self._columns: list[str] = [*settings.options]
        if settings.dates in _DATE_OPTION:
            self._columns.append(_DATE_OPTION[settings.dates])
        self.methods = tuple(METHODS[name] for name in ("basic", settings.dates, *settings.options) if name in METHODS)

    def action(self, tag: int, vr: str, *, known: bool) -> Action:
        """What to do with an attribute.

        Where the table leaves a choice that depends on the object's definition (X/Z, X/D, X/Z/D, Z/D: remove, unless the
        attribute must be there), the choice that keeps every object valid is taken: D before Z before X.

        What the table does not list, it keeps; medtune is stricter there. Names, application entities, dates, prose and words
        about the patient that it does not list are treated as if it did, UIDs are replaced, and attributes that nobody knows are
        removed.

        Args:
            tag: Group and element, 32 bits.
            vr: Value representation in the file.
            known: The attribute stands in the dictionary of PS3.6.
        """
        group = tag >> 16
        if group % 2 or 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF or tag & 0xFFFF == 0:
            return "X"
        row = _rows().get(tag)
        if row is not None:
            for column in self._columns:
                chosen = row.get("options", {}).get(column)
                if chosen == "K" or (chosen == "C" and column in ("modified-dates", "clean-descriptors")):
                    return chosen  # type: ignore[no-any-return]
            return _strongest(row["basic"])
        if not known:
            return "X"
        if vr == "PN":
            return "D"
        if vr in _DATES:
            return {"shift": "C", "keep": "K", "remove": "Z"}[self._dates]  # type: ignore[return-value]
        if vr == "UI":
            return "U"
        of_patient = group == 0x0010 and vr in ("LO", "SH")  # (0010,0033): a birth date in another calendar
        return "Z" if vr == "AE" or vr in _LONG_TEXT or of_patient else "K"

    @staticmethod
    def identifies(tag: int) -> bool:
        """Whether the attribute's value, found elsewhere, gives the patient or a place away: listed, and not as a description."""
        row = _rows().get(tag)
        return row is not None and not any(name.startswith("clean-") for name in row.get("options", {}))


def _strongest(basic: str) -> Action:
    parts = basic.replace("*", "").split("/")
    for action in ("D", "U", "Z", "X"):
        if action in parts:
            return action
    raise ValueError(f"no action in {basic!r}")
