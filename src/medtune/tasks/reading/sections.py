"""The sections of a report by their headings, English and Chinese.

The names are those of ACR's practice parameter for communication of diagnostic imaging findings: clinical information, comparison,
technique, findings, impression; recommendations stand apart where a report does so.
"""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["SectionName", "about_this_study", "read_sections"]

SectionName = Literal["indication", "comparison", "technique", "findings", "impression", "recommendation"]

_HEADINGS: dict[SectionName, str] = {
    "indication": r"(?:clinical\s+)?(?:indications?|history|information)|reason\s+for\s+(?:exam(?:ination)?|study)"
    r"|临床(?:资料|病史|信息|诊断)|病史|检查目的|主诉",
    "comparison": r"comparisons?|prior\s+(?:studies|study|exams?)|对比(?:检查)?|既往检查|旧片对比",
    "technique": r"techniques?|procedure|protocol|检查方法|扫描方法|检查技术|技术|检查部位",
    "findings": r"findings?|(?:检查|影像学?|超声|放射学?|CT|MRI?|X线)?(?:所见|表现)|影像学?描述",
    "impression": r"impressions?|conclusions?|(?:影像|超声|放射学?|CT|MRI?|X线)?(?:诊断意见|诊断印象|诊断结论|印象|结论|诊断|意见)",
    "recommendation": r"recommendations?|建议|处理建议",
}
_HEADING = re.compile(
    # At most twelve signs before it: a match may begin within a longer run, and trying each run from each of its signs to its end
    # would cost the square of its length.
    r"(?:^|(?<=[\s.;。；*#]))[#*_\s【\[]{0,12}(?:"
    + "|".join(f"(?P<{name}>{pattern})" for name, pattern in _HEADINGS.items())
    + r")[】\]]?[*_]*(?:\s*[:：][*_]*|[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_EDGES = " \t\r\n#*_"
_SIGNS = (":", "：", "\n")


def read_sections(text: str) -> tuple[str, dict[SectionName, str]]:
    """What stands before the first heading, and the text under each heading, in the order of the headings.

    A heading is one of the known words at the beginning of a line or sentence, followed by a colon or alone on its line; Markdown
    and 【】 around it are no fault. One that comes twice continues its section; a section without words is "".
    """
    # Without a colon or a line's end there is no heading; most captions have neither, and the pattern costs 100 times as much.
    if not any(sign in text for sign in _SIGNS) and len(text) > 40:
        return text.strip(_EDGES), {}
    headings = list(_HEADING.finditer(text))
    if not headings:
        return text.strip(_EDGES), {}
    parts: dict[SectionName, list[str]] = {}
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        words = text[heading.end() : following.start() if following else len(text)].strip(_EDGES)
        name = next(name for name in _HEADINGS if heading[name] is not None)
        parts.setdefault(name, []).extend([words] if words else [])
    return text[: headings[0].start()].strip(_EDGES), {name: "\n".join(words) for name, words in parts.items()}


def about_this_study(text: str) -> str:
    """The text without the sections that speak of the question, of other examinations or of the technique.

    A text that would be empty without them is returned whole: then the headings were not meant as such.
    """
    opening, sections = read_sections(text)
    if not sections:
        return text
    kept = [opening, *(words for name, words in sections.items() if name in ("findings", "impression", "recommendation"))]
    return "\n".join(part for part in kept if part) or text
