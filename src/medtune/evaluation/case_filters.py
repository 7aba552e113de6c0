"""What the cases of a page can be filtered by: kind, comparison, task, finding, and what became of a finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medtune.evaluation.cases import QUOTA, Case
from medtune.evaluation.finding_marks import FATES as ORDER
from medtune.evaluation.finding_marks import known_findings
from medtune.evaluation.wording import FATES, task_title, value_title
from medtune.language import Text
from medtune.tasks.reading.assertions import findings

__all__ = ["CaseFilters", "Name", "case_filters", "finding_title"]


@dataclass(frozen=True, slots=True)
class Name:
    """What is called something in both languages without being a sentence."""

    english: str
    chinese: str

    def render(self, in_language: str) -> str:
        return self.chinese if in_language == "zh" else self.english


Choice = tuple[str, Text | Name, int]
"""(value, title, number of cases)."""


@dataclass(frozen=True, slots=True)
class CaseFilters:
    """The choices that the cases leave. ``fates`` is empty where no case was read for findings."""

    tags: tuple[tuple[str, int], ...]
    pairs: tuple[Choice, ...]
    tasks: tuple[Choice, ...]
    findings: tuple[Choice, ...]
    fates: tuple[Choice, ...]


def case_filters(cases: Sequence[Case]) -> CaseFilters:
    """Of all ``cases`` of a page; findings with the most frequent first."""
    tags = _count(case.tags for case in cases)
    named = _count((name for name, _ in case.findings) for case in cases)
    fates = _count((fate for _, fate in case.findings if fate is not None) for case in cases)
    return CaseFilters(
        tags=tuple((tag, tags[tag]) for tag in QUOTA if tag in tags),
        pairs=tuple((pair, Name(pair, pair), count) for pair, count in _count([case.pair] for case in cases).items()),
        tasks=tuple((task, task_title(task), count) for task, count in _count([case.task] for case in cases).items()),
        findings=tuple(
            (name, finding_title(name), count) for name, count in sorted(named.items(), key=lambda item: (-item[1], item[0]))
        ),
        fates=tuple((fate, FATES[fate], fates[fate]) for fate in ORDER if fate in fates),
    )


def _count(values: Iterable[Iterable[str]]) -> Counter[str]:
    """In how many cases each occurs."""
    return Counter(value for of_case in values for value in dict.fromkeys(of_case))


def finding_title(name: str, english: str | None = None) -> Text | Name:
    """What a finding of the tables is called, or what any word for one is; other words stand for themselves.

    Args:
        name: "subdural haematoma".
        english: For the English page, where it keeps the data's own word.
    """
    known = findings()
    found = known_findings(name)
    if not found:
        return value_title(name)
    return Name(english or found[0][:1].upper() + found[0][1:], known[found[0]].chinese)
