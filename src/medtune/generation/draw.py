"""How the next token is drawn, so that a row's text does not depend on the rows beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

from medtune.generation.first_token import first_token_logprobs
from medtune.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FirstScores", "GumbelDraw", "Nucleus", "PaddingBlindPenalty", "RowDraw", "logits_processors"]

_CANDIDATES = 1024
"""Of the most probable tokens, among which the end of a nucleus is looked for first. A larger nucleus is rare, and costs a sort."""


class GumbelDraw(LogitsProcessor):
    """Turns the arg-max that follows into a draw from softmax(scores), each row with a random generator of its own.

    If g_i are independent Gumbel(0, 1) then arg max_i (scores_i + g_i) is distributed as softmax(scores) (Gumbel 1954; Maddison
    et al. 2014, arXiv:1411.0030). ``torch.multinomial`` would take all rows from one stream, and a row's text would change
    with its place in the batch.

    Args:
        seeds: One for each row of the batch.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """``scores`` (B, vocabulary) with noise; what the filters before have set to -inf stays there."""
        noise = torch.stack(
            [torch.empty_like(row).exponential_(generator=source) for row, source in zip(scores, self._generators, strict=True)]
        )
        return scores - noise.log()


class FirstScores(LogitsProcessor):
    """Changes nothing, and remembers of the first scores how probable given tokens are.

    Args:
        words: For each row the token of each word that is asked for, or None.
    """

    def __init__(self, words: Sequence[Mapping[str, int] | None]) -> None:
        self._words = words
        self.logprobs: list[dict[str, float] | None] = []
        """For each row the natural logarithms of the probabilities, once the first step has run."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        if not self.logprobs:
            rows = zip(scores, self._words, strict=True)
            self.logprobs = [None if words is None else first_token_logprobs(row, words) for row, words in rows]
        return scores


class Nucleus(LogitsProcessor):
    """Keeps the smallest set of most probable tokens whose probabilities reach ``top_p`` (Holtzman et al. 2020,
    arXiv:1904.09751, section 3.1), and the tokens that are as probable as its last.

    transformers sorts the whole vocabulary of every row at every step. Here the sum runs over the most probable tokens alone, from
    the largest down, which is also the more exact way to add them: the two differ where the sum comes within a rounding of
    ``top_p``. A row whose candidates do not reach it is sorted whole, whatever the rows beside it need. The host waits for the
    device once a step.

    Args:
        top_p: Above 0, below 1.
        candidates: Tokens that are looked at before a whole row is sorted.
    """

    def __init__(self, top_p: float, *, candidates: int = _CANDIDATES) -> None:
        self._top_p = top_p
        self._candidates = candidates

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """``scores`` (B, vocabulary), -inf where a token is not kept."""
        probabilities = scores.softmax(dim=-1)
        largest = probabilities.topk(min(self._candidates, scores.shape[-1]), dim=-1).values
        least = self._least(largest)
        if largest.shape[-1] < scores.shape[-1]:
            open_rows = (largest.sum(dim=-1) < self._top_p).nonzero()[:, 0]
            if len(open_rows):
                least[open_rows] = self._least(probabilities[open_rows].sort(dim=-1, descending=True).values)
        return scores.masked_fill(probabilities < least, -torch.inf)

    def _least(self, largest: Tensor) -> Tensor:
        """(B, 1) the smallest probability that is kept, of (B, n) in descending order."""
        before = largest.cumsum(dim=-1) - largest
        # The first has nothing before it and is always kept.
        last = (before < self._top_p).sum(dim=-1, keepdim=True).clamp(min=1) - 1
        return largest.gather(-1, last)


class PaddingBlindPenalty(LogitsProcessor):
    """The repetition penalty of Keskar et al. 2019 (arXiv:1909.05858) over prompt and answer, as transformers applies it.

    Except that padding does not count as said before. Qwen pads with ``<|endoftext|>``, which also ends an answer: penalising
    it in the rows that happen to be padded makes their answers longer than they would be alone.

    Args:
        padding: (B, T) bool, True where the prompt is padding (at the left).
    """

    def __init__(self, penalty: float, padding: Tensor) -> None:
        self._penalise = RepetitionPenaltyLogitsProcessor(penalty)
        self._padding = padding

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        said = input_ids.clone()
        prompt = said[:, : self._padding.shape[1]]
        # The last prompt token is never padding, and naming a token twice changes nothing.
        prompt[self._padding] = prompt[:, -1:].expand_as(prompt)[self._padding]
        penalised: Tensor = self._penalise(said, scores)
        return penalised


def logits_processors(sampling: Sampling, ids: Sequence[str], attention_mask: Tensor) -> LogitsProcessorList:
    """What turns the model's scores into those whose arg-max is the next token.

    Args:
        ids: Request ids of the B rows; with the seed they fix each row's draw.
        attention_mask: (B, T) of the left-padded prompts.
    """
    steps: list[LogitsProcessor] = []
    if sampling.repetition_penalty != 1.0:
        steps.append(PaddingBlindPenalty(sampling.repetition_penalty, attention_mask == 0))
    if sampling.temperature > 0:
        steps += _filters(sampling)
        steps.append(GumbelDraw([_row_seed(sampling.seed, name) for name in ids], attention_mask.device))
    return LogitsProcessorList(steps)


class RowDraw:
    """The same draws as :func:`logits_processors` makes, for rows that begin and end at different times.

    Args:
        sampling: Of all rows.
        rows: How many there are room for.
        vocab_size: Scores of a row.
    """

    def __init__(self, sampling: Sampling, rows: int, vocab_size: int, device: torch.device) -> None:
        self._sampling = sampling
        self._device = device
        self._filters = _filters(sampling) if sampling.temperature > 0 else []
        self._generators: list[torch.Generator | None] = [None] * rows
        self._said: Tensor | None = None
        if sampling.repetition_penalty != 1.0:
            self._said = torch.zeros(rows, vocab_size, dtype=torch.bool, device=device)

    def begin(self, row: int, name: str, prompt_ids: Tensor) -> None:
        """A row answers the request ``name`` from here on, whose prompt is (T,)."""
        if self._sampling.temperature > 0:
            seed = _row_seed(self._sampling.seed, name)
            self._generators[row] = torch.Generator(device=self._device).manual_seed(seed)
        if self._said is not None:
            self._said[row] = False
            self._said[row, prompt_ids.to(self._device)] = True

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Rows have moved; their sources are free."""
        for source, target in zip(sources, targets, strict=True):
            self._generators[target], self._generators[source] = self._generators[source], None
            if self._said is not None:
                self._said[target] = self._said[source]

    def __call__(self, scores: Tensor, rows: Sequence[int]) -> Tensor:
        """(n, vocabulary) float32 of the rows -> (n,) their next tokens."""
        if self._said is not None:
            said = self._said[list(rows)]
            penalty = self._sampling.repetition_penalty
            scores = torch.where(said, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
        ids: Any = None  # no filter looks at them
        for step in self._filters:
            scores = step(ids, scores)
        if self._sampling.temperature > 0:
            noise = torch.ones_like(scores)
            for place, row in enumerate(rows):
                if (source := self._generators[row]) is not None:
                    noise[place].exponential_(generator=source)
            scores = scores - noise.log()
        tokens = scores.argmax(dim=-1)
        if self._said is not None:
            self._said[list(rows), tokens] = True
        return tokens


def _filters(sampling: Sampling) -> list[LogitsProcessor]:
    steps: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k > 0:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        steps.append(Nucleus(sampling.top_p))
    return steps


def _row_seed(seed: int, name: str) -> int:
    """63 bits that differ between requests, so that equal prompts under other ids are independent draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{name}".encode()).digest()[:8]) >> 1
