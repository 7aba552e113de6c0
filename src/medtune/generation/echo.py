"""A generator without a model: given answers, or the question again. Makes every later room testable in milliseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from medtune.generation.check import check_requests
from medtune.types import IMAGE_MARK, FinishReason, Generation, Request

__all__ = ["EchoGenerator"]

# One CJK character, or one run of anything else with the blanks before it: what stands for a token here.
_PIECE = re.compile(r"\s*[\u3400-\u9fff\uf900-\ufaff]|\s*[^\s\u3400-\u9fff\uf900-\ufaff]+|\s+$")


class EchoGenerator:
    """Answers by rule; deterministic.

    Args:
        answers: By request id (a request without an answer is echoed), or a sequence that is given in turn over all calls
            and starts again after its last; empty = echo the last user turn without its image marks.

    A "token" is a word or a CJK character, so that ``max_new_tokens`` and the finish reason ``length`` work as they do for
    a model. Of ``score_tokens`` the longest that the answer begins with has the probability 0.9, and the others share
    what is left.
    """

    def __init__(self, answers: Mapping[str, str] | Sequence[str] = ()) -> None:
        self._answers = answers
        self._num_asked = 0

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """One generation a request, in their order.

        Raises:
            GenerationError: A conversation does not end with a question, or its marks and pictures differ in number.
        """
        check_requests(requests)
        for request in requests:
            pieces, finish_reason = self._pieces(request)
            yield Generation(
                id=request.id,
                text="".join(pieces),
                finish_reason=finish_reason,
                num_prompt_tokens=sum(len(_PIECE.findall(message.content)) for message in request.messages),
                num_generated_tokens=len(pieces),
                seconds=0.0,
                first_token_logprobs=_first_token_logprobs(pieces, request.score_tokens) if request.score_tokens else None,
            )

    def stream(self, request: Request) -> Iterator[str]:
        """The same text as :meth:`generate`, a word or a CJK character at a time."""
        check_requests([request])
        yield from self._pieces(request)[0]

    def close(self) -> None:
        """Nothing to give back."""

    def _pieces(self, request: Request) -> tuple[list[str], FinishReason]:
        question = request.messages[-1].content.replace(IMAGE_MARK, "").strip()
        if isinstance(self._answers, Mapping):
            text = self._answers.get(request.id, question)
        elif self._answers:
            text = self._answers[self._num_asked % len(self._answers)]
            self._num_asked += 1
        else:
            text = question
        pieces = _PIECE.findall(text)
        limit = request.sampling.max_new_tokens
        return pieces[:limit], "length" if len(pieces) > limit else "stop"


def _first_token_logprobs(pieces: Sequence[str], words: Sequence[str]) -> dict[str, float]:
    begin = pieces[0].strip() if pieces else ""
    said = max((word for word in words if begin.startswith(word)), key=len, default=None)
    others = [word for word in words if word != said]
    left = 1.0 if len(others) == len(words) else 0.1
    return {word: math.log(0.9 if word == said else left / (len(others) + 1)) for word in words}
