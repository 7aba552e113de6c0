"""Sentences that people read, kept as an English template with its fields and rendered late in the reader's language.

Every sentence that medtune shows (errors, findings, progress, reports) is made with :func:`msg`. The English template is
the key; ``locale/zh/*.json`` maps it to Chinese. A test reads the source tree and fails when a template has no
translation, or when the two do not use the same fields.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Literal

__all__ = ["Field", "Language", "Text", "language", "msg"]

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence: an English template (``str.format`` syntax) and the values of its fields.

    A field may be a sentence too. Only so does a stored finding stay readable in both languages: ``str`` of a sentence is the
    language of whoever ran the command first.
    """

    template: str
    fields: Mapping[str, str | int | float | Text] = field(default_factory=dict)

    def render(self, in_language: Language | None = None) -> str:
        """The sentence in ``in_language``, or in the reader's language when none is given."""
        template = self.template
        if (in_language or language()) == "zh":
            template = _chinese().get(template, template)
        if not self.fields:
            return template
        return template.format(
            **{name: value.render(in_language) if isinstance(value, Text) else value for name, value in self.fields.items()}
        )

    def __str__(self) -> str:
        return self.render()


Field = str | int | float | Text


def msg(template: str, /, **fields: Field | os.PathLike[str]) -> Text:
    """Make a :class:`Text`. ``template`` must be a literal, so that the translation test can find it."""
    return Text(template, {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in fields.items()})


def language() -> Language:
    """The reader's language: ``MEDTUNE_LANG`` if set, else the locale (``LC_ALL``, ``LC_MESSAGES``, ``LANG``), else English."""
    for name in ("MEDTUNE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


@cache
def _chinese() -> dict[str, str]:
    catalogue: dict[str, str] = {}
    folder = resources.files("medtune") / "locale" / "zh"
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".json"):
            catalogue.update(json.loads(entry.read_text(encoding="utf-8")))
    return catalogue
