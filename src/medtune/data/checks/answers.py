"""Answers that are empty, stand for nothing, or are not what the conversation ends with."""

from __future__ import annotations

import re

from medtune.data.checks.check import Check, Place
from medtune.data.checks.texts import is_placeholder
from medtune.data.findings import CORRECT_SOURCE
from medtune.language import Text, msg
from medtune.types import Sample, Severity

__all__ = ["Answers"]

_BARE_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")


class Answers(Check):
    """The last turn of each row, and blanks around any turn. Keeps nothing."""

    names = ("answers",)

    def row(self, sample: Sample, place: Place) -> None:
        def found(code: str, severity: Severity, message: Text, remedy: Text = CORRECT_SOURCE) -> None:
            self.findings.add(code, severity, message, remedy, split=place.split, sample=sample.id, file=str(place))

        answer = sample.target.strip()
        if not answer:
            found("answer-empty", "error", msg("The answer is empty."))
        elif is_placeholder(answer):
            found("answer-placeholder", "error", msg("The answer {answer!r} stands for nothing.", answer=answer))
        elif _BARE_NUMBER.fullmatch(answer):
            remedy = msg("Check that the question asks for a number.")
            found("answer-is-number", "info", msg("The answer is the bare number {answer}.", answer=answer), remedy)
        if sample.messages[-1].content != sample.target:
            message = msg("The target is not the text of the last message.")
            found("target-differs", "error", message, msg("Prepare the data set again."))
        for turn in sample.messages:
            if turn.content != turn.content.strip():
                found("stray-blanks", "warning", msg("The {role} turn begins or ends with a blank.", role=turn.role))
                break
