"""Generation with tiny random models: one request's text depends on that request alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medtune.errors import GenerationError
from medtune.generation.hf import HfGenerator
from medtune.models.config import ModelSettings
from medtune.models.decoder import Decoder
from medtune.models.encoder import Encoder, load_encoder
from medtune.models.load import load_model
from medtune.types import Event, Generation, Message, Request, Sampling
from tiny_models import tiny_model

MAX_NEW_TOKENS = 12


@pytest.fixture(scope="module", params=["qwen3-vl", "qwen2-vl", "qwen2.5-vl"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(folder: Path, family: str) -> tuple[Any, Encoder]:
    settings = ModelSettings(base=str(tiny_model(folder, family)))
    model = load_model(settings, device="cpu")
    with torch.no_grad():
        # At initialisation scale attention is nearly uniform: positions and pictures would hardly show in the text.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model, load_encoder(settings)


@pytest.fixture(scope="module")
def any_model(family: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Encoder]:
    return load(tmp_path_factory.mktemp("model"), family)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Encoder]:
    return load(tmp_path_factory.mktemp("model"), "qwen3-vl")


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    picture(90, 70).save(tmp_path / "slice 1.png")
    return tmp_path / "slice 1.png"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ask(name: str, text: str, *images: Path | Image.Image, sampling: Sampling | None = None) -> Request:
    sampling = sampling or Sampling(max_new_tokens=MAX_NEW_TOKENS)
    return Request(name, (Message(role="user", content="<image>" * len(images) + text),), images, sampling)


def mixed_requests(sampling: Sampling | None = None) -> list[Request]:
    """Pictures of several sizes, two pictures in one request, none, and a history with pictures in two of its turns."""
    history = (
        Message(role="user", content="<image>What does this image show?"),
        Message(role="assistant", content="A slice of the brain."),
        Message(role="user", content="And this one? <image>"),
    )
    return [
        ask("small", "What is this?", picture(70, 90), sampling=sampling),
        ask("wide", "Describe the findings and give an impression.", picture(200, 64, 1), sampling=sampling),
        ask("two", "Compare.", picture(64, 64, 2), picture(130, 100, 3), sampling=sampling),
        ask("text", "no picture, only text", sampling=sampling),
        ask("question", "Is there a lesion in the left hemisphere? Answer yes or no.", sampling=sampling),
        ask("thin", "a", picture(300, 40, 4), sampling=sampling),
        Request("history", history, (picture(80, 80, 5), picture(64, 128, 6)), sampling or Sampling(max_new_tokens=MAX_NEW_TOKENS)),
    ]


def texts(generations: Iterator[Generation]) -> dict[str, str]:
    return {generation.id: generation.text for generation in generations}


def test_neither_batch_size_nor_order_changes_a_text(any_model: tuple[Any, Encoder]) -> None:
    model, encoder = any_model
    requests = mixed_requests()
    alone = texts(HfGenerator(model, encoder, batch_size=1).generate(requests))
    assert len(set(alone.values())) == len(requests), "the model does not look at its prompt: the test would prove nothing"
    for batch_size in (3, 8):
        assert texts(HfGenerator(model, encoder, batch_size=batch_size).generate(requests)) == alone
    shuffled = [requests[index] for index in (3, 6, 0, 5, 2, 4, 1)]
    assert texts(HfGenerator(model, encoder, batch_size=3).generate(shuffled)) == alone


def test_tokens_are_those_of_whole_forward_passes(any_model: tuple[Any, Encoder]) -> None:
    """No cache, no padding, no generate(): the model finds the positions of picture and text anew for each token."""
    model, encoder = any_model
    requests = mixed_requests()
    expected = {}
    for request in requests:
        features = encoder.encode(request.messages, request.images)  # type: ignore[arg-type]
        inputs = {name: tensor for name, tensor in encoder.collate([features], padding="left").inputs.items() if name != "labels"}
        prompt = inputs["input_ids"]
        for _ in range(MAX_NEW_TOKENS):
            with torch.no_grad():
                following = model(**inputs).logits[:, -1:].argmax(-1)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], following], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            kinds = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(kinds[:, :1])], dim=1)
        expected[request.id] = encoder.decode(inputs["input_ids"][0, prompt.shape[1] :])
    assert texts(HfGenerator(model, encoder, batch_size=4).generate(requests)) == expected


def test_a_model_of_text_alone(tmp_path: Path) -> None:
    model, encoder = load(tmp_path, "qwen3")
    requests = [request for request in mixed_requests() if not request.images]
    alone = texts(HfGenerator(model, encoder, batch_size=1).generate(requests))
    assert len(set(alone.values())) == len(requests)
    assert texts(HfGenerator(model, encoder, batch_size=8).generate(requests)) == alone
    with pytest.raises(GenerationError) as caught:
        HfGenerator(model, encoder).generate([ask("with-picture", "What is this?", picture(64, 64))])
    assert caught.value.sample == "with-picture"


def test_a_draw_depends_on_seed_and_request_but_not_on_the_batch(tiny: tuple[Any, Encoder]) -> None:
    sampling = Sampling(max_new_tokens=8, temperature=1.5, top_p=0.95, top_k=50, repetition_penalty=1.3, seed=1)
    alone = texts(HfGenerator(*tiny, batch_size=1).generate(mixed_requests(sampling)))
    assert texts(HfGenerator(*tiny, batch_size=8).generate(mixed_requests(sampling)[::-1])) == alone
    other_seed = sampling.model_copy(update={"seed": 2})
    assert texts(HfGenerator(*tiny, batch_size=8).generate(mixed_requests(other_seed))) != alone
    same_words = [ask(name, "What is this?", sampling=sampling) for name in ("first", "second")]
    first, second = texts(HfGenerator(*tiny).generate(same_words)).values()
    assert first != second


def test_requests_of_different_sampling_in_one_call(tiny: tuple[Any, Encoder]) -> None:
    short = ask("short", "What is this?", sampling=Sampling(max_new_tokens=3))
    long = ask("long", "What is this?", sampling=Sampling(max_new_tokens=9))
    found = {generation.id: generation for generation in HfGenerator(*tiny).generate([short, long])}
    assert (found["short"].num_generated_tokens, found["long"].num_generated_tokens) == (3, 9)
    assert found["long"].text.startswith(found["short"].text.rstrip("\ufffd"))


def test_stops_at_the_encoder_end_tokens_alone(tiny: tuple[Any, Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoder = tiny
    (whole,) = HfGenerator(model, encoder).generate([ask("a", "What is this?")])
    assert (whole.finish_reason, whole.num_generated_tokens) == ("length", MAX_NEW_TOKENS)
    features = encoder.encode((Message(role="user", content="What is this?"),), ())
    assert whole.num_prompt_tokens == len(features.input_ids)
    generated = HfGenerator(model, encoder)._decode([features], Sampling(max_new_tokens=MAX_NEW_TOKENS))[0]
    end = generated[5]
    monkeypatch.setattr(encoder, "end_token_ids", (end,))
    before = generated.index(end)
    rows = [ask("a", "What is this?"), ask("b", "Is there a lesion in the left hemisphere?")]
    stopped = {generation.id: generation for generation in HfGenerator(model, encoder).generate(rows)}["a"]
    assert stopped.text == encoder.decode(generated[:before])
    assert (stopped.finish_reason, stopped.num_generated_tokens) == ("stop", before + 1)
    assert stopped.seconds is not None
    assert stopped.seconds > 0


def test_sampling_defaults_of_the_model_are_ignored(tiny: tuple[Any, Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoder = tiny
    requests = mixed_requests()[:3]
    expected = texts(HfGenerator(model, encoder).generate(requests))
    shipped = type(model.generation_config)(do_sample=True, temperature=5.0, top_k=400, repetition_penalty=9.0, min_new_tokens=5)
    monkeypatch.setattr(model, "generation_config", shipped)
    assert texts(HfGenerator(model, encoder).generate(requests)) == expected
    assert model.generation_config is shipped


def test_dropout_of_a_model_in_training_stays_out(tiny: tuple[Any, Encoder]) -> None:
    model, encoder = tiny
    model.train()
    try:
        list(HfGenerator(model, encoder).generate([ask("a", "What is this?")]))
        assert model.training
    finally:
        model.eval()


def test_batches_of_the_plain_path_come_as_they_end_and_pictures_open_late(
    tiny: tuple[Any, Encoder], picture_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    import medtune.generation.hf as module

    real = module.open_picture
    monkeypatch.setattr(module, "open_picture", lambda path: opened.append(path) or real(path))
    requests = [ask(f"r{index}", "What is this?" * (index + 1), picture_file) for index in range(4)]
    generations = HfGenerator(*tiny, batch_size=2, fast=False).generate(requests)
    assert opened == []
    assert next(generations).id == "r3"  # the longest first
    assert len(opened) == 2
    assert {generation.id for generation in generations} == {"r0", "r1", "r2"}
    assert len(opened) == 4


@pytest.mark.parametrize("fault", ["missing", "marks", "not-a-question", "too-long", "above-limit"])
def test_a_fault_of_the_request_is_told_before_any_work(
    fault: str, tiny: tuple[Any, Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encoder = tiny
    monkeypatch.setattr(model, "generate", lambda **_: pytest.fail("the model was asked"))
    bad = {
        "missing": ask("bad", "What is this?", tmp_path / "none.png"),
        "marks": Request("bad", (Message(role="user", content="no mark"),), (picture(64, 64),)),
        "not-a-question": Request("bad", (Message(role="user", content="a"), Message(role="assistant", content="b"))),
        "too-long": ask("bad", "What is this?", sampling=Sampling(max_new_tokens=4096)),
        "above-limit": ask("bad", "What is this? " * 40, sampling=Sampling(max_new_tokens=1)),
    }[fault]
    if fault == "above-limit":
        monkeypatch.setattr(encoder, "max_tokens", 50)
    for call in (lambda generator: generator.generate([ask("good", "hello"), bad]), lambda generator: generator.stream(bad)):
        with pytest.raises(GenerationError) as caught:
            call(HfGenerator(model, encoder))
        assert caught.value.sample == "bad"
        assert ("none.png" in caught.value.render()) == (fault == "missing")


def test_a_damaged_picture_costs_its_own_answer_only(tiny: tuple[Any, Encoder], picture_file: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(picture_file.read_bytes()[:2000])
    requests = [ask("good", "What is this?", picture_file), ask("torn", "What is this?", torn), ask("text", "What is this?")]
    found = {generation.id: generation for generation in HfGenerator(*tiny).generate(requests)}
    assert set(found) == {"good", "torn", "text"}
    assert found["torn"].finish_reason == "error"
    assert "torn.png" in (found["torn"].error or "")
    assert found["good"].text == next(HfGenerator(*tiny).generate(requests[:1])).text
    with pytest.raises(GenerationError, match=r"torn\.png"):
        HfGenerator(*tiny).stream(requests[1])


class ScarceMemory:
    """Lets a model run out of memory above a number of rows."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.sizes: list[int] = []
        real = model.generate

        def generate(**inputs: Any) -> Any:
            self.sizes.append(len(inputs["input_ids"]))
            if self.sizes[-1] > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(**inputs)

        monkeypatch.setattr(model, "generate", generate)


