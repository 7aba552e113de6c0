"""Everyday, vague or outdated words where a radiologist has a term, against the tables in ``data/terms``.

A set whose captions say "differing density" teaches a model to say so; the reader of a report wants to know whether it is higher
or lower. The tables are data: one entry a phrase, with the suggested term, the reason and a public source of that term.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from medtune.data.checks.check import Check, Place
from medtune.data.checks.found import Found
from medtune.language import Text, msg
from medtune.types import Sample

__all__ = ["Term", "Terms", "Wording", "look", "read_terms", "replace_terms", "wording"]

Why = Literal["direction", "impression", "lay", "obsolete", "vague", "prompt"]

_SENTENCE = re.compile(r"[.!?]\s+(?=[A-Z])|;\s|[。；！？\n]")
_NEGATED = re.compile(
    r"(?:\b(?:no|not|without|denies|absence of|free of|negative for|neither|nor)\b[^,:]{0,40}"
    r"|(?:无|未见|没有|未发现|不伴|排除)[^，、：]{0,12})$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Term:
    """One entry of a table.

    Attributes:
        pattern: Of the phrase; in English it begins and ends at word boundaries.
        suggestion: What to write; several terms where the phrase does not say which is meant.
        why: What is wrong with the phrase.
        source: The public vocabulary that the suggested term stands in.
        replace: What the phrase can be replaced with, where that does not depend on the picture; ``\\1`` as in :mod:`re`.
    """

    pattern: re.Pattern[str]
    suggestion: str
    why: Why
    source: str
    replace: str | None = None


@dataclass(frozen=True, slots=True)
class Wording:
    """A phrase of a text: where it stands (characters), and its entry."""

    start: int
    stop: int
    phrase: str
    term: Term


_EDGES = {"en": (r"(?<![\w-])(?:", r")(?![\w-])"), "zh": ("(?:", ")")}


@cache
def _table(language: Literal["en", "zh"]) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((resources.files("medtune.data") / "terms" / f"{language}.json").read_text("utf-8"))
    return table


@cache
def read_terms(language: Literal["en", "zh"]) -> tuple[Term, ...]:
    """The table of a language, in its order."""
    before, behind = _EDGES[language]
    return tuple(
        Term(
            pattern=re.compile(before + entry["pattern"] + behind, re.IGNORECASE),
            suggestion=entry["suggestion"],
            why=entry["why"],
            source=_table(language)["sources"][entry["source"]],
            replace=entry.get("replace"),
        )
        for entry in _table(language)["terms"]
    )


@cache
def _any_term(language: Literal["en", "zh"]) -> re.Pattern[str]:
    """All phrases of a table in one pattern, for lower-case text: IGNORECASE would make it ten times as slow."""
    before, behind = _EDGES[language]
    return re.compile(before + "|".join(entry["pattern"].lower() for entry in _table(language)["terms"]) + behind)


_HAN = re.compile("[\u4e00-\u9fff]")


def wording(text: str) -> list[Wording]:
    """The phrases of a text that have an entry, in their order; of two that begin at one place the longer one.

    A phrase is passed over where its sentence has the suggested term already ("contusion, i.e. a bruise"), and, where the entry
    asks for a direction or an appearance, where it is denied: of "no differing density" no direction can be given.
    """
    found = list(_wording(text, "en"))
    if _HAN.search(text):
        found = sorted([*found, *_wording(text, "zh")], key=lambda item: item.start)
    return found


def _wording(text: str, language: Literal["en", "zh"]) -> Iterator[Wording]:
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters grow, and every place behind them would be wrong
        lowered = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
    position = 0
    while hit := _any_term(language).search(lowered, position):
        start = position = hit.start()
        matches = ((term, term.pattern.match(text, start)) for term in read_terms(language))
        sound = [(match, term) for term, match in matches if match and not _is_said_properly(text, match, term)]
        if sound:
            match, term = max(sound, key=lambda each: each[0].end())
            yield Wording(start, match.end(), match.group(0), term)
            position = match.end()
        else:
            position += 1


def _is_said_properly(text: str, match: re.Match[str], term: Term) -> bool:
    before = _SENTENCE.split(text[: match.start()])[-1]
    if term.why in ("direction", "impression", "vague") and _NEGATED.search(before):
        return True
    behind = _SENTENCE.split(text[match.end() :])[0]
    if term.why == "prompt":
        return False
    terms = [word.strip() for word in re.split(r",|\bor\b|\([^)]*\)|、|或|（[^）]*）|，", term.suggestion)]
    around = f"{before} {behind}".lower()
    return any(len(word) > 1 and _stands_in(word.lower(), around) for word in terms)


def _stands_in(word: str, text: str) -> bool:
    if not word.isascii():
        return word in text
    return re.search(rf"(?<![\w-]){re.escape(word)}(?:e?s)?(?![\w-])", text) is not None


def replace_terms(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The text with the phrases replaced that have one meaning whatever the picture shows, and (before, after) of each.

    Every occurrence is looked at once; a phrase at the head of a sentence keeps its capital.
    """
    changed: list[tuple[str, str]] = []
    pieces: list[str] = []
    position = 0
    for item in wording(text):
        if item.term.replace is None:
            continue
        new = item.term.pattern.sub(item.term.replace, item.phrase, count=1) if "\\" in item.term.replace else item.term.replace
        if item.phrase[:1].isupper() and new[:1].islower():
            new = new[:1].upper() + new[1:]
        pieces += [text[position : item.start], new]
        position = item.stop
        changed.append((item.phrase, new))
    return "".join((*pieces, text[position:])), changed


class Terms(Check):
    """The assistant's words. Keeps nothing of a row."""

    names = ("wording",)

    def row(self, sample: Sample, place: Place) -> None:
        for found in look(sample):
            self.findings.add(*found, split=place.split, sample=sample.id, file=str(place))


def look(sample: Sample) -> Iterator[Found]:
    """Findings about the assistant's words of a row; what a user asks may be put in any words."""
    seen: set[str] = set()
    for message in sample.messages:
        if message.role != "assistant":
            continue
        for item in wording(message.content):
            if item.phrase.lower() not in seen:
                seen.add(item.phrase.lower())
                yield Found("wording", "warning", _message(item), _remedy(item.term))


def _message(item: Wording) -> Text:
    match item.term.why:
        case "direction":
            return msg("{phrase!r} says that something differs, not in which direction.", phrase=item.phrase)
        case "impression":
            return msg("{phrase!r} tells how it looks on the screen, not what it is in the image.", phrase=item.phrase)
        case "lay":
            return msg("{phrase!r} is everyday language.", phrase=item.phrase)
        case "obsolete":
            return msg("{phrase!r} is an outdated term.", phrase=item.phrase)
        case "vague":
            return msg("{phrase!r} may mean several things.", phrase=item.phrase)
        case "prompt":
            return msg("{phrase!r} speaks of how the text was made, not of the picture.", phrase=item.phrase)


def _remedy(term: Term) -> Text:
    if term.replace is None:
        return msg("Standard: {suggestion} ({source}).", suggestion=term.suggestion, source=term.source)
    return msg(
        "Standard: {suggestion} ({source}). `medtune validate --fix FOLDER --fix-terms` puts it in.",
        suggestion=term.suggestion,
        source=term.source,
    )
