"""Sentences that say the same of many things: put together, so that a hundred of one kind do not hide the one of another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from medtune.language import Text, msg

__all__ = ["Kind", "by_kind", "in_short", "kind_of"]


@dataclass(frozen=True, slots=True)
class Kind:
    """Sentences of one template: some to be shown, and the rest, on demand."""

    shown: tuple[Text, ...]
    rest: tuple[Text, ...]


def kind_of(text: Text) -> tuple[str, ...]:
    """What a sentence says but for its numbers and names. Titles of models and metrics are names; a sentence within it is not."""
    inner = (value.template for value in text.fields.values() if isinstance(value, Text))
    return (text.template, *(template for template in inner if template.endswith(".")))


def by_kind(texts: Iterable[Text], most: int = 3) -> list[Kind]:
    """Sentences that differ in their fields only, together, in the order of the first of each kind."""
    kinds: dict[tuple[str, ...], list[Text]] = {}
    for text in texts:
        kinds.setdefault(kind_of(text), []).append(text)
    return [Kind(tuple(mine[:most]), tuple(mine[most:])) for mine in kinds.values()]


def in_short(texts: Iterable[Text], most: int = 2) -> list[Text]:
    """The same for a terminal or a card: of a kind with more than ``most`` sentences the first, and their number."""
    found: list[Text] = []
    for kind in by_kind(texts, most):
        if not kind.rest:
            found.extend(kind.shown)
            continue
        count = len(kind.shown) + len(kind.rest) - 1
        found.append(msg("{sentence} (And {count} more of this kind.)", sentence=kind.shown[0], count=count))
    return found
