"""Against a small server on the loopback address."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import medtune.generation.openai as module
from medtune.errors import GenerationError, MissingDependencyError
from medtune.generation import rate_limit
from medtune.generation.openai import OpenAiGenerator
from medtune.types import Message, Request, Sampling

Reply = tuple[int, dict[str, str], bytes | list[bytes]]


class Server:
    """Answers with ``reply(number of the request, its body)``: status, headers, and a body or the chunks of one."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self.reply: Callable[[int, dict[str, Any]], Reply] = lambda _, body: (200, {}, answer(str(body["messages"][-1]["content"])))
        at_once = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                nonlocal at_once
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    at_once += 1
                    outer.most_at_once = max(outer.most_at_once, at_once)
                    outer.bodies.append(body | {"path": self.path})
                    outer.headers.append(dict(self.headers))
                    number = len(outer.bodies)
                status, headers, content = outer.reply(number, body)
                with lock:
                    at_once -= 1
                chunks = [content] if isinstance(content, bytes) else content
                self.send_response(status)
                for name, value in ({"Content-Length": str(sum(map(len, chunks)))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for chunk in chunks:
                        self.wfile.write(chunk)
                        self.wfile.flush()
                        time.sleep(0.01 * (len(chunks) > 1))
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def answer(content: Any, finish_reason: str = "stop") -> bytes:
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}).encode()


