"""The findings that can be read, and the words around them that change what is said: tables in ``tables/*.json``.

One file for each body part, one object for each finding, with its name and phrases in English and Chinese, the findings that it
is a kind of, and phrases that deny it by themselves ("heart size is normal"). ``context.json`` holds the triggers. The phrases were
collected for medtune from general knowledge of reporting language; no published list was copied, and they were tuned on no data
set. :func:`coverage` counts them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from medtune.tasks.reading.assertions.tokens import Trie, phrases

__all__ = ["Coverage", "Finding", "Sign", "coverage", "findings", "general_findings", "signs"]

BODY_PARTS = ("general", "head", "chest", "abdomen", "bones", "neck_breast")
"""The tables, in the order of the report."""

_STATUS = {"deny": "absent", "doubt": "possible", "past": "unsaid", "asked": "unsaid"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One entry of a table.

    Attributes:
        name: In English; it is also its key.
        chinese: The name in Chinese.
        body_part: The table's title in English.
        body_part_chinese: The same in Chinese.
        kinds_of: Every finding that this one is a kind of, however far up, without itself.
        sided: Whether left or right can be said of it (never of ascites).
    """

    name: str
    chinese: str
    body_part: str
    body_part_chinese: str
    kinds_of: tuple[str, ...]
    sided: bool


@dataclass(frozen=True, slots=True)
class Sign:
    """What a phrase stands for.

    Attributes:
        kind: ``finding`` or ``denied`` with the finding's name; ``ahead``, ``back`` or ``between`` with the status that the
            trigger gives; else the key of ``context.json``.
        finding: A finding's name.
        status: ``absent``, ``possible`` or ``unsaid``.
    """

    kind: str
    finding: str = ""
    status: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much the tables hold. Phrases are counted after alternatives are written out."""

    findings: Mapping[str, int]
    """Body part -> findings."""
    english: int
    """Phrases of findings."""
    chinese: int
    triggers: int
    """Phrases of context, both languages."""


@cache
def _table(name: str) -> dict[str, Any]:
    text = (resources.files("medtune.tasks.reading.assertions") / "tables" / f"{name}.json").read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@cache
def findings() -> Mapping[str, Finding]:
    """All findings by name, in the order of the tables."""
    parents: dict[str, tuple[str, ...]] = {}
    for part in BODY_PARTS:
        for entry in _table(part)["findings"]:
            if entry["name"] in parents:
                raise ValueError(f"{entry['name']!r} stands in two tables")
            parents[entry["name"]] = tuple(entry.get("kind_of", ()))

    def upwards(name: str) -> Iterator[str]:
        for parent in parents[name]:
            yield parent
            yield from upwards(parent)

    return {
        entry["name"]: Finding(
            name=entry["name"],
            chinese=entry["zh"],
            body_part=_table(part)["title"],
            body_part_chinese=_table(part)["zh"],
            kinds_of=tuple(dict.fromkeys(upwards(entry["name"]))),
            sided=entry.get("sided", True),
        )
        for part in BODY_PARTS
        for entry in _table(part)["findings"]
    }


@cache
def general_findings() -> frozenset[str]:
    """Those of no body part: "mass", "effusion"."""
    return frozenset(entry["name"] for entry in _table("general")["findings"])


@cache
def signs() -> Trie[Sign]:
    """Every phrase of every table. It is built once, on first use, in about 20 ms."""
    return Trie(_entries())


def _entries() -> Iterator[tuple[tuple[str, ...], Sign]]:
    for part in BODY_PARTS:
        for entry in _table(part)["findings"]:
            for kind in ("finding", "denied"):
                for phrase in _phrases(entry, kind):
                    yield phrase, Sign(kind, entry["name"])
    for kind, patterns in _table("context").items():
        if kind != "sources":
            for pattern in patterns:
                for phrase in phrases(pattern):
                    yield phrase, _sign(kind)


def _phrases(entry: Mapping[str, Any], kind: str) -> set[tuple[str, ...]]:
    """Of a finding: its names and phrases, or the phrases that deny it."""
    patterns = entry.get("denied", ()) if kind == "denied" else (entry["name"], entry["zh"], *entry["en"], *entry["zh_terms"])
    return {phrase for pattern in patterns for phrase in phrases(pattern)}


def _sign(key: str) -> Sign:
    trigger, _, way = key.partition("-")
    return Sign(way, status=_STATUS[trigger]) if trigger in _STATUS else Sign(key)


def coverage() -> Coverage:
    """Counts for the documentation and the report: what is not in the tables cannot be seen."""
    entries = [entry for part in BODY_PARTS for entry in _table(part)["findings"]]
    known = {phrase for entry in entries for kind in ("finding", "denied") for phrase in _phrases(entry, kind)}
    chinese = sum(any(token > "\u3400" for token in phrase) for phrase in known)
    context = (patterns for kind, patterns in _table("context").items() if kind != "sources")
    return Coverage(
        findings={_table(part)["title"]: len(_table(part)["findings"]) for part in BODY_PARTS},
        english=len(known) - chinese,
        chinese=chinese,
        triggers=len({phrase for patterns in context for pattern in patterns for phrase in phrases(pattern)}),
    )
