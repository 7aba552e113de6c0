"""Generation by a server with the OpenAI chat-completions protocol: vLLM, SGLang, llama.cpp, a cloud service."""

from __future__ import annotations

import importlib
import ipaddress
import json
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any
from urllib.parse import urlsplit

from medtune.errors import GenerationError, MedtuneError, MissingDependencyError
from medtune.generation.chat_completions import (
    FINISH_REASONS,
    Body,
    request_body,
    response_generation,
    server_sent,
    server_words,
    whole_characters,
)
from medtune.generation.check import check_requests
from medtune.generation.rate_limit import Booking, RateLimit, asked_pause, pause_seconds
from medtune.language import msg
from medtune.types import FinishReason, Generation, Request

__all__ = ["OpenAiGenerator"]

_log = logging.getLogger(__name__)

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_THIS_REQUEST_FAILS = frozenset({400, 413, 422})
"""Too long, too large, not acceptable. Any other status (key, address, model name) would meet every request."""
_MOST_FAILURES_IN_A_ROW = 10
"""So many requests given up one after the other, with no answer in between: it is the server, and not the requests."""


class _GivenUp(Exception):
    """A request that got no answer in all its attempts. ``everybody``: no other would get one."""

    def __init__(self, error: GenerationError, *, everybody: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.everybody = everybody


class OpenAiGenerator:
    """Sends each request to a server, several at a time.

    Pictures are decoded here, by the same rules as for a model in this process, and sent as PNG: the server then sees the
    same pixels (upright, 8 bits), and nothing of what else a file says of its patient.

    Args:
        base_url: Up to and including the version: ``http://127.0.0.1:8000/v1``.
        model: The server's name of the model.
        api_key_env: Environment variable with the key; None = none is sent.
        max_concurrency: Requests under way at the same time.
        timeout_seconds: Longest silence of the server.
        max_retries: Further attempts after status 408, 409, 425, 429 or 5xx, a timeout, a lost connection or an answer that is not
            of the protocol. The pause doubles from half a second up to a minute, or is what the server's ``Retry-After`` says: then
            for all requests, not this one alone.
        requests_per_minute: Not more, retries included; None = no limit.
        tokens_per_minute: Of prompts and answers, not more; None = no limit. What a request will need is estimated from its text,
            its pictures and ``max_new_tokens`` until the server has said what it needed.
        local_only: The data may not leave this machine: then only a loopback address is accepted, without proxies. (A tunnel
            behind a loopback port cannot be seen from here.)

    Raises:
        GenerationError: ``local_only`` and the address is another machine's; the address is none; the variable is not set.
        MissingDependencyError: httpx is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str | None = None,
        max_concurrency: int = 8,
        timeout_seconds: float = 120.0,
        max_retries: int = 5,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        local_only: bool = False,
    ) -> None:
        local = _is_loopback(base_url)
        if local_only and not local:
            raise GenerationError(
                msg("This data may not leave this machine, and {base_url} is another one.", base_url=base_url),
                key="generation.generator.base_url",
                remedy=msg("Serve the model on this machine (http://127.0.0.1:PORT/v1), or use generator kind hf."),
            )
        headers = {}
        if api_key_env is not None:
            key = os.environ.get(api_key_env)
            if not key:
                raise GenerationError(
                    msg("The environment variable {name} is not set.", name=api_key_env),
                    key="generation.generator.api_key_env",
                    remedy=msg("Set it to the server's key, or leave api_key_env out when the server wants none."),
                )
            headers["Authorization"] = f"Bearer {key}"
        self._model = model
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._max_concurrency = max_concurrency
        self._max_retries = max_retries
        self._limit = RateLimit(requests_per_minute, tokens_per_minute)
        self._http = _httpx()
        # A proxy from the environment would carry even loopback traffic to another machine.
        self._client = self._http.Client(
            headers=headers,
            timeout=timeout_seconds,
            trust_env=not local,
            limits=self._http.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency),
        )
        self._closed = threading.Event()
        self._failures_in_a_row = 0
        self._asks_logprobs = True
        self._counting = threading.Lock()

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Generations as they arrive, in any order; ``seconds`` is the wall time of the one request, its retries included.

        A request that the server refuses for itself (status 400, 413, 422, a content filter), one that got no answer in all its
        attempts, or a damaged picture gives a generation with ``finish_reason`` ``error`` and the reason; the others go on.

        Raises:
            GenerationError: Before any work: a conversation does not end with a question, or its marks and pictures differ in
                number. Later: the server refuses all requests (key, address, model name, an empty account), nobody listens there,
                or ten requests in a row were given up; what has been answered by then is yielded first.
        """
        check_requests(requests)
        return self._run(requests)

    def _run(self, requests: Sequence[Request]) -> Iterator[Generation]:
        waiting = deque(requests)
        answers: queue.SimpleQueue[Generation | BaseException] = queue.SimpleQueue()
        num_running = 0
        failure: BaseException | None = None
        stop = threading.Event()

        def ask(request: Request) -> None:
            try:
                answers.put(self._answer(request, stop))
            except BaseException as error:
                answers.put(error)

        try:
            # Started one by one, so that an early end does not leave a long queue behind.
            while num_running or (waiting and failure is None):
                while waiting and failure is None and num_running < self._max_concurrency:
                    # A daemon: Python waits for the threads of a pool, and Ctrl-C would last as long as the slowest request under
                    # way. What is under way when the caller leaves has no answer yet, and is asked again by the next run.
                    threading.Thread(target=ask, args=(waiting.popleft(),), name="medtune-openai", daemon=True).start()
                    num_running += 1
                answer = answers.get()
                num_running -= 1
                if isinstance(answer, Generation):
                    yield answer
                elif failure is None:
                    failure = answer
                    stop.set()
        finally:
            stop.set()
        if failure is not None:
            raise failure

    def stream(self, request: Request) -> Generator[str, None, FinishReason]:
        """Pieces as the server sends them; ``StopIteration`` carries the finish reason.

        Raises:
            GenerationError: At once for a damaged picture; with the first piece when the server refuses or cannot be reached;
                later when it breaks off.
        """
        check_requests([request])
        body = request_body(request, self._model)
        body.fields["stream"] = True
        return self._pieces(request.id, body)

    def close(self) -> None:
        """Close all connections."""
        self._closed.set()
        self._client.close()

    # -------------------------------------------------------------------------------------------------------------- one

    def _answer(self, request: Request, stop: threading.Event) -> Generation:
        started = time.perf_counter()
        try:
            body = request_body(request, self._model)
        except MedtuneError as error:
            seconds = time.perf_counter() - started
            return Generation(id=request.id, text="", finish_reason="error", error=error.render("en"), seconds=seconds)
        try:
            if not self._asks_logprobs:
                body.without_logprobs()
            generation = self._tried(request, body, stop, started)
        except _GivenUp as given_up:
            with self._counting:
                self._failures_in_a_row += 1
                many = self._failures_in_a_row >= _MOST_FAILURES_IN_A_ROW
            if given_up.everybody or many:
                raise given_up.error from given_up
            reason = given_up.error.what.render("en")
            _log.warning("request %s: %s", request.id, reason)
            seconds = time.perf_counter() - started
            return Generation(id=request.id, text="", finish_reason="error", error=reason, seconds=seconds)
        with self._counting:
            self._failures_in_a_row = 0
        return generation

    def _tried(self, request: Request, body: Body, stop: threading.Event, started: float) -> Generation:
        """Asked until there is an answer, a refusal, or no attempt left.

        Raises:
            _GivenUp: There is none left.
            GenerationError: The server refuses everybody.
            CancelledError: Nobody wants the answer any more.
        """
        attempt = 0
        while True:
            booking = self._admitted(body.num_tokens, stop)
            everybody = False
            try:
                response = self._client.post(self._url, json=body.fields)
            except self._http.DecodingError:  # its bytes are not packed as its headers say
                fault, pause = self._not_understood(request.id), pause_seconds(attempt)
            except self._http.TransportError as error:
                fault, pause = self._unreachable(request.id, error), pause_seconds(attempt)
                # Nobody listens at that address: unlike a timeout, that is not this request's doing.
                everybody = isinstance(error, self._http.ConnectError)
            else:
                if response.status_code == 200:
                    try:
                        generation = response_generation(request, response.json(), time.perf_counter() - started)
                    except ValueError:
                        fault, pause = self._not_understood(request.id, server_words(response)), pause_seconds(attempt)
                    else:
                        if generation.num_prompt_tokens is not None and generation.num_generated_tokens is not None:
                            booking.tokens = generation.num_prompt_tokens + generation.num_generated_tokens
                        return generation
                elif "logprobs" in body.fields and _refuses_logprobs(response):
                    # Worth less than the answers: not every server tells probabilities, and some not of as many tokens.
                    self._asks_logprobs = False
                    body.without_logprobs()
                    continue  # no further attempt: this is another request
                elif response.status_code in _THIS_REQUEST_FAILS:
                    reason = f"{response.status_code}: {server_words(response)}"
                    _log.warning("request %s: status %s", request.id, reason)
                    seconds = time.perf_counter() - started
                    return Generation(id=request.id, text="", finish_reason="error", error=reason, seconds=seconds)
                elif response.status_code not in _AGAIN or _account_is_empty(response):
                    raise self._refused(request.id, response)
                else:
                    fault, pause = self._refused(request.id, response), pause_seconds(attempt, response.headers)
                    if (asked := asked_pause(response.headers)) is not None:
                        self._limit.hold(asked)
            if attempt == self._max_retries:
                raise _GivenUp(fault, everybody=everybody)
            attempt += 1
            _log.info("request %s: again in %.1f s", request.id, pause)
            if stop.wait(pause) or self._closed.is_set():
                raise CancelledError

    def _admitted(self, num_tokens: int, stop: threading.Event) -> Booking:
        """Waits until the rate limit lets the request through.

        Raises:
            CancelledError: Nobody wants the answer any more.
        """
        while not isinstance(admitted := self._limit.admit(num_tokens), Booking):
            if stop.wait(admitted):
                raise CancelledError
        return admitted

    def _pieces(self, name: str, body: Body) -> Generator[str, None, FinishReason]:
        finish_reason: FinishReason | None = None
        for attempt in range(self._max_retries + 1):
            shown = False
            self._admitted(body.num_tokens, self._closed)
            try:
                with self._client.stream("POST", self._url, json=body.fields) as response:
                    if response.status_code in _AGAIN and attempt < self._max_retries:
                        pause = pause_seconds(attempt, response.headers)
                    elif response.status_code != 200:
                        response.read()
                        raise self._refused(name, response)
                    else:
                        for data in server_sent(response.iter_bytes()):
                            if data == "[DONE]":
                                return finish_reason or "stop"
                            choice = self._choice(name, data)
                            if piece := self._piece(name, choice):
                                shown = True
                                yield piece
                            if reason := choice.get("finish_reason"):
                                finish_reason = FINISH_REASONS.get(reason, "error")
                        if finish_reason is not None:
                            return finish_reason
                        raise self._http.RemoteProtocolError("no finish reason")
            except self._http.DecodingError as error:
                raise self._not_understood(name) from error
            except self._http.TransportError as error:
                # What has been shown cannot be taken back, and a second attempt need not begin alike.
                if shown or attempt == self._max_retries:
                    raise self._unreachable(name, error) from error
                pause = pause_seconds(attempt)
            self._closed.wait(pause)
        raise AssertionError("the last attempt returns or raises")

    def _choice(self, name: str, data: str) -> dict[str, Any]:
        try:
            choices = json.loads(data)["choices"]
            choice: dict[str, Any] = choices[0] if choices else {}  # the last event may hold the usage alone
        except (ValueError, LookupError, TypeError) as error:
            raise self._not_understood(name) from error
        return choice

    def _piece(self, name: str, choice: dict[str, Any]) -> str:
        try:
            return whole_characters((choice.get("delta") or {}).get("content") or "")
        except (ValueError, AttributeError) as error:
            raise self._not_understood(name) from error

    # ----------------------------------------------------------------------------------------------------------- faults

    def _refused(self, name: str, response: Any) -> GenerationError:
        return GenerationError(
            msg(
                "{url} answers with status {status}: {words}",
                url=self._url,
                status=response.status_code,
                words=server_words(response),
            ),
            sample=name,
            remedy=msg(
                "Check base_url, model ({model}) and the key in api_key_env; the server's log says more.", model=self._model
            ),
        )

    def _unreachable(self, name: str, error: BaseException) -> GenerationError:
        return GenerationError(
            msg("{url} cannot be reached or broke off: {error}", url=self._url, error=str(error) or type(error).__name__),
            sample=name,
            remedy=msg("Check that the server runs and that base_url is right; raise timeout_seconds for a slow model."),
        )

    def _not_understood(self, name: str, words: str = "-") -> GenerationError:
        return GenerationError(
            msg("{url} does not answer as the OpenAI chat-completions protocol says: {words}", url=self._url, words=words),
            sample=name,
            remedy=msg("base_url usually ends in /v1."),
        )


def _httpx() -> Any:
    """httpx, or httpx2, its successor with the same interface, which newer huggingface_hub installs in its place."""
    for name in ("httpx", "httpx2"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise MissingDependencyError("httpx", needed_for=msg("The generator openai"), pip="'medtune[openai]'")


def _is_loopback(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        host = parts.hostname
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host:
        raise GenerationError(
            msg("{base_url} is not an http address.", base_url=base_url),
            key="generation.generator.base_url",
            remedy=msg("Write it like http://127.0.0.1:8000/v1."),
        )
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _account_is_empty(response: Any) -> bool:
    """OpenAI says 429 of an account without money too, which no pause fills."""
    try:
        return bool(response.json()["error"]["code"] == "insufficient_quota")
    except (ValueError, LookupError, TypeError):
        return False


def _refuses_logprobs(response: Any) -> bool:
    return response.status_code in _THIS_REQUEST_FAILS and "logprobs" in server_words(response).lower()