def refusal(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(rate_limit, "FIRST_PAUSE_SECONDS", 0.001)
    # A proxy that would fail every request, were it used for a loopback address.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def generator(server: Server) -> Iterator[OpenAiGenerator]:
    generator = OpenAiGenerator(server.url, "tiny", max_concurrency=3, max_retries=2, timeout_seconds=5)
    yield generator
    generator.close()


def ask(name: str, text: str = "What is this?", *images: Any, sampling: Sampling | None = None) -> Request:
    return Request(name, (Message(role="user", content=text),), images, sampling or Sampling())


def test_what_is_sent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn
    exif[0x010E] = "Zhang San, born 1950"
    Image.fromarray(pixels).save(turned, exif=exif)
    messages = (
        Message(role="system", content="You are a radiologist."),
        Message(role="user", content="First <image> then <image>what?"),
    )
    sampling = Sampling(max_new_tokens=7, temperature=0.5, top_p=0.9, seed=3)
    monkeypatch.setenv("TINY_KEY", "secret")
    generator = OpenAiGenerator(server.url + "/", "tiny", api_key_env="TINY_KEY")
    (generation,) = generator.generate([Request("a", messages, (turned, Image.fromarray(pixels)), sampling)])
    generator.close()
    (body,) = server.bodies
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert body["path"] == "/v1/chat/completions"
    assert {name: body[name] for name in ("model", "max_tokens", "temperature", "top_p", "seed")} == {
        "model": "tiny",
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
    }
    assert not {"top_k", "repetition_penalty"} & set(body), "a server of OpenAI refuses unknown fields"
    assert body["messages"][0] == {"role": "system", "content": "You are a radiologist."}
    parts = body["messages"][1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    assert [part.get("text") for part in parts] == ["First ", None, " then ", None, "what?"]
    shown = []
    for part in parts[1::2]:
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        raw = base64.b64decode(data)
        assert b"Zhang San" not in raw
        shown.append(np.asarray(Image.open(BytesIO(raw))))
    assert np.array_equal(shown[0], np.rot90(pixels, -1))
    assert np.array_equal(shown[1], pixels)
    assert generation.num_prompt_tokens == 11
    assert generation.num_generated_tokens == 3


def test_fields_of_vllm_when_asked_for(server: Server, generator: OpenAiGenerator) -> None:
    list(generator.generate([ask("a", sampling=Sampling(temperature=1, top_k=5, repetition_penalty=1.1))]))
    assert (server.bodies[0]["top_k"], server.bodies[0]["repetition_penalty"]) == (5, 1.1)


def test_each_request_is_answered_once_and_several_at_a_time(server: Server, generator: OpenAiGenerator) -> None:
    def slow(_: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.03)
        return 200, {}, answer(body["messages"][-1]["content"])

    server.reply = slow
    found = {
        generation.id: generation.text for generation in generator.generate([ask(f"r{n}", f"question {n}") for n in range(10)])
    }
    assert found == {f"r{n}": f"question {n}" for n in range(10)}
    assert 2 <= server.most_at_once <= 3


@pytest.mark.parametrize(("reason", "finish"), [("stop", "stop"), ("length", "length"), ("content_filter", "error")])
def test_finish_reasons(reason: str, finish: str, server: Server, generator: OpenAiGenerator) -> None:
    server.reply = lambda *_: (200, {}, answer("words", reason))
    (generation,) = generator.generate([ask("a")])
    assert generation.finish_reason == finish
    assert (generation.error is None) == (finish != "error")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_tries_again(status: int, server: Server, generator: OpenAiGenerator) -> None:
    server.reply = lambda number, _: (status, {"Retry-After": "0"}, b"busy") if number < 3 else (200, {}, answer("at last"))
    (generation,) = generator.generate([ask("a")])
    assert generation.text == "at last"
    assert len(server.bodies) == 3


def fails(kind: str, _: int, body: dict[str, Any]) -> Reply:
    """One request of many meets a fault every time."""
    content = body["messages"][-1]["content"]
    if content != "unlucky":
        return 200, {}, answer(content)
    if kind == "slow":
        time.sleep(2)
    return {
        "slow": (200, {}, answer("too late")),
        "500": (500, {}, refusal("out of memory")),
        "broken JSON": (200, {}, b'{"choices": [{"mess'),
        "closed": (200, {"Content-Length": "999"}, [b"{", b""]),
        "no text": (200, {}, b'{"choices": [{}]}'),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("slow", "broke off"),
        ("500", "500: out of memory"),
        ("broken JSON", "protocol"),
        ("closed", "broke off"),
        ("no text", "protocol"),
    ],
)
def test_a_request_that_always_fails_costs_that_one(kind: str, words: str, server: Server) -> None:
    server.reply = lambda *arguments: fails(kind, *arguments)
    generator = OpenAiGenerator(server.url, "tiny", max_concurrency=2, max_retries=1, timeout_seconds=1.5 if kind == "slow" else 60)
    found = {g.id: g for g in generator.generate([ask("a", "one"), ask("b", "unlucky"), ask("c", "two")])}
    generator.close()
    assert {name: generation.finish_reason for name, generation in found.items()} == {"a": "stop", "b": "error", "c": "stop"}
    assert words in (found["b"].error or "")
    assert sum(body["messages"][-1]["content"] == "unlucky" for body in server.bodies) == 2


def test_a_server_that_answers_nobody_ends_the_run(server: Server) -> None:
    server.reply = lambda *_: (503, {}, refusal("overloaded"))
    generator = OpenAiGenerator(server.url, "tiny", max_concurrency=1, max_retries=0)
    got: list[str] = []
    with pytest.raises(GenerationError, match=r"503: overloaded"):
        got.extend(generation.id for generation in generator.generate([ask(f"r{n}") for n in range(100)]))
    generator.close()
    assert len(got) == 9
    assert len(server.bodies) == 10


def test_failures_with_answers_in_between_do_not_end_the_run(server: Server) -> None:
    server.reply = lambda number, _: (503, {}, b"") if number % 2 else (200, {}, answer("words"))
    generator = OpenAiGenerator(server.url, "tiny", max_concurrency=1, max_retries=0)
    found = list(generator.generate([ask(f"r{n}") for n in range(40)]))
    generator.close()
    assert [generation.finish_reason for generation in found] == ["error", "stop"] * 20


def test_an_account_without_money_is_not_asked_again(server: Server, generator: OpenAiGenerator) -> None:
    quota = json.dumps({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}).encode()
    server.reply = lambda *_: (429, {}, quota)
    with pytest.raises(GenerationError, match="exceeded your current quota"):
        list(generator.generate([ask("a")]))
    assert len(server.bodies) == 1


def test_retry_after_holds_for_all_requests(server: Server) -> None:
    times: list[float] = []

    def reply(number: int, _: dict[str, Any]) -> Reply:
        times.append(time.perf_counter())
        return (429, {"Retry-After": "0.3"}, b"") if number == 1 else (200, {}, answer("words"))

    server.reply = reply
    generator = OpenAiGenerator(server.url, "tiny", max_concurrency=1, max_retries=1)
    stopped = threading.Event()
    assert isinstance(generator._admitted(1, stopped), rate_limit.Booking)
    list(generator.generate([ask("a")]))
    assert times[1] - times[0] >= 0.29
    generator._limit.hold(0.2)
    started = time.perf_counter()
    list(generator.generate([ask("b")]))
    assert time.perf_counter() - started >= 0.19
    generator.close()


def test_no_more_requests_a_minute_than_allowed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "WINDOW_SECONDS", 0.3)
    generator = OpenAiGenerator(server.url, "tiny", max_concurrency=4, requests_per_minute=2)
    started = time.perf_counter()
    assert len(list(generator.generate([ask(f"r{n}") for n in range(5)]))) == 5
    assert time.perf_counter() - started >= 0.6
    generator.close()


