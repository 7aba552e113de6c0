"""How far one comes without looking at the pictures."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medtune.data.checks.check import Check, Context, Place
from medtune.data.checks.keys import as_numpy, key, normalised
from medtune.data.split import SPLITS
from medtune.language import Text, msg
from medtune.types import IMAGE_MARK, Sample, SplitName

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Keys = NDArray[np.unsignedinteger[Any]]

__all__ = ["Predictability", "best_answers"]

_WARNING = 0.8
"""Share of answers that can be had without the picture, or of one answer, from which numbers need a word. A judgement."""

_LEAST = 20
"""Rows under which shares say little."""

_FEW_ANSWERS = 20
"""A task with at most so many different answers is a choice among classes."""


class Predictability(Check):
    """The majority answer, the best answer by the question's words, the balance of classes, and the share of normal rows.

    What a model without eyes reaches was the finding of Goyal et al., "Making the V in VQA matter" (CVPR 2017, arXiv:1612.00837).
    Keeps 22 bytes a row.
    """

    names = ("question-only", "class-balance", "normal-share")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._labels: dict[str, int] = {}
        self._tasks = array("H")
        self._questions = array("Q")
        self._answers = array("Q")
        self._numbers = array("I")
        self._normal: dict[SplitName, list[int]] = {}

    def row(self, sample: Sample, place: Place) -> None:
        kind = sample.metadata.get("answer_type")
        label = sample.task if kind is None or sample.task.startswith(str(kind)) else f"{sample.task}/{kind}"
        self._tasks.append(min(self._labels.setdefault(label, len(self._labels)), 2**16 - 1))
        asked = (normalised(message.content.replace(IMAGE_MARK, " ")) for message in sample.prompt)
        self._questions.append(key(*asked))
        self._answers.append(key(normalised(sample.target)))
        self._numbers.append(place.number)
        normal = sample.metadata.get("normal")
        if isinstance(normal, bool):
            self._normal.setdefault(place.split, [0, 0])[normal] += 1

    def conclude(self) -> Mapping[str, Text]:
        tasks, numbers = as_numpy(self._tasks), as_numpy(self._numbers)
        starts = [self.context.rows.starts.get(split, 0) for split in SPLITS]
        places = np.searchsorted(starts, numbers, side="right") - 1
        for label, task in self._labels.items():
            self._by_question(label, [np.flatnonzero((tasks == task) & (places == place)) for place in range(len(SPLITS))])
        for split, (sick, well) in self._normal.items():
            share = well / (sick + well)
            self.findings.add(
                "normal-share",
                "warning" if share >= _WARNING and sick + well >= _LEAST else "info",
                msg(
                    "{share:.1%} of the {total} rows that say so show nothing abnormal: a model that always says so reaches this.",
                    share=share,
                    total=sick + well,
                ),
                split=split,
            )
        return {} if self._normal else {"normal-share": msg("No row says whether it is normal.")}

    def _by_question(self, label: str, parts: list[NDArray[np.intp]]) -> None:
        questions, answers, numbers = as_numpy(self._questions), as_numpy(self._answers), as_numpy(self._numbers)
        train = parts[0]
        if not len(train):
            return
        values, firsts, counts = np.unique(answers[train], return_index=True, return_counts=True)
        majority = int(np.argmax(counts))
        words = str(self.context.rows.raw(int(numbers[train[firsts[majority]]])).get("target", "")).strip()
        share = float(counts[majority]) / len(train)
        closed = label.startswith("closed") or label.endswith("closed")  # counted split by split: see ClosedAnswers
        if len(values) <= _FEW_ANSWERS and len(train) >= _LEAST and not closed:
            self.findings.add(
                "class-balance",
                "warning" if share >= _WARNING else "info",
                msg(
                    "{label}: {classes} different answers; the commonest, {answer!r}, is that of {share:.1%} of the {total} rows, "
                    "the rarest that of {rarest}.",
                    label=label,
                    classes=len(values),
                    answer=words,
                    share=share,
                    total=len(train),
                    rarest=int(counts.min()),
                ),
                split="train",
            )
        known, best = best_answers(questions[train], answers[train])
        for split, part in list(zip(SPLITS, parts, strict=True))[1:]:
            if not len(part):
                continue
            place = np.minimum(np.searchsorted(known, questions[part]), len(known) - 1)
            seen = known[place] == questions[part]
            guess = np.where(seen, best[place], values[majority])
            right = float((guess == answers[part]).mean())
            self.findings.add(
                "question-only",
                "warning" if right >= _WARNING and len(part) >= _LEAST else "info",
                msg(
                    "{label}, {total} rows: the commonest training answer is right for {majority:.1%}, the commonest training "
                    "answer to the same question for {right:.1%}; {seen:.1%} of the questions stand in train.",
                    label=label,
                    total=len(part),
                    majority=float((answers[part] == values[majority]).mean()),
                    right=right,
                    seen=float(seen.mean()),
                ),
                msg("A model must do better than this before it can be said to look at the picture."),
                split=split,
            )


def best_answers(questions: _Keys, answers: _Keys) -> tuple[_Keys, _Keys]:
    """The commonest answer to each question; of equally common ones the one with the lowest key.

    Returns:
        (Q,) the different questions, ascending, and (Q,) their answers.
    """
    order = np.lexsort((answers, questions))
    asked, said = questions[order], answers[order]
    starts = np.flatnonzero(np.concatenate(([True], (asked[1:] != asked[:-1]) | (said[1:] != said[:-1]))))
    counts = np.diff(np.append(starts, len(asked)))
    # By question, the commonest first.
    ranked = np.lexsort((said[starts], -counts, asked[starts]))
    known, firsts = np.unique(asked[starts][ranked], return_index=True)
    return known, said[starts][ranked][firsts]
