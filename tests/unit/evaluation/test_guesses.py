"""Controls that need no model, what a score owes to the picture, and subgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate, rescore
from medtune.evaluation.guesses import GuessName, guess
from medtune.evaluation.subgroups import subgroup_labels
from medtune.types import ImageRef, Message, Sample
from toy_evaluation import Guessing, Looking, make_dataset


def sample(name: str, question: str, target: str, *, picture: str = "", task: str = "open-vqa", **metadata: str | int) -> Sample:
    images = (ImageRef(path=f"{picture}.png", sha256=picture, width=4, height=4),) if picture else ()
    return Sample(
        id=name,
        task=task,
        images=images,
        messages=(Message(role="user", content="<image>" * len(images) + question), Message(role="assistant", content=target)),
        target=target,
        group=name,
        source="s",
        metadata=dict(metadata),
    )


TRAINED = [
    sample("t1", "What organ is shown?", "the liver", picture="p1", question_type="organ"),
    sample("t2", "What organ is shown?", "the lung", picture="p2", question_type="organ"),
    sample("t3", "What organ can be seen here?", "the lung", picture="p3", question_type="organ"),
    sample("t4", "Which side is the lesion on?", "left", picture="p1", question_type="side"),
    sample("t5", "病变在哪一侧？", "右侧", picture="p4", question_type="side"),
    sample("t6", "病变在哪一侧？", "右侧", picture="p5", question_type="side"),
]


def test_the_most_frequent_answer_to_questions_of_that_kind() -> None:
    asked = [
        sample("a", "Where?", "?", question_type="organ"),
        sample("b", "Where?", "?", question_type="unheard of"),
        sample("c", "Where?", "?"),
        sample("d", "Where?", "?", task="caption"),
    ]
    # Of all open questions "the lung" and "右侧" are equally frequent: the alphabet decides, not the order of the rows.
    expected = {"a": "the lung", "b": "the lung", "c": "the lung"}
    assert guess("majority", asked, TRAINED) == expected
    assert guess("majority", asked, reversed(TRAINED)) == expected


@pytest.mark.parametrize(
    ("question", "picture", "answer"),
    [
        ("On which side does the lesion lie?", "", "left"),
        ("what ORGAN is shown", "", "the liver"),  # asked twice, answered differently: the alphabet
        ("Which organ can one see here?", "", "the lung"),
        ("病变位于哪一侧？", "", "右侧"),
        ("Is it on the left side?", "p1", "left"),  # the nearest of the same picture
        ("What organ?", "p1", "the liver"),
        ("What organ is shown?", "p3", "the lung"),
    ],
)
def test_the_answer_to_the_nearest_training_question(question: str, picture: str, answer: str) -> None:
    asked = [sample("a", question, "?", picture=picture)]
    assert guess("nearest", asked, TRAINED) == {"a": answer}
    assert guess("nearest", asked, reversed(TRAINED)) == {"a": answer}


def test_nothing_to_guess_from() -> None:
    asked = [sample("a", "Where?", "?"), sample("b", "", "?")]
    controls: tuple[GuessName, ...] = ("majority", "nearest")
    for control in controls:
        assert guess(control, asked, []) == {}
        assert set(guess(control, asked, TRAINED)) == {"a", "b"}


@pytest.mark.usefixtures("toys")
def test_guesses_stand_in_the_report_beside_the_models(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=40, train=3)
    settings = EvaluationSettings(num_resamples=200, controls=("majority", "nearest"), subgroups=())
    generators = {"base": ("base", Guessing()), "tuned": ("tuned", Looking())}
    report = evaluate(dataset, generators=generators, settings=settings, folder=tmp_path / "run")  # type: ignore[arg-type]
    assert [(entry.label, entry.model, entry.control) for entry in report.conditions] == [
        ("base", "base", "none"),
        ("tuned", "tuned", "none"),
        ("majority", "none", "majority"),
        ("nearest", "none", "nearest"),
    ]
    assert [pair[:2] for pair in report.differences] == [
        ("base", "tuned"),
        ("base", "majority"),
        ("base", "nearest"),
        ("tuned", "majority"),
        ("tuned", "nearest"),
    ]
    shares = {(entry.label, entry.control): entry for entry in report.picture_share}
    # Training has four dark pictures and two bright ones: always "dark" is right on half of the 80.
    majority = shares["tuned", "majority"]
    assert (majority.real, majority.without, majority.gain, majority.share) == (1.0, 0.5, 0.5, 0.5)
    assert majority.low is not None
    assert majority.low > 0.2
    assert majority.share_low is not None
    assert majority.share_high is not None
    assert majority.share_low < 0.5 < majority.share_high
    assert shares["base", "majority"].gain == 0.0
    said = [text.render("en") for text in report.warnings]
    assert not any("than the most frequent training answer" in text for text in said)
    assert rescore(tmp_path / "run", dataset) == report
    alone = evaluate(dataset, generators={"tuned": ("tuned", Guessing())}, settings=settings, folder=tmp_path / "other")
    said = [text.render("en") for text in alone.warnings]
    assert "On Accuracy, the tuned model is not measurably better than the most frequent training answer." in said


def test_ages_are_binned_and_tasks_are_subgroups() -> None:
    ages: list[str | int] = [17, "018Y", 39, "40", 64, "065Y", "011M", "old", 200]
    samples = [sample(f"s{number}", "?", "x", age=age) for number, age in enumerate(ages)]
    assert subgroup_labels(samples, "age") == {
        "s6": "0 – 17",
        "s0": "0 – 17",
        "s1": "18 – 39",
        "s2": "18 – 39",
        "s3": "40 – 64",
        "s4": "40 – 64",
        "s5": "≥ 65",
    }
    assert set(subgroup_labels(samples, "task").values()) == {"open-vqa"}
