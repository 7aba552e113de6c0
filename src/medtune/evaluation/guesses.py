"""Controls that need no model: what is scored by who never looks at the picture and never thinks.

``majority`` gives the most frequent training answer to questions of that kind. ``nearest`` gives the answer to the training
question that reads most alike, of the same picture where training has it: what a model would score that has learnt its training
rows by heart. A model that is no better than these has not been shown to have learnt more (Goyal et al. 2017, arXiv:1612.00837,
found the first to be strong in visual question answering; for text, Lewis, Stenetorp & Riedel 2021, arXiv:2008.02637, the second).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.metrics.words import words
from medtune.types import IMAGE_MARK, Sample

__all__ = ["KINDS", "GuessName", "guess", "question_words"]

GuessName = Literal["majority", "nearest"]

KINDS = ("question_type", "answer_type")
"""Metadata fields that tell kinds of questions apart within a task, the finest first."""


def guess(control: GuessName, samples: Sequence[Sample], trained: Iterable[Sample]) -> dict[str, str]:
    """Answers by sample id, in the order of ``samples``, with the same result whatever the order of ``trained``.

    Samples of a task that ``trained`` has no row of are absent: there is nothing to guess from.
    """
    learnt = _majorities(trained) if control == "majority" else _Rows.of(trained)
    found = {sample.id: learnt.answer(sample) for sample in samples}
    return {sample: answer for sample, answer in found.items() if answer is not None}


def question_words(sample: Sample) -> tuple[str, ...]:
    """The last question in small letters, word by word, a Chinese character being a word."""
    asked = [message.content for message in sample.prompt if message.role == "user"]
    return tuple(words(asked[-1].replace(IMAGE_MARK, " "))) if asked else ()


def _most_frequent(answers: Mapping[str, int]) -> str:
    """Equally frequent ones in the order of the alphabet, so that the order of the rows decides nothing."""
    return min(answers, key=lambda answer: (-answers[answer], answer))


# --------------------------------------------------------------------------------------------------------------- majority


@dataclass(frozen=True, slots=True)
class _Majorities:
    answers: Mapping[tuple[str, ...], str]

    def answer(self, sample: Sample) -> str | None:
        return next((self.answers[key] for key in _keys(sample) if key in self.answers), None)


def _keys(sample: Sample) -> list[tuple[str, ...]]:
    """What a sample's question may be counted under, the finest first."""
    kinds = [(sample.task, kind, str(sample.metadata[kind])) for kind in KINDS if sample.metadata.get(kind) is not None]
    return [*kinds, (sample.task,)]


def _majorities(trained: Iterable[Sample]) -> _Majorities:
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for sample in trained:
        for key in _keys(sample):
            counts.setdefault(key, Counter())[sample.target.strip()] += 1
    return _Majorities({key: _most_frequent(found) for key, found in counts.items()})


# ---------------------------------------------------------------------------------------------------------------- nearest


@dataclass(slots=True)
class _Rows:
    """Training questions, each once, with their answers.

    Attributes:
        answers: (task, question) -> answer -> how often.
        of_picture: (task, sha256 of the pictures) -> question -> answer -> how often.
        indices: Task -> its questions, ready to be searched; built when first needed.
    """

    answers: dict[tuple[str, tuple[str, ...]], Counter[str]] = field(default_factory=dict)
    of_picture: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], Counter[str]]] = field(default_factory=dict)
    indices: dict[str, _Index] = field(default_factory=dict)

    @classmethod
    def of(cls, trained: Iterable[Sample]) -> _Rows:
        rows = cls()
        for sample in trained:
            question, answer = question_words(sample), sample.target.strip()
            rows.answers.setdefault((sample.task, question), Counter())[answer] += 1
            if sample.images:
                pictures = tuple(image.sha256 for image in sample.images)
                rows.of_picture.setdefault((sample.task, pictures), {}).setdefault(question, Counter())[answer] += 1
        return rows

    def answer(self, sample: Sample) -> str | None:
        question = question_words(sample)
        same_picture = self.of_picture.get((sample.task, tuple(image.sha256 for image in sample.images)))
        if sample.images and same_picture:
            nearest = question if question in same_picture else _Index(sorted(same_picture)).nearest(question)
            return _most_frequent(same_picture[nearest])
        if (sample.task, question) in self.answers:
            return _most_frequent(self.answers[sample.task, question])
        if sample.task not in self.indices:
            questions = sorted(question for task, question in self.answers if task == sample.task)
            if not questions:
                return None
            self.indices[sample.task] = _Index(questions)
        return _most_frequent(self.answers[sample.task, self.indices[sample.task].nearest(question)])


class _Index:
    """Questions by their words; likeness is the cosine of tf-idf weights (Salton & Buckley 1988,
    doi:10.1016/0306-4573(88)90021-0)."""

    def __init__(self, questions: Sequence[tuple[str, ...]]) -> None:
        self.questions = questions
        entries: dict[str, tuple[list[int], list[int]]] = {}
        for number, question in enumerate(questions):
            for word, count in Counter(question).items():
                places, counts = entries.setdefault(word, ([], []))
                places.append(number)
                counts.append(count)
        self.entries: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        squares = np.zeros(len(questions))
        for word, (places, counts) in entries.items():
            weights = np.array(counts, dtype=np.float64) * np.log(1 + len(questions) / len(places))
            self.entries[word] = np.array(places), weights
            squares[self.entries[word][0]] += weights**2
        self.lengths = np.sqrt(np.maximum(squares, 1e-12))

    def nearest(self, question: tuple[str, ...]) -> tuple[str, ...]:
        """The question that reads most alike; the first in the order of the alphabet where several do, or none does."""
        likeness = np.zeros(len(self.questions))
        for word, count in Counter(question).items():
            if word in self.entries:
                places, weights = self.entries[word]
                likeness[places] += count * np.log(1 + len(self.questions) / len(places)) * weights
        # Rounded, so that the last digit does not decide between questions that are equally near.
        return self.questions[int(np.argmax(np.round(likeness / self.lengths, 9)))]
