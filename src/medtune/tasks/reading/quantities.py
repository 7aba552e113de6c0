"""Measurements in text: numbers with a unit, in one unit for each kind.

A length is read in mm, a share in percent, a volume in ml, a density in Hounsfield units, an angle in degrees, an uptake as SUV.
Numbers without a unit (levels, dates, counts, sequence names) are no measurements.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Quantity", "QuantityKind", "read_quantities"]

QuantityKind = Literal["length", "share", "volume", "density", "angle", "uptake"]

# (kind, factor to the kind's own unit)
_UNITS: dict[str, tuple[QuantityKind, float]] = {
    "mm": ("length", 1.0), "millimeter": ("length", 1.0), "millimetre": ("length", 1.0), "毫米": ("length", 1.0),
    "cm": ("length", 10.0), "centimeter": ("length", 10.0), "centimetre": ("length", 10.0), "厘米": ("length", 10.0),
    "公分": ("length", 10.0), "µm": ("length", 0.001), "um": ("length", 0.001), "微米": ("length", 0.001),
    "%": ("share", 1.0), "％": ("share", 1.0), "percent": ("share", 1.0), "per cent": ("share", 1.0),
    "ml": ("volume", 1.0), "cc": ("volume", 1.0), "cm3": ("volume", 1.0), "cm³": ("volume", 1.0), "毫升": ("volume", 1.0),
    "milliliter": ("volume", 1.0), "millilitre": ("volume", 1.0), "l": ("volume", 1000.0), "liter": ("volume", 1000.0),
    "litre": ("volume", 1000.0), "升": ("volume", 1000.0),
    "hu": ("density", 1.0), "hounsfield unit": ("density", 1.0), "hounsfield": ("density", 1.0),
    "°": ("angle", 1.0), "degree": ("angle", 1.0), "度": ("angle", 1.0),
}  # fmt: skip
_NUMBER = r"\d{1,3}(?:,\d{3})+(?![\d,])|\d{1,6}(?:[.,]\d{1,4})?"
_UNIT = "|".join(re.escape(unit) + ("s?" if len(unit) > 4 else "") for unit in sorted(_UNITS, key=len, reverse=True))
_JOIN = r"\s{0,2}(?:[x×*✕]|by|-|–|—|~|～|to|至|到)\s{0,2}"
_MEASURE = re.compile(
    # Not \b: in Chinese a number follows a character without a blank.
    rf"(?<![a-z\d.])(?P<sign>[-−](?=\d))?(?P<numbers>(?:{_NUMBER})(?:{_JOIN}(?:{_NUMBER})){{0,2}})\s{{0,2}}-?(?P<unit>{_UNIT})"
    r"(?:(?<=[a-z])(?![a-z0-9])|(?<![a-z]))"
    rf"|\bsuv(?:\s?-?(?:max|mean|peak))?\s{{0,2}}(?:of|is|=|:|about|约为?|为)?\s{{0,2}}(?P<uptake>{_NUMBER})",
    re.IGNORECASE,
)
_EACH = re.compile(_NUMBER)


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """A measurement: ``value`` in mm, percent, ml, HU, degrees or SUV, as ``kind`` says."""

    kind: QuantityKind
    value: float


def read_quantities(text: str) -> list[Quantity]:
    """The measurements in the order of the text; of "3.2 x 2.1 cm" two lengths, of "3-5 mm" both ends."""
    found: list[Quantity] = []
    for match in _MEASURE.finditer(text):
        if match["uptake"] is not None:
            found.append(Quantity("uptake", _number(match["uptake"])))
            continue
        unit = match["unit"].lower()
        kind, factor = _UNITS[unit if unit in _UNITS else unit.removesuffix("s")]
        values = [_number(number) for number in _EACH.findall(match["numbers"])]
        sign = -1.0 if match["sign"] and kind == "density" else 1.0
        found.extend(Quantity(kind, sign * value * factor) for value in values)
    return found


def _number(text: str) -> float:
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+", text):
        return float(text.replace(",", ""))
    return float(text.replace(",", "."))
