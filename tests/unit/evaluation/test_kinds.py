"""A hundred sentences of one kind are said once, with their number."""

from __future__ import annotations

import pytest

from medtune.cli.tables import _warn
from medtune.evaluation.cautions import cut_off, one_run_each
from medtune.evaluation.kinds import by_kind, in_short
from medtune.evaluation.overlaps import makes_unfit
from medtune.language import Text, msg

_ISSUES = [Text("Nearly the same picture as that of row {other}.", {"other": f"r{number}"}) for number in range(57)]
ALIKE = [Text("Validation of the data found: {finding}", {"finding": issue}) for issue in _ISSUES]


def test_a_kind_is_one_sentence_with_its_number() -> None:
    texts = [ALIKE[0], one_run_each(), *ALIKE[1:], cut_off("base", 1, 9), cut_off("tuned", 2, 9)]
    short = [text.render("en") for text in in_short(texts)]
    assert short[0] == "Validation of the data found: Nearly the same picture as that of row r0. (And 56 more of this kind.)"
    assert short[1:] == [text.render("en") for text in (one_run_each(), cut_off("base", 1, 9), cut_off("tuned", 2, 9))]
    assert sum(len(kind.shown) + len(kind.rest) for kind in by_kind(texts)) == len(texts), "the page has all of them"


def test_sentences_about_other_things_are_other_kinds() -> None:
    found = [Text("Validation of the data found: {finding}", {"finding": msg("Groups stand in two splits.")}), *ALIKE[:5]]
    assert [len(kind.shown) + len(kind.rest) for kind in by_kind(found)] == [1, 5]


def test_the_same_of_other_models_is_one_kind() -> None:
    """Titles are names of things: only a sentence within a sentence says something else."""
    found = [cut_off(label, 1, 9) for label in ("base", "tuned", "tuned-blank")]
    assert len({str(text.fields["label"]) for text in found}) == 3
    assert len(by_kind(found)) == 1


def test_the_terminal_begins_with_what_makes_numbers_unfit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.setenv("MEDTUNE_LANG", "en")
    assert all(makes_unfit(text) for text in ALIKE)
    _warn(Console(width=200), [one_run_each(), *ALIKE])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "(And 56 more of this kind.)" in lines[0]
