"""Regions, boxes and JSON records against the truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from medtune.evaluation.metrics.box import BoxOverlap, source_extent
from medtune.evaluation.metrics.json_record import JsonRecordValidity
from medtune.evaluation.metrics.region import RegionError
from medtune.imaging.boxes import iou
from medtune.plugins import resolve
from medtune.types import Generation, ImageRef, Message, Prediction, Sample, Score

TRUTH = {
    "horizontal": "left",
    "vertical": "upper",
    "side": "right",
    "area_percent": 4.0,
    "kind": "subdural haematoma",
    "density": "hyperdense",
    "box": [0.0, 0.0, 100.0, 50.0],
}
REFERENCE = (
    "On the left side and in the upper part of the image, occupying 4.0% of it: "
    "a hyperdense subdural haematoma of the right frontal lobe."
)


def sample(target: str = REFERENCE, *, task: str = "region", metadata: dict[str, Any] | None = None) -> Sample:
    return Sample(
        id="s",
        task=task,
        images=(ImageRef(path="images/x.png", sha256="0" * 64, width=300, height=150),),
        messages=(Message(role="user", content="<image>?"), Message(role="assistant", content=target)),
        target=target,
        group="g",
        source="t",
        metadata=TRUTH if metadata is None else metadata,
    )


def said(text: str, of: Sample) -> Prediction:
    """A prediction read by the sample's own task."""
    generation = Generation(id="s", text=text, finish_reason="stop")
    try:
        return Prediction(sample_id="s", generation=generation, answer=resolve("task", of.task)().parse(text, of))
    except ValueError as error:
        return Prediction(sample_id="s", generation=generation, error=str(error))


def numbers(metric: Any, text: str, of: Sample) -> dict[str, float | None]:
    scores: tuple[Score, ...] = metric.score(said(text, of), of)
    return {score.metric.partition("/")[2]: score.value for score in scores}


def test_the_reference_itself_is_right_in_everything() -> None:
    found = numbers(RegionError(), REFERENCE, sample())
    # The middle of the upper left ninth lies at (50, 25) of 300 x 150 pixels, and so does the box's centre.
    assert found == {
        "position-accuracy": 1,
        "area-error": 0,
        "side-accuracy": 1,
        "kind-accuracy": 1,
        "density-accuracy": 1,
        "horizontal-accuracy": 1,
        "vertical-accuracy": 1,
        "area-stated": 1,
        "centre-error": pytest.approx(0, abs=1e-12),
    }


def test_a_lay_answer_is_read() -> None:
    found = numbers(RegionError(), "A bright spot at the top left of the picture, about six percent.", sample())
    assert found["position-accuracy"] == 1
    assert found["area-error"] == pytest.approx(2.0)
    assert found["density-accuracy"] == 1
    assert found["side-accuracy"] == 0, "the picture's left says nothing of the patient's side"
    assert found["kind-accuracy"] == 0


def test_the_pictures_side_is_no_answer_to_the_patients() -> None:
    """The truth is the patient's right. "Right side of the image" must not be credited for it, nor the other way round."""
    found = numbers(RegionError(), "on the right side of the image", sample())
    assert (found["side-accuracy"], found["horizontal-accuracy"]) == (0, 0)
    found = numbers(RegionError(), "in the right frontal lobe", sample())
    assert (found["side-accuracy"], found["horizontal-accuracy"]) == (1, 0)


def test_an_unreadable_answer_is_zero_for_accuracies_and_unscored_for_errors() -> None:
    found = numbers(RegionError(), "I cannot tell.", sample())
    assert {name for name, value in found.items() if value is None} == {"area-error", "centre-error"}
    assert {value for value in found.values() if value is not None} == {0}


def test_a_fact_that_the_reference_does_not_state_is_not_judged() -> None:
    found = numbers(RegionError(), "nothing", sample("A hyperdense clot.", task="caption"))
    assert {name for name, value in found.items() if value is not None} == {"density-accuracy"}
    assert found["density-accuracy"] == 0


def test_no_truth_is_unscored() -> None:
    partial = sample(metadata={"horizontal": "left"})
    found = numbers(RegionError(), REFERENCE, partial)
    assert {name for name, value in found.items() if value is not None} == {"horizontal-accuracy"}
    assert RegionError().score(said(REFERENCE, sample(metadata={})), sample(metadata={})) == ()
    assert RegionError().score(said(REFERENCE, sample(metadata={"normal": True})), sample(metadata={"normal": True})) == ()


def test_centre_error_is_a_share_of_the_diagonal() -> None:
    found = numbers(RegionError(), "on the right side and in the lower part of the image", sample())
    # From (50, 25) to (250, 125) in 300 x 150 pixels.
    assert found["centre-error"] == pytest.approx(math.hypot(200, 100) / math.hypot(300, 150))


