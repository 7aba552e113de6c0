"""What can be put right in a row without knowing better than its author: blanks, numbers, edges, standard terms."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from medtune.data.checks.wording import replace_terms

__all__ = ["CLIPPED", "Change", "repair_row"]

CLIPPED = 1.0
"""Pixels by which an edge may lie outside its picture and is clipped: rounding up does that. More is another fault."""


class Change(NamedTuple):
    """One change of a row: the code of the finding, and the text before and after."""

    code: str
    before: str
    after: str


def repair_row(row: dict[str, Any], size: tuple[int, int] | None, *, terms: bool) -> list[Change]:
    """Put a row right in place.

    Args:
        row: As it stands in a split file; any value may be of the wrong kind.
        size: (width, height) in pixels of its first picture; None when it has none.
        terms: Replace phrases that have one standard term.

    Returns:
        What was changed.
    """
    changes: list[Change] = []
    for message in _messages(row):
        content = _text(message.get("content"), "answer-is-number", changes)
        stripped = content.strip() if isinstance(content, str) else content
        if stripped != content:
            changes.append(Change("stray-blanks", content, stripped))
        if terms and message.get("role") == "assistant" and isinstance(stripped, str):
            replaced, phrases = replace_terms(stripped)
            changes += [Change("wording", before, after) for before, after in phrases]
            stripped = replaced
        if message.get("content") != stripped:
            if _is_target(row, message):
                row["target"] = stripped
            message["content"] = stripped
    target = _text(row.get("target"), "answer-is-number", [])
    if isinstance(target, str) and target.strip() == _last(row):
        row["target"] = target.strip()
    if size is not None:
        _clip(row, size, changes)
    return changes


def _messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    messages = row.get("messages")
    return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []


def _last(row: dict[str, Any]) -> Any:
    messages = _messages(row)
    return messages[-1].get("content") if messages else None


def _is_target(row: dict[str, Any], message: dict[str, Any]) -> bool:
    return message is _messages(row)[-1] and row.get("target") == message.get("content")


def _text(value: Any, code: str, changes: list[Change]) -> Any:
    """A number as text, as a JSON reader of another language would write it; anything else as it is."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        text = json.dumps(value)
        changes.append(Change(code, text, json.dumps(text)))
        return text
    return value


def _clip(row: dict[str, Any], size: tuple[int, int], changes: list[Change]) -> None:
    try:
        metadata = json.loads(row["metadata"])
        x1, y1, x2, y2 = (float(edge) for edge in metadata["box"])
    except (KeyError, TypeError, ValueError):
        return
    width, height = size
    inside = [min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)]
    moved = max(abs(new - old) for new, old in zip(inside, (x1, y1, x2, y2), strict=True))
    if 0 < moved <= CLIPPED and inside[0] < inside[2] and inside[1] < inside[3]:
        changes.append(Change("box-outside", json.dumps(metadata["box"]), json.dumps(inside)))
        metadata["box"] = inside
        row["metadata"] = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