def test_out_of_memory_halves_the_plain_batch_and_goes_on(tiny: tuple[Any, Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    requests = mixed_requests()
    expected = texts(HfGenerator(*tiny, batch_size=1).generate(requests))
    memory = ScarceMemory(tiny[0], monkeypatch, most=2)
    heard: list[Event] = []
    generator = HfGenerator(*tiny, batch_size=6, listener=heard.append, fast=False)
    assert texts(generator.generate(requests)) == expected
    assert memory.sizes == [6, 3, 2, 1, 3, 2, 1, 1]
    assert generator.batch_size == 2
    assert [event.values["batch_size"] for event in heard] == [3, 2, 2]


@pytest.mark.parametrize("fast", [True, False])
def test_a_row_that_never_fits_is_an_error_of_that_row(
    fast: bool, tiny: tuple[Any, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    ScarceMemory(tiny[0], monkeypatch, most=0)
    ScarceCache(monkeypatch, most=0)
    (generation,) = HfGenerator(*tiny, fast=fast).generate([ask("a", "What is this?")])
    assert generation.finish_reason == "error"
    assert "memory" in (generation.error or "")
    with pytest.raises(GenerationError, match="memory"):
        list(HfGenerator(*tiny, fast=fast).stream(ask("a", "What is this?")))


class ScarceCache:
    """Lets the fast path run out of memory above a number of rows: when prompts are read, or after some steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, *, after_steps: int | None = None) -> None:
        self.sizes: list[int] = []
        real_cache, real_step = Decoder.cache, Decoder.step
        steps = 0

        def cache(decoder: Decoder, rows: int, slots: int) -> Any:
            self.sizes.append(rows)
            if after_steps is None and rows > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real_cache(decoder, rows, slots)

        def step(decoder: Decoder, *given: Any) -> Any:
            nonlocal steps
            steps += 1
            if after_steps is not None and self.sizes[-1] > most and steps > after_steps:
                steps = 0
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real_step(decoder, *given)

        monkeypatch.setattr(Decoder, "cache", cache)
        monkeypatch.setattr(Decoder, "step", step)


@pytest.mark.parametrize("after_steps", [None, 4])
def test_out_of_memory_halves_the_rows_and_goes_on(
    after_steps: int | None, tiny: tuple[Any, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ask(f"r{number}", "What is this?" + " a" * number, picture(64, 64, number)) for number in range(7)]
    expected = texts(HfGenerator(*tiny, batch_size=1).generate(requests))
    memory = ScarceCache(monkeypatch, most=2, after_steps=after_steps)
    heard: list[Event] = []
    generator = HfGenerator(*tiny, batch_size=6, listener=heard.append)
    answers = list(generator.generate(requests))
    assert sorted(answer.id for answer in answers) == sorted(expected)
    assert texts(iter(answers)) == expected
    assert memory.sizes[:3] == [6, 3, 2]
    assert generator.batch_size <= 2
    assert [event.values["batch_size"] for event in heard] == [3, 2]
    assert len(list(generator.generate(requests))) == len(requests)
    assert max(memory.sizes[3:]) == 2


@pytest.mark.parametrize(("device", "on"), [("cuda", False), ("cpu", True)])
@pytest.mark.parametrize("before", [True, False])
def test_cudnn_attention_is_off_while_a_gpu_generates(device: str, on: bool, before: bool) -> None:
    model = torch.nn.Linear(1, 1).eval()
    model.device, model.generation_config = torch.device(device), None  # type: ignore[assignment]
    encoder: Any = type("Ends", (), {"end_token_ids": (1,)})
    was = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(before)
        with contextlib.suppress(ZeroDivisionError), HfGenerator(model, encoder)._ready():
            assert torch.backends.cuda.cudnn_sdp_enabled() == (on and before)
            raise ZeroDivisionError
        assert torch.backends.cuda.cudnn_sdp_enabled() == before
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was)


# ---------------------------------------------------------------------------------------------------------------- stream


def finished(stream: Iterator[str]) -> tuple[str, Any]:
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return "".join(pieces), end.value


def test_streamed_pieces_are_the_generated_text(any_model: tuple[Any, Encoder]) -> None:
    generator = HfGenerator(*any_model)
    requests = mixed_requests()
    expected = {generation.id: generation for generation in generator.generate(requests)}
    for request in requests:
        text, reason = finished(generator.stream(request))
        assert (text, reason) == (expected[request.id].text, expected[request.id].finish_reason)


def generating_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "medtune-generation"]


def test_closing_a_stream_stops_the_model(tiny: tuple[Any, Encoder]) -> None:
    steps: list[object] = []
    hook = tiny[0].register_forward_hook(lambda *_: steps.append(None))
    stream = HfGenerator(*tiny).stream(ask("a", "What is this?", sampling=Sampling(max_new_tokens=1000)))
    next(stream)
    assert generating_threads()
    stream.close()
    hook.remove()
    assert not generating_threads()
    assert len(steps) < 500


def test_a_stream_left_open_does_not_block_the_next_request(tiny: tuple[Any, Encoder]) -> None:
    generator = HfGenerator(*tiny)
    stream = generator.stream(ask("a", "What is this?", sampling=Sampling(max_new_tokens=40)))
    next(stream)
    assert len(list(generator.generate(mixed_requests()[:2]))) == 2
    assert finished(stream)[1] == "length"


@pytest.mark.parametrize("fast", [True, False])
def test_a_fault_inside_the_model_reaches_the_reader(
    fast: bool, tiny: tuple[Any, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("broken model")

    monkeypatch.setattr(tiny[0], "generate", broken)
    monkeypatch.setattr(Decoder, "step", broken)
    with pytest.raises(ZeroDivisionError, match="broken model"):
        list(HfGenerator(*tiny, fast=fast).stream(ask("a", "What is this?")))


# --------------------------------------------------------------------------------------------------------------- adapter


def test_base_and_tuned_share_the_weights(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model, encoder = load(tmp_path, "qwen3-vl")
    requests = mixed_requests()
    base = texts(HfGenerator(model, encoder).generate(requests))
    tuned_model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    tuned, untuned = HfGenerator(tuned_model, encoder), HfGenerator(tuned_model, encoder, use_adapter=False)
    tuned_texts = texts(tuned.generate(requests))
    assert tuned_texts != base
    assert texts(untuned.generate(requests)) == base
    assert finished(untuned.stream(requests[0]))[0] == base["small"]
    assert texts(tuned.generate(requests)) == tuned_texts
