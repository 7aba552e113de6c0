"""Values that stand in for others: dummies for each value representation, dates moved by whole days."""

from __future__ import annotations

import re
from datetime import date, timedelta

__all__ = ["DUMMY_TEXT", "IMAGING_WORDS", "clean_words", "dummy_value", "shift_date", "shift_datetime"]

DUMMY_TEXT = "DEIDENTIFIED"

_DUMMIES: dict[str, object] = {
    # PS3.5, Table 6.2-1 gives the form of each representation.
    "AE": DUMMY_TEXT,
    "AS": "000Y",
    "CS": DUMMY_TEXT,
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "LO": DUMMY_TEXT,
    "LT": DUMMY_TEXT,
    "PN": DUMMY_TEXT,
    "SH": DUMMY_TEXT,
    "ST": DUMMY_TEXT,
    "TM": "000000",
    "UC": DUMMY_TEXT,
    "UR": "about:blank",
    "UT": DUMMY_TEXT,
    "FL": 0.0,
    "FD": 0.0,
    "SL": 0,
    "SS": 0,
    "SV": 0,
    "UL": 0,
    "US": 0,
    "UV": 0,
    "AT": 0,
}

_DATE = re.compile(r"(\d{4})[.]?(\d{2})?[.]?(\d{2})?\Z")
"""With the points of ACR-NEMA, which readers are to accept (PS3.5, 6.2)."""


def dummy_value(vr: str) -> object:
    """A valid value of the representation that says nothing; two zero bytes for the binary ones."""
    return _DUMMIES.get(vr, b"\0\0")


def shift_date(value: str, days: int) -> str | None:
    """A DA value, ``YYYYMMDD``, moved by ``days``; None when it is no date of the calendar."""
    match = _DATE.fullmatch(value.strip(" \0"))
    if match is None or match[3] is None:
        return None
    return _moved(int(match[1]), int(match[2]), int(match[3]), days)


def shift_datetime(value: str, days: int) -> str | None:
    """A DT value, ``YYYYMMDDHHMMSS.FFFFFF&ZZXX``, moved by ``days``; its time of day and zone stay.

    A value cut after the year or the month keeps its precision: its first day is moved.
    """
    match = re.fullmatch(r"(\d{4})(\d{2})?(\d{2})?((?:\d{2}){0,3}(?:\.\d{1,6})?)([+-]\d{4})?", value.strip(" \0"))
    if match is None:
        return None
    moved = _moved(int(match[1]), int(match[2] or 1), int(match[3] or 1), days)
    if moved is None:
        return None
    precision = 8 if match[3] else 6 if match[2] else 4
    return moved[:precision] + match[4] + (match[5] or "")


def _moved(year: int, month: int, day: int, days: int) -> str | None:
    try:
        moved = date(year, month, day) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"  # strftime writes the year 987 with three digits


_WORDS = """
2d 3d 4d abd abdomen abdominal adc angio angiography ankle ap arterial ax axial body bold bone bony brain bravo breast c cap
cardiac carotid cervical chest cine clavicle computed contrast cor coronal cr cranial cranium ct cta ctp delayed diffusion
dixon dry dsa dti dual dwi dx dyn dynamic echo elbow epi face fast fat femur fiesta fl2d fl3d flair flash foot forearm fov
fs fse gad gadolinium gradient gre hand haste head heart hip humerus iac in iv kidney knee l la lao lat lateral left liver
localizer locator lower lumbar lung lungs mag magnetic mandible map mdc mediastinum mg mip mlo mpr mprage mr mra mri mrv
multi native neck nm oblique opposed orbit out pa pancreas pd pelvis perf perfusion phantom phase plain portal post pre
prone propeller protocol proton pulmonary r radiograph rao recon reformat renal resonance ri right routine rt sag sagittal
scan scout se sequence series shoulder sinus skull slab slice soft space spgr spin spine spiral spleen stir study supine
survey swi t t1 t1w t2 t2w tc te thick thigh thin thoracic thorax tibia tissue tof tomography topogram tr trace tse tumor
ultrasound upper us vas venography venous vessels vibe volume w water wb whole window with without wo wrist xr xray 冠状位 增强 头
头部 平扫 心脏 扫描 盆腔 矢状位 肝 肺 肾 胸 胸椎 胸部 脊柱 脑 腰椎 腹 腹部 软组织 轴位 颅 颅脑 颈 颈椎 颈部 骨
"""

IMAGING_WORDS = frozenset(_WORDS.split())
"""Words that a cleaned description may keep: planes, body parts, sequences, phases. None of them is a name in common use."""


def clean_words(text: str) -> str:
    """Only the words of :data:`IMAGING_WORDS`, in their order; everything else goes."""
    kept = [word for word in re.split(r"[\s,;:/_^()\[\]+.-]+", text) if word.casefold() in IMAGING_WORDS]
    return " ".join(kept)
