from __future__ import annotations

import math

import pytest

from medtune.generation.echo import EchoGenerator
from medtune.types import Message, Request, Sampling


def ask(name: str, text: str, max_new_tokens: int = 256) -> Request:
    return Request(name, (Message(role="user", content=text),), sampling=Sampling(max_new_tokens=max_new_tokens))


def test_echoes_the_question() -> None:
    (generation,) = EchoGenerator().generate([ask("a", " What is this? ")])
    assert (generation.text, generation.finish_reason) == ("What is this?", "stop")
    assert (generation.num_prompt_tokens, generation.num_generated_tokens) == (4, 3)


def test_answers_by_id() -> None:
    generator = EchoGenerator({"a": "yes"})
    assert [generation.text for generation in generator.generate([ask("b", "left"), ask("a", "right")])] == ["left", "yes"]


def test_answers_in_turn_over_calls() -> None:
    generator = EchoGenerator(["one", "two"])
    first = [generation.text for generation in generator.generate([ask("a", "?"), ask("b", "?"), ask("c", "?")])]
    assert first == ["one", "two", "one"]
    assert "".join(generator.stream(ask("d", "?"))) == "two"


def test_stream_has_the_same_text_in_pieces() -> None:
    text = "左侧 基底节区 shows a  hyperdense\nlesion. "
    assert "".join(EchoGenerator([text]).stream(ask("a", "?"))) == text
    assert list(EchoGenerator(["左侧 a b"]).stream(ask("a", "?"))) == ["左", "侧", " a", " b"]


def test_is_cut_at_its_length() -> None:
    (generation,) = EchoGenerator(["one two three"]).generate([ask("a", "?", max_new_tokens=2)])
    assert (generation.text, generation.finish_reason, generation.num_generated_tokens) == ("one two", "length", 2)


def test_says_how_probable_a_first_word_was() -> None:
    generator = EchoGenerator({"a": "yes, there is", "b": "perhaps"})
    asked = [Request(name, (Message(role="user", content="?"),), score_tokens=("yes", "no")) for name in "ab"]
    told = [generation.first_token_logprobs for generation in generator.generate(asked)]
    assert told == [
        {"yes": pytest.approx(math.log(0.9)), "no": pytest.approx(math.log(0.05))},
        {"yes": pytest.approx(math.log(1 / 3)), "no": pytest.approx(math.log(1 / 3))},
    ]
    assert next(generator.generate([ask("a", "?")])).first_token_logprobs is None
