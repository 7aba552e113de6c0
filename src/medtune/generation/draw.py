"""How the next token is drawn, so that a row's text does not depend on the rows beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from medtune.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GumbelDraw", "PaddingBlindPenalty", "logits_processors"]


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
        steps.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k > 0:
            steps.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            steps.append(TopPLogitsWarper(sampling.top_p))
        steps.append(GumbelDraw([_row_seed(sampling.seed, name) for name in ids], attention_mask.device))
    return LogitsProcessorList(steps)


def _row_seed(seed: int, name: str) -> int:
    """63 bits that differ between requests, so that equal prompts under other ids are independent draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{name}".encode()).digest()[:8]) >> 1
