"""Positions: where in the *picture*, and on which side of the *patient*.

In radiological convention the left of an axial CT or a frontal radiograph is the patient's right, so the two may never be
mixed. What follows the word decides: "the left side of the image" is about the picture, "the left frontal lobe" about the
patient. A bare "on the left side" is about the picture, because the tasks ask for the picture unless they say otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medtune.tasks.reading.position_zh import read_position_zh

__all__ = ["Position", "read_position"]


@dataclass(frozen=True, slots=True)
class Position:
    """``horizontal`` left, center, right and ``vertical`` upper, middle, lower of the picture; ``side`` left, right, midline of the
    patient. None = the text does not say."""

    horizontal: str | None = None
    vertical: str | None = None
    side: str | None = None


# Organs that fill the picture: "the upper part of the brain" can only be meant of the picture, "the left side of the brain" is
# the patient's. Followed by a picture word ("brain CT", "head scan") they are no anatomy at all.
_WHOLE = r"brain|head|skull|cranium|chest|thorax|abdomen|pelvis|body"
_PICTURED = r"image|picture|photo\w*|scan|slice|section|view|frame|figure|film|screen|radiograph|ct|mri?|x-?ray"
_PARTS = (
    r"lob(?:e|es|ar)|hemispher\w+|cereb\w+|(?:fronto|temporo|parieto|occipito)\w*|frontal|temporal|parietal|occipital|insul\w+"
    r"|thalam\w+|(?:basal )?ganglia|putamen|caudate|pons|brainstem|hippocamp\w+|capsule|corona radiata|centrum|convexity|corpus"
    r"|ventric\w+|sulc\w+|gyr\w+|fissure|falx|tentori\w+|[map]ca|arter\w+|veins?|venous|sinus\w*|mastoid|orbit\w*|scalp|globe|eye|ear"
    r"|lungs?|pulmon\w+|hil(?:um|ar)|pleur\w+|hemithorax|hemidiaphragm|diaphragm|costophrenic|mediastin\w+|atri\w+|aort\w+|heart|cardiac"
    r"|kidneys?|renal|liver|hepat\w+|spleen|pancrea\w+|adrenal|colon|bowel|ovar\w+|thyroid|breast|neck|spin\w+|vertebra\w*"
    r"|ribs?|clavic\w+|scapula\w*|humer\w+|femur|femoral|tibia\w*|knee|hip|shoulder|arm|leg|foot|wrist|elbow|ankle"
    r"|cort(?:ex|ical)|white matter|gr[ae]y matter|periventricular|subcortical|nervous|brain-stem"
)
_TOKENS = re.compile(
    rf"""
    (?P<skip> midline\s+shift(?:\s+(?:to|towards?)\s+the\s+(?:left|right))?
      | (?:shift|displac|deviat|push)\w*\s+(?:\w+\s+){{0,4}}?(?:to|towards?)\s+the\s+(?:left|right)
      | (?:left|right)ward\s+(?:shift|displacement|deviation) )
  | (?P<patient> \bpatient(?:['’]?s|s['’])? | \banatomic(?:al(?:ly)?)? | \bside["']?\s*[:=] | \blaterality\b )
  | (?P<across> \bhorizontal(?:ly)?\b )
  | (?P<along> \bvertical(?:ly)?\b )
  | (?P<picture> \b(?:(?:{_WHOLE})\s+)?(?:{_PICTURED})s?\b )
  | (?P<midline> \bmid-?line\b )
  | (?P<sided> \b(?:left|right)-sided\b )
  | (?P<hand> \b(?:left|right)(?:[-\s]?hand(?=[-\s]+side)|most|ward)?\b )
  | (?P<height> \b(?:upper|top|lower|bottom)(?:most)?\b )
  | (?P<depth> \b(?:superior|inferior)\b )
  | (?P<center> \b(?:cent(?:er|re)(?:e?d)?|central(?:ly)?|middle|mid)\b )
  | (?P<part> \b(?:{_PARTS})\b )
  | (?P<whole> \b(?:{_WHOLE})\b )
  | (?P<other> \b(?:lesion|mass|tumou?r|ha?ematoma|(?:hypo|hyper)?(?:dens|attenuat|intens)\w+|signal|necro\w+|cavity|calcification
      |than|limits?|grade)\b )
  | (?P<break> [,;:\n] | \.(?=\s|$)
      | \b(?:and|but|with|which|that|is|are|was|has|occup\w+|cover\w*|account\w*|measur\w+|show\w*|taking)\b )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_AXES = {"left": 0, "center": 0, "right": 0, "upper": 1, "middle": 1, "lower": 1}
_WORDS = {"centre": "center", "top": "upper", "bottom": "lower", "central": "center", "superior": "upper", "inferior": "lower"}
_DIRECTION = r"(?:left|right|cent(?:er|re|ral)|middle|upper|lower|top|bottom)"
_CHAIN = re.compile(rf"\b{_DIRECTION}(?:\s*(?:,\s*(?:or|and)?|/|\bor\b|\band\b)\s*(?:the\s+)?\b{_DIRECTION}\b)+", re.IGNORECASE)
_LOCATED = re.compile(
    r"(?:\b(?:in|at|near|towards?|around|on|to|located|situated|positioned|lies|placed)\s+(?:\w+\s+){0,2}"
    r"|(?:\b(?:position|location|horizontal(?:ly)?|vertical(?:ly)?)[\"']?\s*[:=]?\s*[\"']?)|(?:left|right|upper|lower|top|bottom|cent(?:er|re)|middle)[-\s])$",
    re.IGNORECASE,
)
_LOCATING = re.compile(
    r"-?\s*(?:part|portion|third|zone|left|right|upper|lower|top|bottom|middle|cent(?:er|re)"
    r"|located|situated|placed|positioned|horizontal|vertical)",
    re.IGNORECASE,
)


def read_position(text: str) -> Position:
    """Read the position words of an English or Chinese text; the first mention of each counts.

    Reads the synonyms of everyday language (top, bottom, middle, left-hand side, upper-left corner). "Center" alone is both
    center and middle; beside "left" it is only the height, beside "upper" only the width. Alternatives ("left or right") and
    words of displacement ("shifted to the left") are no position.
    """
    english = _read_english(_CHAIN.sub(_drop_alternatives, text))
    chinese = read_position_zh(text)
    return Position(*(first or second for first, second in zip(english, chinese, strict=True)))


def _drop_alternatives(match: re.Match[str]) -> str:
    words = [word.lower() for word in re.findall(_DIRECTION, match[0], re.IGNORECASE)]
    names = [_WORDS.get(word, word) for word in words]
    axes = [_AXES[name] for name in dict.fromkeys(names)]
    return " " * len(match[0]) if len(axes) != len(set(axes)) else match[0]


def _read_english(text: str) -> tuple[str | None, str | None, str | None]:
    tokens = [(str(match.lastgroup), match) for match in _TOKENS.finditer(text)]
    horizontal: str | None = None
    vertical: str | None = None
    side: str | None = None
    centers: list[str] = []
    for index, (kind, match) in enumerate(tokens):
        word = match[0].lower()
        if kind == "sided":
            side = side or word[: word.index("-")]
        elif kind == "hand":
            name = "left" if word.startswith("left") else "right"
            if _is_patient(tokens, index):
                side = side or name
            else:
                horizontal = horizontal or name
        elif kind == "midline":
            side = side or "midline"
        elif kind in ("height", "depth") and vertical is None:
            ahead = _ahead(tokens, index)
            name = "upper" if word.startswith(("upper", "top", "superior")) else "lower"
            if ahead in ("picture", "whole", "along") or (ahead is None and kind == "height"):
                vertical = name
        elif kind == "center":
            axis = _center_axis(tokens, index, text)
            if axis is not None:
                centers.append(axis)
    if "across" in centers:
        horizontal = horizontal or "center"
    if "along" in centers:
        vertical = vertical or "middle"
    if "either" in centers:
        # Each axis that nothing else was said of, since "upper part, in the center" is a width and "left, in the middle" a height.
        horizontal, vertical = horizontal or "center", vertical or "middle"
    return horizontal, vertical, side


_Tokens = list[tuple[str, "re.Match[str]"]]


def _ahead(tokens: _Tokens, index: int) -> str | None:
    """The kind of the first noun behind a direction word, up to the end of its phrase."""
    for kind, _ in tokens[index + 1 :]:
        if kind == "break":
            return None
        if kind in ("picture", "patient", "part", "whole", "other", "along", "across"):
            return kind
    return None


def _is_patient(tokens: _Tokens, index: int) -> bool:
    """Whether a left or right is the patient's."""
    for kind, _ in tokens[index + 1 :]:
        if kind in ("break", "hand", "sided"):
            break
        if kind in ("picture", "across", "along"):
            return False
        if kind in ("patient", "part", "whole", "midline"):
            return True
    for kind, match in reversed(tokens[:index]):
        if kind in ("hand", "sided") or (kind == "break" and match[0] in (";", ".", "\n")):
            break
        if kind in ("picture", "across", "along"):
            return False
        if kind in ("patient", "part"):
            return True
    return False


def _center_axis(tokens: _Tokens, index: int, text: str) -> str | None:
    """``across``, ``along`` or ``either`` for a word of the middle that is a position; None for one that is not."""
    match = tokens[index][1]
    ahead = _ahead(tokens, index)
    if ahead in ("patient", "part", "other"):
        return None
    for kind, _ in reversed(tokens[:index]):
        if kind in ("across", "along"):
            return kind
        if kind == "break":
            break
    if ahead in ("across", "along"):
        return ahead
    if ahead in ("picture", "whole") or match[0].lower() == "centrally":
        return "either"
    before, behind = text[: match.start()], text[match.end() :]
    return "either" if _LOCATED.search(before) or _LOCATING.match(behind) or not (before.strip() and behind.strip(" .")) else None
