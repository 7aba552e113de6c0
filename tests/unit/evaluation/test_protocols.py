"""Published scorers: each defect that is kept, beside the strict one."""

from __future__ import annotations

import numpy as np
import pytest

from medtune.evaluation.metrics.protocols import LlavaMedV1, MedEvalKitNoJudge, Strict
from medtune.types import Generation, Message, Metric, Prediction, Sample

STRICT, LLAVA, KIT = Strict(), LlavaMedV1(), MedEvalKitNoJudge()


def numbers(metric: Metric, answers: list[tuple[str, str]], **metadata: str) -> dict[str, float]:
    """The run's numbers over (answer, reference), without the protocol's name."""
    totals: dict[str, np.ndarray] = {}
    for text, target in answers:
        turns = (Message(role="user", content="?"), Message(role="assistant", content=target))
        sample = Sample(id="s", task="open-vqa", messages=turns, target=target, group="g", source="t", metadata=dict(metadata))
        prediction = Prediction(sample_id="s", generation=Generation(id="s", text=text, finish_reason="stop"))
        for score in metric.score(prediction, sample):
            if score.value is not None:
                totals[score.metric] = totals.get(score.metric, 0) + np.array(score.statistics)
    return {name.partition("/")[2]: float(metric.aggregate(name, total)) for name, total in totals.items()}


def test_llava_med_leaves_wrong_closed_answers_out() -> None:
    """A model that always says yes, on a balanced set."""
    answers = [("yes", "yes"), ("yes", "no")] * 4
    assert numbers(STRICT, answers)["closed-accuracy"] == 0.5
    assert numbers(LLAVA, answers)["closed-accuracy"] == 1.0


def test_llava_med_finds_no_in_abnormal() -> None:
    answers = [("Yes, abnormal", "no")]
    assert numbers(STRICT, answers)["closed-accuracy"] == 0.0
    assert numbers(LLAVA, answers)["closed-accuracy"] == 1.0


def test_llava_med_needs_yes_or_no_in_every_closed_answer() -> None:
    answers = [("axial", "axial")]
    assert numbers(STRICT, answers, answer_type="CLOSED")["closed-accuracy"] == 1.0
    assert numbers(LLAVA, answers, answer_type="CLOSED")["closed-accuracy"] == 0.0
    assert numbers(LLAVA, [("not axial, no", "axial")], answer_type="CLOSED")["closed-accuracy"] == 1.0


def test_llava_med_counts_a_repeated_word_each_time() -> None:
    answers = [("right right right", "right lung")]
    assert numbers(STRICT, answers)["open-recall"] == 1 / 2
    assert numbers(STRICT, answers)["open-precision"] == 1 / 3
    assert numbers(LLAVA, answers)["open-recall"] == 3 / 4
    assert numbers(LLAVA, answers)["open-precision"] == 1.0


def test_llava_med_calls_an_overlap_exact_match() -> None:
    answers = [("the right lung and heart", "right lung")]
    assert numbers(STRICT, answers)["open-exact"] == 0.0
    assert numbers(LLAVA, answers)["open-exact"] == 2 / 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the two lungs.", "two lungs"),  # articles and full stops go on both sides
        ("left-sided", "left sided"),
        ("left -sided", "left sided"),  # a mark beside a blank leaves none
        ("none", "0"),
    ],
)
def test_llava_meds_normalisation(text: str, words: str) -> None:
    assert numbers(LLAVA, [(text, words)])["open-f1"] == 1.0


def test_medevalkit_wants_exactly_one_of_two_substrings() -> None:
    assert numbers(KIT, [("Yes, the lung is abnormal", "yes")])["closed-accuracy"] == 0.0
    assert numbers(STRICT, [("Yes, the lung is abnormal", "yes")])["closed-accuracy"] == 1.0
    assert numbers(KIT, [("the heart is normal", "no")])["closed-accuracy"] == 1.0
    assert numbers(STRICT, [("the heart is normal", "no")])["closed-accuracy"] == 0.0


def test_medevalkit_mixes_up_precision_recall_and_f1() -> None:
    # One of three words of the answer is in the reference, and it is all of the reference.
    answers = [("in the lung", "lung")]
    right = numbers(STRICT, [("seen in lung", "lung")])
    assert (right["open-precision"], right["open-recall"], right["open-f1"]) == pytest.approx((1 / 3, 1.0, 1 / 2))
    printed = numbers(KIT, answers)
    assert (printed["open-precision"], printed["open-recall"], printed["open-f1"]) == pytest.approx((1 / 2, 1 / 3, 1.0))


def test_medevalkits_exact_match_stumbles_over_a_full_stop() -> None:
    assert numbers(STRICT, [("Right lung.", "right lung")])["open-exact"] == 1.0
    assert numbers(KIT, [("Right lung.", "right lung")])["open-exact"] == 0.0
    assert numbers(KIT, [("Right lung", "right lung")])["open-exact"] == 1.0


def test_medevalkit_gives_nothing_for_an_empty_answer() -> None:
    """That code ends with a TypeError there, and all numbers of the run are lost; here the sample counts 0, as in strict."""
    for metric in (KIT, STRICT):
        assert set(numbers(metric, [("", "right lung")]).values()) == {0.0}


def test_medevalkit_takes_closed_questions_without_yes_or_no_for_open_ones() -> None:
    answers = [("Axial.", "axial")]
    assert numbers(STRICT, answers, answer_type="CLOSED") == {"accuracy": 1.0, "closed-accuracy": 1.0}
    printed = numbers(KIT, answers, answer_type="CLOSED")
    assert "closed-accuracy" not in printed
    assert printed["open-exact"] == 0.0


@pytest.mark.parametrize(
    "text", ["the final answer is right lung", "so \\boxed{right lung}.", "<think>left</think><answer>Right lung</answer>"]
)
def test_medevalkit_takes_the_answer_out_of_its_wrapping(text: str) -> None:
    assert numbers(KIT, [(text, "right lung")])["accuracy"] in (0.0, 1.0)
    assert numbers(KIT, [(text, "right lung")])["open-f1"] == 1.0


def test_all_questions_together_in_strict() -> None:
    answers = [("yes", "yes"), ("no", "yes"), ("Right lung.", "right lung"), ("left", "right lung")]
    assert numbers(STRICT, answers)["accuracy"] == 1 / 2
    assert numbers(STRICT, answers)["closed-accuracy"] == 1 / 2
    assert numbers(STRICT, answers)["open-exact"] == 1 / 2
