"""Answers that say the question again as a statement, and the traps in them."""

from __future__ import annotations

import pytest

from medtune.tasks.reading.restated import read_restated
from medtune.tasks.reading.yes_no import read_yes_no


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        ("Is there a fracture?", "The image was taken to look for a fracture.", None),
        ("Is there a fracture?", "History of fracture.", None),
        ("Is there a fracture?", "If there is a fracture, surgery is needed.", None),
        ("Is there a fracture?", "There is a fracture with no displacement.", "yes"),
        ("Is there a fracture?", "A fracture is seen without displacement.", "yes"),
        ("Is there a fracture?", "There is a fracture. There is no dislocation.", "yes"),
        ("Is there a fracture?", "There is no dislocation. There is a fracture.", "yes"),
        ("Is there a fracture?", "There is no fracture or dislocation.", "no"),
        ("Is there a fracture?", "No evidence of acute fracture.", "no"),
        ("Is there a fracture?", "There is no fracture on the left. There is a fracture on the right.", None),
        ("Is there a fracture?", "A mass is seen, not a fracture.", "no"),
        ("Is there a fracture?", "There is soft tissue swelling, suspicious for fracture.", None),
        ("Is there a fracture?", "There may be a fracture.", None),
        ("Is there a fracture?", "The fracture line is not visible.", "no"),
        ("Is there a fracture?", "The patient was asked whether there is a fracture.", None),
        ("Is there a fracture?", "To determine if there is a fracture, I need to look at the bone cortex.", None),
        ("Is there a fracture?", "Based on the image, there is a fracture of the left 5th rib.", "yes"),
        ("Is there a fracture?", "It is not possible to say whether there is a fracture.", None),
        ("Is there a fracture?", "The image shows a hand.", None),
        ("Is there a fracture?", "No, there is a fracture.", None),
        ("Is there a fracture?", "Yes, there is no fracture.", None),
        ("Is there a fracture or a dislocation?", "There is a fracture.", None),
        ("Is there no fracture?", "There is no fracture.", "no"),
        ("Is this a normal chest x-ray?", "This is a normal chest x-ray.", "yes"),
        ("Is this a normal chest x-ray?", "This is an abnormal chest x-ray.", None),
        ("Is the left lung clear?", "The right lung is clear.", None),
        ("Is the left lung clear?", "The left lung is not entirely clear.", "no"),
        ("Are the lungs hyperinflated?", "The lungs are not hyperinflated.", "no"),
        (
            "<image>Is there pneumonia?\nAnswer with yes or no, or with the one word or phrase that the question asks for.",
            "There is pneumonia.",
            "yes",
        ),
        ("Is there pneumonia?", "Patients with pneumonia often have fever.", None),
        ("Is there pneumonia?", "The lungs are clear, without pneumonia.", "no"),
        ("Is there pneumonia?", "The findings do not suggest pneumonia.", "no"),
        ("Is there pneumonia?", "The opacity is consistent with pneumonia.", "yes"),
        ("Is there pneumonia?", "Pneumonia is less likely.", None),
        ("Is there pneumonia?", "Nothing suggests pneumonia.", "no"),
        ("Is there pneumonia?", "There is resolution of pneumonia.", None),
        ("Is there pneumonia?", "Yes, pneumonia cannot be excluded.", "yes"),
        ("Is there pneumonia?", "No pneumonia is seen. No wait times are needed.", "no"),
        ("Is there pneumonia?", "Wait for the doctor.", None),
        ("Is there pneumonia?", "There is actually no pneumonia.", "no"),
        ("Is there pneumonia?", "Yes, actually it is quite severe.", "yes"),
        ("Is there pneumonia?", "Yes. Wait, I am not sure.", None),
        ("有骨折吗？", "患者有骨折病史。", None),
        ("有骨折吗？", "建议排除骨折。", None),
        ("有骨折吗？", "如果有骨折，需要手术。", None),
        ("有骨折吗？", "骨折待排。", None),
        ("有骨折吗？", "无脱位，可见骨折。", "yes"),
        ("有骨折吗？", "骨折不明显。", "no"),
        ("有骨折吗？", "未见明显骨折及脱位。", "no"),
        ("有骨折吗？", "未见脱位及骨折。", "no"),
        ("有骨折吗？", "可疑骨折。", None),
        ("有骨折吗？", "有可疑骨折。", None),
        ("有骨折吗？", "不是没有可能。", None),
        ("有骨折吗？", "不是没有骨折。", "yes"),
        ("有骨折吗？", "左侧没有骨折，右侧有骨折。", None),
        ("有骨折吗？", "没有，图像清楚。", "no"),
        ("有骨折吗？", "骨折线清晰可见。", "yes"),
        ("左肺清晰吗？", "右肺清晰。", None),
        ("左肺清晰吗？", "左肺不清晰。", "no"),
        ("肺野是否清晰？", "清晰", "yes"),
        ("这是MRI还是CT？", "这是CT。", None),
        ("有无异常？", "未见异常。", "no"),
        ("有无异常？", "无", "no"),
        ("是否存在占位效应？", "占位效应不明显", "no"),
        ("肝脏大小正常吗？", "肝脏大小、形态正常。", "yes"),
        ("肝脏大小正常吗？", "肝脏大小不正常。", "no"),
        ("肝脏大小正常吗？", "正常", "yes"),
        ("肝脏大小正常吗？", "不正常", "no"),
        ("肝脏大小正常吗？", "肝脏增大", None),
        ("有肺不张吗", "没有肺不张", "no"),
        ("有肺不张吗？", "可见肺不张", "yes"),
        ("有肺不张吗？", "没有肺不张", "no"),
        ("有非典型增生吗？", "有非典型增生", "yes"),
        ("这是无创检查吗？", "是无创检查", "yes"),
        ("Is there a fracture?", "A scan without contrast shows a fracture.", "yes"),
        ("Is there a fracture?", "There is no doubt that a fracture is present.", "yes"),
        ("Is there a fracture?", "Not only is there a fracture but also a dislocation.", "yes"),
        ("Is there a fracture?", "Without fracture.", "no"),
        ("Is there a fracture?", "The patient with no fever has a fracture.", "yes"),
    ],
)
def test_what_an_answer_says_to_its_question(question: str, text: str, answer: str | None) -> None:
    assert read_yes_no(text, question) == answer


def test_parts_that_disagree_leave_it_open() -> None:
    assert read_restated("The left lung is clear. The left lung is not clear.", "Is the left lung clear?") == "open"
    assert read_restated("The right lung is clear.", "Is the left lung clear?") is None


@pytest.mark.parametrize("text", ["fracture " * 110_000, "骨折" * 500_000])
@pytest.mark.parametrize("question", ["Is there a fracture?", "有骨折吗？"])
def test_a_million_characters(text: str, question: str) -> None:
    assert read_yes_no(text, question) in ("yes", "no", None)
