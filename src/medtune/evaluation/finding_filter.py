"""By which findings, and by which fates of findings, the cases of a page can be filtered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from medtune.evaluation.cases import Case
from medtune.evaluation.finding_marks import FATES as ORDER
from medtune.evaluation.wording import FATES, value_title
from medtune.language import Text
from medtune.tasks.reading.assertions import findings

__all__ = ["FindingFilter", "finding_filter"]


@dataclass(frozen=True, slots=True)
class FindingFilter:
    """The choices that the cases leave.

    Attributes:
        fates: (value, title); empty where no case was read for findings.
        findings: (value, {language: title}, number of cases), the most frequent first.
    """

    fates: tuple[tuple[str, Text], ...]
    findings: tuple[tuple[str, dict[str, str], int], ...]


def finding_filter(cases: Sequence[Case]) -> FindingFilter:
    """Of all ``cases`` of a page."""
    counts = Counter(name for case in cases for name in dict.fromkeys(name for name, _ in case.findings))
    seen = {fate for case in cases for _, fate in case.findings}
    return FindingFilter(
        tuple((fate, FATES[fate]) for fate in ORDER if fate in seen),
        tuple((name, _titles(name), count) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
    )


def _titles(name: str) -> dict[str, str]:
    if name in findings():
        return {"en": name[:1].upper() + name[1:], "zh": findings()[name].chinese}
    title = value_title(name)
    return {"en": title.render("en"), "zh": title.render("zh")}
