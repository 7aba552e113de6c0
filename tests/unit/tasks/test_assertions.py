"""Negation, uncertainty and side of findings, English, Chinese and mixed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from medtune.tasks.reading.assertions import Assertion, coverage, findings, read_assertions
from medtune.tasks.reading.assertions.tokens import Trie, phrases, tokenize
from medtune.tasks.reading.finding import _PARENTS, canonical_finding


def status(text: str, finding: str) -> str | None:
    found = read_assertions(text).of.get(finding)
    return None if found is None else found.status


def side(text: str, finding: str) -> str | None:
    return read_assertions(text).of[finding].side


STATUSES = [
    # Lists under one negation, and where it ends.
    ("No pleural effusion, pneumothorax or focal consolidation.", "consolidation", "absent"),
    ("No pneumothorax, large effusion, or mass.", "effusion", "absent"),
    ("No effusion, stable cardiomegaly.", "cardiomegaly", "present"),
    ("No effusion, stable cardiomegaly.", "effusion", "absent"),
    ("No effusion but a small pneumothorax.", "pneumothorax", "present"),
    ("There is no effusion. Pneumothorax.", "pneumothorax", "present"),
    ("NO EVIDENCE OF PNEUMOTHORAX", "pneumothorax", "absent"),
    ("Without pneumothorax or pleural fluid.", "pleural effusion", "absent"),
    ("Negative for fracture.", "fracture", "absent"),
    # Behind the finding.
    ("Pneumothorax, effusion and consolidation are not seen.", "pneumothorax", "absent"),
    ("Pneumothorax has been ruled out.", "pneumothorax", "absent"),
    ("There is a left nodule, pneumothorax is not seen.", "nodule", "present"),
    ("There is a left nodule, pneumothorax is not seen.", "pneumothorax", "absent"),
    # Pseudo-negation.
    ("No change in the nodule.", "nodule", "present"),
    ("No significant change in the pleural effusion.", "pleural effusion", "present"),
    ("The effusion is not significantly changed.", "effusion", "present"),
    # Double negation.
    ("Not without effusion.", "effusion", "present"),
    ("The pneumothorax has not resolved.", "pneumothorax", "present"),
    ("Heart size is not normal.", "cardiomegaly", "present"),
    ("胸腔积液并非没有。", "pleural effusion", "present"),
    # Uncertainty.
    ("Pneumonia cannot be excluded.", "pneumonia", "possible"),
    ("Pneumonia can not be entirely excluded.", "pneumonia", "possible"),
    ("Cannot exclude pneumonia.", "pneumonia", "possible"),
    ("Possible small pneumothorax.", "pneumothorax", "possible"),
    ("Opacity suspicious for lung cancer.", "lung cancer", "possible"),
    ("Opacity suspicious for lung cancer.", "lung opacity", "present"),
    ("No suspected fracture.", "fracture", "absent"),
    # Gaps, hyphens, spelling, plural.
    ("The heart is mildly enlarged.", "cardiomegaly", "present"),
    ("The heart is not enlarged.", "cardiomegaly", "absent"),
    ("Heart size is normal.", "cardiomegaly", "absent"),
    ("Ground-glass opacities.", "ground-glass opacity", "present"),
    ("sub-dural haematoma", "subdural hematoma", "present"),
    ("Haemorrhages and oedema.", "hemorrhage", "present"),
    ("Haemorrhages and oedema.", "edema", "present"),
    ("The opacity is likely atelectasis.", "atelectasis", "possible"),
    ("The opacity is likely atelectasis.", "lung opacity", "present"),
    ("The atelectasis is likely.", "atelectasis", "possible"),
    ("The thickening of the septa and the effusion are likely chronic.", "effusion", "present"),
    ("Atelectasis versus pneumonia.", "atelectasis", "possible"),
    ("Atelectasis versus pneumonia.", "pneumonia", "possible"),
    ("Effusion, atelectasis versus pneumonia.", "effusion", "present"),
    ("No effusion versus thickening.", "effusion", "absent"),
    ("No edema to suggest heart failure.", "heart failure", "absent"),
    ("No fracture, and a small hematoma.", "hemorrhage", "present"),
    ("No fracture, and a small hematoma.", "fracture", "absent"),
    # Not about this picture.
    ("结核病史。", "tuberculosis", None),
    ("History of pneumonia.", "pneumonia", None),
    ("Evaluate for pneumothorax.", "pneumothorax", None),
    # Chinese.
    ("双肺未见明显异常。", "lung opacity", None),
    ("未见结节、肿块及实变，心影增大。", "consolidation", "absent"),
    ("未见结节、肿块及实变，心影增大。", "cardiomegaly", "present"),
    ("纵隔淋巴结未见肿大。", "lymphadenopathy", "absent"),
    ("胸腔积液未见。", "pleural effusion", "absent"),
    ("双侧胸腔未见积液。", "pleural effusion", "absent"),
    ("结节未见明显变化。", "nodule", "present"),
    ("右肺炎症，肺癌不除外。", "lung cancer", "possible"),
    ("肺癌？", "lung cancer", "possible"),
    ("考虑肺炎。", "pneumonia", "possible"),
    ("心影不大。", "cardiomegaly", "absent"),
    ("无气胸，右侧胸腔积液。", "pleural effusion", "present"),
    ("未见有骨折。", "fracture", "absent"),
    ("首先考虑垂体瘤。", "pituitary tumor", "possible"),
    ("脑膜瘤与胶质瘤待鉴别。", "meningioma", "possible"),
    ("右肺炎症，不排除合并胸腔积液。", "pleural effusion", "possible"),
    # Mixed.
    ("T2 hyperintensity, no mass, 左肺nodule可见", "mass", "absent"),
    ("T2 hyperintensity, no mass, 左肺nodule可见", "nodule", "present"),
    ("CT示右肺nodule，未见pleural effusion。", "pleural effusion", "absent"),
]


@pytest.mark.parametrize(("text", "finding", "expected"), STATUSES)
def test_status(text: str, finding: str, expected: str | None) -> None:
    assert status(text, finding) == expected


SIDES = [
    ("Small left pleural effusion and right pneumothorax.", "pleural effusion", "left"),
    ("Small left pleural effusion and right pneumothorax.", "pneumothorax", "right"),
    ("Effusion on the left and pneumothorax on the right.", "effusion", "left"),
    ("Effusion on the left and pneumothorax on the right.", "pneumothorax", "right"),
    ("Bilateral pleural effusions.", "pleural effusion", "both"),
    ("Left pleural effusion. Right pleural effusion.", "pleural effusion", "both"),
    ("Pleural effusion.", "pleural effusion", None),
    ("No left pleural effusion.", "pleural effusion", None),
    ("Ground-glass opacity in the right upper lobe.", "ground-glass opacity", "right"),
    ("A nodule on the left side of the image.", "nodule", None),
    ("左侧胸腔积液，右肺实变。", "pleural effusion", "left"),
    ("左侧胸腔积液，右肺实变。", "consolidation", "right"),
    ("左肺上叶见结节，边界清。", "nodule", "left"),
    ("双侧胸腔积液", "pleural effusion", "both"),
    ("结节大小约5mm左右。", "nodule", None),
    ("Left ascites.", "ascites", None),
    ("Nonobstructing calculus in the lower pole of the left kidney.", "kidney stone", "left"),
    ("Subdural hematoma along the left convexity.", "subdural hematoma", "left"),
    ("Opacity at the right lung base may reflect pneumonia.", "pneumonia", "right"),
    ("Effusion on the left and possible pneumothorax.", "pneumothorax", None),
    ("Effusions, left greater than right, possible pneumonia.", "pneumonia", None),
    ("Disc protrusion at L5-S1 with severe left foraminal stenosis.", "disc herniation", None),
]


@pytest.mark.parametrize(("text", "finding", "expected"), SIDES)
def test_side(text: str, finding: str, expected: str | None) -> None:
    assert side(text, finding) == expected


def test_a_kind_claims_what_it_is_a_kind_of_and_a_denial_does_not() -> None:
    assert read_assertions("Left subdural hematoma.").claimed == {"subdural hematoma", "intracranial hemorrhage", "hemorrhage"}
    denied = read_assertions("No subdural hematoma.")
    assert set(denied.of) == {"subdural hematoma"}
    assert denied.claimed == set()


def test_words_within_a_phrase_are_not_a_finding_of_their_own() -> None:
    assert set(read_assertions("双侧胸腔未见积液。").of) == {"pleural effusion"}
    assert set(read_assertions("No rib with a fracture.").of) == {"rib fracture"}
    inside = read_assertions("The heart with a mass is enlarged.").of
    assert {"cardiomegaly", "mass"} <= set(inside), "but a finding between the parts is one"


def test_present_goes_before_possible_and_absent() -> None:
    text = "Possible pneumonia. No effusion. IMPRESSION: Right pneumonia. Effusion cannot be excluded."
    assert read_assertions(text).of["pneumonia"] == Assertion("present", "right")
    assert status(text, "effusion") == "possible"


def test_normal_is_a_statement() -> None:
    for text in ("双肺未见明显异常。", "Normal study.", "No acute abnormality."):
        assert read_assertions(text).says_normal
        assert read_assertions(text)
    for text in ("", "  ", "The weather is fine.", "？！。", "\x00", "12.5"):
        assert not read_assertions(text)


@pytest.mark.parametrize(
    "unit",
    [
        "x",
        "no ",
        "no effusion, ",
        "heart ",
        "无",
        "左",
        "effusion on the left ",
        "heart heart heart enlarged ",
        "effusion absent ",
        "，",
    ],
)
def test_long_texts_take_steps_in_proportion(unit: str) -> None:
    def steps(length: int) -> int:
        """Lines of Python that are run: unlike seconds they are the same on every machine."""
        count = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG001
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            read_assertions(unit * (length // len(unit)))
        finally:
            sys.settrace(before)
        return count

    steps(100)
    # Four times as long takes four times as many; sixteen times would be quadratic.
    assert steps(4_000) < 6 * max(steps(1_000), 100)


def test_a_million_characters() -> None:
    assert status("No effusion. " * 76_000 + "Pneumothorax.", "pneumothorax") == "present"


# ------------------------------------------------------------------------------------------------------------- the tables


def test_every_finding_is_read_by_its_own_names() -> None:
    for name, finding in findings().items():
        for text in (name, finding.chinese):
            assert name in read_assertions(text).claimed, f"{text} is not read as {name}"


def test_kinds_exist_and_do_not_run_in_circles() -> None:
    for name, finding in findings().items():
        assert name not in finding.kinds_of
        assert set(finding.kinds_of) <= set(findings())


def test_findings_of_regions_have_the_same_kinds_here() -> None:
    """:mod:`medtune.tasks.reading.finding` reads the single finding of a region; what it calls a kind is one here too."""
    for name in _PARENTS:
        text = "cerebral " + name if name == "metastasis" else name
        claimed = read_assertions(text).claimed
        assert any(canonical_finding(other) == _PARENTS[name] for other in claimed), name


def test_coverage_counts() -> None:
    found = coverage()
    assert sum(found.findings.values()) == len(findings())
    assert found.english > 1000
    assert found.chinese > 500
    assert found.triggers > 500


def test_phrases_are_written_out() -> None:
    assert set(phrases("a|b c? ~ d")) == {("a", "c", "~", "d"), ("a", "~", "d"), ("b", "c", "~", "d"), ("b", "~", "d")}
    assert list(phrases("胸腔积液")) == [("胸", "腔", "积", "液")]
    for pattern in ("", "a?", "~ a", "a ~"):
        with pytest.raises(ValueError, match="empty phrase"):
            list(phrases(pattern))


def test_the_longest_phrase_wins_and_a_gap_hides_nothing() -> None:
    trie: Trie[str] = Trie([(("no",), "no"), (("no", "change"), "same"), (("heart", "~", "large"), "big"), (("mass",), "mass")])
    assert [payloads for *_, payloads in trie.find(tokenize("no change no"))] == [("same",), ("no",)]
    assert [payloads for *_, payloads in trie.find(tokenize("heart with mass is large"))] == [("big",), ("mass",)]
    assert trie.find(tokenize("heart, large")) == [], "a gap does not reach over a comma"
    assert trie.find(tokenize("heart a b c d e large")) == [], "nor over five words"
    assert len(trie.find(tokenize("heart 一二三四五六 large"))) == 1, "six characters are four words"
    assert trie.find(tokenize("heart 一二三四五六七 large")) == []


def test_the_documentation_states_what_the_tables_hold() -> None:
    found = coverage()
    for page in sorted(Path(__file__).parents[3].glob("docs/metrics-report-content*.md")):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"(?m)^\| [^|`]+ \| (\d+) \|$", text) == [str(number) for number in found.findings.values()], page.name
        for number in (found.english, found.chinese, found.triggers):
            assert f" {number} " in text, (page.name, number)
