"""Tokens as sacrebleu 2 makes them: ``13a`` (NIST's mteval-v13a) and ``zh``, the same tokens without its growing caches.

sacrebleu keeps 65,536 texts for each of its tokenizers, so that memory grows with the number of samples.
"""

from __future__ import annotations

import re

__all__ = ["tokens_13a", "tokens_zh"]

_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# sacrebleu's class begins with the blank too: two more of them around each change no token.
_PUNCTUATION = re.compile(r"([{-~\[-`!-&(-+:-@/])")
_AFTER_NO_DIGIT = re.compile(r"([^0-9])([.,])")
_BEFORE_NO_DIGIT = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")
# What sacrebleu takes for Chinese. Its two ranges above U+FFFF are written with four hexadecimal digits, which makes them begin
# just behind U+2000 and U+2F80 and hold most of the symbols and arrows: kept, since a signature stands for exactly these tokens.
_CHINESE = re.compile(
    "([\u2001-\u2a6d\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u4db5\u4e00-\u9fbb"
    "\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef])"
)


def tokens_13a(text: str) -> list[str]:
    """Punctuation stands alone, but for points, commas and dashes inside numbers."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    if "&" in text:
        for entity, character in _ENTITIES:
            text = text.replace(entity, character)
    return _split(f" {text} ")


def tokens_zh(text: str) -> list[str]:
    """Every Chinese character is a token; the rest as in ``13a``, without its entities and line ends."""
    return _split(_apart(_CHINESE, text.strip()))


def _split(text: str) -> list[str]:
    text = _apart(_PUNCTUATION, text)
    text = _AFTER_NO_DIGIT.sub(_blank_around_second, text)
    text = _BEFORE_NO_DIGIT.sub(_blank_around_first, text)
    return _DASH_AFTER_DIGIT.sub(_blank_around_second, text).split()


def _apart(pattern: re.Pattern[str], text: str) -> str:
    r"""``pattern.sub(r" \1 ", text)`` of a pattern that is one group, in a third of the time: ``split`` gives the groups too."""
    return " ".join(pattern.split(text))


# Templates such as r"\1 \2 " are put together in Python for each match, at twice the cost of these.
def _blank_around_first(match: re.Match[str]) -> str:
    return f" {match[1]} {match[2]}"


def _blank_around_second(match: re.Match[str]) -> str:
    return f"{match[1]} {match[2]} "
