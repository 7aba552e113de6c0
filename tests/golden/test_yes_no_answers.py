"""How often yes, no and neither are read as a careful radiologist would, in synthetic answers written for medtune.

``yes_no_answers/HALF.jsonl``: an answer a line, with its language, its question and its label (``yes``, ``no`` or ``unreadable``).
The half ``held_out`` was written before the reader was looked at; how far it is blind is said in ``docs/evaluation.md``, which
shows these numbers. ``misleading`` was written to be read as the opposite, after a look at the reader's rules.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from medtune.tasks.reading.yes_no import read_yes_no

FOLDER = Path(__file__).with_name("yes_no_answers")


def outcomes(half: str, language: str, *, with_question: bool = True) -> Counter[str]:
    """How many answers were read right, not read, read as the opposite, and read although nobody could."""
    found = Counter[str]()
    for line in (FOLDER / f"{half}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["language"] == language:
            said = read_yes_no(row["answer"], row["question"] if with_question else "") or "unreadable"
            wrong = "not read" if said == "unreadable" else "guessed" if row["label"] == "unreadable" else "opposite"
            found["right" if said == row["label"] else wrong] += 1
    return found


@pytest.mark.parametrize(
    ("half", "language", "right", "not_read"),
    [("held_out", "en", 35, 5), ("held_out", "zh", 32, 3), ("mending", "en", 38, 2), ("mending", "zh", 34, 1)],
)
def test_answers_are_read_right_or_not_at_all(half: str, language: str, right: int, not_read: int) -> None:
    assert outcomes(half, language) == Counter({"right": right, "not read": not_read})


@pytest.mark.parametrize(("language", "right", "not_read", "opposite"), [("en", 88, 101, 2), ("zh", 113, 59, 1)], ids=["en", "zh"])
def test_answers_that_mislead_are_seldom_read_as_the_opposite(language: str, right: int, not_read: int, opposite: int) -> None:
    assert outcomes("misleading", language) == Counter({"right": right, "not read": not_read, "opposite": opposite})


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_question_is_needed_to_read_statements(language: str) -> None:
    alone, asked = (outcomes("held_out", language, with_question=given)["right"] for given in (False, True))
    assert alone < asked


@pytest.mark.parametrize("half", ["held_out", "mending"])
def test_the_table_holds_answers_of_every_kind(half: str) -> None:
    rows = [json.loads(line) for line in (FOLDER / f"{half}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert Counter(row["language"] for row in rows) == {"en": 40, "zh": 35}
    assert {row["label"] for row in rows} == {"yes", "no", "unreadable"}
