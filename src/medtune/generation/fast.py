"""Answers of a Qwen model in few, wide steps: packed prefill, a static cache, continuous batching."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from medtune.errors import MedtuneError
from medtune.generation.ahead import EncodedRequest, Encoding, picture_key
from medtune.generation.continuous import PREFILL_TOKENS, Answer, ContinuousBatch
from medtune.generation.room import rows_that_fit
from medtune.generation.sight import Sight
from medtune.generation.steps import LOOK_EVERY
from medtune.models.decoder import Decoder
from medtune.models.expert_lora import low_rank_experts
from medtune.models.lora_forward import low_rank_in_input_type
from medtune.types import Request, Sampling

if TYPE_CHECKING:
    from medtune.models.encoder import Encoder

__all__ = ["FastPath", "Planned", "Refused"]

_log = logging.getLogger(__name__)

_SHORTEST_OF_WAVE = 0.5
"""Requests share one cache down to this part of its rows' length: a shorter one would leave more than half of its row empty."""

_REFILL = 8
"""Rows are filled again when one in so many is free, and then all of them: prompts that are read together cost less than one by
one."""


class Ready(Protocol):
    """See :class:`FastPath`."""

    def __call__(self, *, adapters: bool) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """A request that has been checked."""

    request: Request
    num_prompt_tokens: int

    @property
    def num_tokens(self) -> int:
        """Of prompt and answer, at most."""
        return self.num_prompt_tokens + self.request.sampling.max_new_tokens


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the model is not shown, or whose answer does not fit into memory alone (``error`` None)."""

    request: Request
    error: MedtuneError | None


class FastPath:
    """Runs planned requests.

    Args:
        model: A model that :func:`medtune.models.decoder.can_decode`.
        encoder: Its encoder.
        end_token_ids: End an answer.
        use_adapter: See :class:`medtune.models.decoder.Decoder`.
        ready: A context in which the model is in eval mode and nobody else's, and with ``adapters`` its adapters are as wanted.
        rows: Answers at a time; None = as many as fit, at most ``max_rows``.
        share: Of the free memory that may be used.
        on_scarce: Called with the rows that did not fit and the rows to go on with.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        *,
        end_token_ids: frozenset[int],
        use_adapter: bool,
        ready: Ready,
        rows: int | None,
        max_rows: int,
        share: float,
        on_scarce: Callable[[int, int], None],
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._ends = end_token_ids
        self._use_adapter = use_adapter
        self._ready = ready
        self._limit = rows
        self._max_rows = max_rows
        self._share = share
        self._on_scarce = on_scarce
        self.rows: int | None = rows
        """Of the cache that was last in use."""
        self.report: dict[str, float] = defaultdict(float)
        """What was spent since this was made: ``prefill_seconds``, ``decode_seconds`` (captures included), ``capture_seconds``,
        ``wait_seconds`` for pictures, ``steps``, ``captures``."""

    def answers(self, planned: Sequence[Planned], sampling: Sampling) -> Iterator[Answer | Refused]:
        """Answers as they end, those to the longest prompts begun first."""
        waiting = sorted(planned, key=lambda row: row.num_tokens, reverse=True)
        decoder = self._decoder()
        while waiting:
            count = sum(row.num_tokens >= waiting[0].num_tokens * _SHORTEST_OF_WAVE for row in waiting)
            wave, waiting = waiting[:count], waiting[count:]
            yield from self._wave(decoder, wave, sampling)

    def encode(self, request: Request) -> EncodedRequest:
        """One request, for :meth:`stream`.

        Raises:
            GenerationError: A picture is damaged.
        """
        with Encoding(self._encoder, [request], ahead=1, dtype=self._model.dtype, device=self._model.device) as encoding:
            taken = encoding.take()
        if isinstance(taken, EncodedRequest):
            return taken
        raise taken[1]

    def stream(self, encoded: EncodedRequest, on_tokens: Callable[[list[int], bool], None], stopped: Callable[[], bool]) -> None:
        """One answer, token by token.

        Args:
            on_tokens: Called with further tokens, and whether they are the last before an end token.
            stopped: Asked after each.

        Raises:
            torch.OutOfMemoryError: It does not fit.
        """
        sampling = encoded.request.sampling
        longest = len(encoded.features.input_ids) + sampling.max_new_tokens
        batch = self.batch(self._decoder(), _once, 1, longest, sampling, look_every=1)
        done = batch.admit([encoded])
        shown = 0
        while True:
            answer = (done or batch.under_way)[0]
            on_tokens(answer.ids[shown:], answer.ended)
            shown = len(answer.ids)
            if done or stopped():
                return
            done = batch.advance()

    def batch(
        self,
        decoder: Decoder,
        times_shown: Callable[[Hashable], int],
        rows: int,
        longest: int,
        sampling: Sampling,
        *,
        look_every: int = LOOK_EVERY,
    ) -> ContinuousBatch:
        """Empty rows of ``longest`` tokens."""
        sees = decoder.reads_pictures and self._encoder.pictures is not None
        return ContinuousBatch(
            decoder,
            self._encoder,
            sampling,
            rows=rows,
            slots=longest,
            end_token_ids=self._ends,
            sight=Sight(self._model, times_shown) if sees else None,
            ready=functools.partial(self._working, decoder),
            look_every=look_every,
        )

    def _decoder(self) -> Decoder:
        with torch.inference_mode(), self._ready(adapters=False):
            return Decoder(self._model, use_adapter=self._use_adapter)

    @contextlib.contextmanager
    def _working(self, decoder: Decoder) -> Iterator[None]:
        """Ready, and adapters on what ``decoder`` does not compute itself (experts, the vision tower) in their fast form."""
        with self._ready(adapters=decoder.calls_adapters), contextlib.ExitStack() as stack:
            if decoder.calls_adapters and self._use_adapter:
                stack.enter_context(low_rank_in_input_type(self._model))
                stack.enter_context(low_rank_experts(self._model))
            yield

    def _wave(self, decoder: Decoder, planned: Sequence[Planned], sampling: Sampling) -> Iterator[Answer | Refused]:
        """Requests of similar length; out of memory, the ones that had no answer yet again with half of the rows."""
        drawn = sampling.temperature > 0 or sampling.repetition_penalty != 1.0
        tokens = {row.request.id: row.num_tokens for row in planned}
        longest = max(tokens.values())
        rows = self._limit or rows_that_fit(decoder, longest, most=self._max_rows, share=self._share, drawn=drawn)
        left = by_picture(planned)
        while left:
            longest = max(tokens[request.id] for request in left)
            self.rows = rows = min(rows, len(left))
            ahead = min(2 * rows, 64)
            with Encoding(self._encoder, left, ahead=ahead, dtype=decoder.dtype, device=decoder.device) as encoding:
                wave = _Wave(self, decoder, encoding, rows, longest, sampling)
                yield from wave.run()
                lost = wave.lost
                left = [*lost, *encoding.untaken]
                wave.close()
            if not wave.ran_out:
                continue
            del wave
            if decoder.device.type == "cuda":
                torch.cuda.empty_cache()
            if rows == 1:
                # Where it did not come to reading a prompt, one row of the longest does not fit: without it the others may.
                refused = lost[0] if lost else max(left, key=lambda request: tokens[request.id])
                left = [request for request in left if request is not refused]
                yield Refused(refused, None)
                continue
            half = (rows + 1) // 2
            _log.warning("out of memory with %d rows; going on with %d", rows, half)
            self._limit = half
            self._on_scarce(rows, half)
            rows = half


