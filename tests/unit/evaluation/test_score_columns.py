"""Scores become columns of numbers a part at a time, and say what the objects said."""

from __future__ import annotations

import random

import pytest

from medtune.evaluation import score_columns
from medtune.evaluation.score_columns import ScoreColumns
from medtune.types import Score

SCORES = [
    score
    for number in range(40)
    for score in (
        Score(sample_id=f"s{number}", metric="plain", value=number % 3 / 2, statistics=(number % 3 / 2, 1.0)),
        Score(
            sample_id=f"s{number}", metric="gaps", value=None if number % 4 else 1.0, statistics=() if number % 4 else (1.0, 1.0)
        ),
        Score(
            sample_id=f"s{number}",
            metric="placed",
            value=1.0,
            statistics=(1.0,) * (number % 5 + 1),
            places=tuple(range(number % 7, number % 7 + number % 5 + 1)),
            width=3,
        ),
    )
    if number % 6 or score.metric != "plain"
]


@pytest.mark.parametrize("together", [1, 7, 8192])
@pytest.mark.parametrize("shuffled", [False, True])
def test_columns_hold_what_the_scores_say_in_whatever_order_they_come(
    together: int, shuffled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_columns, "_TOGETHER", together)
    scores = random.Random(1).sample(SCORES, len(SCORES)) if shuffled else SCORES
    columns = ScoreColumns.of(iter(scores))
    assert columns.sample_ids == list(dict.fromkeys(score.sample_id for score in scores))
    for metric in ("plain", "gaps", "placed"):
        mine = {score.sample_id: score for score in scores if score.metric == metric}
        assert dict(columns[metric]) == mine
        assert list(columns[metric]) == [name for name in columns.sample_ids if name in mine]


@pytest.mark.parametrize("together", [1, 8192])
def test_the_later_of_two_scores_counts(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_columns, "_TOGETHER", together)
    twice = [Score(sample_id=name, metric="m", value=value) for name, value in (("a", 0.0), ("b", 0.5), ("a", 1.0))]
    columns = ScoreColumns.of(twice)
    assert [(name, score.value) for name, score in columns["m"].items()] == [("a", 1.0), ("b", 0.5)]
