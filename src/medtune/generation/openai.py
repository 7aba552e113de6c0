"""Generation by a server with the OpenAI chat-completions protocol: vLLM, SGLang, llama.cpp, a cloud service.

Fields: https://platform.openai.com/docs/api-reference/chat. ``top_k`` and ``repetition_penalty`` are not among them; vLLM and
SGLang take them under these names, and they are sent only when they differ from "none".
"""

from __future__ import annotations

import base64
import importlib
import ipaddress
import json
import logging
import os
import random
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from medtune.errors import GenerationError, MedtuneError, MissingDependencyError
from medtune.generation.check import check_requests
from medtune.imaging.read import open_picture
from medtune.language import msg
from medtune.types import IMAGE_MARK, FinishReason, Generation, Request

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["OpenAiGenerator"]

_log = logging.getLogger(__name__)

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_THIS_REQUEST_FAILS = frozenset({400, 413, 422})
"""Too long, too large, not acceptable. Any other status (key, address, model name) would meet every request."""
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
_FINISH_REASONS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


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
        max_retries: Further attempts after status 408, 429 or 5xx, a timeout or a lost connection. The pause doubles from half a
            second up to a minute, or is what the server's ``Retry-After`` says.
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
        self._http = _httpx()
        # A proxy from the environment would carry even loopback traffic to another machine.
        self._client = self._http.Client(
            headers=headers,
            timeout=timeout_seconds,
            trust_env=not local,
            limits=self._http.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency),
        )
        self._closed = threading.Event()

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Generations as they arrive, in any order; ``seconds`` is the wall time of the one request, its retries included.

        A request that the server refuses for itself (status 400, 413, 422, a content filter), or a damaged picture, gives a
        generation with ``finish_reason`` ``error`` and the reason.

        Raises:
            GenerationError: Before any work: a conversation does not end with a question, or its marks and pictures differ in
                number. Later: the server refuses all requests (key, address, model name), or cannot be reached after all
                retries; what has been answered by then is yielded first.
        """
        check_requests(requests)
        return self._run(requests)

    def _run(self, requests: Sequence[Request]) -> Iterator[Generation]:
        waiting = list(reversed(requests))
        running: set[Future[Generation]] = set()
        failure: BaseException | None = None
        stop = threading.Event()
        with ThreadPoolExecutor(self._max_concurrency, thread_name_prefix="medtune-openai") as pool:
            try:
                # Submitted one by one, so that an early end does not leave a long queue behind.
                while running or (waiting and failure is None):
                    while waiting and failure is None and len(running) < self._max_concurrency:
                        running.add(pool.submit(self._answer, waiting.pop(), stop))
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        error = future.exception()
                        if error is None:
                            yield future.result()
                        elif failure is None:
                            failure = error
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
        return self._pieces(request.id, self._body(request) | {"stream": True})

    def close(self) -> None:
        """Close all connections."""
        self._closed.set()
        self._client.close()

    # -------------------------------------------------------------------------------------------------------------- one

    def _answer(self, request: Request, stop: threading.Event) -> Generation:
        started = time.perf_counter()
        try:
            body = self._body(request)
        except MedtuneError as error:
            return Generation(id=request.id, text="", finish_reason="error", error=error.render("en"))
        response = self._sent(request.id, body, stop)
        seconds = time.perf_counter() - started
        if response.status_code != 200:
            reason = f"{response.status_code}: {_server_words(response)}"
            _log.warning("request %s: status %s", request.id, reason)
            return Generation(id=request.id, text="", finish_reason="error", error=reason, seconds=seconds)
        try:
            answer = response.json()
            choice, usage = answer["choices"][0], answer.get("usage") or {}
            reason = choice.get("finish_reason")
            finish_reason = _FINISH_REASONS.get(reason, "error")
            return Generation(
                id=request.id,
                text=choice["message"].get("content") or "",
                finish_reason=finish_reason,
                num_prompt_tokens=usage.get("prompt_tokens"),
                num_generated_tokens=usage.get("completion_tokens"),
                seconds=seconds,
                error=f"finish reason {reason}" if finish_reason == "error" else None,
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._not_understood(request.id) from error

    def _sent(self, name: str, body: dict[str, Any], stop: threading.Event) -> Any:
        """The response: 200, or a refusal of this one request. Retried as the class says."""
        for attempt in range(self._max_retries + 1):
            try:
                response = self._client.post(self._url, json=body)
            except self._http.TransportError as error:
                if attempt == self._max_retries or stop.is_set() or self._closed.is_set():
                    raise self._unreachable(name, error) from error
                pause = _pause(attempt)
            else:
                if response.status_code == 200 or response.status_code in _THIS_REQUEST_FAILS:
                    return response
                if response.status_code not in _AGAIN or attempt == self._max_retries or stop.is_set():
                    raise self._refused(name, response)
                pause = _pause(attempt, response.headers.get("Retry-After"))
            _log.info("request %s: again in %.1f s", name, pause)
            stop.wait(pause)
        raise AssertionError("the last attempt returns or raises")

    def _pieces(self, name: str, body: dict[str, Any]) -> Generator[str, None, FinishReason]:
        finish_reason: FinishReason = "stop"
        for attempt in range(self._max_retries + 1):
            shown = False
            try:
                with self._client.stream("POST", self._url, json=body) as response:
                    if response.status_code in _AGAIN and attempt < self._max_retries:
                        pause = _pause(attempt, response.headers.get("Retry-After"))
                    elif response.status_code != 200:
                        response.read()
                        raise self._refused(name, response)
                    else:
                        for data in _server_sent(response.iter_bytes()):
                            if data == "[DONE]":
                                return finish_reason
                            choice = self._choice(name, data)
                            if piece := (choice.get("delta") or {}).get("content"):
                                shown = True
                                yield piece
                            if reason := choice.get("finish_reason"):
                                finish_reason = _FINISH_REASONS.get(reason, "error")
                        return finish_reason
            except self._http.TransportError as error:
                # What has been shown cannot be taken back, and a second attempt need not begin alike.
                if shown or attempt == self._max_retries:
                    raise self._unreachable(name, error) from error
                pause = _pause(attempt)
            self._closed.wait(pause)
        raise AssertionError("the last attempt returns or raises")

    def _choice(self, name: str, data: str) -> dict[str, Any]:
        try:
            choices = json.loads(data)["choices"]
            choice: dict[str, Any] = choices[0] if choices else {}  # the last event may hold the usage alone
        except (ValueError, LookupError, TypeError) as error:
            raise self._not_understood(name) from error
        return choice

    def _body(self, request: Request) -> dict[str, Any]:
        """The JSON of a request. Text and pictures stand in the order of the marks."""
        images = iter(request.images)
        messages: list[dict[str, Any]] = []
        for message in request.messages:
            parts: list[dict[str, Any]] = []
            for index, text in enumerate(message.content.split(IMAGE_MARK)):
                if index:
                    try:
                        parts.append({"type": "image_url", "image_url": {"url": _data_url(next(images))}})
                    except MedtuneError as error:
                        raise GenerationError(error.what, file=error.file, sample=request.id, remedy=error.remedy) from error
                if text:
                    parts.append({"type": "text", "text": text})
            plain = IMAGE_MARK not in message.content
            messages.append({"role": message.role, "content": message.content if plain else parts})
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1.0:
            body["repetition_penalty"] = sampling.repetition_penalty
        return body

    # ----------------------------------------------------------------------------------------------------------- faults

    def _refused(self, name: str, response: Any) -> GenerationError:
        return GenerationError(
            msg(
                "{url} answers with status {status}: {words}",
                url=self._url,
                status=response.status_code,
                words=_server_words(response),
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

    def _not_understood(self, name: str) -> GenerationError:
        return GenerationError(
            msg("{url} does not answer as the OpenAI chat-completions protocol says.", url=self._url),
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


def _data_url(image: Path | bytes | Image) -> str:
    picture = open_picture(image) if isinstance(image, (Path, bytes)) else image
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _server_sent(chunks: Iterator[bytes]) -> Iterator[str]:
    """The ``data`` of server-sent events (WHATWG HTML, section 9.2).

    Lines are cut at LF in bytes: text splitting would also cut at U+2028 or U+0085 inside a JSON string, and a chunk may end in
    the middle of a character.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].decode("utf-8", errors="replace").strip(" \r")
    if rest.startswith(b"data:"):
        yield rest[5:].decode("utf-8", errors="replace").strip(" \r")


def _pause(attempt: int, retry_after: str | None = None) -> float:
    """Seconds before the next attempt. Half of it is random, so that many clients do not come back together."""
    try:
        return min(max(float(retry_after or ""), 0.0), _LONGEST_PAUSE_SECONDS)
    except ValueError:
        longest: float = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
        return longest * random.uniform(0.5, 1.0)


def _server_words(response: Any) -> str:
    """The message of an error response, in one line of at most 300 characters."""
    try:
        body = response.json()
        error = body.get("error", body)
        words = str(error.get("message") or error) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        words = response.text
    return " ".join(words.split())[:300] or "-"
