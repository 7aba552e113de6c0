"""Boxes in text: ``{"bbox_2d": [x1, y1, x2, y2], "label": "..."}``, integers of 0 to 1000 of the picture's sides.

The convention of Qwen2-VL and Qwen3-VL; :mod:`medtune.imaging.boxes` says who writes otherwise, and converts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pydantic import JsonValue

from medtune.imaging.boxes import SCALE, Box, ordered_box
from medtune.language import msg
from medtune.tasks.reading.json_text import all_json

__all__ = ["read_boxes", "read_scored_boxes", "write_boxes"]

_KEYS = ("bbox_2d", "bbox", "box_2d", "box")
_NUMBER = r"(-?\d{1,5}(?:\.\d{1,9})?)"
# What Qwen2-VL's <|box_start|>(x1,y1),(x2,y2)<|box_end|> leaves when special tokens are taken out.
_CORNERS = re.compile(rf"\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)\s*,?\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)")
_BARE = re.compile(rf"\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]")


def write_boxes(boxes: Sequence[tuple[Box, str]]) -> str:
    """The text of boxes (0 to 1000) with labels: one object, a JSON list of several, ``[]`` of none."""
    objects = [{"bbox_2d": [min(max(round(side), 0), SCALE) for side in box], "label": label} for box, label in boxes]
    return json.dumps(objects[0] if len(objects) == 1 else objects, ensure_ascii=False)


def read_boxes(text: str) -> tuple[list[Box], list[str]]:
    """Boxes and their labels ("" where there is none), in the order of the text; ``[]`` is the answer "no box".

    Reads the JSON form, also under the keys ``bbox``, ``box_2d`` and ``box`` and in a list that was cut off, Qwen2-VL's corner form
    ``(x1,y1),(x2,y2)``, and bare lists of four numbers. Corners in the wrong order are exchanged.

    Raises:
        ValueError: There is neither a box nor an empty list.
    """
    found = read_scored_boxes(text)
    return [box for box, _, _ in found], [label for _, label, _ in found]


def read_scored_boxes(text: str) -> list[tuple[Box, str, float | None]]:
    """As :func:`read_boxes`, with the confidence (0 to 1) that stands beside a box under ``confidence`` or ``score``.

    Raises:
        ValueError: As :func:`read_boxes`.
    """
    values = list(all_json(text))
    found = [item for value in values for item in _collect(value)]
    if not found:
        for match in (*_CORNERS.finditer(text), *_BARE.finditer(text)):
            found.append((ordered_box([float(number) for number in match.groups()]), "", None))
    if not found and [] not in values:
        raise ValueError(msg("The answer holds no box."))
    return found


def _collect(value: JsonValue) -> list[tuple[Box, str, float | None]]:
    found: list[tuple[Box, str, float | None]] = []
    if isinstance(value, list):
        if _is_box(value):
            return [(ordered_box(value), "", None)]
        for item in value:
            found.extend(_collect(item))
    elif isinstance(value, dict):
        for key in _KEYS:
            if key in value:
                box = value[key]
                label = value.get("label", "")
                name = label if isinstance(label, str) else ""
                found.extend((corners, name, _confidence(value)) for corners, _, _ in _collect(box))
                break
    return found


def _confidence(value: dict[str, JsonValue]) -> float | None:
    stated = value.get("confidence", value.get("score"))
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        return None
    return float(stated) if 0 <= stated <= 1 else None


def _is_box(value: list[JsonValue]) -> bool:
    return len(value) == 4 and all(isinstance(side, int | float) and not isinstance(side, bool) for side in value)
