"""What goes over the line of the OpenAI chat-completions protocol: https://platform.openai.com/docs/api-reference/chat.

``top_k`` and ``repetition_penalty`` are not among its fields; vLLM and SGLang take them under these names, and they are sent only
when they differ from "none".
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from medtune.errors import GenerationError, MedtuneError
from medtune.generation.rate_limit import estimate_tokens
from medtune.imaging.read import open_picture
from medtune.types import IMAGE_MARK, FinishReason, Generation, Request, StoredPicture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FINISH_REASONS", "Body", "request_body", "response_generation", "server_sent", "server_words", "whole_characters"]

FINISH_REASONS: Mapping[str | None, FinishReason] = {"stop": "stop", "length": "length"}

_MOST_TOP_LOGPROBS = 20
"""The protocol's limit, and vLLM's default one."""


class Body:
    """The JSON of a request, and about how many tokens it and its answer are."""

    def __init__(self, fields: dict[str, Any], num_tokens: int) -> None:
        self.fields = fields
        self.num_tokens = num_tokens

    def without_logprobs(self) -> None:
        """Do not ask for probabilities."""
        self.fields.pop("logprobs", None)
        self.fields.pop("top_logprobs", None)


def request_body(request: Request, model: str) -> Body:
    """Text and pictures in the order of the marks; pictures as PNG in data URLs.

    Raises:
        GenerationError: A picture is missing or damaged.
    """
    images = iter(request.images)
    messages: list[dict[str, Any]] = []
    words, num_pixels = "", 0
    for message in request.messages:
        parts: list[dict[str, Any]] = []
        for index, text in enumerate(message.content.split(IMAGE_MARK)):
            if index:
                try:
                    url, pixels = _data_url(next(images))
                except MedtuneError as error:
                    raise GenerationError(error.what, file=error.file, sample=request.id, remedy=error.remedy) from error
                parts.append({"type": "image_url", "image_url": {"url": url}})
                num_pixels += pixels
            if text:
                parts.append({"type": "text", "text": text})
        plain = IMAGE_MARK not in message.content
        messages.append({"role": message.role, "content": message.content if plain else parts})
        words += message.content
    sampling = request.sampling
    fields: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if sampling.top_k:
        fields["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1.0:
        fields["repetition_penalty"] = sampling.repetition_penalty
    if request.score_tokens:
        fields |= {"logprobs": True, "top_logprobs": _MOST_TOP_LOGPROBS}
    return Body(fields, estimate_tokens(words, num_pixels, sampling.max_new_tokens))


def response_generation(request: Request, answer: Any, seconds: float) -> Generation:
    """The generation that a response of status 200 holds.

    Raises:
        ValueError: It is not of the protocol.
    """
    try:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        reason = choice.get("finish_reason")
        finish_reason = FINISH_REASONS.get(reason, "error")
        return Generation(
            id=request.id,
            text=whole_characters(choice["message"].get("content") or ""),
            finish_reason=finish_reason,
            num_prompt_tokens=usage.get("prompt_tokens"),
            num_generated_tokens=usage.get("completion_tokens"),
            seconds=seconds,
            error=f"finish reason {reason}" if finish_reason == "error" else None,
            first_token_logprobs=_first_token_logprobs(choice, request.score_tokens) if request.score_tokens else None,
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("not of the chat-completions protocol") from error


def _first_token_logprobs(choice: Mapping[str, Any], words: Sequence[str]) -> dict[str, float] | None:
    tokens = (choice.get("logprobs") or {}).get("content") or []
    if not tokens:
        return None
    told = {entry["token"]: float(entry["logprob"]) for entry in (tokens[0], *(tokens[0].get("top_logprobs") or ()))}
    return {word: told[word] for word in words if word in told}


def _data_url(image: StoredPicture | Image) -> tuple[str, int]:
    """The picture as a data URL, and its number of pixels."""
    picture = open_picture(image) if isinstance(image, StoredPicture) else image
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), picture.width * picture.height


def whole_characters(text: Any) -> str:
    """``text`` with U+FFFD for each lone surrogate: half of a pair that JSON's escapes (RFC 8259, section 8.2) let through, where
    an answer was cut inside a character. It cannot be written as UTF-8.

    Raises:
        ValueError: It is no text, and so not of the protocol.
    """
    if not isinstance(text, str):
        raise ValueError("not of the chat-completions protocol")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def server_sent(chunks: Iterator[bytes]) -> Iterator[str]:
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


def server_words(response: Any) -> str:
    """The message of an error response, in one line of at most 300 characters."""
    try:
        body = response.json()
        error = body.get("error", body)
        words = str(error.get("message") or error) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        words = response.text
    return " ".join(whole_characters(words).split())[:300] or "-"