def test_tokens_a_minute_are_what_the_server_counted(server: Server) -> None:
    generator = OpenAiGenerator(server.url, "tiny", tokens_per_minute=300)
    sampling = Sampling(max_new_tokens=200)
    started = time.perf_counter()
    for name in "abc":  # 11 + 3 tokens each, as the server says; by the estimate only one would fit into the minute
        assert len(list(generator.generate([ask(name, sampling=sampling)]))) == 1
    assert time.perf_counter() - started < 30  # a limit would keep it for a minute
    assert [booking.tokens for booking in generator._limit._booked] == [14, 14, 14]
    generator.close()


def test_a_reader_who_leaves_is_not_kept_by_the_limit(server: Server) -> None:
    generator = OpenAiGenerator(server.url, "tiny", requests_per_minute=1)
    generations = generator.generate([ask("a"), ask("b"), ask("c")])
    next(generations)
    started = time.perf_counter()
    generations.close()  # type: ignore[attr-defined]
    assert time.perf_counter() - started < 30  # a limit would keep it for a minute
    assert len(server.bodies) == 1
    generator.close()


def test_probabilities_of_the_first_token(server: Server, generator: OpenAiGenerator) -> None:
    told = {
        "content": [
            {
                "token": "Yes",
                "logprob": -0.1,
                "top_logprobs": [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -2.5}],
            },
            {"token": ".", "logprob": -0.1, "top_logprobs": [{"token": "Maybe", "logprob": -3.0}]},
        ]
    }

    def reply(_: int, body: dict[str, Any]) -> Reply:
        choice = {"message": {"content": "Yes."}, "finish_reason": "stop"}
        return 200, {}, json.dumps({"choices": [choice | ({"logprobs": told} if body.get("logprobs") else {})]}).encode()

    server.reply = reply
    asked = Request("a", (Message(role="user", content="?"),), score_tokens=("Yes", "No", "Maybe"))
    (scored,) = generator.generate([asked])
    (plain,) = generator.generate([ask("b")])
    assert scored.first_token_logprobs == {"Yes": -0.1, "No": -2.5}
    assert plain.first_token_logprobs is None
    assert (server.bodies[0]["top_logprobs"], server.bodies[1].get("logprobs")) == (20, None)
    server.reply = lambda *_: (200, {}, answer("a server that does not know of probabilities"))
    assert next(generator.generate([asked])).first_token_logprobs is None


def test_no_server() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as unused:
        port = unused.server_port
    generator = OpenAiGenerator(f"http://127.0.0.1:{port}/v1", "tiny", max_retries=0)
    with pytest.raises(GenerationError, match="cannot be reached"):
        list(generator.generate([ask("a")]))
    generator.close()


