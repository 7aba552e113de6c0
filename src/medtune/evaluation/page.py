"""What the pages have in common: one self-contained file each, both languages in it, nothing loaded and nothing sent.

Every value goes through the template's escaping, because an answer may hold HTML. The content policy names the page's one
script by its hash, so that even markup that slipped through could run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from markupsafe import Markup, escape

from medtune.language import Language, Text, language

__all__ = ["Kind", "both", "by_kind", "render_page"]

_HTML_LANGUAGE = {"en": "en", "zh": "zh-CN"}


def render_page(template: str, *, style: str, script: str, in_language: Language | None, **values: object) -> str:
    """Fill one of the templates of ``evaluation/templates``.

    Args:
        template: Its file name; ``style`` and ``script`` are the names of its style sheet and its script.
        in_language: The language that the page opens in; the reader can switch.
        values: What the template names besides ``lang``, ``t``, ``plain``, ``style``, ``script`` and ``script_hash``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medtune.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    code = _asset(script)
    return environment.get_template(template).render(
        lang=_HTML_LANGUAGE[in_language or language()],
        t=both,
        plain=Text,
        style=Markup(_asset(style)),
        script=Markup(code),
        script_hash=base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii"),
        **values,
    )


def both(text: Text) -> Markup:
    """A sentence in both languages; the style sheet shows the one that the page is set to."""
    english, chinese = text.render("en"), text.render("zh")
    if english == chinese:
        return escape(english)
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>').format(english, chinese)


@dataclass(frozen=True, slots=True)
class Kind:
    """Sentences of one template: some to be shown, and the rest, on demand."""

    shown: tuple[Text, ...]
    rest: tuple[Text, ...]


def by_kind(texts: Sequence[Text], most: int = 3) -> list[Kind]:
    """Sentences that differ in their fields only, put together in the order of the first of each kind: a hundred of one kind
    must not hide the one of another."""
    kinds: dict[tuple[str, ...], list[Text]] = {}
    for text in texts:
        inner = tuple(value.template for value in text.fields.values() if isinstance(value, Text))
        kinds.setdefault((text.template, *inner), []).append(text)
    return [Kind(tuple(mine[:most]), tuple(mine[most:])) for mine in kinds.values()]


def _asset(name: str) -> str:
    return (resources.files("medtune.evaluation") / "templates" / name).read_text(encoding="utf-8")
