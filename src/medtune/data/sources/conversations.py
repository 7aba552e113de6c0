"""The three ways in which text data sets write a conversation: Alpaca, ShareGPT, OpenAI messages.

The meaning of ``columns`` and ``tags`` is LLaMA-Factory's (``data/parser.py``, ``data/converter.py``), with one difference:
what it drops with a log line is a fault with a reason here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from medtune.data.sources.rows import RecordFault
from medtune.language import msg
from medtune.types import IMAGE_MARK, Fault, Message

__all__ = ["ALPACA_COLUMNS", "Columns", "Conversation", "Tags", "from_alpaca", "from_turns"]


class Columns(BaseModel):
    """Which column holds what; None = no column. Unknown names in a ``columns`` mapping are ignored, as LLaMA-Factory does."""

    model_config = ConfigDict(frozen=True)

    prompt: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    messages: str | None = None
    system: str | None = None
    tools: str | None = None
    images: str | None = None
    videos: str | None = None
    audios: str | None = None


class Tags(BaseModel):
    """The keys of a turn, and how the roles are called; None = not there."""

    model_config = ConfigDict(frozen=True)

    role_tag: str | None = None
    content_tag: str | None = None
    user_tag: str | None = None
    assistant_tag: str | None = None
    observation_tag: str | None = None
    function_tag: str | None = None
    system_tag: str | None = None


ALPACA_COLUMNS = Columns(prompt="instruction", query="input", response="output", history="history", system="system")
"""The columns of Stanford Alpaca (Taori et al. 2023), with the two that LLaMA-Factory's own Alpaca files add."""


class Conversation(BaseModel):
    """A conversation that ends with the reference answer, and what was noticed while reading it.

    Attributes:
        addresses: Paths or addresses of the pictures that stand inside OpenAI's content parts, in the order of their marks.
    """

    model_config = ConfigDict(frozen=True)

    messages: tuple[Message, ...]
    addresses: tuple[str, ...] = ()
    source_notes: tuple[Literal["answer-not-text", "answer-blanks", "question-blanks"], ...] = ()


def from_alpaca(values: Mapping[str, Any], columns: Columns) -> Conversation:
    """An Alpaca row: the question is the non-empty parts of prompt and query, joined by a line end.

    Raises:
        RecordFault: Question or answer is missing, or the history is not a list of pairs.
    """
    messages = _system(_get(values, columns.system))
    for turn in _get(values, columns.history) or ():
        if not isinstance(turn, Sequence) or isinstance(turn, str) or len(turn) != 2:
            raise _fault("history", msg("The history is not a list of [question, answer] pairs."))
        messages += [Message(role="user", content=_text(turn[0])), Message(role="assistant", content=_text(turn[1]))]
    question = "\n".join(part for part in (_text(_get(values, columns.prompt)), _text(_get(values, columns.query))) if part.strip())
    if not question.strip():
        raise _fault("question-empty", msg("The record has no question."))
    return _concluded([*messages, Message(role="user", content=question)], _get(values, columns.response))


def from_turns(values: Mapping[str, Any], columns: Columns, tags: Tags) -> Conversation:
    """A ShareGPT or OpenAI row: a list of turns, each with a role and a content.

    Raises:
        RecordFault: The list is missing, a role is unknown or out of order, or a turn belongs to a tool.
    """
    turns = _get(values, columns.messages)
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise _fault(
            "messages-missing", msg("The record has no list of messages in column {column!r}.", column=columns.messages or "-")
        )
    roles = {tags.user_tag: "user", tags.assistant_tag: "assistant", tags.system_tag: "system"}
    read: list[tuple[str, Any]] = []
    for turn in turns:
        if not isinstance(turn, Mapping) or tags.role_tag not in turn or tags.content_tag not in turn:
            raise _fault(
                "turn-keys",
                msg(
                    "A turn does not have the keys {role!r} and {content!r}.",
                    role=tags.role_tag or "-",
                    content=tags.content_tag or "-",
                ),
            )
        name = turn[tags.role_tag]
        if name is not None and name in (tags.observation_tag, tags.function_tag, "tool"):
            raise _fault(
                "tool-turns", msg("The conversation has turns of a tool ({role!r}); these are not supported.", role=str(name))
            )
        role = roles.get(name) if name is not None else None
        if role is None:
            raise _fault("unknown-role", msg("The role {role!r} is not among the tags.", role=str(name)))
        read.append((role, turn[tags.content_tag]))
    messages: list[Message] = []
    if read[0][0] == "system":
        messages = _system(read.pop(0)[1])
    elif columns.system is not None:
        messages = _system(_get(values, columns.system))
    if not read or len(read) % 2 or any(role != ("user", "assistant")[index % 2] for index, (role, _) in enumerate(read)):
        raise _fault(
            "role-order",
            msg(
                "The roles must be user, assistant, user, ... and end with assistant; they are {roles}.",
                roles=", ".join(role for role, _ in read),
            ),
        )
    messages += [Message(role="user" if role == "user" else "assistant", content=_text(content)) for role, content in read[:-1]]
    addresses = tuple(address for _, content in read for address in _addresses(content))
    return _concluded(messages, read[-1][1]).model_copy(update={"addresses": addresses})


def _concluded(messages: list[Message], answer: Any) -> Conversation:
    notes: list[Literal["answer-not-text", "answer-blanks", "question-blanks"]] = []
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        notes.append("answer-not-text")
        answer = str(answer)
    text = _text(answer)
    if text != text.strip():
        notes.append("answer-blanks")
    return Conversation(messages=(*messages, Message(role="assistant", content=text.strip())), source_notes=tuple(notes))


def _system(content: Any) -> list[Message]:
    text = _text(content)
    return [Message(role="system", content=text)] if text else []


def _get(values: Mapping[str, Any], column: str | None) -> Any:
    return values.get(column) if column is not None else None


def _text(content: Any) -> str:
    """A content as text: a string, or OpenAI's list of parts, whose pictures become marks."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(_part(part) for part in content)
    raise _fault(
        "content-not-text", msg("A turn's content is neither text nor a list of parts, but {kind}.", kind=type(content).__name__)
    )


def _addresses(content: Any) -> Iterator[str]:
    """OpenAI writes ``{"type": "image_url", "image_url": {"url": ...}}``, Qwen ``{"type": "image", "image": ...}``."""
    for part in content if isinstance(content, Sequence) and not isinstance(content, str) else ():
        if isinstance(part, Mapping) and part.get("type") in ("image", "image_url"):
            value = part.get("image_url") or part.get("image") or part.get("url")
            address = value.get("url") if isinstance(value, Mapping) else value
            if isinstance(address, str) and address:
                yield address


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return str(part.get("text") or "")
    if kind in ("image", "image_url"):
        return IMAGE_MARK
    raise _fault("content-not-text", msg("A part of a turn's content is neither text nor a picture, but {kind}.", kind=str(kind)))


def _fault(reason: str, message: Any) -> RecordFault:
    return RecordFault(Fault(reason, message, msg("Correct the record in the source, or leave it out.")))