def test_a_refusal_of_one_request_costs_that_one(server: Server, generator: OpenAiGenerator, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")

    def choosy(_: int, body: dict[str, Any]) -> Reply:
        content = body["messages"][-1]["content"]
        return (400, {}, refusal("prompt too long")) if content == "long" else (200, {}, answer(content))

    server.reply = choosy
    requests = [ask("good", "hello"), ask("long", "long"), ask("torn", "<image>?", tmp_path / "torn.png")]
    found = {generation.id: generation for generation in generator.generate(requests)}
    assert found["good"].text == "hello"
    assert found["long"].finish_reason == "error"
    assert found["long"].error == "400: prompt too long"
    assert "torn.png" in (found["torn"].error or "")
    assert len(server.bodies) == 2


def test_a_refusal_of_all_ends_at_once_and_keeps_what_was_answered(server: Server) -> None:
    generator = OpenAiGenerator(server.url, "tiny", max_concurrency=1)
    server.reply = lambda number, _: (200, {}, answer("words")) if number < 3 else (401, {}, refusal("wrong key"))
    got: list[str] = []
    with pytest.raises(GenerationError, match=r"401: wrong key") as caught:
        got.extend(generation.id for generation in generator.generate([ask(f"r{n}") for n in range(10)]))
    assert got == ["r0", "r1"]
    assert caught.value.sample == "r2"
    assert len(server.bodies) == 3
    generator.close()


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{}]}', answer([1])])
def test_a_server_that_speaks_something_else(body: bytes, server: Server) -> None:
    server.reply = lambda *_: (200, {}, body)
    generator = OpenAiGenerator(server.url, "tiny", max_retries=0)
    with pytest.raises(GenerationError, match="/v1"):
        list(generator.generate([ask(f"r{n}") for n in range(10)]))
    generator.close()


def test_a_reader_who_stops_early_leaves_nothing_running(server: Server, generator: OpenAiGenerator) -> None:
    generations = generator.generate([ask(f"r{n}") for n in range(50)])
    next(generations)
    generations.close()  # type: ignore[attr-defined]
    assert len(server.bodies) <= 6


_ASK_TWO = """
import sys
from medtune.generation.openai import OpenAiGenerator
from medtune.types import Message, Request

generator = OpenAiGenerator(sys.argv[1], "tiny", timeout_seconds=60)
asked = [Request(name, (Message(role="user", content=name),)) for name in ("quick", "slow")]
try:
    for generation in generator.generate(asked):
        print(generation.id, flush=True)
finally:
    generator.close()
"""


