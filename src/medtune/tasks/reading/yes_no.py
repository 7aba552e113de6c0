"""Yes or no, in English and Chinese.

A substring test is the usual defect of published scorers: ``"no" in "normal"`` is true, and so a wrong answer counts as right.
Here English is read by whole words. Chinese has no word boundaries; it is read from the head of the answer, then by words that
contain neither meaning inside another.
"""

from __future__ import annotations

import re
from typing import Literal

from medtune.tasks.reading.restated import asks_for_absence, is_undecided, names_another, names_other_side, read_restated

__all__ = ["read_yes_no"]

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_LEAD = re.compile(
    r"[\W_]*(?:(?:the\s+)?(?:(?:final|correct)\s+)?answer(?:\s+is)?[\W_]*|(?:(?:正确|最终|标准)的?)?(?:答案|回答|结论|答)(?:是|为)?[\W_]*)?",
    re.IGNORECASE,
)
# 对 and 是 alone, since 对比 (contrast) and 是否 (whether) begin with them and answer nothing; 没错 (not wrong) and 不错 (right)
# begin like a no, and 不是没有 (it is not so that there is none) like two. "No.3" is a number.
_HEAD = re.compile(
    r"(?:(?P<yes>yes|yeah|yep|yup|(?:absolutely|certainly|definitely|indeed|of\s+course)(?=\s*(?:[,.;!]|\Z)))|(?P<no>no(?!\.\d)|nope|(?:certainly|definitely|absolutely|of\s+course|probably)\s+not))\b"
    r"|(?P<twice_no_zh>(?:并?不是|并非)(?:[没沒]有|[无無])(?!可能))"
    r"|(?P<no_zh>不(?![错錯](?:\W|的|$))|否|无|無|未|[没沒](?![错錯](?:\W|的|$))|[错錯](?=\W|误|誤|的|$)|并非|并无)"
    r"|(?P<yes_zh>[对對](?=\W|的|$)|[没沒不][错錯](?=\W|的|$)|正确(?=\W|的|$)|是(?!否)|有(?![无無没沒])|存在|可见)",
    re.IGNORECASE,
)
# Words that answer and do nothing else; 没有 and 有 are verbs as well.
_PARTICLE = re.compile(
    r"(?:yes|yeah|yep|yup|nope|no\b(?=\s*[,.;:!]))|(?:是的|对|對|不[对對]?|否|不是的?|[没不][错錯]|[错錯][误誤]?|正确)(?=[，,。；;！!\s])",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\.(?!\s*\d)|[。；;\n]")
# "No fracture": that there is none of something, not a bare no.
_NONE_OF = re.compile(
    r"\bno\s+(?!it\b|this\b|the\b)[a-z]|\b(?:is|are)(?:\s+not|n't)\s+any\b"
    r"|(?:[没沒]有|[无無]|未[见發发]现?|不存在|不可见|并无)(?=[\u4e00-\u9fff])",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[。；;，,\n]")
# A clause of their own. "Correct technique" and "false positive" say nothing.
_TRUTH = re.compile(
    r"(?:(?P<yes>true|correct)|(?P<no>false|incorrect|wrong)|(?P<found>positive|present|阳性|陽性)|(?P<not_found>negative|absent|none|阴性|陰性))"
    r"[*_'\")\]]*\s*(?:[,.;!，。；！]|\Z)",
    re.IGNORECASE,
)
# Who takes an answer back says so, and gives another.
_CORRECTED = re.compile(
    r"\bwait\b(?!\s+for)|\bhold\s+on\b|\bactually\b|\bcorrection\b|\bscratch\s+that\b|\blet\s+me\s+correct\b|\bi\s+mean\b"
    r"|\bon\s+(?:second\s+thoughts?|reflection|(?:closer|further|second)\s+(?:look|inspection|review))\b"
    r"|\blooking\s+(?:again|more\s+closely)\b|等等|等一下|等下|更正|纠正一下|说错了|再看一下|仔细看",
    re.IGNORECASE,
)
# A "no" that hangs on another statement ("a fracture with no displacement") does not answer.
_YES = re.compile(r"\b(?:yes|yeah|yep|yup)\b|是的|存在|可见|确实有", re.IGNORECASE)
_NO = re.compile(
    r"(?<!\bwith\s)(?<!\band\s)(?<!\bbut\s)\b(?:no(?!\.\s*\d)|nope|not\s+(?:a\s+)?yes|(?:is|are)(?:\s+not|n't)\s+any)\b|[没沒]有|不是|不存在|不可见|未见|并非|并无",
    re.IGNORECASE,
)
# 是否, 有没有, 是不是, 有无 (whether) repeat the question: what they ask about is not said, and 无论 (no matter) before them is no
# no. Neither is "no doubt".
_ASKED = re.compile(
    r"(?:[无無不]论)?(?:是否|有[没沒]有|是不是|有[无無]|能否|可否|存不存在|会不会)(?!定)[^。；;，,：:？?\n]*[？?：:，,]*|(?:存在|是|有)与否|\bno\s+(?:doubt|question)\b[,.]?"
    r"|(?:毫[无無]|[无無]|不容|[无無毋]庸)(?:置)?疑[问問]?的?[，,]?|[无無不]可否认的?[，,]?|不难(?:看出|发现|看到)",
    re.IGNORECASE,
)
# "Yes or no", "是/否": both words are offered, and neither is said. So do "yes and no", "not no" and 不能说没有.
_OFFERED = re.compile(
    r"(?:\b(?:yes|no)|[是否有]|[没沒]有)[\W_]*(?:/|\bor\b|或者?|还是|和)[\W_]*(?:(?:yes|no)\b|[是否有]|[没沒]有)"
    r"|\b(?:yes|no)[\W_]*(?:\band\b|&)[\W_]*(?:yes|no)\b(?!\s+\w)"
    r"|\bnot\s+no\b|不能说(?:[没沒]有|无|無|不)|(?:不是|并非)(?:[没沒]有|[无無])可能",
    re.IGNORECASE,
)
# 无法 (cannot) and 不确定 (not sure) begin like a no, and "there is no way to tell" holds one.
_UNDECIDED = re.compile(
    r"\b(?:can\s?not|can't|cannot|could\s+not|couldn't|unable\s+to|(?:im|not\s+)possible\s+to|no\s+way\s+(?:to|of))\s+(?:be\s+)?"
    r"(?:tell|telling|say|saying|see|know|knowing|determin|assess|judge|decide|answer|confirm)"
    r"|\b(?:do\s+not|don't)\s+know\b|\bnot\s+(?:sure|certain|clear)\b"
    r"|无法|無法|无从|不(?:太)?(?:确定|清楚|知道|好说|明确|一定)|不能(?:确定|判断|回答)|难以(?:判断|确定)|看不清|未知|未必|有可能",
    re.IGNORECASE,
)


def read_yes_no(text: str, question: str = "") -> Literal["yes", "no"] | None:
    """What ``text`` answers to a yes/no question.

    The first word decides ("Yes, there is no fracture" is yes, "No, there is a fracture" is no), also behind "The answer is".
    Without one, the whole text is searched: "There is no fracture" and "not yes" are no; a "no" that hangs on another statement ("a
    fracture with no displacement") is not read. "True" and "false" count as a clause of their own, and where a question is given
    "negative", "absent", 阳性 and the like (a reference that is one of these names a choice). What follows "wait", "actually", "on
    closer inspection", 等等 counts in place of what stands before, where it says anything.

    None is a text with words of both kinds or of neither, one that offers both ("yes or no", "yes and no"), one that repeats the
    question (是否存在骨折), and one that cannot tell or leaves it open ("I cannot tell", "cannot be excluded", "possibly",
    不能排除). Two negations cancel where they say that something is there (不是没有), not where they only do not deny it ("not no",
    "not unlikely"). Thinking in ``<think>`` tags is not read.

    Args:
        text: The answer.
        question: What was asked. With it, an answer is also read that says the question again as a statement ("The heart is not
            enlarged"; :func:`.restated.read_restated`), and what it says of the question's own words goes before what Chinese words
            without a particle (没有气胸, 有积液) say of anything. A "yes" or "no" that such a statement contradicts ("No, there
            is a fracture" to "Is there a fracture?") is None. So is "there is no fracture" where the question is negated or asks
            for what is normal ("Is the bone intact?"), since it may be a yes. Otherwise what is *said* is read, not what it means
            for the question.
    """
    text = _THINKING.sub("", text)
    corrections = list(_CORRECTED.finditer(text))
    if corrections:
        later = text[corrections[-1].end() :]
        if (said := _read(later, question)) is not None or is_undecided(later) or _UNDECIDED.search(later):
            return said
    return _read(text, question)


def _read(text: str, question: str) -> Literal["yes", "no"] | None:
    text = _ASKED.sub(" ", text)
    stated = read_restated(text, question) if question else None
    start = _LEAD.match(text)
    place = start.end() if start is not None else 0
    if _OFFERED.match(text, place) or _UNDECIDED.match(text, place):
        return None
    verdict = None if stated == "open" else stated
    if (head := _HEAD.match(text, place)) is not None:
        said: Literal["yes", "no"] = "yes" if head["yes"] or head["yes_zh"] or head["twice_no_zh"] else "no"
        if _PARTICLE.match(text, place):
            return said if stated in (None, "open", said) else None
        clause = _CLAUSE_END.split(text[place:], maxsplit=1)[0]
        if (head["no_zh"] or head["yes_zh"]) and is_undecided(clause):
            return None
        if stated is None and clause[0] in "有存可" and question and names_another(clause, question):
            return None
        if stated is None and (names_other_side(text, question) or (_NONE_OF.match(text, place) and asks_for_absence(question))):
            return None
        return verdict if stated is not None else said
    if (truth := _TRUTH.match(text, place)) is not None and (truth["yes"] or truth["no"] or question):
        judged: Literal["yes", "no"] = "yes" if truth["yes"] or truth["found"] else "no"
        return judged if stated in (None, "open", judged) else None
    if stated is not None:
        return verdict
    if _UNDECIDED.search(text) or _OFFERED.search(text) or names_other_side(text, question):
        return None
    text = " ".join(sentence for sentence in _SENTENCE_END.split(text) if not is_undecided(sentence))
    negative = _NO.search(text) is not None
    if negative and _NONE_OF.search(text) and asks_for_absence(question):
        return None
    # 不存在 holds 存在: what says no is taken out before yes is looked for.
    positive = _YES.search(_NO.sub(" ", text)) is not None
    if negative == positive:
        return None
    return "yes" if positive else "no"
