"""Answers that say yes or no by saying the question again as a statement: "The heart is not enlarged" to "Is the heart enlarged?".

No word of such an answer is a yes or a no of its own; the question's words in it, and what negates them, are. Base models answer
in sentences more often than tuned ones do: to leave their sentences unread would count form as knowledge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

__all__ = ["asks_for_absence", "is_undecided", "names_another", "names_other_side", "read_restated"]

MAX_CHARACTERS = 10_000
"""Of an answer that are read for statements."""
_MAX_CORE = 40
"""Characters of what is asked about in Chinese, or words in English: a longer question is not read again."""

_QUESTION = re.compile(r"[^?？。.!！\n:：>]*[?？]")
# 没有积液吗, but not 有没有积液 or 是不是积液.
_NEGATED_QUESTION_ZH = r"(?<!有)(?:[没沒][有见]|[无無](?!力))|未见|(?<!是)不是"
# A question that offers a choice, is negated or asks for more than yes or no cannot be answered by being said again.
_NOT_PLAIN = re.compile(
    r"\b(?:or|no|not|none|without|never|neither|how|what|which|who|where|when|why)\b|n't\b|或|还是|什么|哪|几|多少|怎|谁|为何"
    rf"|{_NEGATED_QUESTION_ZH}",
    re.IGNORECASE,
)
# "Is the heart normal?", "Is there no fracture?": whoever says that there is none of something may well mean yes.
_ABSENCE = re.compile(
    r"\b(?:no|not|none|without|never)\b|n't\b|\A(?!.*\bthere\b).*\b(?:normal|intact|clear|unremarkable|healthy|midline|patent|symmetric(?:al)?)\b"
    rf"|正常|完整|清晰|居中|通畅|健康|{_NEGATED_QUESTION_ZH}",
    re.IGNORECASE | re.DOTALL,
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
    r"[.;,!\n。；，！]+|[:：](?=\s+(?:there|the|an?|it|this)\b)|\b(?:but|however|although|though|while|whereas|because|and)\b"
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
    r"\b(?:can(?:\s?not|'t)|could\s+not|couldn't|not)\s+(?:be(?:en)?\s+)?(?:\w+ly\s+)?(?:exclude|rule|disprove)\w*"
    r"|\bnot\s+(?:\w+ly\s+)?(?:unlikely|impossible|improbable|implausible|inconceivable)\b|\bless\s+likely\b|\b(?:hard|difficult)\s+to\b"
    r"|\b(?:possib(?:le|ly|ility)|maybe|perhaps|may|might|could|questionable|equivocal|uncertain|unclear|indeterminate)\b"
    r"|\b(?:suspicio(?:us|n)|suspected)\b"
    r"|(?:不能|无法|無法|难以|不可|未能|未)(?:完全)?(?:排除|除外)|不(?:完全)?(?:除外|排除)|待[排查]|[可怀]疑|疑[似有为]|考虑|也许|或许"
    r"|(?<!不)(?<!不太)(?<!没有)可能(?!性(?:[极很较更]?[小低]|不大))",
    re.IGNORECASE,
)

# What turns a statement in ways that are not followed here, where the question has no such word: "The effusion was drained".
_TURNED = re.compile(
    r"\b(?:remov(?:ed|al)|resect\w*|drained|disappear\w*|cleared|healed|gone|nowhere|except|apart\s+from|other\s+than|mistak\w*|mimic\w*"
    r"|simulat\w*|wrong|incorrect|erroneous|supported|invisible|obscured|poorly|spared?|thought|least\s+likely|improbable)\b"
    r"|消失|吸收|切除|引流|愈合|误认|误以为|类似|酷似|貌似|错误|不正确|不对(?!称)|有误|不支持|显示不清|较正常",
    re.IGNORECASE,
)
# The same, ahead of what is asked about only: "larger than normal", "far from enlarged", "what looks like a tumor", 大于正常.
_TURNED_AHEAD = re.compile(
    r"\b(?:doubt|far\s+from|hardly|barely|scarcely|anything\s+but|looks?\s+like|resembl\w*|where|(?<!rather\s)than|beyond|above|exceed\w*"
    r"|against|outside|adjacent|next\s+to|near|relative\s+to|compared\s+(?:to|with)|(?:not|cannot|n't)\s+(?:be\s+)?(?:miss|overlook|ignor|den)\w*)\b|[大小高低多少]于|超[出过]",
    re.IGNORECASE,
)
# "No lung markings *indicating* a pneumothorax": the reason is denied, unless it is evidence. "No lung shows one" denies it.
_REASON = re.compile(
    r"\s*(?!\s*(?:\w+\s+)?(?:evidence|signs?|findings?|features?|indications?|images?|pictures?|scans?|slices?|views?|study|thing)\b)\w.*"
    r"\b(?:which|that|indicating|suggesting|showing|due\s+to|because|despite|caused\s+by|(?P<verb>indicates|suggests|shows|reveals|means))\b",
    re.IGNORECASE,
)
_REASON_ZH = re.compile(r"(?!.{0,6}(?:证据|征象|迹象|依据|理由|表现|改变)).+(?:提示|符合|说明|表明|可见|内[有见]|而|[为是])")
# Who does what to whom is told by the order of words.
_ORDERED = re.compile(
    r"\b(?:than|above|below|behind|beneath|anterior|posterior|superior|inferior|lateral|medial|proximal|distal"
    r"|(?:compress|displac|invad|push|obstruct|infiltrat|encas|surround|caus)\w*)\b",
    re.IGNORECASE,
)
# A predicate that is the first half of another word: 心脏大 is not in 心脏大小.
_HALF_ZH = ("大小", "高低", "长短", "粗细", "厚薄")

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
    r"(?:\s+\w+){0,5}?[\s:：-]*(?:(?:is|are|was|were|has|have|does|do)(?:\s+been)?\s*|(?:can|could)(?:\s(?=not))?)?"
    r"(?:(?:n't|'t|not)\s+(?:\w+ly\s+)?(?:be(?:en)?\s+)?(?:\w+ly\s+)?(?:present|seen|visible|visuali[sz]ed|noted|identified|evident|detected|found"
    r"|demonstrated|shown|there|exist|appreciated|the\s+case|true)|absent|negative|none|no|excluded|unlikely|ruled\s+out)\b",
    re.IGNORECASE,
)
_NEGATED_ZH = re.compile(
    r"[未没沒][有见能]?(?:看到|看见|发现|见到?|显示|提示|出现)?|[无無](?![论論法力名])"
    r"|不(?![均规規则則全张張适適良齐齊断斷仅僅但光管清同]|对称|對稱)|不清[晰楚]?|欠(?![均规清对光])|缺[乏少]|看不[到见出清]|并?非|否认|阴性|排除"
)
_NEGATED_BEHIND_ZH = re.compile(
    r"(?:影|征象?|表现|改变)?[为呈是：:]?\s*(?:不存在|不成立|不可见|[未没沒](?:有|见|显示|发现|出现)|看不[到见出]|阴性|[无無](?=\W|$)|不明显"
    r"|的?可能性(?:[极很较]?[小低]|不大)|[（(]\s*[-－—]\s*[)）])"
)
# "A scan without contrast shows a fracture": what is without ends before the verb.
_ASIDE = re.compile(r"\Awith(?:out)?\b.*?(?=\b(?:shows?|showed|demonstrates?|reveals?|has|have|is|are|was|were)\b)", re.IGNORECASE)
# "No effusion, consolidation or pneumothorax": a negation may reach over these, where no statement of its own begins behind them.
_JOINED = frozenset(("", ",", "，", "and"))
_OWN_STATEMENT = re.compile(
    r"\s*(?:there|it|this|that|these|which|the|an?|we|i|he|she|his|her|both|indicating|suggesting|consistent|compatible)\b|[^有见見是示存呈为]*(?<![没沒未无無])[有见見是示存呈为]",
    re.IGNORECASE,
)
_SIDES = {"left": "left", "左": "left", "right": "right", "右": "right"}
_SIDE = re.compile(r"\b(?:left|right)\b|[左右]", re.IGNORECASE)
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

    ``open`` where parts disagree or one leaves it open ("possibly", 不能排除), names it without saying anything of it, or turns it
    in a way that is not followed ("larger than normal", "the effusion was drained", "no lung markings, indicating ..."). None
    where no part speaks of it, and where the question is negated, offers a choice or asks for more than yes or no.

    Nothing is known of what words mean: "The trachea is deviated" does not answer "Is the trachea midline?".
    """
    if (core := _asked_about(question)) is None:
        return None
    said: set[Literal["yes", "no", "open"]] = set()
    for part, listed in _parts(text[:MAX_CHARACTERS]):
        polarity = _chinese(part, core, question) if isinstance(core, str) else _english(part, core, question)
        if polarity is None or (listed and polarity == "open"):
            continue
        turned = _turned(_TURNED, part, question)
        if turned or not _NOT_SAID.search(part):
            said.add("open" if turned or is_undecided(part) or (listed and polarity == "yes") else polarity)
    return None if not said else said.pop() if len(said) == 1 else "open"


