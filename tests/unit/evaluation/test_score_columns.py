"""Scores become columns of numbers a part at a time, and say what the objects said."""

from __future__ import annotations

import gc
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from medtune.evaluation import score_columns
from medtune.evaluation.score_columns import Part, SampleNumbers, ScoreColumns, parts_of
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


def test_columns_of_several_conditions_share_numbers_and_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtune.evaluation.score_columns._IN_MEMORY", 1000)
    numbers = SampleNumbers()
    names = [f"s{place}" for place in range(400)]
    tables = [ScoreColumns(numbers, tmp_path), ScoreColumns(numbers, tmp_path)]
    for columns, mine in ((tables[0], names), (tables[1], names[::-2])):
        for start in range(0, len(mine), 100):
            some = mine[start : start + 100]
            scores = [Score(sample_id=name, metric="m/a", value=int(name[1:]) / 7, statistics=(3.0, 300.0)) for name in some]
            columns.add(some, parts_of(enumerate(scores)))
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    assert tables[0].sample_ids is tables[1].sample_ids
    for columns, mine in ((tables[0], names), (tables[1], names[1::2])):
        assert list(columns["m/a"]) == mine
        assert columns["m/a"][mine[-1]] == Score(
            sample_id=mine[-1], metric="m/a", value=int(mine[-1][1:]) / 7, statistics=(3.0, 300.0)
        )
        assert columns["m/a"].whole.statistics.dtype == np.uint16
    assert "s0" not in tables[1]["m/a"]


def test_memory_does_not_grow_with_the_columns(tmp_path: Path) -> None:
    def peak(num_metrics: int) -> int:
        values = np.random.default_rng(0).random((20_000, 3))
        part = Part(np.arange(20_000, dtype=np.int32), values[:, 0].copy(), values)
        names = [f"s{place}" for place in range(20_000)]
        tracemalloc.start()
        columns = ScoreColumns(folder=tmp_path)
        for number in range(num_metrics):
            columns.add(names, {f"m/{number}": part})
        for metric in columns:
            assert columns[metric].whole.statistics.shape == (20_000, 3)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # Other threads of the process, whatever they are doing, can only add to it.
    few, many = (min(peak(num_metrics) for _ in range(3)) for num_metrics in (8, 40))
    of_one_column = 20_000 * 36
    assert many < few + 8 * of_one_column, (few, many)


def test_the_file_is_closed_with_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtune.evaluation.score_columns._IN_MEMORY", 10)
    columns = ScoreColumns.of(SCORES)
    file = columns._file
    del columns
    gc.collect()
    assert file.closed
