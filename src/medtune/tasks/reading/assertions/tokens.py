"""Text as tokens, and a trie of token sequences that is looked through once, from left to right.

A token is a word in lower case, a number, one Chinese character, or a sign that ends something. English and Chinese phrases are
sequences of the same kind, so a text that mixes both needs nothing of its own. A text of n tokens costs about n dictionary
look-ups, however many phrases there are: a regular expression with as many alternatives would be tried at every character.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

__all__ = ["GAP", "LONGEST_GAP", "STOPS", "Trie", "phrases", "tokenize"]

GAP = "~"
"""In a phrase: up to :data:`LONGEST_GAP` other words, none of them a sign."""
LONGEST_GAP = 4
"""Words; three Chinese characters count as two, which is about the length of a Chinese word."""
_CHARACTER, _WORD_COST = 2, 3

STOPS = frozenset(".;!?\n。；！？")
"""Signs that end a sentence. A comma and a colon are tokens too, and end less."""

_FIRST_HAN = "\u3400"
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Letters at most 40 at a time: no word is longer, and a text without blanks must not become one key of a megabyte.
_TOKEN = re.compile(rf"[{_HAN}]|\d+(?:\.\d+)?|(?:(?![{_HAN}])[^\W\d_]){{1,40}}|\.(?=\s|$)|[;!?\n。；！？,，、:：/]")
_UNSPLIT = {"，": ",", "：": ":", "、": "、", "？": "?", "！": "!", "；": ";", "。": "."}


def tokenize(text: str) -> list[str]:
    """The tokens of ``text``, normalised as :func:`_normal` says; hyphens and apostrophes part words and are dropped."""
    return [_normal(token) for token in _TOKEN.findall(text.lower())]


@lru_cache(maxsize=65536)
def _normal(token: str) -> str:
    """British and American spelling, singular and plural as one: *haemorrhages* is ``hemorrhage``, *opacities* ``opacity``.

    The same is done to the phrases, so a word that is cut wrongly (*pus*, *lens*) still meets itself.
    """
    if len(token) == 1 or not token.isascii():
        return _UNSPLIT.get(token, token)
    token = token.replace("ae", "e").replace("oe", "e").replace("tumour", "tumor")
    if len(token) < 4 or not token.endswith("s") or token.endswith(("ss", "us", "is")):
        return token
    if token.endswith("ies") and len(token) > 4:
        return token[:-3] + "y"
    if token.endswith(("sses", "xes", "ches", "shes")):
        return token[:-2]
    return token[:-1]


def phrases(pattern: str) -> Iterator[tuple[str, ...]]:
    """The token sequences of one entry of a table.

    Words are parted by blanks; ``a|b`` is either word, ``a?`` may be left out, ``~`` is a gap. Chinese is written without blanks:
    each character is a token, and a blank, ``|`` and ``?`` mean the same for the pieces between blanks.

    Raises:
        ValueError: A phrase is empty, or begins or ends with a gap.
    """
    choices: list[list[tuple[str, ...]]] = []
    for piece in pattern.split():
        if piece == GAP:
            choices.append([(GAP,)])
            continue
        optional = len(piece) > 1 and piece.endswith("?")
        words = [tuple(tokenize(word)) for word in (piece[:-1] if optional else piece).split("|")]
        choices.append([*words, ()] if optional else words)
    for choice in itertools.product(*choices):
        phrase = tuple(itertools.chain.from_iterable(choice))
        if not phrase or GAP in (phrase[0], phrase[-1]):
            raise ValueError(f"{pattern!r} holds an empty phrase, or one with a gap at its end")
        yield phrase


_Payload = TypeVar("_Payload")


class Trie(Generic[_Payload]):
    """Phrases with what each stands for. Two entries may share a phrase: both payloads come.

    Args:
        entries: (tokens, payload); tokens as :func:`phrases` gives them.
    """

    def __init__(self, entries: Iterable[tuple[Sequence[str], _Payload]]) -> None:
        self._root: dict[Any, Any] = {}
        self.num_phrases = 0
        for phrase, payload in entries:
            node = self._root
            for token in phrase:
                node = node.setdefault(token, {})
            known = node.setdefault(None, [])
            if payload not in known:
                known.append(payload)
                self.num_phrases += 1

    def find(self, tokens: Sequence[str]) -> list[tuple[int, int, bool, tuple[_Payload, ...]]]:
        """(start, stop, gapped, payloads) of the longest phrase at each place, from left to right.

        A phrase without a gap takes its tokens: nothing is looked for inside it, so that "no change" hides its "no". One with a
        gap is reported first, and what stands in between is looked at all the same.
        """
        found: list[tuple[int, int, bool, tuple[_Payload, ...]]] = []
        root, last = self._root, len(tokens)
        taken = 0
        for start in [place for place, token in enumerate(tokens) if token in root]:
            if start < taken:
                continue
            node = root[tokens[start]]
            place = start + 1
            # Most phrases end here: the next token leads nowhere.
            if GAP not in node and (place == last or tokens[place] not in node):
                if None in node:
                    found.append((start, place, False, tuple(node[None])))
                    taken = place
                continue
            stop, payloads, gap_stop, gap_payloads = _longest(tokens, place, node)
            if gap_payloads and gap_stop > stop:
                found.append((start, gap_stop, True, tuple(gap_payloads)))
            if payloads:
                found.append((start, stop, False, tuple(payloads)))
                taken = stop
        return found


def _longest(tokens: Sequence[str], start: int, node: dict[Any, Any]) -> tuple[int, list[Any], int, list[Any]]:
    """The end and payloads of the longest phrase without a gap, and of the longest with one."""
    stop, payloads, gap_stop, gap_payloads = start, node.get(None, []), start, []
    place, last = start, len(tokens)
    while True:
        if GAP in node:
            far, inside, farther, also = _over_gap(tokens, place, node[GAP])
            for end, what in ((far, inside), (farther, also)):
                if what and end > gap_stop:
                    gap_stop, gap_payloads = end, what
        if place >= last:
            break
        following = node.get(tokens[place])
        if following is None:
            break
        node, place = following, place + 1
        if None in node:
            stop, payloads = place, node[None]
    return stop, payloads, gap_stop, gap_payloads


def _over_gap(tokens: Sequence[str], start: int, node: dict[Any, Any]) -> tuple[int, list[Any], int, list[Any]]:
    room = LONGEST_GAP * _WORD_COST
    for place in range(start, len(tokens)):
        token = tokens[place]
        following = node.get(token)
        if following is not None:
            found = _longest(tokens, place + 1, following)
            if found[1] or found[3]:
                return found
        room -= _CHARACTER if token >= _FIRST_HAN else _WORD_COST
        if room < 0 or token in STOPS or token in (",", ":", "、"):
            break
    return start, [], start, []
