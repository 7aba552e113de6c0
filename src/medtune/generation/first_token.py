"""How probable the model finds given words as the first token of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from medtune.models.encoder import Encoder

__all__ = ["first_token_logprobs", "score_token_ids"]


def score_token_ids(encoder: Encoder, words: Sequence[str]) -> dict[str, int]:
    """The token of each word that is a single one; of others the probability is not that of a first token, and they are absent."""
    ids: dict[str, int] = {}
    for word in words:
        tokens = encoder.tokenizer(word, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        if len(tokens) == 1:
            ids[word] = int(tokens[0])
    return ids


def first_token_logprobs(scores: Tensor, ids: Mapping[str, int]) -> dict[str, float]:
    """log softmax(scores)[id] of each word, in float32.

    Args:
        scores: (vocabulary,) logits of the answer's first token, before any logits processor.
        ids: From :func:`score_token_ids`.
    """
    logprobs = scores.float().log_softmax(-1)
    return {word: float(logprobs[token]) for word, token in ids.items()}
