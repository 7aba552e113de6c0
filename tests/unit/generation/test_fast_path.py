"""The fast path of ``HfGenerator`` writes what transformers' own ``generate`` writes, token by token, in float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from medtune.errors import GenerationError
from medtune.generation import continuous, fast, sight
from medtune.generation.hf import HfGenerator
from medtune.generation.room import rows_that_fit
from medtune.generation.steps import row_buckets, whole_buckets
from medtune.models.config import ModelSettings
from medtune.models.decoder import Decoder, can_decode
from medtune.models.encoder import load_encoder
from medtune.models.load import load_model
from medtune.models.vision_layout import VisionLayout
from medtune.types import Message, Request, Sampling
from tiny_generation import Loaded, answered, load_answering, picture, requests_for
from tiny_models import tiny_model

FAMILIES = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3-vl-moe", "qwen3")


@pytest.fixture(scope="module", params=FAMILIES)
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_answering(tmp_path_factory.mktemp("model"), str(request.param))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_answering(tmp_path_factory.mktemp("model"), "qwen3-vl")


def test_greedy_answers_are_those_of_transformers(each: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """With end tokens that some answers meet early and others never."""
    model, encoder = each
    requests = requests_for(encoder, Sampling(max_new_tokens=20))
    free = answered(HfGenerator(model, encoder, fast=False), requests)
    ends = {encoder.tokenizer(free[name].text[-9:], add_special_tokens=False)["input_ids"][-1] for name in ("r0", "r2", "r3")}
    monkeypatch.setattr(encoder, "end_token_ids", tuple(ends))
    expected = answered(HfGenerator(model, encoder, fast=False), requests)
    assert {answer.finish_reason for answer in expected.values()} >= {"stop"}
    for batch_size in (1, 3, 8):
        generator = HfGenerator(model, encoder, batch_size=batch_size, fast=True)
        assert answered(generator, requests) == expected
        assert answered(generator, requests[::-1]) == expected


def test_drawn_answers_are_those_of_transformers(tiny: Loaded) -> None:
    for sampling in (
        Sampling(max_new_tokens=10, temperature=1.2, top_k=40, top_p=0.9, repetition_penalty=1.3, seed=3),
        Sampling(max_new_tokens=10, repetition_penalty=1.5),
        Sampling(max_new_tokens=10, temperature=0.8),
    ):
        requests = requests_for(tiny[1], sampling)
        expected = answered(HfGenerator(*tiny, batch_size=1, fast=False), requests)
        assert answered(HfGenerator(*tiny, batch_size=2, fast=True), requests) == expected


def test_the_first_token_of_both_paths_has_one_probability(tiny: Loaded) -> None:
    requests = requests_for(tiny[1], Sampling(max_new_tokens=2, repetition_penalty=3.0), score_tokens=("a", "s", "two words"))
    plain, quick = (answered(HfGenerator(*tiny, fast=choice), requests) for choice in (False, True))
    for name, answer in plain.items():
        expected, found = answer.first_token_logprobs, quick[name].first_token_logprobs
        assert expected is not None
        assert found is not None
        assert set(expected) == set(found) == {"a", "s"}
        assert all(math.isclose(expected[word], found[word], abs_tol=1e-3) for word in expected)
    assert len({str(answer.first_token_logprobs) for answer in quick.values()}) == len(requests)


def test_rows_are_filled_again_and_moved_together(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many answers of different lengths through few rows: each is still the one that it is alone."""
    model, encoder = tiny
    requests = [
        Request(f"q{number}", (Message(role="user", content="What is this? " + "a" * number),), (), Sampling(max_new_tokens=24))
        for number in range(12)
    ]
    alone = answered(HfGenerator(model, encoder, fast=False), requests)
    ends = {encoder.tokenizer(answer.text[:4], add_special_tokens=False)["input_ids"][-1] for answer in list(alone.values())[::3]}
    monkeypatch.setattr(encoder, "end_token_ids", tuple(ends))
    expected = answered(HfGenerator(model, encoder, fast=False), requests)
    assert len({answer.num_generated_tokens for answer in expected.values()}) > 3
    sizes: list[int] = []
    moves: list[int] = []
    step, move = Decoder.step, continuous.DecodingSteps.move
    monkeypatch.setattr(
        Decoder, "step", lambda self, cache, tokens, *rest: sizes.append(len(tokens)) or step(self, cache, tokens, *rest)
    )
    monkeypatch.setattr(
        continuous.DecodingSteps, "move", lambda self, sources, targets: moves.append(len(sources)) or move(self, sources, targets)
    )
    assert answered(HfGenerator(model, encoder, batch_size=4, fast=True), requests) == expected
    assert set(sizes) >= {4, 1}
    assert moves