@pytest.mark.parametrize(
    ("truth", "answer", "right"),
    [
        ("haemorrhage", "a subdural hematoma", 1),
        ("subdural haematoma", "a haemorrhage", 0),
        ("ischaemic infarct", "a stroke", 1),
        ("widget syndrome", "the Widget Syndrome", 1),
        ("widget syndrome", "a widget", 0),
    ],
)
def test_findings_have_synonyms(truth: str, answer: str, right: int) -> None:
    of = sample(f"A {truth}.", task="caption", metadata={"kind": truth})
    assert numbers(RegionError(), answer, of)["kind-accuracy"] == right


def test_phantom_texts_are_read_as_their_truth() -> None:
    """The embedded data's own sentences: whatever the reader finds in a reference is what the pixels say."""
    phantom = resolve("source", "phantom")
    from medtune.tasks.reading.finding import canonical_finding
    from medtune.tasks.region import read_region

    read: dict[str, int] = {}
    for record in phantom(num_patients=12, image_size=32).samples():
        for field, value in read_region(record.target).items():
            truth = record.metadata.get(field)
            if value is not None and truth is not None:
                assert value == (canonical_finding(str(truth)) if field == "kind" else truth), record.target
                read[field] = read.get(field, 0) + 1
    assert set(read) == {"horizontal", "vertical", "side", "area_percent", "kind", "density"}


# ---------------------------------------------------------------------------------------------------------------- boxes


FOUND = {"giou": 1, "pointing": 1, "ap-50": 1, "map": 1, "ap-50-any-label": 1, "map-any-label": 1}


def box_text(*box: float) -> str:
    return f'{{"bbox_2d": [{", ".join(map(str, box))}], "label": "x"}}'


def detection(metadata: dict[str, Any] | None = None, target: str = "[]") -> Sample:
    return sample(target, task="detection", metadata={"box": [0.0, 0.0, 150.0, 75.0]} if metadata is None else metadata)


def test_overlap_by_hand() -> None:
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_pixels_of_the_truth_meet_thousandths_of_the_answer() -> None:
    # The upper left quarter of the 300 x 150 picture is [0, 0, 500, 500].
    found = numbers(BoxOverlap(), box_text(0, 0, 500, 500), detection())
    assert found == {"iou": 1, "accuracy-0.1": 1, "accuracy-0.3": 1, "accuracy-0.5": 1, "centre-error": 0} | FOUND
    found = numbers(BoxOverlap(), box_text(0, 0, 500, 200), detection())
    assert found["iou"] == pytest.approx(0.4)
    assert (found["accuracy-0.3"], found["accuracy-0.5"]) == (1, 0)
    # The centres are 150 thousandths of 150 pixels apart.
    assert found["centre-error"] == pytest.approx(22.5 / math.hypot(300, 150))


def test_more_boxes_do_not_buy_more() -> None:
    many = "[" + ", ".join([box_text(0, 0, 500, 500)] + [box_text(500, 500, 600 + i, 600) for i in range(3)]) + "]"
    found = numbers(BoxOverlap(), many, detection())
    assert found["iou"] == pytest.approx(1 / 4)
    assert found["accuracy-0.5"] == pytest.approx(1 / 4)


def test_two_true_boxes_are_paired_one_to_one() -> None:
    target = f"[{box_text(0, 0, 100, 100)}, {box_text(500, 500, 600, 600)}]"
    of = detection({}, target)
    assert numbers(BoxOverlap(), target, of)["iou"] == 1
    assert numbers(BoxOverlap(), box_text(0, 0, 100, 100), of)["iou"] == pytest.approx(1 / 2)
    twice = f"[{box_text(0, 0, 100, 100)}, {box_text(0, 0, 100, 100)}]"
    assert numbers(BoxOverlap(), twice, of)["iou"] == pytest.approx(1 / 2)
    # One box cannot stand for two: its overlaps are 10/11 and 11/12, and only the better counts.
    stacked = detection({}, f"[{box_text(0, 0, 100, 100)}, {box_text(0, 0, 100, 120)}]")
    assert numbers(BoxOverlap(), box_text(0, 0, 100, 110), stacked)["iou"] == pytest.approx(11 / 12 / 2)


