"""Drawing tokens row by row."""

from __future__ import annotations

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from medtune.generation.draw import GumbelDraw, PaddingBlindPenalty, logits_processors
from medtune.types import Sampling

NO_IDS = torch.zeros((1, 0), dtype=torch.int64)


def test_draws_follow_the_softmax() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    draw = GumbelDraw([7], torch.device("cpu"))
    scores = probabilities.log()[None]
    counts = torch.zeros(5)
    num_draws = 20_000
    for _ in range(num_draws):
        counts[draw(NO_IDS, scores).argmax()] += 1
    # Four standard deviations of a binomial share.
    tolerance = 4 * (probabilities * (1 - probabilities) / num_draws).sqrt()
    assert ((counts / num_draws - probabilities).abs() <= tolerance).all()
    assert counts[4] == 0


def test_a_row_draws_alike_wherever_it_stands() -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    together = GumbelDraw([1, 2, 3], torch.device("cpu"))(NO_IDS, scores)
    alone = GumbelDraw([3], torch.device("cpu"))(NO_IDS, scores[2:])
    assert torch.equal(together[2:], alone)
    assert not torch.equal(together[0], together[1])


def test_padding_does_not_count_as_said() -> None:
    pad = 9
    ids = torch.tensor([[pad, pad, 4, 5, 6]])  # two of padding, two of prompt, one generated
    scores = torch.ones(1, 10)
    penalised = PaddingBlindPenalty(2.0, torch.tensor([[True, True, False, False]]))(ids, scores)
    assert penalised[0].tolist() == [1, 1, 1, 1, 0.5, 0.5, 0.5, 1, 1, 1]
    # Without padding it is the penalty of transformers.
    whole = ids[:, 2:]
    expected = RepetitionPenaltyLogitsProcessor(2.0)(whole, scores)
    assert torch.equal(PaddingBlindPenalty(2.0, torch.zeros(1, 2, dtype=torch.bool))(whole, scores), expected)


@pytest.mark.parametrize(
    ("sampling", "steps"),
    [
        (Sampling(), []),
        (Sampling(top_p=0.5, top_k=3, seed=4), []),  # without a temperature nothing is drawn
        (Sampling(repetition_penalty=1.1), ["PaddingBlindPenalty"]),
        (Sampling(temperature=0.7), ["TemperatureLogitsWarper", "GumbelDraw"]),
        (
            Sampling(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1),
            ["PaddingBlindPenalty", "TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper", "GumbelDraw"],
        ),
    ],
)
def test_steps(sampling: Sampling, steps: list[str]) -> None:
    processors = logits_processors(sampling, ["a"], torch.ones(1, 3, dtype=torch.int64))
    assert [type(processor).__name__ for processor in processors] == steps
