"""The same question asked again, and questions that have nothing to do with medicine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.consistency import agreement, diagnosis_of, mirrored_agreement, state_consistency
from medtune.evaluation.evaluate import evaluate, rescore
from medtune.evaluation.general import draw, general_samples, is_right, state_forgetting
from medtune.evaluation.paraphrases import paraphrase
from medtune.evaluation.score import load_task
from medtune.evaluation.variants import exchange_sides, has_side, variant_samples
from medtune.types import Generation, ImageRef, Message, Prediction, Request, Sample, Sampling
from toy_evaluation import Looking, make_dataset


def sample(question: str, target: str, *, name: str = "s", task: str = "open-vqa", picture: str = "p") -> Sample:
    return Sample(
        id=name,
        task=task,
        images=(ImageRef(path=f"{picture}.png", sha256=picture, width=4, height=4),),
        messages=(Message(role="user", content=f"<image>{question}"), Message(role="assistant", content=target)),
        target=target,
        group=name,
        source="s",
    )


def says(text: str, name: str = "s") -> Prediction:
    return Prediction(sample_id=name, generation=Generation(id=name, text=text, finish_reason="stop"))


# ------------------------------------------------------------------------------------------------------------ the words


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Is the left lung clear?", "Is the right lung clear?"),
        ("RIGHT side, Left-sided; upright, leftover", "LEFT side, Right-sided; upright, leftover"),
        ("左肺有右侧积液", "右肺有左侧积液"),
        ("大小左右，左旋", "大小左右，左旋"),
        ("no side", "no side"),
    ],
)
def test_sides_are_exchanged_as_words(text: str, other: str) -> None:
    assert exchange_sides(text) == other
    assert exchange_sides(other) == text
    assert has_side(text) == (text != other)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("task", ["caption", "caption-details", "report", "region-description", "closed-vqa"])
def test_a_tasks_own_instruction_is_put_in_other_words(task: str, language: str) -> None:
    own = load_task(task).instructions[language]  # type: ignore[attr-defined]
    question = "Is there air?" if language == "en" else "有气体吗？"
    asked = "<image><image>" + own.replace("{question}", question)
    other = paraphrase(asked, task)
    assert other != asked
    assert other.startswith("<image><image>")
    assert ("{question}" in own) == (question in other)
    assert "{question}" not in other
    assert not any(line and line in other for line in own.replace("{question}", "").split("\n"))


def test_other_questions_are_kept_word_by_word() -> None:
    assert paraphrase("<image>\nWhat is it?", "open-vqa").endswith("\nWhat is it?")
    assert paraphrase("这是什么？", "no such task").endswith("\n这是什么？")
    assert paraphrase("这是什么？", "open-vqa").startswith("请")


# --------------------------------------------------------------------------------------------------------- the agreement


@pytest.mark.parametrize(
    ("one", "other", "target", "task", "value"),
    [
        ("Yes.", "Yes, there is.", "yes", "closed-vqa", 1.0),
        ("Yes.", "No.", "yes", "closed-vqa", 0.0),
        ("Yes.", "I cannot tell.", "yes", "closed-vqa", None),
        ("CT", "ct.", "CT", "closed-vqa", 1.0),
        ("CT scan", "CT", "CT", "closed-vqa", 0.0),
        ("left lung nodule", "nodule of left lung", "x", "open-vqa", 6 / 7),
        ("left", "", "x", "open-vqa", None),
    ],
)
def test_agreement_by_hand(one: str, other: str, target: str, task: str, value: float | None) -> None:
    found = agreement(says(one), says(other), sample("?", target, task=task))
    assert found == (value if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("plain", "mirrored", "target", "value"),
    [
        ("On the left.", "On the right.", "left", 1.0),
        ("On the left.", "On the left.", "left", 0.0),
        ("Both left and right.", "Right and left.", "both", 1.0),
        ("In the middle.", "In the middle.", "left", None),
        ("左侧", "右侧", "左侧", 1.0),
        ("Yes", "Yes", "yes", 1.0),
        ("Yes", "No", "yes", 0.0),
    ],
)
def test_the_answer_to_a_mirrored_picture_is_the_mirrored_answer(
    plain: str, mirrored: str, target: str, value: float | None
) -> None:
    assert mirrored_agreement(says(plain), says(mirrored), sample("Where?", target)) == value


@pytest.mark.parametrize(
    ("question", "text", "diagnosis"),
    [
        ("Report.", "Hyperinflated. Final diagnosis: emphysema. Follow up.", "emphysema"),
        ("报告", "肺气肿。最终诊断为肺结核。", "肺结核"),
        ("What is the diagnosis?", "Tuberculosis. It is old.", "Tuberculosis"),
        ("What organ?", "The lung.", None),
    ],
)
def test_what_counts_as_a_final_diagnosis(question: str, text: str, diagnosis: str | None) -> None:
    assert diagnosis_of(says(text), sample(question, "x")) == diagnosis


def test_contradicting_diagnoses_of_one_picture_are_counted() -> None:
    """Emphysema in one conversation and tuberculosis in another, about the same picture."""
    asked = {
        "a": (sample("Report.", "x", name="a", picture="p1"), "Diagnosis: emphysema."),
        "b": (sample("What is the diagnosis?", "x", name="b", picture="p1"), "Tuberculosis"),
        "c": (sample("Report.", "x", name="c", picture="p2"), "Impression: subdural hematoma."),
        "d": (sample("What is the diagnosis?", "x", name="d", picture="p2"), "Intracranial hemorrhage"),
        "e": (sample("Report.", "x", name="e", picture="p3"), "Diagnosis: pneumonia of the left lower lobe"),
        "f": (sample("What is the diagnosis?", "x", name="f", picture="p3"), "Pneumonia"),
        "g": (sample("What is the diagnosis?", "x", name="g", picture="p4"), "Pneumonia"),
    }
    answers = {name: says(text, name) for name, (_, text) in asked.items()}
    samples = [entry for entry, _ in asked.values()]
    (found,) = state_consistency("tuned", answers, {}, samples, num_resamples=100, seed=0)
    assert (found.kind, found.num_questions, found.contradicting) == ("diagnoses", 3, ("a",))
    assert found.value == pytest.approx(2 / 3)


# ----------------------------------------------------------------------------------------------------------- end to end


def where(row: dict[str, object]) -> None:
    """A white mark on the left half of the picture, or on the right."""
    target = "left" if row["target"] == "bright" else "right"
    messages = (Message(role="user", content="<image>On which side is the mark?"), Message(role="assistant", content=target))
    row.update(task="open-vqa", target=target, messages=messages)


class Sides(Looking):
    """Says on which half of the picture it is brighter; with a temperature it wavers, and in a long question it loses itself."""

    def answer(self, request: Request) -> str:
        if "side" not in request.messages[-1].content:
            return "43" if request.messages[-1].content.startswith("What is 17") else "?"
        if request.sampling.temperature and request.sampling.seed % 2 and request.id.endswith("-1"):
            return "middle"
        if request.messages[-1].content.count("\n") and request.id.endswith("-0"):
            return "middle"
        picture = request.images[0]
        assert isinstance(picture, Path)
        with Image.open(picture) as image:
            grey = np.asarray(image.convert("L"), dtype=float)
        half = grey.shape[1] // 2
        return "left" if grey[:, :half].mean() > grey[:, half:].mean() else "right"


class OneSided(Sides):
    def answer(self, request: Request) -> str:
        return "left" if "side" in request.messages[-1].content else "43"


def test_variants_and_general_questions_are_asked_stored_and_scored_again(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=24, change=where)
    for row in dataset.rows("test"):
        path = tmp_path / "data" / row.images[0].path
        pixels = np.full((16, 24, 3), 30, dtype=np.uint8)
        pixels[4:12, slice(2, 8) if row.target == "left" else slice(16, 22)] = 250
        Image.fromarray(pixels).save(path)
    settings = EvaluationSettings(
        metrics=("open",),
        controls=(),
        num_resamples=200,
        consistency=("paraphrase", "mirrored", "repeated"),
        consistency_samples=30,
        general=True,
        subgroups=(),
    )
    generators = {"base": ("base", Sides()), "tuned": ("tuned", OneSided())}
    report = evaluate(dataset, generators=generators, settings=settings, folder=tmp_path / "run")  # type: ignore[arg-type]
    folders = {path.name for path in (tmp_path / "run" / "evaluations").iterdir() if path.is_dir()}
    again = {"paraphrase", "mirrored", "repeated-1", "repeated-2", "repeated-3", "general"}
    assert folders == {"base", "tuned", *(f"{label}-{name}" for label in ("base", "tuned") for name in again)}
    assert [entry.label for entry in report.conditions] == ["base", "tuned"], "asking again is no condition with scores"
    found = {(entry.label, entry.kind): entry for entry in report.consistency}
    assert {key: entry.num_questions for key, entry in found.items()} == dict.fromkeys(found, 30)
    assert len(found) == 6
    assert found["base", "mirrored"].value == 1.0
    assert found["tuned", "mirrored"].value == 0.0
    assert len(found["tuned", "mirrored"].contradicting) == 20
    odd = sum(row.id.endswith("-1") for row in variant_samples("paraphrase", list(dataset.rows("test")), settings))
    assert found["base", "paraphrase"].value == pytest.approx(odd / 30), "the others were lost in the longer question"
    # Seeds 1 and 3 waver and 2 does not: of three pairs one agrees.
    assert found["base", "repeated"].value == pytest.approx(1 - odd / 30 * 2 / 3)
    assert found["tuned", "repeated"].value == 1.0
    sizes = Counter(row.group for row in variant_samples("repeated-1", list(dataset.rows("test")), settings)).values()
    effective = sum(sizes) ** 2 / sum(size**2 for size in sizes)
    assert found["tuned", "repeated"].low == pytest.approx(0.025 ** (1 / effective))
    said = "\n".join(text.render("en") for text in report.warnings)
    assert "The side that the tuned model names does not turn with the picture in 30 of 30 mirrored pictures" in said
    assert "base names does not turn" not in said
    assert report.forgetting is not None
    assert report.forgetting.scores[0].num_questions == len(general_samples()) == 72
    assert rescore(tmp_path / "run", dataset) == report
    silent = Looking()
    evaluate(dataset, generators={"tuned": ("tuned", silent)}, settings=settings, folder=tmp_path / "run", overwrite=False)
    assert silent.asked == [], "what was asked is not asked again"


def test_only_laterality_is_mirrored_and_draws_are_limited() -> None:
    rows = [sample("Is the left lung clear?", "yes", name=f"a{number}") for number in range(9)]
    rows += [sample("What is it?", "CT", name="b"), sample("Boxes on the left", "[]", name="c", task="detection")]
    settings = EvaluationSettings(consistency_samples=5)
    drawn = variant_samples("mirrored", rows, settings)
    assert len(drawn) == 5
    assert all(row.id.startswith("a") for row in drawn)
    assert [row for row in rows if row in drawn] == drawn
    more = variant_samples("mirrored", rows, EvaluationSettings(consistency_samples=7))
    assert {row.id for row in drawn} < {row.id for row in more}


# ------------------------------------------------------------------------------------------------------ general questions


@pytest.mark.parametrize(
    ("text", "accepted", "right"),
    [
        ("43", ("43",), True),
        ("The answer is 43.", ("43",), True),
        ("17 + 26 = 43", ("43",), True),
        ("430", ("43",), False),
        ("It is not 43 but 44", ("43",), False),
        ("three", ("3",), True),
        ("三个", ("3",), True),
        ("0.70", ("0.7",), True),
        ("Tokyo.", ("tokyo",), True),
        ("Kyoto", ("tokyo",), False),
        ("<think>It might be Kyoto</think>Tokyo", ("tokyo",), True),
        ("<think>Tokyo", ("tokyo",), False),
        ("答案是周日。", ("星期日", "周日"), True),
        ("lamplight", ("lamp",), False),
        ("tokyo " * 61, ("tokyo",), False),
        ("", ("tokyo",), False),
    ],
)
def test_right_answers_to_general_questions(text: str, accepted: tuple[str, ...], right: bool) -> None:
    assert is_right(text, accepted) is right


def test_the_general_questions_are_sound() -> None:
    samples = general_samples()
    assert len({entry.id for entry in samples}) == len(samples)
    assert len({entry.prompt[-1].content for entry in samples if not entry.images}) == 60
    assert [sum(entry.metadata["language"] == language for entry in samples) for language in ("en", "zh")] == [36, 36]
    for entry in samples:
        for answer in entry.target.split("|"):
            assert is_right(answer, entry.target.split("|")), entry.id
        question = entry.prompt[-1].content.replace("<image>", "")
        assert has_side(question) is False
    assert len(general_samples(pictures=False)) == 60
    pictures = {
        name: draw(name) for name in ("red-circle", "blue-square", "green-triangle", "three-dots", "five-dots", "dot-above-line")
    }
    assert len(set(pictures.values())) == 6
    assert draw("red-circle") == pictures["red-circle"]


def test_forgetting_is_measured_in_pairs() -> None:
    samples = general_samples()
    knows = {entry.id: says(entry.target.split("|")[0], entry.id) for entry in samples}
    forgot = {**knows, **{entry.id: says("?", entry.id) for entry in samples if entry.metadata["language"] == "zh"}}
    found = state_forgetting({"base": knows, "tuned": forgot}, [("base", "tuned")], num_resamples=300, seed=0)
    assert found is not None
    scores = {(entry.label, entry.language): entry.value for entry in found.scores}
    assert scores == {
        ("base", None): 1.0,
        ("base", "en"): 1.0,
        ("base", "zh"): 1.0,
        ("tuned", None): 0.5,
        ("tuned", "en"): 1.0,
        ("tuned", "zh"): 0.0,
    }
    ((first, second, change),) = found.differences
    assert (first, second, change.difference, change.discordant) == ("base", "tuned", -0.5, (36, 0))
    assert change.high is not None
    assert change.high < -0.3
    assert len(found.lost) == 20
    assert state_forgetting({}, [], num_resamples=100, seed=0) is None


def test_a_model_of_text_alone_is_shown_no_drawings(tmp_path: Path) -> None:
    def without(row: dict[str, object]) -> None:
        messages = (Message(role="user", content="What is 1 plus 1?"), Message(role="assistant", content="2"))
        row.update(task="text-qa", target="2", images=(), messages=messages)

    dataset = make_dataset(tmp_path / "data", num_groups=4, change=without)
    blind = OneSided()
    settings = EvaluationSettings(metrics=("open",), controls=(), num_resamples=100, general=True)
    report = evaluate(dataset, generators={"tuned": ("tuned", blind)}, settings=settings, folder=tmp_path / "run")
    assert not any(request.images for request in blind.asked)
    assert report.forgetting is not None
    assert report.forgetting.scores[0].num_questions == 60


def test_repeated_draws_have_seeds_of_their_own() -> None:
    from medtune.evaluation.variants import variant_names, variant_sampling

    settings = EvaluationSettings(consistency=("repeated", "paraphrase"), consistency_draws=2)
    assert variant_names(settings) == ("repeated-1", "repeated-2", "paraphrase")
    drawn = [variant_sampling(name, Sampling(seed=5), settings) for name in variant_names(settings)]
    assert [(entry.temperature, entry.seed) for entry in drawn] == [(0.7, 6), (0.7, 7), (0.0, 5)]
