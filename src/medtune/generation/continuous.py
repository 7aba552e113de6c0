"""Continuous batching (Yu et al. 2022, Orca, OSDI 22, section 3.2): rows whose answer has ended make room for the next request
while the others go on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from medtune.generation.draw import RowDraw
from medtune.generation.first_token import first_token_logprobs, score_token_ids
from medtune.generation.steps import LOOK_EVERY, Costs, DecodingSteps, row_buckets, whole_buckets
from medtune.types import Sampling

if TYPE_CHECKING:
    from medtune.generation.ahead import EncodedRequest
    from medtune.generation.sight import Sight
    from medtune.models.decoder import Decoder
    from medtune.models.encoder import Encoder

__all__ = ["PREFILL_TOKENS", "Answer", "ContinuousBatch"]

PREFILL_TOKENS = 8192
"""Prompt tokens that are read at once: enough to keep a GPU's multipliers busy, little enough for their activations to need a
gigabyte and a half at most."""


@dataclass(slots=True)
class Answer:
    """An answer under way, or done.

    Attributes:
        encoded: The request; without its pictures once the prompt has been read.
        ids: Generated so far; done: up to the first end token, without it.
        ended: At an end token.
        first_token_logprobs: See :class:`medtune.types.Generation`.
        seconds: Its share of the time: of each prefill and each run of steps it was part of, divided by the rows of that.
    """

    encoded: EncodedRequest
    ids: list[int] = field(default_factory=list)
    ended: bool = False
    first_token_logprobs: dict[str, float] | None = None
    seconds: float = 0.0

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.encoded.features.input_ids)


class ContinuousBatch:
    """Rows that answer requests of one sampling.

    Args:
        decoder: The model.
        encoder: Its encoder.
        rows: At most so many answers at a time.
        slots: Tokens of the longest prompt and answer together.
        end_token_ids: End an answer.
        sight: Sees pictures; None for a model of text.
        ready: Entered while the model's own modules run.
        look_every: Steps between two looks at what was generated, at most.

    Raises:
        torch.OutOfMemoryError: Here and in :meth:`admit` and :meth:`advance`; what the rows held is then lost.
    """

    def __init__(
        self,
        decoder: Decoder,
        encoder: Encoder,
        sampling: Sampling,
        *,
        rows: int,
        slots: int,
        end_token_ids: frozenset[int],
        sight: Sight | None,
        ready: Callable[[], AbstractContextManager[None]],
        look_every: int = LOOK_EVERY,
    ) -> None:
        self._decoder = decoder
        self._encoder = encoder
        self._sampling = sampling
        self._ends = end_token_ids
        self._sight = sight
        self._answers: list[Answer | None] = [None] * rows
        self._buckets = row_buckets(rows)
        self._draw: RowDraw | None = None
        if sampling.temperature > 0 or sampling.repetition_penalty != 1.0:
            self._draw = RowDraw(sampling, rows, decoder.vocab_size, decoder.device)
        self._ready = ready
        self._look_every = look_every
        with torch.inference_mode():
            self._steps = DecodingSteps(decoder, rows, slots, ready=ready, draw=self._draw)
        self._stride = 1
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0

    @property
    def costs(self) -> Costs:
        return self._steps.costs

    @property
    def slots(self) -> int:
        """Tokens that a row holds."""
        return self._steps.slots

    @property
    def num_free(self) -> int:
        return self._answers.count(None)

    @property
    def under_way(self) -> list[Answer]:
        """Answers that have not ended."""
        return [answer for answer in self._answers if answer is not None]

    @torch.inference_mode()
    def admit(self, requests: Sequence[EncodedRequest]) -> list[Answer]:
        """Read the prompts and write the first token of each answer; the answers that are done with it."""
        started = time.perf_counter()
        rows = [row for row, answer in enumerate(self._answers) if answer is None][: len(requests)]
        if len(rows) < len(requests):
            raise ValueError("more requests than free rows")
        new = [Answer(request) for request in requests]
        with self._ready():
            tokens = self._prefill(new, rows)
        for row, answer in zip(rows, new, strict=True):
            # The pixels have been seen, and their memory is page-locked.
            answer.encoded = dataclasses.replace(answer.encoded, pictures=())
            self._answers[row] = answer
        done = self._collect(rows, [[token] for token in tokens])
        self._stride = 1
        seconds = time.perf_counter() - started
        self._share(seconds, new)
        self.prefill_seconds += seconds
        return done

    def _prefill(self, answers: Sequence[Answer], rows: Sequence[int]) -> list[int]:
        """The first tokens."""
        device = self._decoder.device
        packed = self._encoder.pack([answer.encoded.features for answer in answers]).inputs
        lengths = [answer.num_prompt_tokens for answer in answers]
        positions = packed["position_ids"]
        # Where a prompt has pictures, the text behind them counts on from fewer than its tokens.
        last = torch.split(positions.reshape(-1, positions.shape[-1]).amax(dim=0), lengths)
        offsets = [int(part.max()) + 1 - len(part) for part in last]
        pictures = [picture for answer in answers for picture in answer.encoded.pictures]
        features = self._sight.features(pictures, device) if pictures and self._sight is not None else None
        scores = self._decoder.prefill(
            self._steps.cache,
            input_ids=packed["input_ids"].to(device),
            position_ids=positions.to(device),
            borders=packed["cu_seq_lens_q"].to(device),
            longest=max(lengths),
            rows=torch.tensor(rows).repeat_interleave(torch.tensor(lengths)).to(device),
            slots=torch.cat([torch.arange(length) for length in lengths]).to(device),
            features=features,
            places=packed["picture_places"].to(device) if features is not None else None,
        )
        for answer, row_scores in zip(answers, scores, strict=True):
            if answer.encoded.request.score_tokens:
                words = score_token_ids(self._encoder, answer.encoded.request.score_tokens)
                answer.first_token_logprobs = first_token_logprobs(row_scores, words)
        if self._draw is None:
            tokens = scores.argmax(dim=-1)
        else:
            for row, answer in zip(rows, answers, strict=True):
                self._draw.begin(row, answer.encoded.request.id, answer.encoded.features.input_ids)
            tokens = self._draw(scores, rows)
        self._steps.fill(rows, tokens, lengths, offsets)
        first: list[int] = tokens.tolist()
        return first

    @torch.inference_mode()
    def advance(self) -> list[Answer]:
        """Some steps of all rows; the answers that are done with them.

        One step first, then two, and so on up to :data:`~medtune.generation.steps.LOOK_EVERY`: many answers are one word.
        """
        started = time.perf_counter()
        self._close_up()
        busy = {row: answer for row, answer in enumerate(self._answers) if answer is not None}
        most = self._sampling.max_new_tokens
        steps = min(self._stride, self._look_every, *(most - len(answer.ids) for answer in busy.values()))
        self._stride *= 2
        rows = min(bucket for bucket in self._buckets if bucket > max(busy))
        longest = max(answer.num_prompt_tokens + len(answer.ids) for answer in busy.values())
        produced = self._steps.run(rows, min(whole_buckets(longest + steps), self._steps.slots), steps)
        done = self._collect(list(busy), [produced[row] for row in busy])
        seconds = time.perf_counter() - started
        self._share(seconds, list(busy.values()))
        self.decode_seconds += seconds
        return done

    def _close_up(self) -> None:
        """Move answers to the first rows, where fewer rows can then be computed."""
        busy = [row for row, answer in enumerate(self._answers) if answer is not None]
        fewest = min(bucket for bucket in self._buckets if bucket >= len(busy))
        sources = [row for row in busy if row >= fewest]
        if not sources:
            return
        targets = [row for row in range(fewest) if self._answers[row] is None][: len(sources)]
        self._steps.move(sources, targets)
        if self._draw is not None:
            self._draw.move(sources, targets)
        for source, target in zip(sources, targets, strict=True):
            self._answers[target], self._answers[source] = self._answers[source], None

    def _collect(self, rows: Sequence[int], produced: Sequence[Sequence[int]]) -> list[Answer]:
        """Note what was generated; the answers that are done, whose rows are free then."""
        done: list[Answer] = []
        free: list[int] = []
        for row, tokens in zip(rows, produced, strict=True):
            answer = self._answers[row]
            assert answer is not None
            for token in tokens:
                if token in self._ends:
                    answer.ended = True
                    break
                answer.ids.append(token)
            if answer.ended or len(answer.ids) >= self._sampling.max_new_tokens:
                done.append(answer)
                free.append(row)
        if free:
            self._steps.free(free)
        for row in free:  # not before: were memory to run out, they would be neither done nor under way
            self._answers[row] = None
        return done

    @staticmethod
    def _share(seconds: float, answers: Sequence[Answer]) -> None:
        for answer in answers:
            answer.seconds += seconds / len(answers)