def test_all_rows_are_filled_before_the_first_step(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the last ones, though they are fewer than would be filled again later."""
    model, encoder = tiny
    monkeypatch.setattr(fast, "PREFILL_TOKENS", 1)  # one prompt is read at a time
    requests = [
        Request(f"r{number}", (Message(role="user", content="word"),), (), Sampling(max_new_tokens=3)) for number in range(16)
    ]
    free: list[int] = []
    advance = continuous.ContinuousBatch.advance

    def seen(batch: continuous.ContinuousBatch) -> list[continuous.Answer]:
        free.append(batch.num_free)
        return advance(batch)

    monkeypatch.setattr(continuous.ContinuousBatch, "advance", seen)
    answered(HfGenerator(model, encoder, fast=True, batch_size=16), requests)
    assert free[0] == 0


def test_a_picture_of_two_questions_is_seen_once(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = sight.Sight._tower
    monkeypatch.setattr(
        sight.Sight, "_tower", lambda self, pictures, device: seen.append(len(pictures)) or real(self, pictures, device)
    )
    shared = picture(80, 80, 1)
    requests = [
        Request(f"q{number}", (Message(role="user", content=f"<image>Question {number}?"),), (shared,), Sampling(max_new_tokens=3))
        for number in range(5)
    ]
    answered(HfGenerator(*tiny, batch_size=2, fast=True), requests)
    assert sum(seen) == 1
    assert fast.by_picture([fast.Planned(request, 9) for request in requests]) == requests


def test_where_patches_lie_is_worked_out_once_for_pictures_of_one_size(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was worked out is still right for the next picture, which shows something else."""
    worked_out: list[list[list[int]]] = []
    real = VisionLayout.__call__
    monkeypatch.setattr(VisionLayout, "__call__", lambda self, grids: worked_out.append(grids.tolist()) or real(self, grids))
    sizes = [(64, 64), (64, 64), (130, 100), (64, 64)]
    requests = [
        Request(f"q{number}", (Message(role="user", content="<image>?"),), (picture(*size, number),), Sampling(max_new_tokens=6))
        for number, size in enumerate(sizes)
    ]
    expected = answered(HfGenerator(*tiny, fast=False), requests)
    assert len({answer.text for answer in expected.values()}) == len(requests)
    worked_out.clear()
    assert answered(HfGenerator(*tiny, batch_size=1, fast=True), requests) == expected
    assert len(worked_out) == 2


def test_pixels_are_let_go_when_they_have_been_seen(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    advance = continuous.ContinuousBatch.advance

    def seen(batch: continuous.ContinuousBatch) -> list[continuous.Answer]:
        held.extend(len(answer.encoded.pictures) for answer in batch.under_way)
        return advance(batch)

    monkeypatch.setattr(continuous.ContinuousBatch, "advance", seen)
    answered(HfGenerator(*tiny, fast=True), requests_for(tiny[1], Sampling(max_new_tokens=4)))
    assert held
    assert not any(held)


def test_the_plain_path_serves_the_rest(tmp_path: Path) -> None:
    settings = ModelSettings(base=str(tiny_model(tmp_path, "llava")))
    model, encoder = load_model(settings, device="cpu"), load_encoder(settings)
    assert not can_decode(model)
    assert HfGenerator(model, encoder).fast is None
    with pytest.raises(GenerationError, match="Qwen"):
        HfGenerator(model, encoder, fast=True)


def test_rows_are_chosen_from_the_memory_that_is_left(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(tiny[0])
    assert rows_that_fit(decoder, 100, most=256, share=0.9, drawn=False) == 16
    monkeypatch.setattr(decoder, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    # 2 layers x 2 (keys, values) x 2 heads x 8 numbers x 4 bytes = 256 bytes a slot; 12 bytes for each of 504 scores.
    assert decoder.bytes_per_slot == 256
    row = 128 * 256 + 504 * 12
    activations = (continuous.PREFILL_TOKENS + 100) * decoder.bytes_per_prompt_token
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * (activations + 10 * row), 0))
    assert rows_that_fit(decoder, 100, most=256, share=0.5, drawn=False) == 10
    assert rows_that_fit(decoder, 100, most=4, share=0.5, drawn=False) == 4
    assert rows_that_fit(decoder, 100, most=256, share=0.01, drawn=False) == 1


def test_buckets() -> None:
    assert row_buckets(200) == [200, 128, 64, 32, 16, 8, 4, 2, 1]
    assert row_buckets(1) == [1]
    assert row_buckets(8) == [8, 4, 2, 1]
    assert [whole_buckets(tokens) for tokens in (1, 128, 129)] == [128, 128, 256]


def test_the_longest_is_refused_and_the_others_are_answered(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even one row of the longest request does not fit, shorter ones of the same wave still may."""
    model, encoder = tiny
    shown = picture(64, 64, 1)  # two questions about one picture stand together, so the longest is not the first of its wave

    def asked(name: str, words: int) -> Request:
        return Request(name, (Message(role="user", content="<image>" + "word " * words),), (shown,), Sampling(max_new_tokens=4))

    requests = [asked("short", 40), asked("long", 70), asked("middle", 50)]
    whole = answered(HfGenerator(model, encoder, fast=True, batch_size=1), requests)
    generator = HfGenerator(model, encoder, fast=True, batch_size=1)
    assert generator.fast is not None
    batch, longest = generator.fast.batch, max(answer.num_prompt_tokens or 0 for answer in whole.values()) + 4

    def scarce(decoder: Any, times_shown: Any, rows: int, slots: int, sampling: Sampling) -> Any:
        if slots >= longest:
            raise torch.OutOfMemoryError
        return batch(decoder, times_shown, rows, slots, sampling)

    monkeypatch.setattr(generator.fast, "batch", scarce)
    found = answered(generator, requests)
    assert {name for name, answer in found.items() if answer.finish_reason == "error"} == {"long"}
    assert {name: found[name].text for name in ("short", "middle")} == {name: whole[name].text for name in ("short", "middle")}
