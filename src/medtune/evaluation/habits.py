"""What answers give away that no table of scores does: always the same, of the question alone, copied, or changed in form only.

Each is a sentence of the report, worded as what was counted. A sound model may have such a habit for a sound reason, which is why
they are cautions; what they have in common is that a good score beside them does not mean what it seems to.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from medtune.evaluation.metrics.words import answer_words
from medtune.evaluation.predictions import MAX_CHARACTERS
from medtune.evaluation.wording import model_name, task_title, value_title
from medtune.language import Text, msg
from medtune.tasks.asking import question_of
from medtune.tasks.reading.yes_no import read_yes_no
from medtune.types import Prediction, Sample

__all__ = ["habits_of", "only_form_changed"]

ONE_ANSWER = 0.95
"""Share of one and the same answer from which on it is said, if the references are not as uniform (:data:`UNIFORM`)."""
UNIFORM = 0.9
FEW_ANSWERS = 10
"""Fewer answers than this tell nothing of a habit."""
CONTRARY = 5
"""So many references at least must be other ones: by chance alone a model that is right 7 times in 10 gives the same answer to five
that should be others once in 400 times."""
LONG = 60
"""Bytes of a free text that nobody repeats by accident: some ten English words, twenty Chinese characters."""
COPIED = 0.5
"""Share of long texts that repeat their references from which on it is said."""
LETTERS = 2
"""Letters by which a copy may differ, in one place."""


def habits_of(label: str, predictions: Mapping[str, Prediction], samples: Iterable[Sample]) -> list[Text]:
    """What the answers of one model have in common, from one pass over texts that may stand in files.

    Args:
        label: Of the condition with the right pictures.
        predictions: By sample id.
    """
    said, true = Counter[str | None](), Counter[str]()
    # By their hashes: 8 bytes a text.
    open_ones: dict[str, tuple[array[int], array[int]]] = {}
    asked: tuple[array[int], array[int], array[int]] = (array("q"), array("q"), array("q"))
    num_long = num_copied = 0
    copied: set[int] = set()
    for sample in samples:
        if (prediction := predictions.get(sample.id)) is None or prediction.generation.finish_reason == "error":
            continue
        text, target = prediction.generation.text[:MAX_CHARACTERS].strip(), sample.target.strip()
        truth = _yes_no(target)
        if truth is not None:
            said[read_yes_no(text, question_of(sample))] += 1
            true[truth] += 1
        else:
            answers, references = open_ones.setdefault(sample.task, (array("q"), array("q")))
            answers.append(hash(text))
            references.append(hash(target))
        if sample.images and (question := question_of(sample)):
            for column, value in zip(asked, (question.strip(), _told(text, truth, question), truth or target), strict=True):
                column.append(hash(value))
        if len(target.encode()) >= LONG:
            num_long += 1
            if _repeats(text, target):
                num_copied += 1
                copied.add(hash(target))
    found = [
        _always(label, answer, said[answer], said.total(), true[answer])
        for answer in ("yes", "no")
        if _is_habit(said.total(), said[answer], true[answer])
    ]
    for task, (answers, references) in open_ones.items():
        if _is_habit(len(answers), _most(answers), _most(references)):
            found.append(_one_answer(label, task, _most(answers), len(answers)))
    if not found and (counts := _by_question(*asked)) is not None:
        found.append(_same_to_question(label, *counts))
    if len(copied) >= FEW_ANSWERS and num_copied >= COPIED * num_long:
        found.append(_copies(label, num_copied, num_long))
    return found


def only_form_changed(
    first: str,
    second: str,
    before: Mapping[str, Prediction],
    after: Mapping[str, Prediction],
    samples: Iterable[Sample],
) -> Text | None:
    """The sentence that two models say the same in other letters: the same words, or the same yes or no where that is asked."""
    total = same = differ = 0
    for sample in samples:
        one, other = before.get(sample.id), after.get(sample.id)
        if one is None or other is None:
            continue
        total += 1
        left, right = (entry.generation.text[:MAX_CHARACTERS].strip() for entry in (one, other))
        if left == right:
            same += 1
            continue
        truth = _yes_no(sample.target.strip())
        question = question_of(sample)
        alike = (
            _told(left, truth, question) == _told(right, truth, question)
            if truth is not None
            else answer_words(left) == answer_words(right)
        )
        same += alike
        differ += alike
    if total < FEW_ANSWERS or not differ or same < ONE_ANSWER * total:
        return None
    return msg(
        "In {same} of {count} answers {first} and {second} say the same; {differ} of these differ in capitals, punctuation or"
        " phrasing alone: what tuning changed is the form.",
        first=model_name(first),
        second=model_name(second),
        same=same,
        count=total,
        differ=differ,
    )


def _yes_no(target: str) -> str | None:
    """yes or no where the reference is nothing else."""
    return read_yes_no(target) if len(target.split()) == 1 else None


def _told(text: str, truth: str | None, question: str) -> str:
    """What an answer says, in as few letters as it can be said."""
    return (read_yes_no(text, question) or text) if truth is not None else text.rstrip(".。 ").lower()


def _repeats(text: str, target: str) -> bool:
    """Whether two texts differ in at most :data:`LETTERS` letters, all in one place."""
    if abs(len(text) - len(target)) > LETTERS:
        return False
    start = _same_letters(text, target)
    end = _same_letters(text[start:][::-1], target[start:][::-1])
    return max(len(text), len(target)) - start - end <= LETTERS


def _same_letters(one: str, other: str) -> int:
    """How many letters two texts have in common from their beginning."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def _is_habit(total: int, same: int, references: int) -> bool:
    """Whether ``same`` of ``total`` answers are one, while no more than ``references`` references are."""
    varied = references <= UNIFORM * total and total - references >= CONTRARY
    return total >= FEW_ANSWERS and same >= ONE_ANSWER * total and varied


