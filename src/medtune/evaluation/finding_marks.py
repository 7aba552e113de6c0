"""What became of the findings of one sample: to mark them beside an answer, to choose cases by them and to filter by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from medtune.evaluation.metrics.additive import reference
from medtune.evaluation.metrics.findings import coarser_outcomes, finding_outcomes
from medtune.tasks.reading.assertions import findings, read_assertions
from medtune.tasks.reading.sections import about_this_study
from medtune.types import Sample, Score

__all__ = ["FATES", "OUTCOMES", "Fate", "FindingMark", "finding_marks", "known_findings", "with_finding_errors"]

Fate = Literal["missed", "invented", "wrong-side", "coarser", "found"]
"""Claimed by the reference alone, by the answer alone, by both with another side or with none where the reference names one, by
the reference and, in a broader word, by the answer ("a hemorrhage" for a subdural hematoma), by both."""

FATES: tuple[Fate, ...] = ("missed", "invented", "wrong-side", "coarser", "found")
"""In the order of the page."""

OUTCOMES = "findings/macro-f1"
"""The score that holds what became of each finding."""
SIDES = "findings/side-accuracy"


@dataclass(frozen=True, slots=True)
class FindingMark:
    """One finding of a reference or an answer.

    Attributes:
        finding: Its name in English, which is its key.
        title: The same for a reader; ``chinese`` in Chinese.
        is_kind: Whether a finding that is a kind of it has the same fate: then it says nothing new beside it.
    """

    finding: str
    title: str
    chinese: str
    fate: Fate
    is_kind: bool = False


def finding_marks(sample: Sample, answer: str, score: Score | None) -> tuple[FindingMark, ...]:
    """The findings of one answer, errors first.

    Args:
        answer: The text as generated.
        score: Of the answer on ``findings/macro-f1``; without one, or unscored, there are no marks.
    """
    outcomes = {} if score is None or score.value is None else finding_outcomes(score)
    if not outcomes:
        return ()
    known = findings()
    truth, said = (read_assertions(about_this_study(text)).of for text in (reference(sample), answer))
    fates: dict[str, Fate] = {}
    for name, outcome in outcomes.items():
        fates[name] = outcome
        if outcome == "found" and name in truth and name in said and truth[name].side not in (None, said[name].side):
            fates[name] = "wrong-side"
    for name in coarser_outcomes(outcomes):
        fates |= {each: "coarser" for each in (name, *known[name].kinds_of) if fates.get(each) == "missed"}
    covered = {(parent, fate) for name, fate in fates.items() for parent in known[name].kinds_of}
    return tuple(
        FindingMark(name, name[:1].upper() + name[1:], known[name].chinese, fate, (name, fate) in covered)
        for fate in FATES
        for name in fates
        if fates[name] == fate
    )


def known_findings(words: str) -> tuple[str, ...]:
    """The findings of the tables that a word of the metadata names, then the findings that they are kinds of: "subdural haematoma"
    is "subdural hematoma", "intracranial hemorrhage" and "hemorrhage". A name of the tables is itself alone; other words none."""
    if words in findings():
        return (words,)
    return tuple(name for name, found in read_assertions(words).of.items() if found.status == "present")


def with_finding_errors(scores: Mapping[str, Mapping[str, Score]]) -> Iterator[list[str]]:
    """Lists of samples whose answers miss a finding, invent one or put one on the wrong side: a list for each such error, in turn,
    of the most frequent findings first.

    Args:
        scores: Metric value -> sample id -> score.
    """
    errors: dict[tuple[str, str], list[str]] = {}
    for sample, score in scores.get(OUTCOMES, {}).items():
        if score.value is not None:
            for name, outcome in finding_outcomes(score).items():
                if outcome != "found":
                    errors.setdefault((name, outcome), []).append(sample)
    sides = [sample for sample, score in scores.get(SIDES, {}).items() if score.value is not None and score.value < 1]
    if sides:
        yield sides
    yield from sorted(errors.values(), key=len, reverse=True)
