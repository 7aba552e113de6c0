"""What every registered generator keeps, whoever writes the text."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stand_in_vllm
from medtune import plugins
from medtune.errors import GenerationError
from medtune.types import Generator, Message, Request, Sampling
from tiny_models import tiny_model

NAMES = plugins.names("generator")


class _Echo(BaseHTTPRequestHandler):
    """A chat-completions server that answers with the length of what it was sent."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = f"{len(json.dumps(body['messages']))} letters"
        if body.get("stream"):
            pieces = [{"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in (text[:2], text[2:])]
            content = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces).encode() + b"data: [DONE]\n\n"
        else:
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            content = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    from medtune.models.config import ModelSettings
    from medtune.models.encoder import load_encoder
    from medtune.models.load import load_model

    settings = ModelSettings(base=str(tiny_model(tmp_path_factory.mktemp("model"), "qwen3-vl", wide=True)))
    return load_model(settings, device="cpu"), load_encoder(settings)


@pytest.fixture(params=NAMES)
def generator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Generator]:
    kind = plugins.resolve("generator", request.param)
    if request.param == "hf":
        made = kind(*request.getfixturevalue("model"), batch_size=2)
    elif request.param == "vllm":
        from medtune.generation import vllm
        from medtune.generation.config import VllmSettings

        for name, value in vllm._ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        if importlib.util.find_spec("vllm") is None:
            stand_in_vllm.install(monkeypatch)
        encoder = request.getfixturevalue("model")[1]
        settings = VllmSettings(max_model_len=512, max_num_seqs=2, enforce_eager=True)
        made = kind(vllm.Engine(encoder.folder, encoder, settings, dtype="float32"), encoder, owns_engine=True)
    elif request.param == "openai":
        made = kind(request.getfixturevalue("server"), "tiny")
    elif request.param == "echo":
        made = kind()
    else:
        pytest.fail(f"say here how to make a {request.param}")
    yield made
    made.close()


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 64, 3), dtype=np.uint8)
    path = tmp_path / "slice.png"
    Image.fromarray(pixels).save(path)
    sampling = Sampling(max_new_tokens=5)

    def ask(name: str, text: str, *images: Any) -> Request:
        return Request(name, (Message(role="user", content=text),), images, sampling)

    return [
        ask("text", "Is there a lesion?"),
        ask("file", "<image>What is this?", path),
        ask("two", "<image>Compare with <image>", path, Image.fromarray(pixels)),
    ]


def test_there_are_generators() -> None:
    assert {"hf", "vllm", "openai", "echo"} <= set(NAMES)


def test_follows_the_protocol(generator: Generator) -> None:
    assert isinstance(generator, Generator)


def test_answers_each_request_once(generator: Generator, requests: list[Request]) -> None:
    generations = list(generator.generate(requests))
    assert sorted(generation.id for generation in generations) == ["file", "text", "two"]
    for generation in generations:
        assert generation.text
        assert generation.finish_reason in ("stop", "length")
        assert generation.error is None
        assert generation.num_prompt_tokens
        assert generation.num_generated_tokens
        assert generation.seconds is not None
    assert list(generator.generate([])) == []


def test_a_damaged_picture_costs_its_request_and_says_what_it_cost(generator: Generator, requests: list[Request]) -> None:
    torn = requests[1].images[0]
    assert isinstance(torn, Path)
    whole = torn.read_bytes()
    bad = torn.with_name("torn.png")
    bad.write_bytes(whole[: len(whole) // 2])
    asked = [requests[0], Request("torn", requests[1].messages, (bad,), requests[1].sampling)]
    found = {generation.id: generation for generation in generator.generate(asked)}
    assert set(found) == {"text", "torn"}
    assert found["text"].finish_reason != "error"
    assert all(generation.seconds is not None for generation in found.values())
    if not isinstance(generator, plugins.resolve("generator", "echo")):
        assert found["torn"].finish_reason == "error"
        assert "torn.png" in (found["torn"].error or "")


def test_is_deterministic_when_greedy(generator: Generator, requests: list[Request]) -> None:
    first = {generation.id: generation.text for generation in generator.generate(requests)}
    assert {generation.id: generation.text for generation in generator.generate(requests[::-1])} == first


def test_streams_the_text_that_it_generates(generator: Generator, requests: list[Request]) -> None:
    expected = {generation.id: generation.text for generation in generator.generate(requests)}
    for request in requests:
        if isinstance(generator, plugins.resolve("generator", "openai")):
            assert "".join(generator.stream(request)).endswith(" letters")
        else:
            assert "".join(generator.stream(request)) == expected[request.id]


def test_a_stream_can_be_left(generator: Generator, requests: list[Request]) -> None:
    stream = generator.stream(requests[0])
    assert next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert list(generator.generate(requests[:1]))


def test_names_the_request_that_is_wrong(generator: Generator, requests: list[Request]) -> None:
    wrong = [
        Request("bad", (Message(role="user", content="<image><image>one picture"),), requests[1].images),
        Request("bad", (Message(role="assistant", content="an answer"),)),
        Request("bad", ()),
    ]
    for request in wrong:
        with pytest.raises(GenerationError) as caught:
            list(generator.generate([requests[0], request]))
        assert caught.value.sample == "bad"
        with pytest.raises(GenerationError):
            next(generator.stream(request))


def test_closes_twice(generator: Generator) -> None:
    generator.close()
    generator.close()
