"""Answers that say yes or no by saying the question again as a statement: "The heart is not enlarged" to "Is the heart enlarged?".

No word of such an answer is a yes or a no of its own; the question's words in it, and what negates them, are. Base models answer
in sentences more often than tuned ones do: to leave their sentences unread would count form as knowledge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

__all__ = ["is_undecided", "names_another", "read_restated"]

MAX_CHARACTERS = 10_000
"""Of an answer that are read for statements."""
_MAX_CORE = 40
"""Characters of what is asked about in Chinese, or words in English: a longer question is not read again."""

_QUESTION = re.compile(r"[^?？。.!！\n:：>]*[?？]")
# A question that offers a choice, is negated or asks for more than yes or no cannot be answered by being said again.
_NOT_PLAIN = re.compile(
    r"\b(?:or|no|not|none|without|never|neither|how|what|which|who|where|when|why)\b|n't\b|或|还是|什么|哪|几|多少|怎|谁|为何",
    re.IGNORECASE,
)
# Words that put a question and name nothing.
_FRAME = frozenset(
    (
        *(
            "is",
            "are",
            "was",
            "were",
            "do",
            "does",
            "did",
            "has",
            "have",
            "had",
            "can",
            "could",
            "be",
            "been",
            "being",
            "there",
            "here",
        ),
        *("it", "this", "that", "these", "those", "the", "a", "an", "any", "some", "you", "we", "i", "please", "and", "as"),
        *("of", "in", "on", "at", "to", "for", "by", "with", "from", "see", "seen", "show", "shown", "demonstrate", "demonstrated"),
        *("reveal", "contain", "present", "visible", "visualized", "noted", "identified", "found", "evident", "evidence", "sign"),
        *("suggest", "exist", "appear", "image", "picture", "scan", "film", "radiograph", "x-ray", "study", "patient"),
    )
)
_FRAME_ZH = re.compile(
    r"请问|[是能可会]否|有[没沒]有|有[无無]|是不是|存不存在|[图圖]像?[中上里内]|[这此该][张幅个]?(?:图像?|片子?|影像|检查)?|影像[中上]"
    r"|患者|病人|能?看[到见出]|发现|显示|存在|出现|可见|提示|属于|表现|图像|[吗嗎呢么啊呀的有见是\s，,、“”\"']"
)

_WORD = re.compile(r"[a-z][a-z0-9-]*(?:'[a-z]+)?", re.IGNORECASE)
# Where a negation ends.
_PARTS = re.compile(
    r"[.;,!\n。；，！]+|\b(?:but|however|although|though|while|whereas|because|and)\b"
    r"|\b(?<!consistent\s)(?<!compatible\s)(?<!keeping\s)(?=with(?:out)?\b)|但是?|然而|而(?=是|有|且)",
    re.IGNORECASE,
)
# What is named here is not said of this picture.
_NOT_SAID = re.compile(
    r"[?？]|\b(?:if|whether|history|prior|previous|resol(?:ution|ved)|indication|rule\s+out|to\s+exclude|risk|concern|question|chance"
    r"|(?:evaluat|assess|check|look|search|test)\w*\s+for|would|should|usually|often|typically|patients\s+with|asks?|asked)\b"
    r"|如果|若|是否|有无|有没有|病史|既往|史(?=\W|$)|为了|风险|建议|需要|结合|常见|一般|通常|询问",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"\b(?:can(?:\s?not|'t)|could\s+not|couldn't|not)\s+(?:be\s+)?(?:\w+ly\s+)?(?:exclude|rule|disprove)\w*"
    r"|\bnot\s+(?:\w+ly\s+)?(?:unlikely|impossible|improbable|implausible|inconceivable)\b|\bless\s+likely\b|\b(?:hard|difficult)\s+to\b"
    r"|\b(?:possib(?:le|ly|ility)|maybe|perhaps|may|might|could|questionable|equivocal|uncertain|unclear|indeterminate)\b"
    r"|\b(?:suspicio(?:us|n)|suspected)\b"
    r"|(?:不能|无法|無法|难以|不可|未能|未)(?:完全)?(?:排除|除外)|不(?:完全)?(?:除外|排除)|待[排查]|[可怀]疑|疑[似有为]|考虑|也许|或许"
    r"|(?<!不)(?<!不太)(?<!没有)可能(?!性(?:[极很较更]?[小低]|不大))",
    re.IGNORECASE,
)

_NEGATED = re.compile(
    r"\b(?:no|not(?!\s+only)|cannot|without|neither|none|nothing|never|absent|absence|negative|unlikely|lacks?|lacking|excluded|ruled\s+out"
    r"|free\s+of|rather\s+than|instead\s+of|fails?\s+to|untrue|false)\b|n't\b",
    re.IGNORECASE,
)
_STATED = re.compile(
    r"\b(?:is|are|was|were|(?:has|have|had)(?!\s+been)|do|does|did|appears?|shows?|showed|demonstrates?|reveals?|exhibits?|contains?|displays?|depicts?|sees?"
    r"|present|seen|noted|visible|identified|positive)\b|'s\b",
    re.IGNORECASE,
)
# Behind what is asked about, a negation is its own as a predicate alone: "a fracture is not seen", not "a mass not in the liver".
_NEGATED_BEHIND = re.compile(
    r"(?:\s+\w+){0,5}?[\s:：-]*(?:(?:is|are|was|were|has|have|does|do)(?:\s+been)?\s*)?"
    r"(?:(?:n't|not)\s+(?:\w+ly\s+)?(?:been\s+)?(?:present|seen|visible|visuali[sz]ed|noted|identified|evident|detected|found"
    r"|demonstrated|shown|there|exist|appreciated|the\s+case|true)|absent|negative|none|no|excluded|unlikely|ruled\s+out)\b",
    re.IGNORECASE,
)
_NEGATED_ZH = re.compile(
    r"[未没沒][有见能]?(?:看到|看见|发现|见到?|显示|提示|出现)?|[无無](?![论論法力名])"
    r"|不(?![均规規则則全张張适適良齐齊断斷仅僅但光管清同]|对称|對稱)|不清[晰楚]?|并?非|否认|阴性|排除"
)
_NEGATED_BEHIND_ZH = re.compile(
    r"(?:影|征象?|表现|改变)?[为呈是：:]?\s*(?:不存在|不成立|[未没沒][有见]|阴性|[无無](?=\W|$)|不明显|可能性(?:[极很较]?[小低]|不大))"
)
# "A scan without contrast shows a fracture": what is without ends before the verb.
_ASIDE = re.compile(r"\Awith(?:out)?\b.*?(?=\b(?:shows?|showed|demonstrates?|reveals?|has|have|is|are|was|were)\b)", re.IGNORECASE)
# "No effusion, consolidation or pneumothorax": a negation may reach over these, where no statement of its own begins behind them.
_JOINED = frozenset(("", ",", "，", "and"))
_OWN_STATEMENT = re.compile(
    r"\s*(?:there|it|this|that|these|the|an?|we|i|he|she|his|her|both)\b|[^有见見是示存呈为]*(?<![没沒未无無])[有见見是示存呈为]",
    re.IGNORECASE,
)
_GAP_ZH = 6
"""Characters that may stand between the two halves of what is asked about: 心影*明显*增大."""


def is_undecided(text: str) -> bool:
    """Whether ``text`` leaves open what it speaks of: "cannot be excluded", "possibly", "not unlikely", 不能排除, 可能."""
    return _UNDECIDED.search(text) is not None


def read_restated(text: str, question: str) -> Literal["yes", "no", "open"] | None:
    """What ``text`` answers to ``question`` by saying it again as a statement.

    The question is the only sentence of ``question`` that ends in a question mark. What it asks about are its words without those
    that put a question ("is there any", 是否, 吗). A part of the answer, between commas, full stops, "but", "and" and the like,
    speaks of it where it holds all of these words. It says no where an odd number of negations bears on them, else yes where it
    is a statement. What is named as a history, a condition or a question ("if", "to rule out", 病史) is not said.

    ``open`` where parts disagree or one leaves it open ("possibly", 不能排除). None where no part speaks of it, and where the
    question is negated, offers a choice or asks for more than yes or no.

    Nothing is known of what words mean: "The trachea is deviated" does not answer "Is the trachea midline?".
    """
    if (core := _asked_about(question)) is None:
        return None
    said: set[Literal["yes", "no", "open"]] = set()
    for part, listed in _parts(text[:MAX_CHARACTERS]):
        polarity = _chinese(part, core) if isinstance(core, str) else _english(part, core)
        if polarity is not None and not _NOT_SAID.search(part):
            said.add("open" if is_undecided(part) or (listed and polarity == "yes") else polarity)
    return None if not said else said.pop() if len(said) == 1 else "open"


def names_another(clause: str, question: str) -> bool:
    """Whether a Chinese clause says that something is there which is not what ``question`` asks about: 有脑梗死 to 有没有脑出血.

    In Chinese the noun that is asked about comes last: its last two characters are looked for. 有 alone names nothing.
    """
    core = _asked_about(question)
    return isinstance(core, str) and core[-2:] not in clause and len(_FRAME_ZH.sub("", clause).strip(" 。.!！的")) > 1


@lru_cache(maxsize=4096)
def _asked_about(question: str) -> str | frozenset[str] | None:
    """What a question asks about: characters in Chinese, words in English. None where it cannot be answered by a statement."""
    asked = _QUESTION.findall(question)
    if len(asked) != 1 or _NOT_PLAIN.search(asked[0]):
        return None
    chinese = re.search(r"[\u4e00-\u9fff]", asked[0]) is not None
    core = _FRAME_ZH.sub("", asked[0].rstrip("?？ ")) if chinese else _named(asked[0])
    return core if 0 < len(core) <= _MAX_CORE else None


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of an answer, and whether each may belong to a list that was denied before it ("no effusion, *pneumothorax*")."""
    # The mark that ends a question stays with it.
    text = re.sub(r"([?？])", r"\1\n", text)
    start, denied = 0, False
    for boundary in (*_PARTS.finditer(text), None):
        part = _ASIDE.sub("", text[start : boundary.start() if boundary is not None else len(text)])
        if part.strip():
            listed = denied and _OWN_STATEMENT.match(part) is None
            yield part, listed
            denied = listed or (len(_NEGATED.findall(part)) + len(_NEGATED_ZH.findall(part))) % 2 == 1
        if boundary is None:
            return
        denied = denied and boundary.group().strip() in _JOINED
        start = boundary.end()


