"""A share of the picture's area, in percent, however it is written."""

from __future__ import annotations

import re
from bisect import bisect_right

__all__ = ["read_percent"]

_ONES = (
    "zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ENGLISH = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 20 + 10 * index for index, word in enumerate(_TENS.split())
}
_CHINESE = {character: value for value, character in enumerate("零一二三四五六七八九十")} | {"〇": 0, "两": 2}

_FRACTIONS = {"half": 50.0, "third": 100 / 3, "quarter": 25.0, "fourth": 25.0, "fifth": 20.0, "sixth": 100 / 6, "eighth": 12.5}
_FRACTIONS |= {"tenth": 10.0, "twentieth": 5.0, "hundredth": 1.0}

_WORD = rf"(?:(?:{_TENS.replace(' ', '|')})[- ](?:{'|'.join(_ONES.split()[1:10])})|{'|'.join(_ENGLISH)})"
# Atomic, so that "twenty-five percent" is never taken apart into a range from twenty to five. A number is tried from its first
# digit only: from each of them, a run of digits would cost the square of its length.
_VALUE = rf"(?>(?<!\d)\d+(?:[.,]\d+)?|\b{_WORD}\b(?:\s+point(?:\s+{_WORD}\b)+)?)"
_SIGN = r"\s*-?\s*(?:%|％|percent\b|per\s+cent\b|pct\b)"
_PERCENT = re.compile(
    rf"\bbetween\s+(?P<from>{_VALUE})(?:{_SIGN})?\s+and\s+(?P<until>{_VALUE}){_SIGN}"
    rf"|(?P<low>{_VALUE})(?:{_SIGN})?\s*(?:-|–|—|~|to|至|到)\s*(?P<high>{_VALUE}){_SIGN}"
    rf"|(?P<one>{_VALUE}){_SIGN}"
    # A field of a record: "percent": 6.2.
    rf"|\bpercent(?:age)?[\"']?\s*[:=]\s*[\"']?(?P<field>{_VALUE})",
    re.IGNORECASE,
)
_PERCENT_ZH = re.compile(
    r"百分之(?P<whole>[零〇一二两三四五六七八九十]+|\d+(?:\.\d+)?)(?:点(?P<digits>[零〇一二三四五六七八九]+))?"
)
# Never "the upper third of the image", which is a place: a share has a count or a verb before it.
_FRACTION = re.compile(
    rf"\b(?:(?P<count>an?|{_WORD}|\d+)[- ]+|(?:about|nearly|almost|approximately|roughly|occup\w+|cover\w*|takes?\s+up)\s+)"
    rf"(?P<part>{'|'.join(_FRACTIONS)})s?\s+(?:of\s+)?(?:the\s+)?(?:\w+\s+)?(?:area|image|picture|scan|slice)\b",
    re.IGNORECASE,
)
_ABOUT_AREA = re.compile(r"occup|cover|area|size|account|compris|\btak(?:e|es|ing)\b|share|占|面积|大小", re.I)

_SENTENCE_END = re.compile(r"[;。；\n]|\.\s")


def read_percent(text: str) -> float | None:
    """The share that ``text`` gives, 0 to 100: "4.1%", "4,1 per cent", "about four percent", "百分之四点一",
    "a quarter of the image".

    A range ("3-5 %") is its middle. Of several shares the first that words about area precede in its sentence ("occupies",
    "covers", "面积"), else the first one.
    """
    found: list[tuple[int, float]] = []
    for match in _PERCENT.finditer(text):
        single = match["one"] or match["field"]
        low, high = match["from"] or match["low"] or single, match["until"] or match["high"] or single
        found.append((match.start(), (_number(low) + _number(high)) / 2))
    for match in _PERCENT_ZH.finditer(text):
        found.append((match.start(), _chinese_number(match["whole"], match["digits"])))
    if not found:
        for match in _FRACTION.finditer(text):
            count = (match["count"] or "1").lower()
            found.append((match.start(), (1.0 if count in ("a", "an") else _number(count)) * _FRACTIONS[match["part"].lower()]))
    found = sorted((start, value) for start, value in found if 0 <= value <= 100)
    # Looked for once, not again before each share: an answer may be a long list of them.
    sentences = [0, *(match.end() for match in _SENTENCE_END.finditer(text))]
    words = [(match.start(), match.end()) for match in _ABOUT_AREA.finditer(text)]
    ends = [end for _, end in words]
    for start, value in found:
        before = bisect_right(ends, start) - 1
        if before >= 0 and words[before][0] >= sentences[bisect_right(sentences, start) - 1]:
            return value
    return found[0][1] if found else None


def _number(text: str) -> float:
    text = text.lower().strip()
    if text[0].isdigit():
        return float(text.replace(",", "."))
    whole, _, digits = text.partition(" point ")
    value = float(sum(_ENGLISH[word] for word in re.split(r"[- ]+", whole.strip())))
    if digits:
        value += float("0." + "".join(str(_ENGLISH[word]) for word in digits.split()))
    return value


def _chinese_number(whole: str, digits: str | None) -> float:
    if whole[0].isdigit():
        return float(whole)
    if "十" in whole:
        tens, _, ones = whole.partition("十")
        value = float(10 * (_CHINESE[tens] if tens else 1) + (_CHINESE[ones] if ones else 0))
    else:
        value = float("".join(str(_CHINESE[character]) for character in whole))
    return value + (float("0." + "".join(str(_CHINESE[character]) for character in digits)) if digits else 0.0)
