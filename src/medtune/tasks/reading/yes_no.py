"""Yes or no, in English and Chinese.

A substring test is the usual defect of published scorers: ``"no" in "normal"`` is true, and so a wrong answer counts as right.
Here English is read by whole words. Chinese has no word boundaries; it is read from the head of the answer, then by words that
contain neither meaning inside another.
"""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["read_yes_no"]

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_LEAD = re.compile(
    r"[\W_]*(?:(?:the\s+)?(?:(?:final|correct)\s+)?answer(?:\s+is)?[\W_]*|(?:(?:正确|最终|标准)的?)?(?:答案|回答|结论|答)(?:是|为)?[\W_]*)?",
    re.IGNORECASE,
)
# 对 and 是 alone, since 对比 (contrast) and 是否 (whether) begin with them and answer nothing; 没错 (not wrong) begins like a no.
# "No.3" is a number.
_HEAD = re.compile(
    r"(?:(?P<yes>yes|yeah|yep|yup)|(?P<no>no(?!\.\d)|nope|(?:certainly|definitely|absolutely|of\s+course|probably)\s+not))\b"
    r"|(?P<no_zh>不|否|无|無|未|[没沒](?![错錯](?:\W|的|$))|[错錯](?=\W|误|誤|的|$)|并非|并无)"
    r"|(?P<yes_zh>[对對](?=\W|的|$)|[没沒][错錯](?=\W|的|$)|正确(?=\W|的|$)|是(?!否)|有(?![无無没沒])|存在|可见)",
    re.IGNORECASE,
)
# The whole answer, in questions that are put as a statement. "Correct technique" and "false positive" say nothing.
_TRUTH = re.compile(r"(?:(?P<yes>true|correct)|(?P<no>false|incorrect|wrong))[\W_]*\Z", re.IGNORECASE)
# A "no" that hangs on another statement ("a fracture with no displacement") does not answer.
_YES = re.compile(r"\b(?:yes|yeah|yep|yup)\b|是的|存在|可见|确实有", re.IGNORECASE)
_NO = re.compile(
    r"(?<!\bwith\s)(?<!\band\s)(?<!\bbut\s)\b(?:no(?!\.\d)|nope|not\s+(?:a\s+)?yes)\b|[没沒]有|不是|不存在|不可见|未见|并非|并无",
    re.IGNORECASE,
)
# 是否, 有没有, 是不是, 有无 (whether) repeat the question: what they ask about is not said, and 无论 (no matter) before them is no
# no. Neither is "no doubt".
_ASKED = re.compile(
    r"(?:[无無不]论)?(?:是否|有[没沒]有|是不是|有[无無]|能否|可否|存不存在|会不会)(?!定)[^。；;，,：:？?\n]*[？?：:，,]*|(?:存在|是|有)与否|\bno\s+(?:doubt|question)\b[,.]?",
    re.IGNORECASE,
)
# "Yes or no", "是/否": both words are offered, and neither is said. So do "yes and no", "not no" and 不是没有.
_OFFERED = re.compile(
    r"(?:\b(?:yes|no)|[是否有]|[没沒]有)[\W_]*(?:/|\bor\b|或者?|还是|和)[\W_]*(?:(?:yes|no)\b|[是否有]|[没沒]有)"
    r"|\b(?:yes|no)[\W_]*(?:\band\b|&)[\W_]*(?:yes|no)\b(?!\s+\w)"
    r"|\bnot\s+no\b|(?:不是|并非|不能说)(?:[没沒]有|无|無|不)",
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


def read_yes_no(text: str) -> Literal["yes", "no"] | None:
    """What ``text`` answers to a yes/no question.

    The first word decides ("Yes, there is no fracture" is yes, "No, there is a fracture" is no), also behind "The answer is".
    Without one, the whole text is searched: "There is no fracture" and "not yes" are no; a "no" that hangs on another statement ("a
    fracture with no displacement") is not read. "True" and "false" count where they are the whole answer. None is a text with words
    of both kinds or of neither, one that offers both ("yes or no", "yes and no"), one that repeats the question (是否存在骨折), a
    double negation ("not no", 不是没有), and one that cannot tell ("I cannot tell", 无法判断). Thinking in ``<think>`` tags is not
    read.

    What is *said* is read, not what it means for the question: "There is no fracture" is no, also where "Is the bone intact?" was
    asked.
    """
    text = _ASKED.sub(" ", _THINKING.sub("", text))
    start = _LEAD.match(text)
    place = start.end() if start is not None else 0
    if _OFFERED.match(text, place) or _UNDECIDED.match(text, place):
        return None
    if (head := _HEAD.match(text, place)) is not None:
        return "yes" if head["yes"] or head["yes_zh"] else "no"
    if (truth := _TRUTH.match(text, place)) is not None:
        return "yes" if truth["yes"] else "no"
    if _UNDECIDED.search(text) or _OFFERED.search(text):
        return None
    negative = _NO.search(text) is not None
    # 不存在 holds 存在: what says no is taken out before yes is looked for.
    positive = _YES.search(_NO.sub(" ", text)) is not None
    if negative == positive:
        return None
    return "yes" if positive else "no"
