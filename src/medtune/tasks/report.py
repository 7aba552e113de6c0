"""Radiology reports with a Findings and an Impression section."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from medtune.tasks.asking import InstructedTask, Instructions, stripped
from medtune.tasks.reading.sections import read_sections
from medtune.types import Sample

__all__ = ["ReportTask"]


class ReportTask(InstructedTask):
    """A report in the two sections that ACR's practice parameter for communication names (findings, impression).

    ``parse`` gives ``{"findings": str | None, "impression": str | None}``. A text without headings is all findings: a model
    that was never shown the headings is not refused for leaving them out.
    """

    name = "report"
    metrics = ("findings", "measurements", "sections", "terminology", "rouge", "bleu", "chrf", "llamafactory")
    instructions: ClassVar[Instructions] = {
        "en": "Write the radiology report of this examination in two sections, headed 'Findings:' and 'Impression:'.",
        "zh": "为本次检查撰写影像报告，分两部分，标题为“所见：”和“印象：”。",
    }

    def parse(self, text: str, sample: Sample) -> JsonValue:
        """The two sections by name; a heading that comes twice continues its section, and others (technique) are left out.

        Raises:
            ValueError: The answer is empty.
        """
        del sample
        text = stripped(text)
        opening, sections = read_sections(text)
        if not sections:
            return {"findings": text, "impression": None}
        findings = "\n".join(part for part in (opening, sections.get("findings", "")) if part)
        return {"findings": findings or None, "impression": sections.get("impression") or None}