def asks_for_absence(question: str) -> bool:
    """Whether ``question`` is negated or asks for what is normal, so that "there is no ..." may be its yes."""
    return any(_ABSENCE.search(asked) for asked in _QUESTION.findall(question))


def names_another(clause: str, question: str) -> bool:
    """Whether a Chinese clause says that something is there which is not what ``question`` asks about: 有脑梗死 to 有没有脑出血.

    In Chinese the noun that is asked about comes last: its last two characters are looked for. 有 alone names nothing. Where a
    choice is asked for, or what is normal, it cannot be told.
    """
    if asks_for_absence(question) or "还是" in question:
        return True
    core = _asked_about(question)
    return isinstance(core, str) and core[-2:] not in clause and len(_FRAME_ZH.sub("", clause).strip(" 。.!！的")) > 1


def names_other_side(text: str, question: str) -> bool:
    """Whether ``text`` names a side, left or right, and ``question`` names the other alone."""
    asked, told = ({_SIDES[word.lower()] for word in _SIDE.findall(words)} for words in (question, text))
    return len(asked) == 1 and not told <= asked


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


def _turned(words: re.Pattern[str], part: str, question: str) -> bool:
    """Whether ``part`` has one of ``words`` that ``question`` has not."""
    return any(found.group().lower() not in question.lower() for found in words.finditer(part))


