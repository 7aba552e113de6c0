"""What the pages have in common: one self-contained file each, both languages in it, nothing loaded and nothing sent.

Every value goes through the template's escaping, because an answer may hold HTML. The content policy names the page's one
script by its hash, so that even markup that slipped through could run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from markupsafe import Markup, escape

from medtune.evaluation.table import about
from medtune.language import Language, Text, language

__all__ = ["both", "either", "render_page"]

_HTML_LANGUAGE = {"en": "en", "zh": "zh-CN"}

_COMMAND = re.compile(r"`([^`]+)`")


def render_page(template: str, *, style: str, script: str, in_language: Language | None, **values: object) -> str:
    """Fill one of the templates of ``evaluation/templates``.

    Args:
        template: Its file name; ``style`` and ``script`` are the names of its style sheet and its script.
        in_language: The language that the page opens in; the reader can switch.
        values: What the template names besides ``lang``, ``spoken``, ``t``, ``either``, ``colon``, ``plain``, ``style``, ``script``
            and ``script_hash``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medtune.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["telling"] = lambda name: about(name) not in ("wording", "protocol")
    code = _asset(script)
    return environment.get_template(template).render(
        lang=_HTML_LANGUAGE[in_language or language()],
        spoken=in_language or language(),
        t=both,
        either=either,
        colon=either(": ", "："),
        plain=Text,
        style=Markup(_asset(style)),
        script=Markup(code),
        script_hash=base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii"),
        **values,
    )


def both(text: Text) -> Markup:
    """A sentence in both languages; the style sheet shows the one that the page is set to. A `command` in it is set as code."""
    return either(_with_code(text.render("en")), _with_code(text.render("zh")))


def either(english: str, chinese: str) -> Markup:
    """The same for what has its Chinese with it, as the names of findings have."""
    if english == chinese or not chinese:
        return escape(english)
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>').format(english, chinese)


def _with_code(sentence: str) -> Markup:
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(sentence))))


def _asset(name: str) -> str:
    return (resources.files("medtune.evaluation") / "templates" / name).read_text(encoding="utf-8")
