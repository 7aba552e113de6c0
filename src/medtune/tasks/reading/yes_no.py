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
_LEAD = re.compile(r"[\W_]*(?:(?:the\s+)?(?:(?:final|correct)\s+)?answer(?:\s+is)?[\W_]*|答案(?:是|为)?[\W_]*)?", re.IGNORECASE)
# 对 and 是 alone, since 对比 (contrast) and 是否 (whether) begin with them and answer nothing.
_HEAD = re.compile(
    r"(?:(?P<yes>yes|yeah|yep|yup)|(?P<no>no|nope))\b"
    r"|(?P<no_zh>不|否|无|未|没|并非|并无)|(?P<yes_zh>对(?=\W|的|$)|是(?!否)|有|存在|可见)",
    re.IGNORECASE,
)
_YES = re.compile(r"\b(?:yes|yeah|yep|yup)\b|是的|存在|可见|确实有", re.IGNORECASE)
_NO = re.compile(r"\b(?:no|nope)\b|没有|不是|不存在|不可见|未见|并非|并无", re.IGNORECASE)


def read_yes_no(text: str) -> Literal["yes", "no"] | None:
    """What ``text`` answers to a yes/no question.

    The first word decides ("Yes, there is no fracture" is yes), also behind "The answer is". Without one, the whole text is
    searched; a text with words of both kinds, or of neither, is None. A thinking part in ``<think>`` tags is not read.
    """
    text = _THINKING.sub("", text)
    start = _LEAD.match(text)
    head = _HEAD.match(text, start.end() if start is not None else 0)
    if head is not None:
        return "yes" if head["yes"] or head["yes_zh"] else "no"
    negative = _NO.search(text) is not None
    # 不存在 holds 存在: what says no is taken out before yes is looked for.
    positive = _YES.search(_NO.sub(" ", text)) is not None
    if negative == positive:
        return None
    return "yes" if positive else "no"
