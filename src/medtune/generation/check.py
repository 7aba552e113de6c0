"""What every generator asks of its requests before any work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medtune.errors import GenerationError
from medtune.language import msg
from medtune.types import IMAGE_MARK, Request

__all__ = ["check_requests"]


def check_requests(requests: Sequence[Request]) -> None:
    """The form of requests.

    Raises:
        GenerationError: A conversation does not end with a question, or its marks and pictures differ in number.
        ValueError: Two requests have one id: their answers could not be told apart.
    """
    repeated = [name for name, count in Counter(request.id for request in requests).items() if count > 1]
    if repeated:
        raise ValueError(f"request ids must be unique; repeated: {repeated[:3]}")
    for request in requests:
        if not request.messages or request.messages[-1].role != "user":
            raise GenerationError(msg("A conversation to go on with must end with a question."), sample=request.id)
        num_marks = sum(message.content.count(IMAGE_MARK) for message in request.messages)
        if num_marks != len(request.images):
            raise GenerationError(
                msg(
                    "The messages have {marks} <image> marks for {pictures} pictures.",
                    marks=num_marks,
                    pictures=len(request.images),
                ),
                sample=request.id,
                remedy=msg("Put one <image> into the user's text for each picture, in their order."),
            )
