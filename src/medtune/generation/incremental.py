"""Token ids to text, piece by piece, without ever showing half a character."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

__all__ = ["IncrementalText"]

_INCOMPLETE = "\ufffd"
"""What a byte-level decoder writes for bytes that are no character, or not yet one."""


class IncrementalText:
    """Decodes a growing sequence; the pieces joined are the text of the whole sequence.

    A byte-level BPE token may be a part of a UTF-8 character, and a Chinese character often takes two or three tokens. A
    piece is handed out only once the text so far ends in a whole character. Only the ids since the last such place, and the
    ones of the piece before it, are decoded again: tokenizers that join words look at the token before (SentencePiece
    drops the blank of a first word), and the work stays linear in the length.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0
        self._shown = 0

    def add(self, ids: Iterable[int]) -> str:
        """The text that became certain with ``ids``; empty while a character is incomplete."""
        self._ids.extend(ids)
        before, now = self._texts()
        if len(now) <= len(before) or now.endswith(_INCOMPLETE):
            return ""
        self._context, self._shown = self._shown, len(self._ids)
        return now[len(before) :]

    def end(self) -> str:
        """What was held back; ends in U+FFFD where the sequence broke off inside a character."""
        before, now = self._texts()
        self._context = self._shown = len(self._ids)
        return now[len(before) :]

    def _texts(self) -> tuple[str, str]:
        return self._decode(self._ids[self._context : self._shown]), self._decode(self._ids[self._context :])
