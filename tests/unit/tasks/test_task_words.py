"""How the tasks put records into words, and how they read answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medtune.errors import DataError, RecipeError
from medtune.tasks.caption import Caption
from medtune.tasks.conversation import Conversation
from medtune.tasks.detection import Detection
from medtune.tasks.json_record import JsonRecord
from medtune.tasks.region import REGION_FIELDS, Region, RegionDescription
from medtune.tasks.report import ReportTask
from medtune.tasks.text_qa import TextQa
from medtune.tasks.vqa import ClosedVqa, OpenVqa
from medtune.types import Message, Picture, Record, Sample

SAMPLE = Sample(
    id="s",
    task="caption",
    messages=(Message(role="user", content="?"), Message(role="assistant", content="!")),
    target="!",
    group="g",
    source="t",
)


def record(target: str = "An answer.", *, pictures: int = 1, **fields: Any) -> Record:
    return Record(id="r1", task="caption", pictures=(Picture(data=b"x"),) * pictures, target=target, group="g", **fields)


def test_the_marks_stand_directly_before_the_words() -> None:
    user, assistant = Caption().messages(record(pictures=2))
    assert user.content == "<image><image>" + Caption.instructions["en"]
    assert assistant == Message(role="assistant", content="An answer.")


def test_the_language_is_the_records_unless_the_recipe_says_otherwise() -> None:
    chinese = record(metadata={"language": "zh-CN"})
    assert Caption().messages(chinese)[0].content.endswith(Caption.instructions["zh"])
    assert Caption(language="en").messages(chinese)[0].content.endswith(Caption.instructions["en"])
    assert Caption(language="zh").messages(record())[0].content.endswith(Caption.instructions["zh"])
    with pytest.raises(RecipeError, match="fr"):
        Caption(language="fr")


def test_the_instruction_and_a_system_prompt_can_be_given() -> None:
    system, user, _ = Caption(instruction="What is it?", system_prompt="You read CT.").messages(record())
    assert (system.role, system.content) == ("system", "You read CT.")
    assert user.content == "<image>What is it?"


def test_a_record_with_messages_keeps_them() -> None:
    turns = (Message(role="user", content="a <image>"), Message(role="assistant", content="b"))
    assert Conversation(system_prompt="x").messages(record(messages=turns)) == turns
    assert Caption().messages(record(messages=turns)) == turns


def test_questions() -> None:
    asked = record("yes", question=" Is it {normal}? ")
    assert OpenVqa().messages(asked)[0].content == "<image>Is it {normal}?"
    assert ClosedVqa().messages(asked)[0].content.startswith("<image>Is it {normal}?\nAnswer with yes or no")
    assert OpenVqa(instruction="Be brief.").messages(asked)[0].content == "<image>Is it {normal}?\nBe brief."
    assert OpenVqa(instruction="Q: {question} A:").messages(asked)[0].content == "<image>Q: Is it {normal}? A:"
    assert TextQa().messages(record(pictures=0, question="Why?"))[0].content == "Why?"
    marked = record(question="Compare <image> with <image>.", pictures=2)
    assert OpenVqa().messages(marked)[0].content == "Compare <image> with <image>."
    with pytest.raises(DataError, match="r1"):
        ClosedVqa().messages(record(question="  "))


def test_the_region_task_says_whose_left_it_means() -> None:
    assert "the left of the image is the patient's right" in Region.instructions["en"]
    assert "图像左侧是患者右侧" in Region.instructions["zh"]
    assert "the patient's left or right, not the image's" in RegionDescription.instructions["en"]


def test_detection_writes_the_box_of_the_metadata() -> None:
    metadata = {"box": [64.0, 32.0, 192.0, 96.0], "width": 256, "height": 128, "kind": "cyst"}
    answer = Detection().messages(record("", metadata=metadata))[-1].content
    assert json.loads(answer) == {"bbox_2d": [250, 250, 750, 750], "label": "cyst"}
    assert Detection().parse(answer, SAMPLE) == {"boxes": [[250.0, 250.0, 750.0, 750.0]], "labels": ["cyst"]}
    assert Detection().messages(record("its own", metadata=metadata))[-1].content == "its own"
    assert Detection().messages(record("", metadata={"normal": True}))[-1].content == "[]"


def test_the_boxes_of_a_target_move_with_the_picture() -> None:
    """A letterbox has put 300 x 150 pixels into the middle of 300 x 300."""
    metadata = {"width": 300, "height": 300, "extent": [0, 75, 300, 225]}
    target = '[{"bbox_2d": [0, 0, 500, 1000], "label": "mass"}, {"bbox_2d": [500, 500, 1000, 600], "label": "cyst"}]'
    answer = Detection().messages(record(target, metadata=metadata))[-1].content
    assert Detection().parse(answer, SAMPLE) == {
        "boxes": [[0.0, 250.0, 500.0, 750.0], [500.0, 500.0, 1000.0, 550.0]],
        "labels": ["mass", "cyst"],
    }
    assert Detection().messages(record("[]", metadata=metadata))[-1].content == "[]"
    assert Detection().messages(record(target, metadata={}))[-1].content == target
    with pytest.raises(DataError, match="cannot be moved with the picture"):
        Detection().messages(record("on the left", metadata=metadata))


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"box": [1, 2, 3, 4]},
        {"box": [1, 2, 3], "width": 10, "height": 10},
        {"box": [1, 2, 3, "4"], "width": 10, "height": 10},
        {"box": [1, 2, 30, 4], "width": 10, "height": 10},
        {"box": [1, 2, 1, 4], "width": 10, "height": 10},
        {"box": [1, 2, 3, 4], "width": 0, "height": 10},
    ],
)
def test_detection_without_a_usable_box(metadata: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="r1"):
        Detection().messages(record("", metadata=metadata))


def test_a_json_record_is_sound_json_whatever_the_source_wrote() -> None:
    literal = "{'caption': 'CT', 'notes': None}"
    assert json.loads(JsonRecord().messages(record(literal))[-1].content) == {"caption": "CT", "notes": None}
    sound = '{"caption":  "脑 CT"}'
    assert JsonRecord().messages(record(sound))[-1].content == sound
    for broken in ("0", "", "{'caption': ", "[1]", "os.getcwd()"):
        with pytest.raises(DataError, match="r1"):
            JsonRecord().messages(record(broken))


def test_a_json_record_is_read_strictly() -> None:
    assert JsonRecord().parse('Sure: {"a": 1}', SAMPLE) == {"a": 1}
    with pytest.raises(ValueError):
        JsonRecord().parse("{'a': 1}", SAMPLE)


def test_region_reads_what_it_finds() -> None:
    found = Region().parse("On the left side, about four percent, bright.", SAMPLE)
    assert found == {
        "horizontal": "left",
        "vertical": None,
        "side": None,
        "area_percent": 4.0,
        "kind": None,
        "density": "hyperdense",
    }
    assert isinstance(found, dict)
    assert tuple(found) == REGION_FIELDS
    with pytest.raises(ValueError):
        Region().parse("I cannot tell.", SAMPLE)


def test_closed_answers() -> None:
    assert ClosedVqa().parse(" Yes, it is. ", SAMPLE) == "yes"
    assert ClosedVqa().parse(" the left lung ", SAMPLE) == "the left lung"
    assert ClosedVqa().parse("未见骨折", SAMPLE) == "no"


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("Findings: Clear lungs.\nImpression: Normal.", "Clear lungs.", "Normal."),
        ("**FINDINGS:** Clear lungs. **IMPRESSION:** Normal.", "Clear lungs.", "Normal."),
        ("## Findings\nClear lungs.\n## Impression\nNormal.", "Clear lungs.", "Normal."),
        ("Chest CT. Findings: Clear.", "Chest CT.\nClear.", None),
        ("所见：双肺清晰。\n印象：未见异常。", "双肺清晰。", "未见异常。"),
        ("The findings are normal.", "The findings are normal.", None),
        ("Impression: Normal.", None, "Normal."),
    ],
)
def test_report_sections(text: str, findings: str | None, impression: str | None) -> None:
    assert ReportTask().parse(text, SAMPLE) == {"findings": findings, "impression": impression}
