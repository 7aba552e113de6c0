"""Radiology reports with a Findings and an Impression section."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import JsonValue

from medtune.tasks.asking import InstructedTask, Instructions, stripped
from medtune.types import Sample

__all__ = ["ReportTask"]

_HEADING = re.compile(
    r"(?:^|(?<=[\s.;。；*#]))[#*_\s]*"
    r"(?:(?P<findings>findings?|(?:检查|影像学?|超声)?(?:所见|表现))|(?P<impression>impressions?|conclusions?|诊断意见|诊断印象|印象|结论|诊断))"
    r"[*_]*(?:\s*[:：][*_]*|[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)


class ReportTask(InstructedTask):
    """A report in the two sections that ACR's practice parameter for communication names (findings, impression).

    ``parse`` gives ``{"findings": str | None, "impression": str | None}``. A text without headings is all findings: a model
    that was never shown the headings is not refused for leaving them out.
    """

    name = "report"
    metrics = ("findings", "rouge", "bleu", "chrf", "llamafactory")
    instructions: ClassVar[Instructions] = {
        "en": "Write the radiology report of this examination in two sections, headed 'Findings:' and 'Impression:'.",
        "zh": "为本次检查撰写影像报告，分两部分，标题为“所见：”和“印象：”。",
    }

    def parse(self, text: str, sample: Sample) -> JsonValue:
        """The sections by name; a heading that comes twice continues its section.

        Raises:
            ValueError: The answer is empty.
        """
        del sample
        text = stripped(text)
        headings = list(_HEADING.finditer(text))
        if not headings:
            return {"findings": text, "impression": None}
        sections: dict[str, list[str]] = {"findings": [], "impression": []}
        opening = text[: headings[0].start()].strip(" \t\r\n#*_")
        if opening:
            sections["findings"].append(opening)
        for heading, following in zip(headings, [*headings[1:], None], strict=True):
            words = text[heading.end() : following.start() if following else len(text)].strip(" \t\r\n#*_")
            if words:
                sections[str(heading.lastgroup)].append(words)
        return {name: "\n".join(parts) or None for name, parts in sections.items()}