def test_an_interrupt_does_not_wait_for_requests_under_way(server: Server) -> None:
    free, slow = threading.Event(), threading.Event()

    def reply(_: int, body: dict[str, Any]) -> Reply:
        if body["messages"][-1]["content"] == "slow":
            slow.set()
            free.wait(60)
        return 200, {}, answer("words")

    server.reply = reply
    with subprocess.Popen(
        [sys.executable, "-c", _ASK_TWO, server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "quick\n"
            assert slow.wait(10)
            started = time.perf_counter()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
            assert time.perf_counter() - started < 30
        finally:
            process.kill()
            free.set()
    assert process.returncode != 0
    assert said.strip().endswith("KeyboardInterrupt")


def test_a_server_that_tells_no_probabilities_still_answers(server: Server) -> None:
    def reply(_: int, body: dict[str, Any]) -> Reply:
        return (400, {}, refusal("'top_logprobs' is not supported")) if "logprobs" in body else (200, {}, answer("words"))

    server.reply = reply
    generator = OpenAiGenerator(server.url, "tiny", max_concurrency=1, max_retries=1)
    asked = [Request(name, (Message(role="user", content="?"),), score_tokens=("yes",)) for name in "abc"]
    assert [(g.text, g.first_token_logprobs) for g in generator.generate(asked)] == [("words", None)] * 3
    assert ["logprobs" in body for body in server.bodies] == [True, False, False, False]
    generator.close()


def test_asking_without_probabilities_is_no_further_attempt(server: Server) -> None:
    server.reply = lambda _, body: (400, {}, refusal("no logprobs")) if "logprobs" in body else (200, {}, answer("words"))
    generator = OpenAiGenerator(server.url, "tiny", max_retries=0)
    assert [g.text for g in generator.generate([Request("a", (Message(role="user", content="?"),), score_tokens=("yes",))])] == [
        "words"
    ]
    generator.close()


def test_bytes_that_cannot_be_unpacked_cost_an_attempt(server: Server, generator: OpenAiGenerator) -> None:
    packed = {"Content-Encoding": "gzip"}
    server.reply = lambda number, _: (200, packed, b"no gzip") if number < 3 else (200, {}, answer("at last"))
    assert [g.text for g in generator.generate([ask("a")])] == ["at last"]
    server.reply = lambda *_: (200, packed, b"no gzip")
    assert [g.finish_reason for g in generator.generate([ask("a")])] == ["error"]
    with pytest.raises(GenerationError, match="protocol"):
        next(generator.stream(ask("b")))


def test_half_a_character_is_no_reason_to_ask_again(server: Server, generator: OpenAiGenerator) -> None:
    cut = answer("CUT").replace(b"CUT", b"lung \\ud83e")  # a pair of surrogates, of which the answer's end left one
    server.reply = lambda *_: (200, {}, cut)
    assert [g.text for g in generator.generate([ask("a")])] == ["lung \ufffd"]
    assert len(server.bodies) == 1
    server.reply = lambda *_: (200, {}, b'data: {"choices": [{"delta": {"content": "\\ud83e"}}]}\n\ndata: [DONE]\n\n')
    assert finished(generator.stream(ask("a")))[0] == ["\ufffd"]


def test_a_fault_that_comes_as_an_answer_is_told_in_the_servers_words(server: Server) -> None:
    server.reply = lambda *_: (200, {}, refusal("the upstream is out of memory"))
    generator = OpenAiGenerator(server.url, "tiny", max_retries=0)
    (generation,) = generator.generate([ask("a")])
    assert "the upstream is out of memory" in (generation.error or "")
    generator.close()


def test_the_end_of_a_run_does_not_count_as_a_failure_of_others(server: Server) -> None:
    """One request is refused for all while another waits for its next attempt: that one is open, and not given up."""

    def reply(_: int, body: dict[str, Any]) -> Reply:
        if body["messages"][-1]["content"] == "waits":
            return 503, {}, b""
        time.sleep(0.1)
        return 401, {}, refusal("wrong key")

    server.reply = reply
    generator = OpenAiGenerator(server.url, "tiny", max_concurrency=2, max_retries=20)
    rate_limit.FIRST_PAUSE_SECONDS = 5.0  # put back by the fixture
    got: list[Any] = []
    with pytest.raises(GenerationError, match="wrong key"):
        got.extend(generator.generate([ask("a", "waits"), ask("b", "refused")]))
    assert got == []
    generator.close()


def test_form_is_checked_before_anything_is_sent(server: Server, generator: OpenAiGenerator) -> None:
    with pytest.raises(GenerationError) as caught:
        generator.generate([ask("good"), ask("bad", "<image>?")])
    assert caught.value.sample == "bad"
    assert server.bodies == []


# ---------------------------------------------------------------------------------------------------------------- stream


def events(*datas: Any, end: str = "\n\n") -> bytes:
    return "".join(f"data: {d if isinstance(d, str) else json.dumps(d, ensure_ascii=False)}{end}" for d in datas).encode()


def delta(content: str | None, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {} if content is None else {"content": content}, "finish_reason": finish_reason}]}


def finished(stream: Iterator[str]) -> tuple[list[str], Any]:
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def test_stream(server: Server, generator: OpenAiGenerator) -> None:
    # U+2028 and U+0085 are line ends for str.splitlines, but not in this protocol.
    words = ["右肺", "上叶\u2028结节", " and\x85more", "."]
    usage = {"choices": [], "usage": {"prompt_tokens": 4}}
    whole = b": a comment\n\n" + events(delta(None), *map(delta, words), delta(None, "length"), usage, "[DONE]")
    server.reply = lambda *_: (200, {}, [whole[start : start + 7] for start in range(0, len(whole), 7)])  # cuts characters
    assert finished(generator.stream(ask("a"))) == (words, "length")
    assert server.bodies[0]["stream"] is True


