"""Every sentence that people see has a Chinese one with the same fields, and no Chinese one is left over."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import medtune
from medtune.recipe import Recipe
from medtune.schema import descriptions

ROOT = Path(medtune.__file__).parent
CATALOGUES = sorted((ROOT / "locale" / "zh").glob("*.json"))


def sentences(path: Path) -> Iterator[tuple[str, str]]:
    """(place, template) of every ``msg(...)`` of a file.

    Raises:
        AssertionError: The template is not a literal.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (
            (isinstance(node.func, ast.Name) and node.func.id == "msg")
            or (isinstance(node.func, ast.Attribute) and node.func.attr == "msg")
        ):
            place = f"{path.name}:{node.lineno}"
            assert node.args, f"{place}: msg() without a sentence"
            template = node.args[0]
            assert isinstance(template, ast.Constant), f"{place}: the sentence is not a literal"
            assert isinstance(template.value, str), f"{place}: the sentence is not a literal"
            given = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
            if all(keyword.arg is not None for keyword in node.keywords):
                assert fields(template.value) == given, f"{place}: the sentence and its fields differ"
            yield place, template.value


def card_notes(path: Path) -> Iterator[str]:
    """The notes of the source cards that a file makes; ``medtune validate`` shows them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SourceCard":
            for keyword in node.keywords:
                if keyword.arg == "notes":
                    yield from (part.value for part in ast.walk(keyword.value) if isinstance(part, ast.Constant))


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def catalogue(path: Path) -> dict[str, str]:
    """A catalogue; a key written twice in it is an error."""

    def unique(pairs: list[tuple[str, str]]) -> dict[str, str]:
        keys = [key for key, _ in pairs]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        assert repeated == [], f"{path.name}: written twice: {repeated}"
        return dict(pairs)

    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    return found


def all_sentences() -> dict[str, str]:
    """Template -> the first place that uses it."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "language.py":
            for place, template in sentences(path):
                found.setdefault(template, f"{path.parent.name}/{place}")
    for path in sorted((ROOT / "data" / "sources").rglob("*.py")):
        for note in card_notes(path):
            found.setdefault(note, f"a source card of {path.name}")
    # `medtune recipe show --explain` prints the docstrings of the settings.
    for description in descriptions(Recipe):
        found.setdefault(description, "a setting's docstring")
    return found


def translated() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in CATALOGUES:
        found.update(catalogue(path))
    return found


def test_there_are_sentences_and_catalogues() -> None:
    assert len(all_sentences()) > 100
    assert CATALOGUES


def test_every_sentence_has_a_translation() -> None:
    known = translated()
    missing = {template: place for template, place in all_sentences().items() if template not in known}
    assert missing == {}


def test_no_translation_is_left_over() -> None:
    used = all_sentences()
    stale = {path.name: [key for key in catalogue(path) if key not in used] for path in CATALOGUES}
    assert {name: keys for name, keys in stale.items() if keys} == {}


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.name)
def test_both_languages_use_the_same_fields(path: Path) -> None:
    different = {key: text for key, text in catalogue(path).items() if path.stem != "settings" and fields(key) != fields(text)}
    assert different == {}


def test_no_two_catalogues_disagree() -> None:
    first: dict[str, tuple[str, str]] = {}
    clashes = []
    for path in CATALOGUES:
        for key, text in catalogue(path).items():
            name, before = first.setdefault(key, (path.name, text))
            if before != text:
                clashes.append((key, name, path.name))
    assert clashes == []


@pytest.mark.parametrize(
    "code", ["msg(f'{x}')", "msg(text)", "msg('a' + b)", "msg()", "msg('{a}', b=1)", "language.msg(text)", "msg('a', extra=1)"]
)
def test_the_rule_can_fail(tmp_path: Path, code: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(code)
    with pytest.raises(AssertionError):
        list(sentences(path))
