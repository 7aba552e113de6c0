"""The contract of a task, over every registered name."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest

from medtune.errors import DataError
from medtune.plugins import names, resolve
from medtune.types import IMAGE_MARK, ImageRef, Message, Picture, Record, Sample, Task

NAMES = names("task")

METADATA = {
    "box": [16.0, 8.0, 48.0, 24.0],
    "width": 64,
    "height": 32,
    "kind": "meningioma",
    "side": "right",
    "horizontal": "left",
    "vertical": "upper",
    "area_percent": 4.1,
}
TARGETS = {
    "json-record": '{"caption": "Head CT"}',
    "detection": "",
    "region": "The region, on the left side and in the upper part of the image, takes 4.1% of it.",
    "closed-vqa": "yes",
}


def record(name: str) -> Record:
    return Record(
        id="r",
        task=name,
        pictures=() if name == "text-qa" else (Picture(data=b"x"),),
        target=TARGETS.get(name, "Findings: A meningioma. Impression: Meningioma."),
        group="g",
        question="What is it?",
        metadata=METADATA,
    )


def sample(name: str, messages: tuple[Message, ...]) -> Sample:
    images = () if name == "text-qa" else (ImageRef(path="images/x.png", sha256="0" * 64, width=64, height=32),)
    return Sample(
        id="r", task=name, images=images, messages=messages, target=messages[-1].content, group="g", source="t", metadata=METADATA
    )


def test_every_built_in_task_is_here() -> None:
    assert len(NAMES) >= 11


@pytest.mark.parametrize("name", NAMES)
def test_it_follows_the_protocol(name: str) -> None:
    task = resolve("task", name)()
    assert isinstance(task, Task)
    assert task.name == name
    assert task.metrics, "a task names the metrics that judge it"
    assert set(task.metrics) <= set(names("metric"))
    assert len(set(task.metrics)) == len(task.metrics)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", NAMES)
def test_its_conversation_makes_a_sample(name: str, language: str) -> None:
    task = resolve("task", name)(language=language, system_prompt="You are careful.")
    messages = task.messages(record(name))
    assert [message.role for message in messages] == ["system", "user", "assistant"]
    assert sum(message.content.count(IMAGE_MARK) for message in messages) == len(record(name).pictures)
    assert messages[1].content.startswith(IMAGE_MARK) == (name != "text-qa")
    assert all(message.content.strip() for message in messages)
    sample(name, messages)


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_its_own_reference(name: str) -> None:
    task = resolve("task", name)()
    messages = task.messages(record(name))
    answer = task.parse(messages[-1].content, sample(name, messages))
    assert answer is not None
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


@pytest.mark.parametrize("text", ["", " \n\t"])
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_answer_is_unreadable(name: str, text: str) -> None:
    task = resolve("task", name)()
    with pytest.raises(ValueError) as caught:
        task.parse(text, sample(name, task.messages(record(name))))
    assert str(caught.value), "the message says why"


@pytest.mark.parametrize(
    "text", ["\x00", "{" * 3000, "(" * 3000, "% " * 3000, "left " * 3000, "left or " * 2000, "9" * 5000, "𝟜%", "<think>", "```"]
)
@pytest.mark.parametrize("name", NAMES)
def test_no_answer_brings_it_down(name: str, text: str) -> None:
    task = resolve("task", name)()
    with contextlib.suppress(ValueError):
        json.dumps(task.parse(text, sample(name, task.messages(record(name)))), allow_nan=False)


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_a_conversation(name: str) -> None:
    turns = (Message(role="user", content="Hello"), Message(role="assistant", content="World"))
    assert resolve("task", name)().messages(replace(record(name), messages=turns)) == turns


@pytest.mark.parametrize("name", ["closed-vqa", "open-vqa", "text-qa", "conversation"])
def test_a_missing_question_is_the_datas_fault(name: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve("task", name)().messages(replace(record(name), question=""))
    assert caught.value.sample == "r"
    assert caught.value.remedy is not None
