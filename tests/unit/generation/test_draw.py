"""Drawing tokens row by row."""

from __future__ import annotations

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from medtune.generation.draw import GumbelDraw, Nucleus, PaddingBlindPenalty, logits_processors
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
            ["PaddingBlindPenalty", "TemperatureLogitsWarper", "TopKLogitsWarper", "Nucleus", "GumbelDraw"],
        ),
    ],
)
def test_steps(sampling: Sampling, steps: list[str]) -> None:
    processors = logits_processors(sampling, ["a"], torch.ones(1, 3, dtype=torch.int64))
    assert [type(processor).__name__ for processor in processors] == steps


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("candidates", [1, 16, 4000])
def test_a_nucleus_is_that_of_a_sorted_vocabulary(top_p: float, candidates: int) -> None:
    """Rows from nearly certain to nearly even: some end among the candidates, some do not."""
    spread = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.2])[:, None]
    scores = torch.randn(5, 3000, generator=torch.Generator().manual_seed(1)) * spread
    scores[1, ::3] = -torch.inf  # what another filter has taken out
    kept = Nucleus(top_p, candidates=candidates)(NO_IDS, scores)
    assert torch.equal(kept, TopPLogitsWarper(top_p)(NO_IDS, scores))
    assert (kept.isfinite().sum(dim=-1) >= 1).all()


def test_the_least_probable_of_a_nucleus_brings_those_that_are_its_equals() -> None:
    probabilities = torch.tensor([[0.4, 0.2, 0.2, 0.2]])
    assert Nucleus(0.5)(NO_IDS, probabilities.log()).isfinite().tolist() == [[True] * 4]
    assert Nucleus(0.3)(NO_IDS, probabilities.log()).isfinite().tolist() == [[True, False, False, False]]


def test_a_nucleus_does_not_depend_on_the_rows_beside_it() -> None:
    scores = torch.randn(4, 3000, generator=torch.Generator().manual_seed(2)) * torch.tensor([6.0, 0.1, 3.0, 0.1])[:, None]
    together = Nucleus(0.95, candidates=64)(NO_IDS, scores)
    for row in range(4):
        assert torch.equal(together[row : row + 1], Nucleus(0.95, candidates=64)(NO_IDS, scores[row : row + 1]))
