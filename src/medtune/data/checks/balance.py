"""Answers that are nearly all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from medtune.data.checks.check import Check, Context, Place
from medtune.language import Text, msg
from medtune.types import Sample, SplitName

__all__ = ["ClosedAnswers"]

_MAJORITY_WARNING = 0.8
"""Share of the commonest closed answer from which a model that always says it looks good. A judgement, not a norm."""


class ClosedAnswers(Check):
    """Closed answers are counted by their words, of which there are few."""

    names = ("closed-answers",)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._closed: dict[SplitName, Counter[str]] = {}

    def row(self, sample: Sample, place: Place) -> None:
        if sample.task == "closed-vqa" or sample.metadata.get("answer_type") == "closed":
            self._closed.setdefault(place.split, Counter())[sample.target.strip().rstrip(".").lower()] += 1

    def conclude(self) -> Mapping[str, Text]:
        for split, answers in self._closed.items():
            total = sum(answers.values())
            answer, count = min(answers.items(), key=lambda item: (-item[1], item[0]))
            self.findings.add(
                "closed-majority",
                "warning" if count / total >= _MAJORITY_WARNING and total >= 20 else "info",
                msg(
                    "{share:.1%} of the {total} closed answers are {answer!r}: a model that always says so reaches this accuracy.",
                    share=count / total,
                    total=total,
                    answer=answer,
                ),
                msg("Compare closed accuracy with this number."),
                split=split,
            )
        return {}
