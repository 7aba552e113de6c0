"""No half characters, and the whole text at the end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from medtune.generation.incremental import IncrementalText


def decode_bytes(ids: Sequence[int]) -> str:
    """A byte-level tokenizer with one token a byte."""
    return bytes(ids).decode("utf-8", errors="replace")


def decode_words(ids: Sequence[int]) -> str:
    """A tokenizer that, like SentencePiece, drops the blank before the first word it is given."""
    words = ["▁the", "▁left", "hand", "▁side", "."]
    return "".join(words[token] for token in ids).replace("▁", " ").removeprefix(" ")


@pytest.mark.parametrize("text", ["plain words", "右肺上叶可见结节，边界清。", "café 🩻 é", "", "x\ufffdy"])
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_pieces_are_whole_characters_and_join_to_the_text(text: str, step: int) -> None:
    ids = list(text.encode("utf-8"))
    incremental = IncrementalText(decode_bytes)
    pieces = [incremental.add(ids[start : start + step]) for start in range(0, len(ids), step)]
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + incremental.end() == text


def test_each_character_comes_with_its_last_byte() -> None:
    incremental = IncrementalText(decode_bytes)
    assert [incremental.add([byte]) for byte in "肺a".encode()] == ["", "", "肺", "a"]


def test_a_sequence_that_breaks_off_inside_a_character() -> None:
    incremental = IncrementalText(decode_bytes)
    assert incremental.add("肺结".encode()[:-1]) == ""
    assert incremental.end() == "肺\ufffd"
    assert incremental.end() == ""


def test_invalid_bytes_are_kept() -> None:
    ids = [0x61, 0xFF, 0x62, 0xE8, 0x63]
    incremental = IncrementalText(decode_bytes)
    assert "".join([incremental.add([token]) for token in ids] + [incremental.end()]) == decode_bytes(ids)


def test_blanks_between_words_of_a_sentencepiece_tokenizer() -> None:
    ids = [0, 1, 2, 3, 4]
    incremental = IncrementalText(decode_words)
    assert "".join([incremental.add([token]) for token in ids] + [incremental.end()]) == decode_words(ids)


def test_the_work_is_linear() -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode_bytes(ids)

    incremental = IncrementalText(decode)
    for byte in ("右肺 nodule " * 100).encode():
        incremental.add([byte])
    assert longest <= 8
