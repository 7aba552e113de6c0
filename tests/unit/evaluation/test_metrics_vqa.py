"""Closed and open questions: the traps of published scorers, one test each."""

from __future__ import annotations

import numpy as np
import pytest

from medtune.evaluation.metrics.vqa import ChoiceLetter, ClosedAccuracy, OpenAnswer
from medtune.types import Generation, Message, Prediction, Sample, Score

CLOSED = ClosedAccuracy()


def sample(target: str) -> Sample:
    turns = (Message(role="user", content="Is it?"), Message(role="assistant", content=target))
    return Sample(id="s", task="closed-vqa", messages=turns, target=target, group="g", source="t")


def said(text: str, *, read: object = None) -> Prediction:
    generation = Generation(id="s", text=text, finish_reason="stop")
    return Prediction(sample_id="s", generation=generation, answer=read)  # type: ignore[arg-type]


def accuracy(text: str, target: str) -> float | None:
    return {score.metric: score.value for score in CLOSED.score(said(text), sample(target))}["closed/accuracy"]


def aggregated(scores: list[Score], name: str) -> float:
    return float(CLOSED.aggregate(name, np.sum([score.statistics for score in scores if score.metric == name], axis=0)))


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [
        ("Yes.", "yes", 1),
        ("yes, abnormal", "no", 0),  # a substring test finds "no" in "abnormal"
        ("the heart is normal", "no", 0),
        ("Yes, the lung is abnormal", "yes", 1),
        ("是的", "yes", 1),
        ("未见", "no", 1),
        ("no", "否", 1),
        ("", "yes", 0),
        ("It is a CT.", "CT", 1),
        ("CT or MRI", "CT", 0),
        ("CT or MRI", "CT or MRI", 1),
        ("direct", "ct", 0),
        ("the left lung", "Left lung", 1),
        ("two", "2", 1),
        ("no midline shift", "no midline shift", 1),
        ("no", "no midline shift", 0),
    ],
)
def test_closed_accuracy(text: str, target: str, right: int) -> None:
    assert accuracy(text, target) == right


def test_a_wrong_answer_stays_in_the_denominator() -> None:
    """A model that always says yes scores 0.5 on a balanced set, not 1."""
    scores = [score for target in ("yes", "no") * 5 for score in CLOSED.score(said("yes"), sample(target))]
    assert aggregated(scores, "closed/accuracy") == 0.5
    assert aggregated(scores, "closed/sensitivity") == 1
    assert aggregated(scores, "closed/specificity") == 0
    assert aggregated(scores, "closed/mcc") == 0
    assert aggregated(scores, "closed/yes-bias") == 0.5


def test_matthews_by_hand() -> None:
    # 6 true yes, 1 false yes, 2 true no, 3 false no: (12 - 3) / sqrt(7 * 9 * 3 * 5).
    cells = [("yes", "yes")] * 6 + [("yes", "no")] + [("no", "no")] * 2 + [("no", "yes")] * 3
    scores = [score for text, target in cells for score in CLOSED.score(said(text), sample(target))]
    assert aggregated(scores, "closed/mcc") == pytest.approx(9 / np.sqrt(7 * 9 * 3 * 5))
    assert aggregated(scores, "closed/sensitivity") == pytest.approx(6 / 9)
    assert aggregated(scores, "closed/specificity") == pytest.approx(2 / 3)
    assert aggregated(scores, "closed/yes-bias") == pytest.approx(abs(7 - 9) / 12)


def test_matthews_needs_both_answers_in_the_references() -> None:
    scores = [score for _ in range(3) for score in CLOSED.score(said("yes"), sample("yes"))]
    assert np.isnan(aggregated(scores, "closed/mcc"))


def test_an_answer_that_is_neither_counts_as_wrong() -> None:
    numbers = {score.metric: score for score in CLOSED.score(said("perhaps"), sample("no"))}
    assert numbers["closed/accuracy"].value == 0
    assert numbers["closed/specificity"].value == 0
    assert numbers["closed/mcc"].statistics == (0, 1, 0, 0)
    assert "closed/sensitivity" not in numbers
    assert "perhaps" in numbers["closed/accuracy"].explanation


def test_a_choice_has_no_sensitivity() -> None:
    assert [score.metric for score in CLOSED.score(said("CT"), sample("CT"))] == ["closed/accuracy"]


def test_no_reference_is_unscored() -> None:
    assert [score.value for score in CLOSED.score(said("yes"), sample(" "))] == [None]
    assert {score.value for score in OpenAnswer().score(said("yes"), sample(" "))} == {None}


@pytest.mark.parametrize(
    ("text", "target", "exact", "f1", "recall"),
    [
        ("The right lung.", "right lung", 1, 1, 1),
        ("right right right", "right lung", 0, 2 / 5, 1 / 2),  # not 3/4: a word counts on both sides
        ("in the right lung base", "right lung", 0, 2 * 2 / 6, 1),
        ("", "right lung", 0, 0, 0),
        ("two", "2", 1, 1, 1),
        ("右肺", "右肺上叶", 0, 2 * 2 / 6, 1 / 2),
    ],
)
def test_open_answers(text: str, target: str, exact: float, f1: float, recall: float) -> None:
    numbers = {score.metric: score.value for score in OpenAnswer().score(said(text), sample(target))}
    assert numbers == pytest.approx({"open/exact": exact, "open/f1": f1, "open/recall": recall})


def test_the_share_of_yes_and_of_unreadable_answers() -> None:
    answers = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("I cannot tell", "no")]
    scores = [score for text, target in answers for score in CLOSED.score(said(text), sample(target))]
    assert aggregated(scores, "closed/yes-rate") == 2 / 4
    assert aggregated(scores, "closed/parse-failure") == 1 / 4
    assert aggregated(scores, "closed/specificity") == 1 / 3, "an answer that cannot be read is wrong, not left out"


QUESTION = "Which modality is this? A. CT B. MRI C. X-ray (plain film) D. Ultrasound"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. MRI", "B"),
        ("**B**", "B"),
        ("The answer is B.", "B"),
        ("It is an MRI of the head", "B"),
        ("A CT of the chest", "A"),  # the article is no letter
        ("<think>A or B?</think>B", "B"),
        ("A or B", None),
        ("CT or MRI", None),
        ("The answer is A. No: the answer is B.", None),
        ("E", None),  # there is no such option
        ("", None),
    ],
)
def test_multiple_choice(text: str, letter: str | None) -> None:
    turns = (Message(role="user", content=QUESTION), Message(role="assistant", content="B"))
    of = Sample(id="s", task="closed-vqa", messages=turns, target="B", group="g", source="t")
    numbers = {score.metric: score.value for score in ChoiceLetter().score(said(text), of)}
    assert numbers == {"choice/accuracy": float(letter == "B"), "choice/parse-failure": float(letter is None)}


def test_only_letters_are_multiple_choice() -> None:
    assert ChoiceLetter().score(said("yes"), sample("yes")) == ()
    assert ChoiceLetter().score(said("A"), sample("A. fumigatus")) == ()
