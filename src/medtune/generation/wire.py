"""Requests, answers and faults as lines of JSON, between the process that asks and those that answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from medtune.errors import GenerationError, MedtuneError
from medtune.language import Text
from medtune.types import Event, FilePart, Message, Request, Sampling, StoredPicture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["error_fields", "event_fields", "read_error", "read_event", "read_request", "request_line"]

_TEXT: TypeAdapter[Text | None] = TypeAdapter(Text | None)


def request_line(request: Request) -> str:
    """A request in one line, in ASCII: names of files that are no UTF-8 travel too. A picture in memory travels as PNG, which
    changes none of its pixels."""
    fields = {
        "id": request.id,
        "messages": [message.model_dump() for message in request.messages],
        "images": [_image_fields(image) for image in request.images],
        "sampling": request.sampling.model_dump(),
        "score_tokens": list(request.score_tokens),
    }
    return json.dumps(fields) + "\n"


def read_request(line: str) -> Request:
    """The request that :func:`request_line` wrote."""
    fields = json.loads(line)
    return Request(
        id=fields["id"],
        messages=tuple(Message(**message) for message in fields["messages"]),
        images=tuple(_image(image) for image in fields["images"]),
        sampling=Sampling(**fields["sampling"]),
        score_tokens=tuple(fields["score_tokens"]),
    )


def _image_fields(image: StoredPicture | Image) -> dict[str, str | int]:
    if isinstance(image, Path):
        return {"path": str(image)}
    if isinstance(image, FilePart):
        return {"path": str(image.file), "offset": image.offset, "num_bytes": image.num_bytes}
    if not isinstance(image, bytes):
        buffer = BytesIO()
        image.save(buffer, format="PNG")
        image = buffer.getvalue()
    return {"data": base64.b64encode(image).decode("ascii")}


def _image(fields: Mapping[str, Any]) -> StoredPicture:
    if "offset" in fields:
        return FilePart(Path(fields["path"]), fields["offset"], fields["num_bytes"])
    return Path(fields["path"]) if "path" in fields else base64.b64decode(fields["data"])


def error_fields(error: MedtuneError) -> dict[str, Any]:
    """An error, its sentences still translatable."""
    return {
        "what": _TEXT.dump_python(error.what, mode="json"),
        "file": error.file,
        "sample": error.sample,
        "key": error.key,
        "remedy": _TEXT.dump_python(error.remedy, mode="json"),
    }


def read_error(fields: Mapping[str, Any]) -> GenerationError:
    """The error that :func:`error_fields` wrote."""
    what = _TEXT.validate_python(fields["what"])
    assert what is not None
    remedy = _TEXT.validate_python(fields["remedy"])
    return GenerationError(what, file=fields["file"], sample=fields["sample"], key=fields["key"], remedy=remedy)


def event_fields(event: Event) -> dict[str, Any]:
    """An event, its sentence still translatable."""
    return {
        "kind": event.kind,
        "text": _TEXT.dump_python(event.text, mode="json"),
        "done": event.done,
        "total": event.total,
        "values": dict(event.values),
    }


def read_event(fields: Mapping[str, Any]) -> Event:
    """The event that :func:`event_fields` wrote."""
    return Event(fields["kind"], _TEXT.validate_python(fields["text"]), fields["done"], fields["total"], fields["values"])
