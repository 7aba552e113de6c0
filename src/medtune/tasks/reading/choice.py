"""Multiple choice: the options that a question lists, and the one that an answer names."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["read_choice", "read_options", "reference_letter"]

_LETTERS = "A-J"
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
# "A. CT", "(B) MRI", "C: X-ray", "D、PET": a letter, its mark, and words up to the next letter with a mark.
_MARK = rf"(?:(?<![\w'])([{_LETTERS}])\s*[.:、:．)）]|[(（]([{_LETTERS}])[)）])"
_OPTION = re.compile(rf"{_MARK}[ \t]*(.+?)(?=\s+{_MARK.replace('(' + '[' + _LETTERS + '])', '[' + _LETTERS + ']')}|[\n;；]|\Z)")
# The letter stands alone, or before a mark; "A" before a word is an article ("A CT of the chest").
_ALONE = re.compile(rf"\W*([{_LETTERS}])\W*\Z")
_AT_HEAD = re.compile(rf"[\s*_`\"'(（\[]*([{_LETTERS}])(?:[.:、:．,，)）\]*_`\"']|\s*\n|\s+[-–—])")
_STATED = re.compile(
    rf"(?:answer|option|choice|答案|选项|选择|选)(?:\s+is|\s*(?:是|为))?[\s:：*_(（\[]*([{_LETTERS}])(?![\w'])", re.IGNORECASE
)


def read_options(question: str) -> dict[str, str]:
    """Letter -> words of the options that a question lists from A on, empty where it lists fewer than two."""
    found: dict[str, str] = {}
    for first, second, words in _OPTION.findall(question):
        letter = first or second
        if ord(letter) - ord("A") == len(found):
            found[letter] = words.strip()
    return found if len(found) > 1 else {}


def reference_letter(target: str, options: Mapping[str, str]) -> str | None:
    """The letter of a reference: it is nothing else, or stands before a listed option, or the reference is an option's words.

    None = the reference is no choice.
    """
    if alone := _ALONE.match(target):
        return alone[1]
    by_words = [letter for letter, words in options.items() if _plain(words) == _plain(target)]
    if len(by_words) == 1:
        return by_words[0]
    head = _AT_HEAD.match(target)
    return head[1] if head is not None and head[1] in options else None


def read_choice(text: str, options: Mapping[str, str]) -> str | None:
    """The letter that ``text`` chooses. None where it names no option, or several.

    In this order: the whole answer is a letter; it says "answer is B" (of one letter only); it begins with a letter and a mark;
    exactly one option's words stand in it.
    """
    text = _THINKING.sub("", text).strip()
    alone = _ALONE.match(text)
    if alone is not None:
        return _known(alone[1], options)
    stated = {letter.upper() for letter in _STATED.findall(text)}
    if len(stated) == 1:
        return _known(stated.pop(), options)
    if stated:
        return None
    head = _AT_HEAD.match(text)
    if head is not None:
        return _known(head[1], options)
    plain = f" {_plain(text)} "
    named = [letter for letter, words in options.items() if _plain(words) and f" {_plain(words)} " in plain]
    return named[0] if len(named) == 1 else None


def _known(letter: str, options: Mapping[str, str]) -> str | None:
    return letter if not options or letter in options else None


def _plain(words: str) -> str:
    # Chinese characters are words of their own, as everywhere here: an option has to stand in the answer as a whole.
    return " ".join(re.findall(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+", words.lower()))
