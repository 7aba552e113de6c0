"""What can be wrong with one row, or with rows that say the same."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Literal

from medtune import plugins
from medtune.data.findings import Findings
from medtune.errors import MedtuneError
from medtune.language import Text, msg
from medtune.types import Sample, SplitName

__all__ = ["RowChecks"]

_PLACEHOLDER = re.compile(r"(?:n/?a|null|nan|todo|tbd|x{2,}|[-_.?*/\\]+|<[a-z ]+>|\[[a-z ]+\])", re.IGNORECASE)
"""Whole answers that stand for nothing. ``none``, ``no``, ``unknown`` and ``[]`` (no box) are answers, and not among them."""

_BARE_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")

_MAJORITY_WARNING = 0.8
"""Share of the commonest closed answer from which a model that always says it looks good. A judgement, not a norm."""

_CORRECT_SOURCE = msg("Correct the record in the source and prepare again, or leave it out.")


class RowChecks:
    """Looks at the rows one after the other.

    Args:
        findings: Where findings go.
        count_tokens: Tokens of a whole row; None = lengths are not checked.
        max_tokens: What a row of train and validation must fit in.
        context: What any row must fit in.
        too_long: ``leave-out``: training leaves out what does not fit, which is worth a warning then, not an error.
    """

    def __init__(
        self,
        findings: Findings,
        count_tokens: Callable[[Sample], int] | None,
        max_tokens: int | None,
        *,
        context: int | None = None,
        too_long: Literal["error", "leave-out"] = "error",
    ) -> None:
        self.findings = findings
        self.count_tokens = count_tokens if max_tokens is not None or context is not None else None
        self.max_tokens = max_tokens
        self.context = context
        self.too_long = too_long
        self._tasks = set(plugins.names("task"))
        self._ids: set[str] = set()
        self._seen: dict[bytes, str] = {}
        self._closed: dict[SplitName, Counter[str]] = {}

    def look(self, sample: Sample, split: SplitName, place: str) -> None:
        """Check one row. ``place`` is ``file:line``."""

        def found(code: str, severity: str, message: Text, remedy: Text | None = _CORRECT_SOURCE) -> None:
            self.findings.add(code, severity, message, remedy, split=split, sample=sample.id, file=place)  # type: ignore[arg-type]

        if sample.id in self._ids:
            found("duplicate-id", "error", msg("Another row has the same id."))
        self._ids.add(sample.id)
        if sample.task not in self._tasks and ":" not in sample.task:
            found(
                "unknown-task",
                "error",
                msg("There is no task named {task!r}.", task=sample.task),
                msg("Known: {known}.", known=", ".join(sorted(self._tasks))),
            )
        self._answer(sample, found)
        self._boxes(sample, found)
        for note in _strings(sample.metadata.get("source_notes")):
            found(f"source-{note}", "warning", _noted(note), msg("Put right while reading; the source is as published."))
        key = hashlib.sha256(
            repr(([(m.role, m.content) for m in sample.messages], [i.path for i in sample.images])).encode()
        ).digest()
        first = self._seen.setdefault(key, sample.id)
        if first != sample.id:
            found("duplicate-row", "warning", msg("The same pictures and words as row {first}.", first=first))
        if sample.task == "closed-vqa" or sample.metadata.get("answer_type") == "closed":
            self._closed.setdefault(split, Counter())[sample.target.strip().rstrip(".").lower()] += 1
        self._length(sample, split, found)

    def _answer(self, sample: Sample, found: Callable[..., None]) -> None:
        answer = sample.target.strip()
        if not answer:
            found("answer-empty", "error", msg("The answer is empty."))
        elif _PLACEHOLDER.fullmatch(answer):
            found("answer-placeholder", "error", msg("The answer {answer!r} stands for nothing.", answer=answer))
        elif _BARE_NUMBER.fullmatch(answer):
            found(
                "answer-is-number",
                "info",
                msg("The answer is the bare number {answer}.", answer=answer),
                msg("Check that the question asks for a number."),
            )
        if sample.messages[-1].content != sample.target:
            found(
                "target-differs",
                "error",
                msg("The target is not the text of the last message."),
                msg("Prepare the data set again."),
            )
        for message in sample.messages:
            if message.content != message.content.strip():
                found("stray-blanks", "warning", msg("The {role} turn begins or ends with a blank.", role=message.role))
                break

    def _boxes(self, sample: Sample, found: Callable[..., None]) -> None:
        box = sample.metadata.get("box")
        if box is None or not sample.images:
            return
        image = sample.images[0]
        try:
            x1, y1, x2, y2 = (float(edge) for edge in box)  # type: ignore[union-attr, arg-type]
            sound = 0 <= x1 < x2 <= image.width and 0 <= y1 < y2 <= image.height
        except (TypeError, ValueError):
            sound = False
        if not sound:
            found(
                "box-outside",
                "error",
                msg(
                    "The box {box} does not lie in the picture of {width} x {height} pixels.",
                    box=str(box),
                    width=image.width,
                    height=image.height,
                ),
            )

    def _length(self, sample: Sample, split: SplitName, found: Callable[..., None]) -> None:
        # Rows of test are asked, not trained on: the model's context is all that limits them.
        limits = (self.context,) if split == "test" else (self.context, self.max_tokens)
        limit = min((tokens for tokens in limits if tokens is not None), default=None)
        if self.count_tokens is None or limit is None:
            return
        try:
            tokens = self.count_tokens(sample)
        except MedtuneError as error:
            found("not-encodable", "error", error.what, error.remedy)
            return
        if tokens <= limit:
            return
        message = msg("The row has {tokens} tokens; {max_tokens} fit.", tokens=tokens, max_tokens=limit)
        if split != "test" and self.too_long == "leave-out":
            remedy = msg("Training leaves it out and lists it in left_out.jsonl of the run, because of train.too_long=leave-out.")
            found("row-too-long", "warning", message, remedy)
        elif limit == self.context:
            remedy = msg("This is all that the model can read: lower model.max_pixels, or leave the row out.")
            found("row-too-long", "error", message, remedy)
        else:
            remedy = msg(
                "Lower model.max_pixels, raise train.max_tokens, leave such rows out (train.too_long=leave-out), "
                "or shorten them in the source. Rows are never cut in silence."
            )
            found("row-too-long", "error", message, remedy)

    def conclude(self) -> None:
        """Findings about all rows together: the balance of closed answers."""
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


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _noted(note: str) -> Text:
    known = {
        "answer-not-text": msg("The answer is a number in the source, not text."),
        "answer-blanks": msg("The answer begins or ends with a blank in the source."),
        "question-blanks": msg("The question begins or ends with a blank in the source."),
        "answer-type-blanks": msg("The answer type begins or ends with a blank in the source."),
        "location-tokens-differ": msg("Location tokens and box of the source are not the same place."),
    }
    return known.get(note) or msg("The source notes: {note}.", note=note)
