"""A page and its Chinese twin say the same as far as a program can tell: sections, code, tables, names in code.

Sentences are translated by people; what is compared here is what does not change with the language. A setting, code or command
that was added to one page only is found this way.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TWINS = sorted([*ROOT.glob("*.zh-CN.md"), *(ROOT / "docs").rglob("*.zh-CN.md")])
FENCE = re.compile(r"(?ms)^(?:<!-- not run: [^\n]*-->\n)?```.*?^```$")
PAIR = pytest.mark.parametrize("twin", TWINS, ids=lambda page: page.name)

WANTED = {
    "README",
    "data-formats",
    "deidentify",
    "dicom",
    "distributed",
    "evaluation",
    "generation",
    "generators",
    "installation",
    "metrics-report-content",
    "nano",
    "nifti",
    "phantom",
    "planning",
    "privacy",
    "recipes",
    "reports",
    "statistics",
    "sweeps",
    "training",
    "validation",
}


def english(twin: Path) -> Path:
    return twin.with_name(twin.name.replace(".zh-CN.md", ".md"))


def sections(page: Path) -> list[tuple[str, str]]:
    """The level of each heading with the text below it, fenced blocks taken out; the first has no heading."""
    parts = re.split(r"(?m)^(#+) .*$", FENCE.sub("", page.read_text(encoding="utf-8")))
    return list(zip(["", *parts[1::2]], parts[::2], strict=True))


def code(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def rows(text: str) -> list[tuple[int, set[str]]]:
    """The rows of all tables of a section: number of cells, names in code of the first cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [(line.count("|"), code(line.split("|")[1])) for line in lines]


def test_the_pages_of_hospitals_have_a_twin() -> None:
    assert {twin.name.removesuffix(".zh-CN.md") for twin in TWINS} >= WANTED


@PAIR
def test_each_page_leads_to_the_other(twin: Path) -> None:
    page = english(twin)
    assert f"[简体中文]({twin.name})" in page.read_text(encoding="utf-8").splitlines()[:3]
    assert f"[English]({page.name})" in twin.read_text(encoding="utf-8").splitlines()[:3]


@PAIR
def test_both_have_the_same_sections(twin: Path) -> None:
    assert [level for level, _ in sections(twin)] == [level for level, _ in sections(english(twin))]


@PAIR
def test_both_have_the_same_blocks(twin: Path) -> None:
    found, wanted = (FENCE.findall(page.read_text(encoding="utf-8")) for page in (twin, english(twin)))
    for block, other in zip_longest(found, wanted):
        assert block == other


@PAIR
def test_both_have_the_same_tables(twin: Path) -> None:
    for (_, text), (_, other) in zip(sections(twin), sections(english(twin)), strict=True):
        assert rows(text) == rows(other)


@PAIR
def test_each_section_names_the_same_things_in_code(twin: Path) -> None:
    for (_, text), (_, other) in zip(sections(twin), sections(english(twin)), strict=True):
        assert code(text) == code(other), text.strip()[:60]


def test_the_list_of_findings_is_the_program_s_own_in_chinese() -> None:
    from medtune.data.checks.meanings import MEANINGS

    page = (ROOT / "docs" / "validation.zh-CN.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"(?m)^\| `([a-z*-]+)` \| [^|]+ \| (.+) \|$", page))
    assert listed == {code: text.render("zh") for code, text in MEANINGS.items()}


@PAIR
def test_each_section_has_the_same_figures(twin: Path) -> None:
    """Numbers of two digits or more. Chinese counts large round numbers in ten thousands: 5.8 million is 580 of them."""
    number = re.compile(r"(?<![\w.,])\d[\d,.]*\d(?!\w)")
    for (_, text), (_, other) in zip(sections(twin), sections(english(twin)), strict=True):
        found, wanted = (set(number.findall(re.sub(r"\]\([^)]*\)|`[^`]*`", "", part))) for part in (text, other))
        assert found - {"580"} == wanted - {"5.8"}, text.strip()[:60]
