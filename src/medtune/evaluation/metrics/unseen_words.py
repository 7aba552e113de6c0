"""jieba's cutting of characters that its dictionary does not know, in steps in proportion to their number.

``jieba.finalseg`` tags each character as beginning, middle or end of a word, or a word of its own, by the most probable path
through a hidden Markov model. It copies the path so far at every character: a run of 40,000 takes 10 to 16 s, one of a million
hours. Here each character keeps where it came from. Sums are made in the same order and ties go to the same state, so the words are
the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["unseen_words"]

_STATES = "BMES"


def unseen_words(text: str, model: Any) -> list[str]:
    """The words of ``model.cut(text)``, ``model`` being ``jieba.finalseg``."""
    found: list[str] = []
    for block in model.re_han.split(text):
        if model.re_han.match(block):
            for word in _cut(block, model):
                found.extend(word if word in model.Force_Split_Words else [word])
        else:
            found.extend(piece for piece in model.re_skip.split(block) if piece)
    return found


def _cut(block: str, model: Any) -> Iterator[str]:
    begin = done = 0
    for place, state in enumerate(_states(block, model)):
        if state == "B":
            begin = place
        elif state in "ES":
            yield block[begin if state == "E" else place : place + 1]
            done = place + 1
    if done < len(block):
        yield block[done:]


def _states(block: str, model: Any) -> list[str]:
    lowest = model.MIN_FLOAT
    best = {state: model.start_P[state] + model.emit_P[state].get(block[0], lowest) for state in _STATES}
    came: list[str] = []  # for each later character: the state before it, of each state
    for character in block[1:]:
        steps = {
            state: max(
                (best[former] + model.trans_P[former].get(state, lowest) + model.emit_P[state].get(character, lowest), former)
                for former in model.PrevStatus[state]
            )
            for state in _STATES
        }
        best = {state: weight for state, (weight, _) in steps.items()}
        came.append(sys.intern("".join(former for _, former in steps.values())))
    path = [max((best[state], state) for state in "ES")[1]]
    for former in reversed(came):
        path.append(former[_STATES.index(path[-1])])
    return path[::-1]
