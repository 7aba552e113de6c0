"""Opponents that no table of scores exposes, each beside a sound model that must not be accused."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from medtune.evaluation.habits import habits_of, only_form_changed
from medtune.types import Generation, ImageRef, Message, Prediction, Sample

Answer = Callable[[Sample], str]

QUESTIONS = ("Is the heart enlarged?", "Is there an effusion?", "Is the trachea shifted?", "Is there a fracture?")
REPORT = "The cardiac silhouette is enlarged. There is a {side} pleural effusion of {size} mm. No pneumothorax is seen."
CHINESE = "心影增大，{side}侧胸腔积液，深约 {size} 毫米，未见气胸，肺纹理清晰，膈面光整。"


def sample(number: int, question: str, target: str, *, task: str = "closed-vqa", picture: bool = True) -> Sample:
    image = ImageRef(path=f"{number}.png", sha256=f"{number:064d}", width=8, height=8)
    asked = Message(role="user", content=f"<image>{question}" if picture else question)
    return Sample(
        id=f"s{number}",
        task=task,
        images=(image,) if picture else (),
        messages=(asked, Message(role="assistant", content=target)),
        target=target,
        group=f"g{number}",
        source="toy",
    )


def yes_no(count: int = 40) -> list[Sample]:
    """Each question of ten pictures, half with yes."""
    return [sample(number, QUESTIONS[number % 4], "yes" if number // 4 % 2 else "no") for number in range(count)]


def reports(template: str = REPORT, count: int = 30) -> list[Sample]:
    sides = ("左", "右") if template is CHINESE else ("left", "right")
    return [
        sample(number, "Describe the picture.", template.format(side=sides[number % 2], size=number + 3), task="report")
        for number in range(count)
    ]


def answered(samples: Iterable[Sample], answer: Answer) -> dict[str, Prediction]:
    return {
        one.id: Prediction(
            sample_id=one.id, generation=Generation(id=one.id, text=answer(one), finish_reason="stop"), answer=None, image_sha256=()
        )
        for one in samples
    }


def said(samples: list[Sample], answer: Answer) -> list[str]:
    return [text.render("en") for text in habits_of("tuned", answered(samples, answer), samples)]


def is_right_in_eight_of_ten(one: Sample) -> str:
    wrong = random.Random(one.id).random() < 0.2
    return {"yes": "no", "no": "yes"}[one.target] if wrong else one.target


def changed_in_one_letter(one: Sample) -> str:
    place = random.Random(one.id).randrange(len(one.target))
    return one.target[:place] + "x" + one.target[place + 1 :]


def test_a_sound_model_has_no_habit() -> None:
    assert said(yes_no(), is_right_in_eight_of_ten) == []
    assert said(reports(), lambda one: f"Enlarged heart, effusion {one.id}.") == []


def test_the_usual_answer_to_each_question_is_no_look_at_the_picture() -> None:
    """Yes to two questions and no to the other two: no answer is given always, and half of them are right."""
    [told] = said(yes_no(), lambda one: "Yes." if one.messages[0].content.endswith(("enlarged?", "shifted?")) else "No.")
    assert told.startswith("4 questions were each asked of several pictures, 40 times in all")
    assert "40 times the tuned model gives the answer that it mostly gives to that question" in told


def test_the_same_of_questions_in_free_words() -> None:
    asked = [
        sample(number, f"Which organ is shown in plane {number % 4}?", ("liver", "kidney", "spleen")[number % 3], task="open-vqa")
        for number in range(40)
    ]
    [told] = said(asked, lambda one: "It is plane " + one.messages[0].content[-2])
    assert "40 times the tuned model gives the answer" in told
    assert said(asked, lambda one: one.target) == []


def test_questions_that_have_one_right_answer_accuse_nobody() -> None:
    asked = [sample(number, QUESTIONS[number % 4], "yes" if number % 4 < 2 else "no") for number in range(40)]
    assert said(asked, lambda one: one.target) == []


@pytest.mark.parametrize("count", [12, 80])
def test_always_yes_is_said_of_twelve_questions_too(count: int) -> None:
    samples = yes_no(count)
    yes = sum(one.target == "yes" for one in samples)
    [told] = said(samples, lambda _: "Yes, it is.")
    assert told.startswith(
        f"To {count} of {count} yes/no questions, the tuned model answers “yes”, which is right for {yes} of them"
    )


def test_rare_findings_do_not_make_a_model_a_nay_sayer() -> None:
    """Of twelve questions eleven have no as their answer: whoever says no twelve times may well look."""
    samples = [sample(number, QUESTIONS[0], "yes" if number == 0 else "no") for number in range(12)]
    assert said(samples, lambda _: "No.") == []


@pytest.mark.parametrize("template", [REPORT, CHINESE], ids=["English", "Chinese"])
def test_references_copied_with_one_letter_changed(template: str) -> None:
    samples = reports(template)
    [told] = said(samples, changed_in_one_letter)
    assert told.startswith("30 of 30 longer answers of the tuned model repeat their reference to the letter or nearly so.")
    assert said(samples, lambda one: one.target.replace("seen", "visible").replace("膈面光整", "膈面轮廓清楚")) == []


def test_one_normal_report_for_many_patients_is_no_copy() -> None:
    """Departments write one and the same sentence for normal pictures; a model that has learnt it has copied nothing."""
    samples = [sample(number, "Describe the picture.", REPORT, task="report") for number in range(30)]
    assert said(samples, lambda one: one.target) == []


def form(before: Answer, after: Answer, samples: list[Sample]) -> str | None:
    text = only_form_changed("base", "tuned", answered(samples, before), answered(samples, after), samples)
    return None if text is None else text.render("en")


def test_an_adapter_that_changes_the_form_alone() -> None:
    samples = yes_no()
    told = form(is_right_in_eight_of_ten, lambda one: f"**Answer:** {is_right_in_eight_of_ten(one).capitalize()}.", samples)
    assert told is not None
    assert told.startswith("In 40 of 40 answers the base model and the tuned model say the same; 40 of these differ in capitals")
    capitals = form(lambda one: one.target, lambda one: f"## {one.target.upper()} ##", reports())
    assert capitals is not None
    assert "30 of 30 answers" in capitals


def test_an_adapter_that_changes_the_content() -> None:
    assert form(is_right_in_eight_of_ten, lambda one: one.target.capitalize() + ".", yes_no()) is None
    assert form(lambda one: one.target, lambda one: one.target, yes_no()) is None, "the same texts are another sentence"
