"""Yes or no, read as a person would."""

from __future__ import annotations

import pytest

from medtune.tasks.reading.yes_no import read_yes_no


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("yes", "yes"),
        ("**Yes**, clearly.", "yes"),
        ("Yes, no fracture is seen", "yes"),
        ("No, there is a fracture", "no"),
        ("There is no fracture", "no"),
        ("not yes", "no"),
        ("The answer is not yes.", "no"),
        ("not no", None),
        ("nodule", None),  # not a no
        ("The heart is normal.", None),
        ("abnormal", None),
        ("I cannot tell", None),
        ("I can't say yes or no", None),
        ("There is no way to tell", None),
        ("No way to tell", None),
        ("I know the answer", None),  # nor is this
        ("not sure", None),
        ("Not sure, maybe yes", None),
        ("yes and no", None),
        ("Yes, and no effusion is seen", "yes"),
        ("No doubt, yes", "yes"),
        ("No doubt.", None),
        ("Certainly not.", "no"),
        ("no.1 finding", None),
        ("A fracture with no displacement", None),  # what hangs on another statement is no answer
        ("In this image there is no fracture", "no"),
        ("True.", "yes"),
        ("false", "no"),
        ("False positive", None),
        ("Correct technique", None),
        ("<think>no</think>Yes", "yes"),
        ("<think>no", None),
        ("yes or no", None),
        ("Yes/No", None),
        ("", None),
        ("是", "yes"),
        ("是的，可见骨折", "yes"),
        ("对", "yes"),
        ("有", "yes"),
        ("存在", "yes"),
        ("否", "no"),
        ("不是", "no"),
        ("没有", "no"),
        ("無", "no"),
        ("未见骨折", "no"),
        ("未见异常", "no"),
        ("不存在", "no"),
        ("答案：否", "no"),
        ("是否", None),
        ("是否存在骨折？", None),  # the question again
        ("是否有骨折：是", "yes"),
        ("有没有骨折？没有", "no"),
        ("是不是", None),
        ("存在与否", None),
        ("不是没有", "yes"),  # two negations say that there is
        ("并非没有骨折", "yes"),
        ("不是没有可能", None),
        ("不能说没有", None),
        ("不错", "yes"),  # right; 不 does not deny here
        ("不错位", "no"),
        ("不能排除骨折", None),
        ("不除外肺炎", None),
        ("可能没有", None),
        ("Pneumonia cannot be excluded.", None),
        ("Possibly no fracture.", None),
        ("There is no fracture. A contusion is possible.", "no"),
        ("There is not a fracture.", None),  # "a" hides what is denied: read with its question alone
        ("No, wait, yes.", "yes"),
        ("Yes. Actually, no.", "no"),
        ("Yes, actually it is severe.", "yes"),
        ("Yes. Wait, I am not sure.", None),
        ("Wait for the doctor.", None),
        ("不是，等一下，是的", "yes"),
        ("Absolutely.", "yes"),
        ("Absolutely not.", "no"),
        ("This is image No. 3 of 5.", None),
        ("Positive.", None),  # a choice, where no question is given
        ("回答：否", "no"),
        ("答：是", "yes"),
        ("正确", "yes"),
        ("正确的，存在骨折", "yes"),
        ("正确答案是：否", "no"),
        ("正确的答案：无骨折", "no"),
        ("最终答案：是", "yes"),
        ("没错，有骨折", "yes"),
        ("没错位", "no"),  # not displaced
        ("无论是否移位，均存在骨折", "yes"),
        ("错误", "no"),
        ("错位", None),  # a dislocation
        ("有无", None),
        ("是/否", None),
        ("有或没有", None),
        ("对比增强", None),
        ("无法判断", None),  # begins like a no
        ("不确定", None),
        ("不清楚", None),
        ("未必", None),
        ("有可能", None),
    ],
)
def test_what_an_answer_says(text: str, answer: str | None) -> None:
    assert read_yes_no(text) == answer


@pytest.mark.parametrize("text", ["no " * 330_000, "是否" * 500_000, "是" + " " * 999_999, "x" * 1_000_000])
def test_a_million_characters(text: str) -> None:
    assert read_yes_no(text) in ("yes", "no", None)
