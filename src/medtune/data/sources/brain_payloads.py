"""What the texts of the brain sets hold: two paragraphs, a Python dict, a box. A payload that cannot be read is a fault."""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from medtune.data.sources.rows import RecordFault
from medtune.language import Text, msg
from medtune.types import Fault

__all__ = ["DetectedRegion", "detected_region", "json_record", "payload_fault", "region_text"]

_OBSERVATION = "<OBSERVATION>"
_LOCATION = re.compile(r"<loc_(\d{1,9})>")
_MAX_CHARACTERS = 64 * 1024
"""Of a dict literal. Published texts have at most 1.7 thousand characters."""
_MAX_DEPTH = 16
"""Brackets within brackets. Python's own parser gives up at 200, the reader of its tree by recursion, some versions by a crash."""


@dataclass(frozen=True, slots=True)
class DetectedRegion:
    """The payload of ``<DETECT_REGION_LOC>``: the box [x1, y1, x2, y2] in pixels, and the four numbers of the location tokens,
    whose convention must be measured. At least one of the two is there."""

    box: tuple[float, float, float, float] | None
    tokens: tuple[int, int, int, int] | None


def payload_fault(reason: str, message: Text) -> RecordFault:
    """The fault of a payload, with the remedy that all have."""
    return RecordFault(Fault(reason, message, msg("Correct the record in the source, or leave it out.")))


def region_text(payload: str) -> str:
    """Region and clinical observation as two labelled paragraphs; the payload as it is where it has no ``<OBSERVATION>``."""
    region, mark, observation = payload.partition(_OBSERVATION)
    return f"Region features: {region.strip()}\n\nClinical observation: {observation.strip()}" if mark else payload


def json_record(payload: str) -> str:
    """The published payload is the text of a Python dict (single quotes), which no JSON reader takes; this is its JSON.

    Raises:
        RecordFault: It is not a dict of plain values, too long or nested too deeply.
    """
    if len(payload) > _MAX_CHARACTERS or _depth(payload) > _MAX_DEPTH:
        raise payload_fault("record-unparsed", msg("The JSON record is too long or nested too deeply."))
    try:
        record = ast.literal_eval(payload)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise payload_fault("record-unparsed", msg("The JSON record cannot be read: {error}", error=_one_line(error))) from error
    try:
        if not isinstance(record, dict) or not record or not all(isinstance(key, str) for key in record):
            raise TypeError(type(record).__name__)
        return json.dumps(record, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise payload_fault("record-unparsed", msg("The JSON record is not an object of plain values.")) from error


def detected_region(payload: str) -> DetectedRegion:
    """Box and location tokens: ``{"bloc": "<loc_213>...", "bbox": "[212.7, ...]"}``, where ``bbox`` is JSON inside of JSON.

    Raises:
        RecordFault: There is neither a box nor four tokens, or the box is none.
    """
    try:
        record: Any = json.loads(payload)
        if not isinstance(record, dict):
            raise TypeError(type(record).__name__)
        numbers = [int(number) for number in _LOCATION.findall(str(record.get("bloc", "")))]
        tokens = (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None
        bbox = record.get("bbox")
        box = _box(bbox) if bbox is not None or tokens is None else None
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise payload_fault("box-unparsed", msg("The box cannot be read: {error}", error=_one_line(error))) from error
    return DetectedRegion(box, tokens)


def _box(bbox: Any) -> tuple[float, float, float, float]:
    if isinstance(bbox, str):
        bbox = json.loads(bbox)
    x1, y1, x2, y2 = (float(edge) for edge in bbox)
    if not all(math.isfinite(edge) for edge in (x1, y1, x2, y2)) or x2 <= x1 or y2 <= y1:
        raise ValueError(f"[{x1}, {y1}, {x2}, {y2}] is not x1, y1, x2, y2 of a box")
    return x1, y1, x2, y2


def _depth(text: str) -> int:
    """The deepest nesting of brackets and of signs in front of a number, counted without regard to quotes: too deep at worst."""
    depth = deepest = signs = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        signs = signs + 1 if letter in "+-~" else signs if letter == " " else 0
        deepest = max(deepest, depth, signs)
    return deepest


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
