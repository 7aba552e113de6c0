"""What is written of a phantom slice agrees with its truth, and the tasks read it back."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from functools import cache
from typing import Any

import pytest

from medtune import plugins
from medtune.data.sources.phantom import Phantom
from medtune.data.sources.phantom.wording import MEDTRINITY_QUESTION
from medtune.tasks.reading.finding import canonical_finding
from medtune.tasks.region import read_region
from medtune.types import ImageRef, Message, Record, Sample

SIZE = 96
SIX = ("caption", "caption-details", "region", "json-record", "detection", "region-description")


@cache
def records() -> tuple[Record, ...]:
    return tuple(Phantom(num_patients=48, slices_per_patient=2, image_size=SIZE, seed=21).samples())


def of(task: str, *, normal: bool) -> list[Record]:
    found = [record for record in records() if record.task == task and record.metadata["normal"] is normal]
    assert len(found) >= 4
    return found


def parsed(record: Record) -> Any:
    """The reference answer as the task writes it, read back by the task."""
    task = plugins.resolve("task", record.task)()
    sized = dataclasses.replace(record, metadata={**record.metadata, "width": SIZE, "height": SIZE})
    messages: tuple[Message, ...] = task.messages(sized)
    sample = Sample(
        id=record.id,
        task=record.task,
        images=(ImageRef(path="images/0.png", sha256="0" * 64, width=SIZE, height=SIZE),),
        messages=messages,
        target=messages[-1].content,
        group=record.group,
        source="phantom",
        metadata=dict(record.metadata),
    )
    return task.parse(messages[-1].content, sample)


def test_all_forms_are_there() -> None:
    counts = Counter(record.task for record in records())
    assert counts == dict.fromkeys((*SIX, "open-vqa"), 96)
    assert {record.question for record in records()} == {"", MEDTRINITY_QUESTION}


def test_a_box_is_read_back_within_a_thousandth() -> None:
    for record in of("detection", normal=False):
        boxes, labels = parsed(record).values()
        assert boxes[0] == pytest.approx([1000 * side / SIZE for side in record.metadata["box"]], abs=0.5)
        assert labels == [record.metadata["kind"]]
        assert len(boxes) == 1


def test_a_normal_slice_has_an_empty_list_of_boxes() -> None:
    for record in of("detection", normal=True):
        assert record.target == "[]"
        assert parsed(record) == {"boxes": [], "labels": []}


@pytest.mark.parametrize("task", ["region", "open-vqa"])
def test_the_region_is_read_back(task: str) -> None:
    for record in of(task, normal=False):
        found = read_region(record.target) if task == "open-vqa" else parsed(record)
        for key in ("horizontal", "vertical", "density"):
            assert found[key] == record.metadata[key], (key, record.target)
        assert found["area_percent"] == record.metadata["area_percent"], record.target


@pytest.mark.parametrize("task", ["caption", "caption-details", "region-description"])
def test_the_side_of_the_patient_is_read_back(task: str) -> None:
    for record in of(task, normal=False):
        found = read_region(record.target)
        assert found["side"] == record.metadata["side"], record.target
        assert found["horizontal"] is None, "the words for the patient's side are not taken for the picture's"


@pytest.mark.parametrize("task", ["caption", "caption-details", "region-description", "open-vqa"])
def test_the_finding_is_read_back(task: str) -> None:
    for record in of(task, normal=False):
        kind = str(record.metadata["kind"])
        assert read_region(record.target)["kind"] == canonical_finding(kind)
        assert kind in record.target


@pytest.mark.parametrize("task", ["caption-details", "region", "region-description", "open-vqa"])
def test_the_density_is_read_back(task: str) -> None:
    for record in of(task, normal=False):
        assert read_region(record.target)["density"] == record.metadata["density"]


def test_a_record_is_sound_json_and_agrees_with_the_truth() -> None:
    keys = ["caption", "region of interest", "observation", "notes", "bloc"]
    for record in of("json-record", normal=False):
        value = parsed(record)
        assert list(value) == keys
        assert value == json.loads(record.target)
        truth = record.metadata
        assert str(truth["kind"]) in value["caption"]
        assert value["region of interest"] == f"{truth['horizontal']} {truth['vertical']}, {truth['area_percent']}%"
        assert str(truth["density"]) in value["observation"]
        assert str(truth["side"]) in value["observation"]
        assert value["bloc"] == pytest.approx([1000 * side / SIZE for side in truth["box"]], abs=0.5)
    for record in of("json-record", normal=True):
        assert parsed(record) == dict(zip(keys, ["Head CT, no abnormal finding", "none", "none", "", []], strict=True))


@pytest.mark.parametrize("task", [*SIX, "open-vqa"])
def test_the_text_of_a_normal_slice_claims_nothing(task: str) -> None:
    for record in of(task, normal=True):
        assert not re.search(r"\d|hyperdense|hypodense|\bleft\b|\bright\b|\bconsistent\b|\bshowing\b", record.target), record.target
        assert set(record.metadata) == {"modality", "organ", "normal", "provenance"}


def test_every_variant_of_a_sentence_comes_and_says_nothing_of_the_kind() -> None:
    """Wordings are drawn, so which one was drawn may not tell one finding from another."""
    openings: dict[str, set[str]] = {}
    for record in of("caption", normal=False):
        openings.setdefault(str(record.metadata["kind"]), set()).add(
            record.target.split(str(record.metadata["kind"]))[0].rsplit(" ", 2)[0]
        )
    assert set().union(*openings.values()) == {"Head CT showing", "Head CT with"}
    assert all(len(found) == 2 for found in openings.values()), openings


def test_texts_of_a_slice_agree_with_each_other() -> None:
    by_slice: dict[bytes, set[str]] = {}
    for record in records():
        finding = read_region(record.target)["kind"] if not record.metadata["normal"] else None
        if finding is not None:
            by_slice.setdefault(record.pictures[0].data or b"", set()).add(str(finding))
    assert by_slice
    assert all(len(findings) == 1 for findings in by_slice.values())


def test_answers_do_not_stand_in_the_questions() -> None:
    for record in records():
        if record.task != "open-vqa" and not record.metadata["normal"]:
            asked = (
                plugins.resolve("task", record.task)()
                .messages(dataclasses.replace(record, metadata={**record.metadata, "width": SIZE, "height": SIZE}))[0]
                .content
            )
            assert str(record.metadata["kind"]) not in asked
