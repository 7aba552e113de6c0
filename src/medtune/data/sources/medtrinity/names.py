"""What the file names of MedTrinity's sources say: patient, study, series, slice, box.

The published metadata have no such columns, but most sources' own names survive in ``file_name`` (issue 33 of the project shows
some). The table says of each pattern which fields are only inferred from examples, not documented by the source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PATTERNS", "NamePattern", "NamedPicture", "has_patients", "read_name"]


@dataclass(frozen=True, slots=True)
class NamePattern:
    """How one source names its pictures.

    Attributes:
        sources: Values of the ``source`` column, in lower case.
        pattern: Groups: ``patient``, ``study`` and ``series`` (each with what stands before it, so that it is unique in the
            source), ``slice``, ``x``, ``y``, ``w``, ``h``.
        inferred: Fields whose meaning was read off examples. Nothing vouches for them.
        origin: Where the naming is documented, or seen.
    """

    sources: tuple[str, ...]
    pattern: re.Pattern[str]
    inferred: tuple[str, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class NamedPicture:
    """What a name says. Ids bear the source in front. ``box`` is [x1, y1, x2, y2] in pixels."""

    patient: str
    study: str | None
    series: str | None
    slice: int | None
    box: tuple[float, float, float, float] | None
    inferred: tuple[str, ...]


_NUMBER = r"\d+(?:\.\d+)?"
_BOX = rf"(?P<x>{_NUMBER})_(?P<y>{_NUMBER})_(?P<w>{_NUMBER})_(?P<h>{_NUMBER})"

PATTERNS: tuple[NamePattern, ...] = (
    NamePattern(
        ("ct_rate",),
        # split_patient_scan_reconstruction
        re.compile(r"(?P<series>(?P<study>(?P<patient>(?:train|valid)_\d+)_[a-z]+)_\d+)-[^/]*?\.nii-(?P<slice>\d+)\."),
        ("study", "series", "slice"),
        "MedTrinity-25M issue 33; patient, scan and reconstruction as the CT-RATE card names its volumes",
    ),
    NamePattern(
        ("brats24", "brats_24", "brats"),
        re.compile(r"(?P<series>(?P<patient>BraTS-[A-Za-z]+-\d{5}(?=[_-]))\w*?)(?:_[xyz])?_output-slice(?P<slice>\d+)\."),
        ("series",),
        "MedTrinity-25M issue 33",
    ),
    NamePattern(
        ("bhx",),
        re.compile(
            r"(?P<series>(?P<patient>CQ500-CT-\d+)_.*)_CT(?P<slice>\d{6})"
            r"(?:__\d+_(?P<x>\d+)_(?P<y>\d+)_(?P<w>\d+)_(?P<h>\d+))?\.[a-z]+$"
        ),
        ("series", "box"),
        "MedTrinity-25M issue 33; CQ500-CT-<number> is a scan of CQ500, of whose patients no more is published",
    ),
    NamePattern(
        ("deeplesion",),
        re.compile(rf"(?P<series>(?P<study>(?P<patient>\d{{6}})_\d{{2}})_\d{{2}})_(?P<slice>\d+)(?:__{_BOX})?\.[a-z]+$"),
        ("study", "series", "slice", "box"),
        "MedTrinity-25M issue 33",
    ),
    NamePattern(
        ("mama-mia",),
        re.compile(r"(?P<series>(?P<patient>[A-Za-z]+\d?_\w+?)_\d{4})\.nii_(?P<slice>\d+)\."),
        ("series",),
        "MedTrinity-25M issue 33 (an ISPY1 case; the last number before .nii is taken for the phase)",
    ),
)
"""Names without an entry here: the picture is the smallest unit known."""


def has_patients(sources: Sequence[str]) -> bool:
    """Whether each of ``sources`` names its pictures by patient; False for none."""
    known = {source for pattern in PATTERNS for source in pattern.sources}
    return bool(sources) and all(source.lower() in known for source in sources)


def read_name(source: str, file_name: str) -> NamedPicture | None:
    """What a picture's name says under the patterns of its source; None where there is no pattern or it does not fit."""
    for entry in PATTERNS:
        if source.lower() in entry.sources and (match := entry.pattern.search(file_name)):
            return _named(entry, match)
    return None


def _named(entry: NamePattern, match: re.Match[str]) -> NamedPicture:
    found = {key: value for key, value in match.groupdict().items() if value is not None}
    # One name for what several labels of the column mean: the same patient may stand under brats and brats24.
    ids = {key: f"{entry.sources[0]}/{found[key]}" for key in ("patient", "study", "series") if key in found}
    box = None
    if "x" in found:
        x, y, width, height = (float(found[key]) for key in "xywh")
        box = (x, y, x + width, y + height) if width > 0 and height > 0 else None
    return NamedPicture(
        patient=ids["patient"],
        study=ids.get("study"),
        series=ids.get("series"),
        slice=int(found["slice"]) if "slice" in found else None,
        box=box,
        inferred=entry.inferred,
    )