def _most(hashes: array[int]) -> int:
    """How often the most frequent one stands there."""
    return int(np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)[1].max())


def _by_question(questions: array[int], answers: array[int], references: array[int]) -> tuple[int, int, int] | None:
    """(questions, their answers, those that are the question's usual one) of the questions that are asked of several pictures and
    have several references; None where the answers are no habit of the question."""
    if not len(questions):
        return None
    asked, place = np.unique(np.frombuffer(questions, dtype=np.int64), return_inverse=True)
    times = np.bincount(place, minlength=len(asked))
    usual, expected = (_usual(place, np.frombuffer(column, dtype=np.int64), len(asked)) for column in (answers, references))
    told = expected < times
    counts = int(times[told].sum()), int(usual[told].sum()), int(expected[told].sum())
    return (int(told.sum()), counts[0], counts[1]) if _is_habit(*counts) else None


def _usual(place: np.ndarray, values: np.ndarray, num: int) -> np.ndarray:
    """(num,) how often the most frequent of ``values`` stands at each place."""
    pairs, counts = np.unique(np.stack([place, values], axis=1), axis=0, return_counts=True)
    most = np.zeros(num, dtype=np.int64)
    np.maximum.at(most, pairs[:, 0], counts)
    return most


def _always(label: str, answer: str, count: int, total: int, true_count: int) -> Text:
    return msg(
        "To {count} of {total} yes/no questions, {label} answers “{answer}”, which is right for {true} of them: it may answer so"
        " whatever it is asked or shown.",
        label=model_name(label),
        answer=value_title(answer),
        count=count,
        total=total,
        true=true_count,
    )


def _one_answer(label: str, task: str, count: int, total: int) -> Text:
    return msg(
        "To {count} of {total} questions of the task “{task}”, which have different references, {label} gives one and the same"
        " answer: it may answer so whatever it is asked or shown.",
        label=model_name(label),
        task=task_title(task),
        count=count,
        total=total,
    )


def _same_to_question(label: str, num_questions: int, total: int, count: int) -> Text:
    return msg(
        "{questions} questions were each asked of several pictures, {total} times in all, with references that differ; {count}"
        " times {label} gives the answer that it mostly gives to that question: it may answer from the question and not look at the"
        " picture.",
        label=model_name(label),
        questions=num_questions,
        total=total,
        count=count,
    )


def _copies(label: str, count: int, total: int) -> Text:
    return msg(
        "{count} of {total} longer answers of {label} repeat their reference to the letter or nearly so. People write alike so"
        " seldom: the references may follow a template, or the model may have seen them.",
        label=model_name(label),
        count=count,
        total=total,
    )