class _Wave:
    """One cache and what goes through it, until memory runs out or all is answered.

    Attributes:
        ran_out: Of memory.
        lost: Requests whose answers were under way then.
    """

    def __init__(self, path: FastPath, decoder: Decoder, encoding: Encoding, rows: int, longest: int, sampling: Sampling) -> None:
        self._path = path
        self._encoding = encoding
        self._rows = rows
        self._taken: list[EncodedRequest] = []
        self._filling = True
        self._batch: ContinuousBatch | None = None
        self.ran_out = False
        self.lost: list[Request] = []
        self._make: Callable[[], ContinuousBatch] = lambda: path.batch(decoder, encoding.times_shown, rows, longest, sampling)

    def run(self) -> Iterator[Answer | Refused]:
        if not self._begun():
            return
        assert self._batch is not None
        while len(self._encoding) or self._batch.under_way:
            refused = self._take()
            yield from refused
            done = self._stepped()
            if done is None:
                return
            yield from done

    def close(self) -> None:
        """Let go of the cache, and add up what was spent."""
        if self._batch is None:
            return
        report, costs = self._path.report, self._batch.costs
        report["prefill_seconds"] += self._batch.prefill_seconds
        report["decode_seconds"] += self._batch.decode_seconds
        report["capture_seconds"] += costs.capture_seconds
        report["captures"] += costs.captures
        report["steps"] += costs.steps
        self._batch = None

    def _begun(self) -> bool:
        try:
            self._batch = self._make()
        except torch.OutOfMemoryError:
            self.ran_out = True
        return not self.ran_out

    def _take(self) -> list[Refused]:
        """Requests for the free rows, as many prompts as are read at once."""
        assert self._batch is not None
        free = self._batch.num_free
        refused: list[Refused] = []
        self._filling = free > 0 and (self._filling or free * _REFILL >= self._rows)
        if not self._filling:
            return refused
        tokens = 0
        while len(self._encoding) and len(self._taken) < free and tokens < PREFILL_TOKENS:
            started = time.perf_counter()
            taken = self._encoding.take()
            self._path.report["wait_seconds"] += time.perf_counter() - started
            if isinstance(taken, EncodedRequest):
                self._taken.append(taken)
                tokens += len(taken.features.input_ids)
            else:
                refused.append(Refused(*taken))
        return refused

    def _stepped(self) -> list[Answer] | None:
        """Read the prompts that were taken, or go some steps; None = out of memory."""
        assert self._batch is not None
        try:
            if self._taken:
                done = self._batch.admit(self._taken)
            elif self._batch.under_way:
                done = self._batch.advance()
            else:
                done = []
        except torch.OutOfMemoryError:
            self.ran_out = True
        # Not inside the except block: the exception's frames would keep the tensors alive.
        if self.ran_out:
            self.lost = [answer.encoded.request for answer in self._batch.under_way]
            known = {request.id for request in self.lost}
            self.lost += [taken.request for taken in self._taken if taken.request.id not in known]
            self._taken.clear()
            return None
        self._taken = []
        return done


def _once(picture: Hashable) -> int:  # noqa: ARG001
    return 1


def by_picture(planned: Sequence[Planned]) -> list[Request]:
    """Requests in the order of their first pictures, so that what the vision tower made of one is still there for the next; the
    order of the pictures, and of the requests of one, is kept."""
    groups: dict[Hashable, list[Request]] = {}
    for row in planned:
        images = row.request.images
        groups.setdefault(picture_key(images[0]) if images else ("text", row.request.id), []).append(row.request)
    return [request for group in groups.values() for request in group]
