"""What a word is, for metrics on words: runs of letters, numbers with their decimals, single Chinese characters.

Chinese is split into characters, as the CMRC 2018 scorer does (Cui et al., arXiv:1810.07366), so that no dictionary decides the
score.
"""

from __future__ import annotations

import re

__all__ = ["answer_words", "holds_run", "words"]

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_HAN}]|\d+(?:\.\d+)?|(?:(?![{_HAN}])[^\W\d_])+")
_ARTICLES = frozenset({"a", "an", "the"})
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBERS = {word: str(value) for value, word in enumerate(_DIGITS)}


def words(text: str) -> list[str]:
    """The words of ``text`` in lower case; punctuation is dropped, "4.1%" is "4.1"."""
    return _WORD.findall(text.lower())


def answer_words(text: str) -> list[str]:
    """:func:`words` without articles and with numbers up to ten as digits, so that "the two lungs" is "2 lungs".

    The normalisation of the VQA evaluation (Antol et al. 2015, arXiv:1505.00468), less its list of contractions. An answer that
    is nothing but an article ("A") keeps it.
    """
    found = [_NUMBERS.get(word, word) for word in words(text)]
    return [word for word in found if word not in _ARTICLES] or found


def holds_run(text: list[str], run: list[str]) -> bool:
    """Whether the words ``run`` stand in ``text`` one after the other. An empty run stands nowhere."""
    return bool(run) and any(text[start : start + len(run)] == run for start in range(len(text) - len(run) + 1))