def test_boxes_without_answer_and_without_truth() -> None:
    found = numbers(BoxOverlap(), "upper left", detection())
    assert found == {"iou": 0, "accuracy-0.1": 0, "accuracy-0.3": 0, "accuracy-0.5": 0, "centre-error": None} | {
        "giou": -1,
        "pointing": 0,
        "ap-50": 0,
        "map": 0,
        "ap-50-any-label": 0,
        "map-any-label": 0,
    }
    normal = detection({"normal": True})
    found = {name: value for name, value in numbers(BoxOverlap(), box_text(0, 0, 1, 1), normal).items() if value is not None}
    assert found == {"specificity": 0, "ap-50": 0, "map": 0, "ap-50-any-label": 0, "map-any-label": 0}
    found = {name: value for name, value in numbers(BoxOverlap(), "[]", normal).items() if value is not None}
    assert found == {"specificity": 1}
    assert numbers(BoxOverlap(), "nothing to see", normal)["specificity"] == 0, "an answer that cannot be read is no answer"
    assert set(numbers(BoxOverlap(), "[]", detection({}, "no boxes here")).values()) == {None}


# ---------------------------------------------------------------------------------------------------------------- records


def json_sample(target: str = '{"caption": "Head CT", "notes": "", "count": 2}') -> Sample:
    return sample(target, task="json-record", metadata={})


def test_json_record() -> None:
    found = numbers(JsonRecordValidity(), '{"caption": "the head CT", "notes": "x", "more": 1}', json_sample())
    assert found["valid"] == 1
    assert found["key-f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert found["value-match"] == pytest.approx(1 / 3)
    assert found["value-f1"] == pytest.approx((1 + 0 + 0) / 3)
    assert set(numbers(JsonRecordValidity(), json_sample().target, json_sample()).values()) == {1}


def test_a_python_literal_is_not_valid() -> None:
    assert set(numbers(JsonRecordValidity(), "{'caption': 'Head CT'}", json_sample()).values()) == {0}


def test_true_is_not_one() -> None:
    found = numbers(JsonRecordValidity(), '{"a": true}', json_sample('{"a": 1}'))
    assert found["value-match"] == 0


def test_key_f1_is_summed_over_samples() -> None:
    metric = JsonRecordValidity()
    scores = [
        score
        for text in ('{"a": 1}', "no json")
        for score in metric.score(said(text, json_sample('{"a": 1}')), json_sample('{"a": 1}'))
        if score.metric == "json-record/key-f1"
    ]
    # Two keys wanted, one written, one in common: 2 * 1 / (2 + 1).
    assert metric.aggregate("json-record/key-f1", np.sum([score.statistics for score in scores], axis=0)) == pytest.approx(2 / 3)


def test_a_reference_that_is_no_record_is_unscored() -> None:
    assert set(numbers(JsonRecordValidity(), "{}", json_sample("text")).values()) == {None}


class TestBordersAddedByATransform:
    """A picture of 300 x 150 pixels in the middle of a square of 300: rows 75 to 225 are the source picture."""

    def framed(self, box: list[float], task: str = "region", target: str = REFERENCE) -> Sample:
        metadata = {**TRUTH, "box": [box[0], box[1] + 75, box[2], box[3] + 75], "extent": [0, 75, 300, 225]}
        plain = sample(target, task=task, metadata=metadata)
        return plain.model_copy(update={"images": (plain.images[0].model_copy(update={"height": 300}),)})

    def test_words_are_about_the_source_picture(self) -> None:
        # The box is in the upper left ninth of the source; of the square it is in the middle.
        box = [0.0, 0.0, 100.0, 50.0]
        assert numbers(RegionError(), REFERENCE, self.framed(box)) == pytest.approx(numbers(RegionError(), REFERENCE, sample()))
        assert numbers(RegionError(), REFERENCE, self.framed(box))["centre-error"] == pytest.approx(0, abs=1e-12)
        moved = [30.0, 20.0, 150.0, 120.0]
        plain = sample(metadata={**TRUTH, "box": moved})
        found = numbers(RegionError(), REFERENCE, self.framed(moved))["centre-error"]
        assert found == pytest.approx(numbers(RegionError(), REFERENCE, plain)["centre-error"])
        assert found == pytest.approx(math.hypot(90 - 50, 70 - 25) / math.hypot(300, 150))

    def test_boxes_are_of_the_picture_that_the_model_sees(self) -> None:
        of = self.framed([0.0, 0.0, 150.0, 75.0], "detection", '{"bbox_2d": [0, 250, 500, 500], "label": "x"}')
        assert numbers(BoxOverlap(), '{"bbox_2d": [0, 250, 500, 500], "label": "x"}', of)["iou"] == pytest.approx(1)
        assert numbers(BoxOverlap(), '{"bbox_2d": [0, 0, 500, 500], "label": "x"}', of)["iou"] == pytest.approx(0.5)

    @pytest.mark.parametrize("extent", [None, [0, 75], [0, 75, 300, "x"], [0, 225, 300, 75]])
    def test_an_extent_that_is_none_is_the_whole_picture(self, extent: Any) -> None:
        assert source_extent(sample(metadata={"extent": extent})) == (0, 0, 300, 150)
