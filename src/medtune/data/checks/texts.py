"""Words that stand for words: placeholders inside a text, turns without content, blanks at the end of a turn."""

from __future__ import annotations

import re
from collections.abc import Iterator

from medtune.data.checks.check import Check, Place
from medtune.data.checks.found import Found
from medtune.data.findings import CORRECT_SOURCE
from medtune.language import Text, msg
from medtune.types import IMAGE_MARK, Sample

__all__ = ["Texts", "is_placeholder", "placeholders"]

_WHOLE = re.compile(
    r"(?:n/?\.?a\.?|null|nan|todo|tbd|x{2,}|[-_.?*/\\]+|<[a-z ]+>|\[[a-z ]+\]|not available|no (?:caption|report|text|answer)"
    r"|[□×✕＿—…。、？]+|略|空|空白|待(?:补充|填写?|定)|暂无(?:内容|描述|报告)?|无内容|此处填写|测试)",
    re.IGNORECASE,
)
"""Whole texts that stand for nothing. ``none``, ``no``, ``unknown`` and ``[]`` (no box) are answers, and not among them."""

# XXXX stands for a word in the open Indiana reports (Demner-Fushman et al. 2016, JAMIA 23:304), ___ in MIMIC-CXR (Johnson et al.
# 2019, Sci Data 6:317): de-identification took the word out, and a model learns to write the gap.
_INSIDE = re.compile(
    r"(?<![A-Za-z])X{3,}(?![A-Za-z])|_{3,}|×{2,}|□{2,}|\*{4,}|\{\{.{0,60}?\}\}|\$\{\w+\}|(?i:\[(?:insert|your|enter|patient|name|date)\b[^\]]{0,40}\]"
    r"|<(?:insert|your|enter|name|date)\b[^>]{0,40}>|\blorem ipsum\b)|\b(?:TODO|TBD|FIXME)\b"
    r"|[（(【\[]\s*(?:此处|请)?(?:填写|补充|插入|待补充|待填)[^）)】\]]{0,20}[）)】\]]|(?<![\w])[Xx某]{2,}(?=医院|患者|医生|市)|待补充|此处省略",
)


def is_placeholder(text: str) -> bool:
    """Whether a whole text stands for nothing."""
    return _WHOLE.fullmatch(text.strip()) is not None


def placeholders(text: str) -> list[str]:
    """The placeholders inside a text, in their order, each once."""
    return list(dict.fromkeys(match.group(0) for match in _INSIDE.finditer(text)))


class Texts(Check):
    """The texts of all turns. Keeps nothing of a row."""

    names = ("texts",)

    def row(self, sample: Sample, place: Place) -> None:
        for found in look(sample):
            self.findings.add(*found, split=place.split, sample=sample.id, file=str(place))


def look(sample: Sample) -> Iterator[Found]:
    """Findings about the texts of a row, beyond those about the answer as a whole."""
    for number, message in enumerate(sample.messages):
        words = message.content.replace(IMAGE_MARK, "").strip()
        is_answer = number == len(sample.messages) - 1
        if not is_answer and message.role == "assistant" and (not words or is_placeholder(words)):
            yield Found("turn-empty", "error", _says_nothing(message.role), CORRECT_SOURCE)
        elif not is_answer and not words:
            # A question may be asked by the picture alone only by mistake: every task has an instruction.
            yield Found(
                "turn-empty", "error" if message.role == "system" else "warning", _says_nothing(message.role), CORRECT_SOURCE
            )
        elif not is_answer and is_placeholder(words):
            yield Found("turn-empty", "warning", _says_nothing(message.role), CORRECT_SOURCE)
        elif not is_placeholder(words) and (gaps := placeholders(words)):
            yield Found(
                "text-placeholder",
                "warning",
                msg(
                    "The {role} turn holds {count} kinds of placeholder, e.g. {gap!r}.",
                    role=message.role,
                    count=len(gaps),
                    gap=gaps[0],
                ),
                msg("A model trained on it learns to write it: complete the text in the source, or leave the record out."),
            )


def _says_nothing(role: str) -> Text:
    return msg("The {role} turn says nothing.", role=role)
