"""Positions in Chinese: 图像左上部 is the picture's, 患者右侧 and 右侧额叶 are the patient's."""

from __future__ import annotations

import re

__all__ = ["read_position_zh"]

_TOKENS = re.compile(
    r"""
    (?P<skip>中线(?:结构)?(?:向[左右]侧?)?(?:移位|偏移)|向[左右]侧?(?:移位|偏移|推移)|[上下]叶|左右|以[上下]|上述|下腔|上腔)
  | (?P<midline>中线)
  | (?P<patient>患者|病人|患侧|解剖)
  | (?P<picture>图像|图片|画面|影像|图中|照片|片子|视野)
  | (?P<part>[额颞顶枕岛]{1,2}(?:叶|部|区)|额颞顶|大脑|小脑|半球|脑叶|基底节|丘脑|脑室
      |放射冠|半卵圆|脑干|侧裂|肺|胸|肾|肝|脾|乳|眼|叶)
  | (?P<hand>[左右])(?=(?P<join>[上下])?)
  | (?P<height>[上下](?=部|方|侧|半|端|缘|三分|[左右])|顶部|底部|(?<=[左右偏])[上下])
  | (?P<center>中央|中间|中部|中心|正中|居中)
  | (?P<break>[，。；、,;\n]|和|及|且)
    """,
    re.VERBOSE,
)


def read_position_zh(text: str) -> tuple[str | None, str | None, str | None]:
    """(horizontal, vertical, side), see :class:`medtune.tasks.reading.position.Position`."""
    tokens = [(str(match.lastgroup if match.lastgroup != "join" else "hand"), match) for match in _TOKENS.finditer(text)]
    horizontal: str | None = None
    vertical: str | None = None
    side: str | None = None
    center = False
    for index, (kind, match) in enumerate(tokens):
        if kind == "hand":
            name = "left" if match["hand"] == "左" else "right"
            if _is_patient(tokens, index):
                side = side or name
            else:
                horizontal = horizontal or name
        elif kind == "height":
            if _next(tokens, index) != "part":
                vertical = vertical or ("upper" if match[0] in ("上", "顶部") else "lower")
        elif kind == "midline":
            side = side or "midline"
        elif kind == "center" and _next(tokens, index) != "part":
            center = True
    if center:
        horizontal, vertical = horizontal or "center", vertical or "middle"
    return horizontal, vertical, side


_Tokens = list[tuple[str, "re.Match[str]"]]


def _next(tokens: _Tokens, index: int) -> str | None:
    """The kind of what follows in the phrase."""
    for kind, _ in tokens[index + 1 :]:
        if kind in ("hand", "height"):
            continue
        return None if kind == "break" else kind
    return None


def _is_patient(tokens: _Tokens, index: int) -> bool:
    """Whether 左 or 右 is the patient's: anatomy follows it, or a word for the patient stands before it in the clause."""
    following = tokens[index + 1][0] if index + 1 < len(tokens) else None
    if following == "part":
        return True
    for kind, _ in reversed(tokens[:index]):
        if kind in ("break", "hand"):
            return False
        if kind in ("patient", "picture"):
            return kind == "patient"
    return False