def _english(part: str, words: frozenset[str], question: str) -> Literal["yes", "no", "open"] | None:
    places = [found for found in _WORD.finditer(part) if _singular(found.group().lower()) in words]
    if {_singular(found.group().lower()) for found in places} != words:
        return None
    end = places[-1].end()
    ahead = list(_NEGATED.finditer(part[:end]))
    if _turned(_TURNED_AHEAD, part[:end], question) or _reason_denied(ahead, part, places[-1].start()):
        return "open"
    if _ORDERED.search(question) and _in_order(part, words) != _in_order(question, words):
        return "open"
    negations = len(ahead) + (_NEGATED_BEHIND.match(part, end) is not None)
    if negations % 2:
        return "no"
    return "yes" if negations or _STATED.search(part) else "open"


def _reason_denied(negations: list[re.Match[str]], part: str, end: int) -> bool:
    """Whether the last of the negations ahead of ``end`` bears on what speaks for the thing there, rather than on the thing."""
    if not negations or (reason := _REASON.match(part[negations[-1].end() : end])) is None:
        return False
    return not reason["verb"] or negations[-1].group().lower() not in ("no", "neither", "none", "nothing")


def _in_order(text: str, words: frozenset[str]) -> list[str]:
    return [word for found in _WORD.findall(text) if (word := _singular(found.lower())) in words]


def _chinese(part: str, core: str, question: str) -> Literal["yes", "no", "open"] | None:
    place = _core_in(part, core)
    if place is None:
        return None
    start, gap, end = place
    if part[end - 1 : end + 1] in _HALF_ZH:
        return None
    ahead = list(_NEGATED_ZH.finditer(part[:start]))
    if _turned(_TURNED_AHEAD, part[:end], question) or (ahead and _REASON_ZH.match(part[ahead[-1].end() : start])):
        return "open"
    negations = len(ahead) + len(_NEGATED_ZH.findall(gap))
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
