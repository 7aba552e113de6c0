"""How often the reader of findings is right on synthetic report sentences: its precision and recall, with a floor.

``report_sentences/LANGUAGE-SET.tsv``: a sentence, a tab, and what it says, ``finding: status side`` parted by semicolons; nothing
where it says nothing of this picture. The sentences are synthetic, written for medtune; none is a patient's. Set 1 was written
before the rules were mended with it, set 2 after: its sentences were read by rules that had never met them. A rule that is changed
because of set 2 makes a set 3 necessary.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medtune.tasks.reading.assertions import Assertion, findings, read_assertions

FOLDER = Path(__file__).with_name("report_sentences")

Said = dict[str, Assertion]


def sentences(name: str) -> list[tuple[str, Said]]:
    found = []
    for line in (FOLDER / f"{name}.tsv").read_text(encoding="utf-8").splitlines():
        text, _, statements = line.partition("\t")
        said: Said = {}
        for statement in filter(None, statements.split("; ")):
            finding, _, rest = statement.partition(": ")
            status, _, side = rest.partition(" ")
            assert finding in findings(), f"{finding} is in no table: {text}"
            said[finding] = Assertion(status, side or None)  # type: ignore[arg-type]
        found.append((text, said))
    return found


def stated(said: Said) -> Said:
    """Without the broader findings that a claimed kind of theirs claims."""
    implied = {parent for name, assertion in said.items() if assertion.is_claimed for parent in findings()[name].kinds_of}
    return {name: assertion for name, assertion in said.items() if name not in implied}


def count(name: str) -> Counter[str]:
    """``right``, ``wrong`` and ``missed`` statements (finding and status), also of each status, and sides of the right ones."""
    counts: Counter[str] = Counter()
    for text, truth in sentences(name):
        read, wanted = stated(dict(read_assertions(text).of)), stated(truth)
        for finding, assertion in read.items():
            right = finding in wanted and wanted[finding].status == assertion.status
            counts["right" if right else "wrong"] += 1
            counts[f"{assertion.status} {'right' if right else 'wrong'}"] += 1
            if right and assertion.is_claimed and findings()[finding].sided:
                counts["side right" if wanted[finding].side == assertion.side else "side wrong"] += 1
        for finding, assertion in wanted.items():
            if finding not in read or read[finding].status != assertion.status:
                counts["missed"] += 1
                counts[f"{assertion.status} missed"] += 1
    return counts


def shares(name: str) -> tuple[float, float, float]:
    """Precision, recall, and the share of right sides."""
    counts = count(name)
    right, sides = counts["right"], counts["side right"]
    return right / (right + counts["wrong"]), right / (right + counts["missed"]), sides / (sides + counts["side wrong"])


FLOORS = {"en-1": (0.92, 0.92, 0.95), "en-2": (0.88, 0.87, 0.93), "zh-1": (0.92, 0.93, 0.94), "zh-2": (0.91, 0.88, 0.91)}
"""What a change of rules must not fall below: precision, recall, sides."""


@pytest.mark.parametrize("name", FLOORS)
def test_the_reader_keeps_its_level(name: str) -> None:
    assert all(share >= floor for share, floor in zip(shares(name), FLOORS[name], strict=True)), shares(name)


def test_there_are_enough_sentences_and_none_twice() -> None:
    for language in ("en", "zh"):
        texts = [text for name in (f"{language}-1", f"{language}-2") for text, _ in sentences(name)]
        assert len(texts) >= 100
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("status", ["present", "possible", "absent"])
def test_every_status_is_read(status: str) -> None:
    """Of all sets: a reader that denies nothing, or doubts nothing, must fail."""
    counts = sum((count(name) for name in FLOORS), Counter[str]())
    right = counts[f"{status} right"]
    assert right / (right + counts[f"{status} missed"]) > 0.75
    assert right / (right + counts[f"{status} wrong"]) > 0.75


@pytest.mark.parametrize("page", ["metrics-report-content.md", "metrics-report-content.zh-CN.md"])
def test_the_documentation_states_the_measured_shares(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    for name in FLOORS:
        counts = count(name)
        numbers = (len(sentences(name)), counts["right"] + counts["missed"], *(f"{share:.2f}" for share in shares(name)))
        assert f"| `{name}` | {' | '.join(map(str, numbers))} |" in text, numbers