def _named(question: str) -> frozenset[str]:
    words = {word.lower() for word in _WORD.findall(question)} - _FRAME
    return frozenset(_singular(word) for word in words) - _FRAME


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "sui" else word


def _english(part: str, words: frozenset[str]) -> Literal["yes", "no"] | None:
    places = [found for found in _WORD.finditer(part) if _singular(found.group().lower()) in words]
    if {_singular(found.group().lower()) for found in places} != words:
        return None
    end = places[-1].end()
    negations = len(_NEGATED.findall(part[:end])) + (_NEGATED_BEHIND.match(part, end) is not None)
    if negations % 2:
        return "no"
    return "yes" if negations or _STATED.search(part) else None


def _chinese(part: str, core: str) -> Literal["yes", "no"] | None:
    place = _core_in(part, core)
    if place is None:
        return None
    start, gap, end = place
    negations = len(_NEGATED_ZH.findall(part[:start])) + len(_NEGATED_ZH.findall(gap))
    negations += _NEGATED_BEHIND_ZH.match(part, end) is not None
    return "no" if negations % 2 else "yes"


def _core_in(part: str, core: str) -> tuple[int, str, int] | None:
    """(where what is asked about begins, what stands between its halves, where it ends) in one part of an answer."""
    if (start := part.find(core)) >= 0:
        return start, "", start + len(core)
    for cut in range(1, len(core)):
        found = re.search(f"{re.escape(core[:cut])}(?P<gap>.{{1,{_GAP_ZH}}}?){re.escape(core[cut:])}", part)
        if found is not None:
            return found.start(), found["gap"], found.end()
    # 居中, 不大 to 心影大吗: the predicate alone, and nothing besides, answers too.
    bare = _NEGATED_ZH.sub("", part.strip()).strip("很较比是尚均 ")
    if len(bare) >= 2 and core.endswith(bare):
        start = part.find(bare)
        return start, "", start + len(bare)
    return None
