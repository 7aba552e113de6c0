"""The captions of MedTrinity-25M, taken apart.

They were written by a language model along fixed questions (arXiv:2408.02900, section 3.2 and the prompt in its appendix), so
that most have three blocks in one order: the whole picture (kind, organ); the region of interest (place, share of the area, what
is unusual); how it relates to its surroundings. What does not follow that order is named in ``unread`` and never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["CaptionParts", "read_caption"]


@dataclass(frozen=True, slots=True)
class CaptionParts:
    """What a caption says; None = it does not say so, or not in a way that can be read.

    Attributes:
        modality: DICOM modality code.
        contrast: ``with`` or ``without`` contrast medium.
        organ: The caption's word, lower case.
        horizontal: ``left``, ``center`` or ``right`` of the picture.
        vertical: ``upper``, ``middle`` or ``lower`` of the picture.
        area_percent: Share of the picture that the region takes, above 0 and at most 100.
        finding: What is unusual in the region, in the caption's words.
        relation: The last block, in the caption's words.
        unread: Which of ``modality``, ``organ``, ``position``, ``area``, ``finding``, ``relation`` could not be read; ``region``
            in place of the last four where no sentence speaks of a region of interest.
    """

    modality: str | None = None
    contrast: str | None = None
    organ: str | None = None
    horizontal: str | None = None
    vertical: str | None = None
    area_percent: float | None = None
    finding: str | None = None
    relation: str | None = None
    unread: tuple[str, ...] = field(default=())


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_REGION = re.compile(r"\bregions? of interest\b|\bROIs?\b", re.IGNORECASE)
_MODALITIES = {
    "CT": (("tomogra", "ct"), re.compile(r"\bcomputed tomograph\w*|\bCT\b")),
    "MR": (("magnetic", "mr"), re.compile(r"\bmagnetic resonance\b|\bMRI?\b")),
    "DX": (("ray", "radiogra"), re.compile(r"\b[xX]-?\s?ray|\b[rR]adiograph")),
    "US": (("ultraso", "sonogra", "echoca"), re.compile(r"\bultraso|\bsonogra|\bechocardio", re.IGNORECASE)),
    "SM": (
        ("histo", "microgra", "microsc", "h&e", "hematox"),
        re.compile(r"\bhistopatholog|\bhistolog|\bmicroscop|\bphotomicrograph|\bH&E\b|\bhematoxylin", re.IGNORECASE),
    ),
    "PT": (("positron", "pet"), re.compile(r"\bpositron emission|\bPET\b")),
    "MG": (("mammogra",), re.compile(r"\bmammogra", re.IGNORECASE)),
    "ES": (("scop",), re.compile(r"\bendoscop|\bcolonoscop", re.IGNORECASE)),
    "OP": (("fundus",), re.compile(r"\bfundus\b", re.IGNORECASE)),
    "OPT": (("optical", "oct"), re.compile(r"\boptical coherence\b|\bOCT\b")),
}
"""By DICOM modality code: the pattern, and pieces of words (lower case) without which it cannot match: they are looked for first,
because that is quick."""
_WITHOUT = re.compile(r"\bnon-?\s?contrast|\bunenhanced|\bwithout\s+(?:the\s+)?(?:use\s+of\s+|any\s+)?contrast", re.IGNORECASE)
_WITH = re.compile(r"(?<!non-)\bcontrast-?\s?enhanced|(?<!out )\bwith\s+(?:\w+\s+)?contrast|\bpost-?contrast", re.IGNORECASE)
_ORGANS = (
    "brain|head|skull|neck|chest|thorax|lungs?|heart|abdomen|abdominal|liver|kidneys?|spleen|pancreas|stomach|colon|rectum|bladder|pelvis"
    "|pelvic|prostate|uterus|cervix|ovar(?:y|ies)|breasts?|spine|knees?|hips?|shoulders?|hands?|wrists?|ankles?|foot|feet|retina|eyes?"
    "|thyroid|esophagus|skin|lymph nodes?|bones?"
)
_ORGAN = re.compile(rf"\b(?:{_ORGANS})\b", re.IGNORECASE)
_OF_ORGAN = re.compile(rf"\bof\s+(?:the|a|an)\s+(?:human\s+|patient's\s+)?(?P<organ>{_ORGANS})\b", re.IGNORECASE)
_PLACE = re.compile(
    r"\b(?:located|situated|positioned)\b(?P<where>.*?)(?=[,;]|\.\s|\.?$|\b(?:and\s+)?(?:occup|cover|exhibit|appear|show|display)\w*)",
    re.IGNORECASE,
)
_SIDED = re.compile(r"\b(?P<side>left|right)\b(?P<next>[-\s]+\w+)?", re.IGNORECASE)
_PICTURE_WORDS = frozenset(
    [
        "side",
        "area",
        "part",
        "portion",
        "region",
        "half",
        "third",
        "section",
        "center",
        "centre",
        "central",
        "middle",
        "upper",
        "lower",
        "top",
        "bottom",
        "and",
        "or",
        "of",
        "horizontally",
        "corner",
        "quadrant",
    ]
)
_OF_ANATOMY = re.compile(r"\bof\s+(?!(?:the\s+)?(?:image|picture|scan|frame|slice|view)\b)\w+", re.IGNORECASE)
_HEIGHTS = {"upper": "upper", "top": "upper", "lower": "lower", "bottom": "lower"}
_AREA = re.compile(
    r"(?P<share>\d+(?:\.\d+)?)\s*%\s+of\s+the\s+(?:\w+\s+){0,2}?(?:image|picture|scan|area)(?:'s)?(?:\s+area)?", re.IGNORECASE
)
_RELATION = re.compile(
    r"\b(?:relat|surround|adjacent|nearby|neighbou?r|mass effect|pressure|displac|compress|affect|impact|influenc)", re.IGNORECASE
)
_FEWEST_WORDS = 3


def read_caption(caption: str) -> CaptionParts:
    """Take a caption apart. Linear in its length."""
    sentences = [sentence.strip() for sentence in _SENTENCE_END.split(caption.strip()) if sentence.strip()]
    region = next((index for index, sentence in enumerate(sentences) if _REGION.search(sentence)), None)
    whole = " ".join(sentences if region is None else sentences[:region])
    modality, organ = _only_modality(whole), _organ(whole)
    unread = [name for name, value in (("modality", modality), ("organ", organ)) if value is None]
    contrast = _contrast(whole)
    if region is None:
        return CaptionParts(modality, contrast, organ, unread=(*unread, "region"))
    last = sentences[-1] if region < len(sentences) - 1 and _RELATION.search(sentences[-1]) else None
    described = sentences[region:-1] if last else sentences[region:]
    place = _PLACE.search(described[0])
    horizontal, vertical = _position(place)
    area = _area(" ".join(described))
    finding = _finding(described, place)
    missing = {
        "position": horizontal is None and vertical is None,
        "area": area is None,
        "finding": not finding,
        "relation": not last,
    }
    return CaptionParts(
        modality=modality,
        contrast=contrast,
        organ=organ,
        horizontal=horizontal,
        vertical=vertical,
        area_percent=area,
        finding=finding,
        relation=last,
        unread=(*unread, *(name for name, is_so in missing.items() if is_so)),
    )


def _only_modality(text: str) -> str | None:
    low = text.lower()
    found = [code for code, (pieces, pattern) in _MODALITIES.items() if any(map(low.__contains__, pieces)) and pattern.search(text)]
    return found[0] if len(found) == 1 else None  # PET/CT, or a comparison: neither is taken


def _contrast(text: str) -> str | None:
    low = text.lower()
    if "contrast" not in low and "unenhanced" not in low:
        return None
    without, given = bool(_WITHOUT.search(text)), bool(_WITH.search(_WITHOUT.sub(" ", text)))
    return None if without == given else "without" if without else "with"


def _organ(text: str) -> str | None:
    """The organ that the picture is said to be *of*; else the only one named."""
    of = _OF_ORGAN.search(text)
    if of is not None:
        return of["organ"].lower()
    named = {match[0].lower() for match in _ORGAN.finditer(text)}
    return named.pop() if len(named) == 1 else None


def _position(place: re.Match[str] | None) -> tuple[str | None, str | None]:
    if place is None:
        return None, None
    where = place["where"].lower()
    words = set(re.findall(r"[a-z]+", where))
    heights = {_HEIGHTS[word] for word in words if word in _HEIGHTS}
    vertical = heights.pop() if len(heights) == 1 else "middle" if not heights and "middle" in words else None
    return _horizontal(where, words), vertical


def _horizontal(where: str, words: set[str]) -> str | None:
    sides = list(_SIDED.finditer(where))
    if not sides:
        return "center" if words & {"center", "centre", "central", "centrally"} else None
    # "the left frontal lobe" and "the left side of the brain" are the patient's left, which may be the picture's right.
    following = [(match["next"] or "").strip(" -") for match in sides]
    if any(word and word not in _PICTURE_WORDS for word in following) or _OF_ANATOMY.search(where):
        return None
    named = {match["side"] for match in sides}
    return named.pop() if len(named) == 1 else None


def _area(text: str) -> float | None:
    shares = {float(match["share"]) for match in _AREA.finditer(text)}
    share = shares.pop() if len(shares) == 1 else None
    return share if share is not None and 0 < share <= 100 else None


def _finding(described: list[str], place: re.Match[str] | None) -> str | None:
    """What is left of the region's block behind its place and share."""
    first = described[0]
    ends = [match.end() for match in (_AREA.search(first), place, _REGION.search(first)) if match]
    rest = re.sub(r"^(?:[\s,;]|\b(?:and|which|is|it)\b)+", "", first[max(ends) :], flags=re.IGNORECASE)
    finding = " ".join([rest, *described[1:]]).strip()
    return finding if len(finding.split()) >= _FEWEST_WORDS else None
