"""What the sources of radiology reports share: sections, and the marks that de-identification leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["deidentified_words", "report_text", "sections"]

_MARKS = (
    ("deidentified-xxxx", re.compile(r"\bX{4,}\b")),  # Open-i (Demner-Fushman et al. 2016)
    ("deidentified-blanks", re.compile(r"_{3,}")),  # MIMIC-CXR (Johnson et al. 2019, Scientific Data 6, 317)
)
# A heading of a free-text report stands at the start of a line, in capitals, and ends with a colon.
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z0-9 ()/,&'-]{2,60}?)[ \t]*:[ \t]*", re.MULTILINE)
_NAMES = {
    "FINDINGS": "findings",
    "FINDING": "findings",
    "IMPRESSION": "impression",
    "IMPRESSIONS": "impression",
    "CONCLUSION": "impression",
    "FINDINGS AND IMPRESSION": "findings",
    "FINDINGS/IMPRESSION": "findings",
}


def deidentified_words(text: str) -> tuple[str, ...]:
    """Names of the placeholders that stand in a text where de-identification took words out."""
    return tuple(name for name, pattern in _MARKS if pattern.search(text))


def report_text(parts: Mapping[str, str]) -> str:
    """The answer made of sections: the text alone when there is one, else each under its heading, findings first."""
    present = {name: text for name, text in parts.items() if text}
    if len(present) < 2:
        return next(iter(present.values()), "")
    return "\n".join(f"{name.capitalize()}: {text}" for name, text in present.items())


def sections(report: str) -> dict[str, str]:
    """``findings`` and ``impression`` of a free-text report, as far as it has them; line ends within a section become blanks.

    Headings are taken as they are written: what stands without one is not guessed to be a finding. ``CONCLUSION`` is taken
    for the impression, a joint heading for the findings. A section that comes twice is joined.
    """
    marks = list(_HEADING.finditer(report))
    found: dict[str, list[str]] = {}
    ends = [mark.start() for mark in marks[1:]] + [len(report)]
    for mark, end in zip(marks, ends, strict=False):  # no mark has the end of the report
        name = _NAMES.get(" ".join(mark.group(1).split()))
        body = " ".join(report[mark.end() : end].split())
        if name is not None and body:
            found.setdefault(name, []).append(body)
    return {name: " ".join(found[name]) for name in ("findings", "impression") if name in found}