def test_stream_with_other_line_ends_and_no_end_mark(server: Server, generator: OpenAiGenerator) -> None:
    server.reply = lambda *_: (200, {}, events(delta("a"), delta("b", "stop"), end="\r\n\r\n").rstrip())
    assert finished(generator.stream(ask("a"))) == (["a", "b"], "stop")


def test_stream_tries_again_until_something_was_shown(server: Server, generator: OpenAiGenerator) -> None:
    server.reply = lambda number, _: (503, {}, b"") if number < 3 else (200, {}, events(delta("words"), "[DONE]"))
    assert finished(generator.stream(ask("a")))[0] == ["words"]
    server.reply = lambda *_: (200, {"Content-Length": "999"}, events(delta("half")))
    stream = generator.stream(ask("b"))
    assert next(stream) == "half"
    with pytest.raises(GenerationError, match="broke off"):
        next(stream)


def test_a_stream_that_ends_without_an_end_has_broken_off(server: Server, generator: OpenAiGenerator) -> None:
    server.reply = lambda *_: (200, {}, events(delta("half of "), delta("it")))
    stream = generator.stream(ask("b"))
    assert [next(stream), next(stream)] == ["half of ", "it"]
    with pytest.raises(GenerationError, match="broke off"):
        next(stream)


def test_a_stream_of_something_else(server: Server, generator: OpenAiGenerator) -> None:
    for odd in (
        {"choices": [{"delta": {"content": [1]}}]},
        {"choices": [{"delta": "words"}]},
        {"choices": ["words"]},
        {"choices": 3},
    ):
        server.reply = lambda *_, odd=odd: (200, {}, events(odd, "[DONE]"))
        with pytest.raises(GenerationError, match="protocol"):
            next(generator.stream(ask("a")))


def test_stream_is_refused(server: Server, generator: OpenAiGenerator) -> None:
    server.reply = lambda *_: (404, {}, refusal("no such model"))
    with pytest.raises(GenerationError, match=r"404: no such model"):
        next(generator.stream(ask("a")))


def test_stream_ends_when_the_reader_leaves(server: Server, generator: OpenAiGenerator) -> None:
    server.reply = lambda *_: (200, {}, [events(delta(f"{n} ")) for n in range(1500)])  # a quarter of a minute
    stream = generator.stream(ask("a"))
    next(stream)
    started = time.perf_counter()
    stream.close()
    assert time.perf_counter() - started < 7


# ------------------------------------------------------------------------------------------------------------ local data


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:8000/v1"])
def test_local_data_may_go_to_this_machine(url: str) -> None:
    OpenAiGenerator(url, "tiny", local_only=True).close()


@pytest.mark.parametrize("url", ["https://api.example.org/v1", "http://10.0.0.7:8000/v1", "http://127.0.0.1.example.org/v1"])
def test_local_data_may_not_leave(url: str) -> None:
    with pytest.raises(GenerationError, match="may not leave this machine"):
        OpenAiGenerator(url, "tiny", local_only=True)
    OpenAiGenerator(url, "tiny").close()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "127.0.0.1:8000/v1", "file:///etc/passwd", "http://[::1/v1"])
def test_not_an_address(url: str) -> None:
    with pytest.raises(GenerationError, match="http address"):
        OpenAiGenerator(url, "tiny")


def test_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(GenerationError, match="NO_KEY"):
        OpenAiGenerator("http://127.0.0.1:1/v1", "tiny", api_key_env="NO_KEY")


def test_without_httpx_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(module.importlib, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"pip install 'medtune\[openai\]'"):
        OpenAiGenerator("http://127.0.0.1:1/v1", "tiny")
