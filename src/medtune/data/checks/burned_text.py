"""Text that stands in the pixels: names and dates above all, which no tag removal touches, and scales and side markers.

Reads with RapidOCR's models, which its wheel brings along: nothing is fetched. Off unless asked for, because it takes a hundred
times as long as decoding. What was read is never repeated in a finding, as it may name a patient; only markers that cannot are.
OCR is no proof of absence: single letters, faint and rotated text are missed often.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from medtune.data.checks.check import Check, PictureFacts, PictureUse
from medtune.errors import MissingDependencyError
from medtune.language import Text, msg

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BurnedInText", "TextKind", "kind_of_text", "measure", "require_ocr"]

TextKind = Literal["identifier", "marker", "text"]

_CONFIDENT = 0.6
"""Of 1: lines that the recogniser is less sure of are noise more often than text. RapidOCR itself drops those below 0.5."""
_MARKER = re.compile(
    r"[LR](?:EFT|IGHT)?|[AP]|[SI]|[HF]|AP|PA|LAT|ERECT|SUPINE|PORTABLE|左|右|\d{1,3}(?:\.\d+)?(?:cm|mm|kV|mA|%)?|cm|mm"
    r"|(?:W|WW|L|WL|C)[:=]?-?\d{1,4}|(?:SE|IM|SL|FOV|TE|TR|TI)[:=]?\d{1,5}(?:\.\d+)?(?:mm|ms)?",
    re.IGNORECASE,
)
"""Side and position letters, scales, windows and sequence numbers: they name nobody."""
_IDENTIFIER = re.compile(
    r"\d{5,}|\d{1,4}[-/.年]\d{1,2}[-/.月]\d{1,4}|[A-Z]{2,}\^|(?-i:^[A-Z]{2,},?\s?[A-Z][A-Za-z]+$)|\b(?:MRN|DOB|ID|NAME|PATIENT|ACC(?:ESSION)?|BORN|SEX)\b"
    r"|HOSPITAL|CLINIC|MEDICAL CENT|\bDR\.|姓名|患者|病历|住院|门诊|编号|出生|医院|性别|年龄|^(?:MRN|DOB|ID|ACC)[:#]?\d",
    re.IGNORECASE,
)
"""Dates, numbers of five digits or more, and words that introduce a person or a house. Wide on purpose: a name that is missed
costs more than a scale that is looked at."""


def require_ocr() -> None:
    """Raises:
    MissingDependencyError: The packages of the extra ``ocr`` are not installed.
    """
    _engine()


@cache
def _engine() -> Any:
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise MissingDependencyError(
            "rapidocr-onnxruntime",
            needed_for=msg("Reading text in pictures (--ocr)"),
            pip="'medtune[ocr]' && pip install --no-deps rapidocr-onnxruntime",
        ) from error
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)


def kind_of_text(text: str) -> TextKind:
    """Whether a text of a picture may identify somebody, is a harmless marker, or neither."""
    text = text.strip()
    if _MARKER.fullmatch(text):
        return "marker"
    return "identifier" if _IDENTIFIER.search(text) else "text"


def measure(image: Image) -> list[list[Any]]:
    """For :mod:`medtune.data.checks.measures`: ``[kind, marker's text or "", confidence, x1, y1, x2, y2]`` of each line read."""
    import numpy as np

    # The engine takes OpenCV's channel order.
    lines, _ = _engine()(np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1]))
    found: list[list[Any]] = []
    for corners, text, confidence in lines or ():
        if float(confidence) < _CONFIDENT or not text.strip():
            continue
        kind = kind_of_text(text)
        across, down = [float(x) for x, _ in corners], [float(y) for _, y in corners]
        edges = [round(min(across)), round(min(down)), round(max(across)), round(max(down))]
        found.append([kind, text if kind == "marker" else "", round(float(confidence), 3), *edges])
    return found


class BurnedInText(Check):
    """Text in pictures. Keeps nothing of a picture."""

    names = ("burned-in-text",)
    needs = frozenset({"burned-text"})

    def picture(self, facts: PictureFacts, use: PictureUse) -> None:
        lines = facts.measured.get("burned-text") or ()
        for kind in ("identifier", "text", "marker"):
            mine = [line for line in lines if line[0] == kind]
            if not mine:
                continue
            code, message, remedy = _words(kind, mine)
            self.findings.add(
                code,
                {"identifier": "error", "text": "warning"}.get(kind, "info"),  # type: ignore[arg-type]
                message,
                remedy,
                split=use.splits[0] if use.splits else None,
                sample=None if use.row is None else self.context.rows.id(use.row),
                file=str(self.context.dataset.folder / facts.ref.path),
            )


def _words(kind: str, lines: list[list[Any]]) -> tuple[str, Text, Text | None]:
    places = "; ".join("[" + ", ".join(str(edge) for edge in line[3:]) + "]" for line in lines[:5])
    surest = max(line[2] for line in lines)
    if kind == "identifier":
        return (
            "burned-in-identifier",
            msg(
                "{count} lines of text in the picture look like names, dates or numbers of a person (confidence up to"
                " {surest:.0%}), at {places}. They are not repeated here.",
                count=len(lines),
                surest=surest,
                places=places,
            ),
            msg("Look at the picture now; `medtune deidentify` blanks such text. Do not pass the data on before."),
        )
    if kind == "text":
        return (
            "burned-in-text",
            msg(
                "{count} lines of text stand in the picture (confidence up to {surest:.0%}), at {places}.",
                count=len(lines),
                surest=surest,
                places=places,
            ),
            msg("Look whether they name somebody or give the answer away."),
        )
    return (
        "burned-in-marker",
        msg("Markers stand in the picture: {markers}.", markers=", ".join(line[1] for line in lines[:10])),
        None,
    )
