from __future__ import annotations

import random
from pathlib import Path

import pytest
from pydantic import JsonValue

from medtune.evaluation.cases import Box, Piece, choose_cases, compare_words, describe_case
from medtune.evaluation.score_columns import ScoreColumns
from medtune.types import Generation, MetricValue, Prediction, Score
from toy_evaluation import make_dataset

ACCURACY = MetricValue(name="closed/accuracy", title="Accuracy", direction="higher", low=0, high=1)
ERROR = MetricValue(name="region/area-error", title="Error", direction="lower", low=0, high=100)


def scores(metric: MetricValue, values: dict[str, float | None]) -> ScoreColumns:
    return ScoreColumns.of(Score(sample_id=name, metric=metric.name, value=value) for name, value in values.items())


def test_words_that_differ_are_told_from_words_that_are_missing() -> None:
    assert compare_words("A hyperdense lesion in the left lobe.", "A lesion in the right lobe.") == (
        Piece("same", "A"),
        Piece("missing", "hyperdense"),
        Piece("same", " lesion in the"),
        Piece("missing", "left"),
        Piece("same", " "),
        Piece("extra", "right"),
        Piece("same", " lobe."),
    )


def test_case_and_blanks_do_not_count_and_numbers_are_whole() -> None:
    assert [piece.kind for piece in compare_words("Area  1.6% of T2-weighted", "area 1.6% of t2-weighted")] == ["same"]
    assert compare_words("1.6%", "1.8%")[:2] == (Piece("missing", "1.6"), Piece("extra", "1.8"))


def test_chinese_is_compared_by_character() -> None:
    pieces = compare_words("右肺上叶可见小结节", "左肺上叶可见结节")
    assert pieces == (
        Piece("missing", "右"),
        Piece("extra", "左"),
        Piece("same", "肺上叶可见"),
        Piece("missing", "小"),
        Piece("same", "结节"),
    )


@pytest.mark.parametrize("seed", range(30))
def test_the_answer_is_shown_whole(seed: int) -> None:
    draw = random.Random(seed)
    words = ["left", "Left", "1.5%", "可见", "\n", "  ", "<b>", "-", "it's", "."]
    reference, answer = (" ".join(draw.choices(words, k=draw.randrange(12))) for _ in range(2))
    shown = "".join(piece.text for piece in compare_words(reference, answer) if piece.kind != "missing")
    assert shown == answer.rstrip()


def test_cases_are_ranked_in_the_metric_s_direction() -> None:
    tasks = dict.fromkeys("abcdef", "region")
    before = scores(ERROR, {"a": 1, "b": 9, "c": 2, "d": 2, "e": 2, "f": None})
    after = scores(ERROR, {"a": 9, "b": 0, "c": 2, "d": 3, "e": 8, "f": None})
    chosen = choose_cases(
        tasks, before, after, [ACCURACY, ERROR], ["f"], {"worst": 1, "best": 1, "improved": 5, "worsened": 2, "unread": 1}
    )
    assert chosen == {"a": ("worst", "worsened"), "e": ("worsened",), "b": ("improved", "best"), "f": ("unread",)}


def test_tasks_take_turns() -> None:
    tasks = {f"{task}{number}": task for task in ("many", "few") for number in range(20 if task == "many" else 3)}
    after = scores(ACCURACY, {name: float(name.endswith("1")) for name in tasks})
    chosen = choose_cases(tasks, ScoreColumns(), after, [ACCURACY], [], {"worst": 6})
    assert [tasks[name] for name in chosen] == ["many", "few", "many", "few", "many", "many"]


def test_a_task_in_which_all_score_alike_shows_no_best_and_no_worst() -> None:
    assert (
        choose_cases(
            {"a": "t", "b": "t"}, ScoreColumns(), scores(ACCURACY, {"a": 1, "b": 1}), [ACCURACY], [], {"worst": 2, "best": 2}
        )
        == {}
    )


def test_changes_are_shown_though_all_are_right_afterwards() -> None:
    before, after = scores(ACCURACY, {"a": 0, "b": 1}), scores(ACCURACY, {"a": 1, "b": 1})
    quota = {"to-right": 2, "to-wrong": 2, "best": 2, "improved": 2}
    assert choose_cases({"a": "t", "b": "t"}, before, after, [ACCURACY], [], quota) == {"a": ("to-right", "improved")}  # type: ignore[arg-type]
    assert choose_cases({"a": "t", "b": "t"}, after, before, [ACCURACY], [], {"to-wrong": 2}) == {"a": ("to-wrong",)}


def test_the_random_cases_do_not_depend_on_the_scores() -> None:
    tasks = {f"s{number}": "t" for number in range(50)}
    good = scores(ACCURACY, dict.fromkeys(tasks, 1.0))
    mixed = scores(ACCURACY, {name: float(number % 2) for number, name in enumerate(tasks)})
    drawn = [set(choose_cases(tasks, ScoreColumns(), table, [ACCURACY], [], {"random": 5})) for table in (good, mixed)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 5


def test_boxes_are_drawn_in_pixels_of_the_stored_picture(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=1)
    sample = next(dataset.rows("test"))
    answer: JsonValue = {"boxes": [[250, 500, 750, 1000], [1, 2], "no box"], "labels": ["a"]}
    generation = Generation(id=sample.id, text="text", finish_reason="stop")
    prediction = Prediction(sample_id=sample.id, generation=generation, answer=answer)
    case = describe_case(sample, ("worst",), dataset=dataset, predictions={"tuned": prediction}, scores=())
    # The picture has 24 x 16 pixels.
    assert case.pictures[0].boxes == (Box("true", 4, 2, 8, 8), Box("tuned", 6, 8, 12, 8))
    assert case.question == "Is the picture dark or bright?"
