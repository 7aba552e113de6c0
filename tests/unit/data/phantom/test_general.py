"""The general source: everyday words only, and answers that agree with the pixels and with one another."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from math import sqrt

import numpy as np
import pytest
from pydantic import ValidationError

from medtune import plugins
from medtune.data.sources.phantom import Phantom, PhantomGeneral
from medtune.data.sources.phantom.general import NUM_QUESTIONS, Blob, ask, box_text, draw_picture, vocabulary
from medtune.data.sources.phantom.head import Mask
from medtune.types import Message, Record, Sample

SIZE = 48
NUM_PICTURES = 250
NO_SPOT = "There is no spot."

# Words that the radiology texts share with everybody.
EVERYDAY = {
    "a", "abnormal", "an", "and", "approximately", "area", "at", "base", "broad", "center", "image", "in", "interest", "is",
    "left", "lies", "located", "middle", "no", "none", "notes", "occupies", "of", "on", "part", "region", "right", "seen", "side",
    "the", "there", "upper", "with", "without", "along", "thin", "this", "caption",
}  # fmt: skip


@cache
def pictures() -> tuple[Blob | None, ...]:
    return tuple(draw_picture(np.random.default_rng([4, number]), SIZE)[1] for number in range(NUM_PICTURES))


@cache
def records() -> tuple[Record, ...]:
    return tuple(PhantomGeneral(num_pictures=120, questions_per_picture=NUM_QUESTIONS, image_size=SIZE, seed=6).samples())


def answers(blob: Blob | None, which: int) -> set[tuple[str, str]]:
    """Every (question, answer) that question number ``which`` can become."""
    return {ask(which, blob, np.random.default_rng(draw))[1:] for draw in range(24)}


# -------------------------------------------------------------------------------------------------------------- no radiology


def test_no_word_of_radiology_is_said_except_when_it_is_to_be_repeated() -> None:
    radiology = {word.lower() for word in vocabulary()} - EVERYDAY
    assert {"haemorrhage", "hyperdense", "hypodense", "frontal", "lesion", "ct", "axial", "meningioma", "skull"} <= radiology
    plain = {
        word.lower()
        for record in records()
        if not record.question.startswith("Repeat: ")
        for word in re.findall(r"[A-Za-z]+", f"{record.question} {record.target}")
    }
    assert "spot" in plain
    assert plain & radiology == set()


def test_what_is_to_be_repeated_is_repeated() -> None:
    repeated = [record for record in records() if record.question.startswith("Repeat: ")]
    assert len(repeated) == 2 * 120
    for record in repeated:
        assert record.question == f"Repeat: {record.target}"
        assert 3 <= len(record.target.split()) <= 9
    said = {word for record in repeated for word in record.target.split()}
    assert len(said & set(vocabulary())) > 0.8 * len(vocabulary())
    assert said - set(vocabulary()), "made-up words too"


def test_the_repeated_words_do_not_follow_the_picture() -> None:
    """The same picture gets other words for another draw, and pictures without a spot get them as well."""
    blob = next(blob for blob in pictures() if blob is not None)
    assert len(answers(blob, 8)) > 20
    assert len(answers(None, 8)) > 20


def test_pictures_and_heads_are_not_those_of_the_phantom() -> None:
    general = {record.pictures[0].data for record in PhantomGeneral(num_pictures=40, image_size=SIZE, seed=0).samples()}
    phantom = {record.pictures[0].data for record in Phantom(num_patients=40, image_size=SIZE, seed=0).samples()}
    assert not general & phantom


# -------------------------------------------------------------------------------------------------------------- the pictures


def test_tones_outlines_and_empty_pictures_come_as_often_as_stated() -> None:
    spots = [blob for blob in pictures() if blob is not None]
    # 8 % are drawn empty; a few more become so where the spot would have been too small to see.
    low, high = 0.08 - 4 * sqrt(0.08 * 0.92 / NUM_PICTURES), 0.12 + 4 * sqrt(0.12 * 0.88 / NUM_PICTURES)
    assert low < 1 - len(spots) / NUM_PICTURES < high
    bright = sum(blob.tone == "bright" for blob in spots)
    assert abs(bright - len(spots) / 2) < 4 * sqrt(len(spots) * 0.25)
    assert {blob.outline for blob in spots} == {"round", "long", "curved", "square"}
    assert {blob.tone for blob in spots} == {"bright", "dark"}


def test_spots_lie_everywhere() -> None:
    places = Counter(blob.place for blob in pictures() if blob is not None)
    assert set(places) == {f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "center", "right")}
    assert max(places.values()) < 0.4 * NUM_PICTURES, "no place may be a good guess"


def test_a_spot_can_be_seen() -> None:
    for number in range(60):
        hu, blob = draw_picture(np.random.default_rng([5, number]), SIZE)
        assert hu.shape == (SIZE, SIZE)
        assert hu.dtype == np.float32
        if blob is not None:
            assert blob.mask.sum() >= 4
            x1, y1, x2, y2 = blob.box
            margin = 6
            near = np.zeros((SIZE, SIZE), dtype=np.bool_)
            near[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin] = True
            shown = np.clip(hu, 0, 80)
            around = shown[near & ~blob.mask & (hu < 200) & (hu > -100)]
            difference = float(np.median(shown[blob.mask])) - float(np.median(around))
            assert difference > 2 if blob.tone == "bright" else difference < -2, (number, blob.tone, difference)


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [
        (0.2, 0.2, "top left"),
        (0.5, 0.2, "top center"),
        (0.8, 0.2, "top right"),
        (0.2, 0.5, "middle left"),
        (0.5, 0.5, "middle center"),
        (0.8, 0.5, "middle right"),
        (0.2, 0.8, "bottom left"),
        (0.5, 0.8, "bottom center"),
        (0.8, 0.8, "bottom right"),
    ],
)
def test_places_are_those_of_the_picture(x: float, y: float, place: str) -> None:
    mask: Mask = np.zeros((100, 100), dtype=np.bool_)
    mask[int(100 * y) - 3 : int(100 * y) + 3, int(100 * x) - 5 : int(100 * x) + 5] = True
    blob = Blob("bright", "round", mask)
    assert blob.place == place
    assert blob.percent == 0.6
    assert blob.box == (round(100 * x) - 5, round(100 * y) - 3, round(100 * x) + 5, round(100 * y) + 3)
    assert json.loads(box_text(blob))["bbox_2d"] == [10 * side for side in blob.box]


# --------------------------------------------------------------------------------------------------------------- the answers


def test_a_box_is_the_extent_of_the_spot() -> None:
    for blob in pictures():
        text = box_text(blob)
        assert {answer for which in (3, 4) for _, answer in answers(blob, which)} == {text}
        if blob is None:
            assert text == "[]"
            continue
        value = json.loads(text)
        rows, columns = np.nonzero(blob.mask)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert value["bbox_2d"] == pytest.approx([1000 * int(side) / SIZE for side in tight], abs=0.5)
        assert value["label"] == f"{blob.tone} spot"


def test_the_answers_about_one_picture_agree() -> None:
    for blob in pictures()[:80]:
        said = {which: {answer for _, answer in answers(blob, which)} for which in range(8)}
        assert all(len(said[which]) == 1 for which in (0, 1, 2, 3, 4, 6, 7)), "the words of the question change no answer"
        record = json.loads(said[7].pop())
        closed = dict(answers(blob, 5))
        assert set(closed) == {"Is there a bright spot?", "Is there a dark spot?"}
        if blob is None:
            assert record == {"tone": "", "outline": "", "place": "", "percent": 0.0}
            assert said[0] == {"A grey picture without a spot."}
            assert said[1] == said[2] == said[6] == {NO_SPOT}
            assert set(closed.values()) == {"No"}
            continue
        assert record == {"tone": blob.tone, "outline": blob.outline, "place": blob.place, "percent": blob.percent}
        assert said[0] == {f"A grey picture with a {record['tone']} {record['outline']} spot at the {record['place']}."}
        assert said[1] == {f"At the {record['place']}."}
        assert said[2] == {f"About {record['percent']}% of the picture."}
        assert said[6] == {f"It is {record['tone']} and {record['outline']}."}
        assert closed[f"Is there a {record['tone']} spot?"] == "Yes"
        assert sorted(closed.values()) == ["No", "Yes"]


def test_boxes_and_closed_answers_are_read_back_by_the_tasks() -> None:
    detection, closed = plugins.resolve("task", "detection")(), plugins.resolve("task", "closed-vqa")()
    for blob in pictures()[:40]:
        read = detection.parse(box_text(blob), None)
        assert len(read["boxes"]) == (blob is not None)
        for question, answer in answers(blob, 5):
            turns = (Message(role="user", content=question), Message(role="assistant", content=answer))
            sample = Sample(id="a", task="closed-vqa", messages=turns, target=answer, group="a", source="phantom")
            assert closed.parse(answer, sample) == answer.lower()


# -------------------------------------------------------------------------------------------------------- order and options


def test_a_seed_gives_the_same_records_and_a_longer_run_only_adds() -> None:
    short = list(PhantomGeneral(num_pictures=5, image_size=SIZE, seed=3).samples())
    long = list(PhantomGeneral(num_pictures=9, image_size=SIZE, seed=3).samples())
    assert long[: len(short)] == short
    other = list(PhantomGeneral(num_pictures=5, image_size=SIZE, seed=4).samples())
    assert not {record.pictures[0].data for record in short} & {record.pictures[0].data for record in other}


@pytest.mark.parametrize("count", [1, 4, NUM_QUESTIONS])
def test_a_picture_is_asked_no_question_twice(count: int) -> None:
    found = list(PhantomGeneral(num_pictures=6, questions_per_picture=count, image_size=SIZE).samples())
    assert len(found) == 6 * count
    assert len({record.id for record in found}) == len(found)
    assert Counter(Counter(record.group for record in found).values()) == {count: 6}


def test_every_question_comes() -> None:
    asked = {record.id.rsplit("-", 1)[1] for record in PhantomGeneral(num_pictures=40, image_size=SIZE).samples()}
    assert asked == {str(which) for which in range(NUM_QUESTIONS)}


def test_the_first_rows_of_the_pretraining_stay_as_they_are() -> None:
    """The seed and the size of recipes/nano_pretrain.yaml."""
    first = PhantomGeneral(num_pictures=2, questions_per_picture=10, image_size=128, seed=1)
    assert [(record.question, record.target) for record in first.samples()][:8] == [
        ("What do you see?", "A grey picture with a bright round spot at the top left."),
        ("Where is the spot?", "At the top left."),
        ("How much of the picture does the spot take?", "About 0.7% of the picture."),
        ("Where is the spot? Answer with a box.", '{"bbox_2d": [352, 312, 438, 414], "label": "bright spot"}'),
        ("Find the spot and give its box as JSON.", '{"bbox_2d": [352, 312, 438, 414], "label": "bright spot"}'),
        ("Is there a bright spot?", "Yes"),
        ("What outline and tone has the spot?", "It is bright and round."),
        (
            "Answer as JSON: tone, outline, place, percent.",
            '{"tone": "bright", "outline": "round", "place": "top left", "percent": 0.7}',
        ),
    ]


@pytest.mark.parametrize(
    "options",
    [{"num_pictures": 0}, {"questions_per_picture": 0}, {"questions_per_picture": 11}, {"image_size": 31}, {"forms": "both"}],
)
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        PhantomGeneral(**options)  # type: ignore[arg-type]
