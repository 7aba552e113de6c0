"""Scoring as a stream: the same scores however many processes there are, from a file that holds every kind of fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medtune.evaluation import score as scoring
from medtune.evaluation.bootstrap import cluster_bootstrap
from medtune.evaluation.measure import ScoreTable, measure
from medtune.evaluation.metrics.additive import mean_of, statistics_of
from medtune.evaluation.predictions import read_predictions, read_scores
from medtune.evaluation.score import Metrics, load_metric, parse_generation, score_file
from medtune.evaluation.score_columns import sums_together
from medtune.types import Generation, Message, Prediction, Sample, Score

METRICS = Metrics(("closed", "rouge", "bleu"))


def sample(number: int) -> Sample:
    target = ["yes", "no", "no acute finding", "右肺结节"][number % 4]
    turns = (Message(role="user", content="?"), Message(role="assistant", content=target))
    return Sample(id=f"s{number}", task="closed-vqa", messages=turns, target=target, group=f"g{number // 2}", source="t")


def stored(path: Path, samples: list[Sample]) -> Path:
    """Every seventh sample has no prediction, every fifth failed; backwards, with a broken line in between."""
    lines = []
    for number, of in reversed(list(enumerate(samples))):
        if number % 7 == 0:
            continue
        reason = "error" if number % 5 == 0 else "stop"
        generation = Generation(
            id=of.id, text="" if reason == "error" else ["yes", "a nodule", ""][number % 3], finish_reason=reason
        )
        lines.append(Prediction(sample_id=of.id, generation=generation).model_dump_json())
    lines.insert(3, '{"broken')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_processes_and_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [sample(number) for number in range(60)]
    predictions = read_predictions(stored(tmp_path / "predictions.jsonl", samples), {of.id for of in samples})
    assert predictions.broken == (4,)
    whole = score_file(samples, predictions.predictions, METRICS, tmp_path / "whole.jsonl", processes=1)
    monkeypatch.setattr(scoring, "_ROWS", 7)
    parts = score_file(samples, predictions.predictions, METRICS, tmp_path / "parts.jsonl", processes=2)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (parts.num_predictions, parts.num_unparsed) == (whole.num_predictions, whole.num_unparsed)
    parsed = {
        of.id: parse_generation(prediction.generation, of)
        for of in samples
        if (prediction := predictions.predictions.get(of.id)) is not None
    }
    scores = list(read_scores(tmp_path / "parts.jsonl"))
    names = [of.id for of in samples]
    assert scores == sorted(scores, key=lambda score: names.index(score.sample_id)), "in the order of the samples"
    for of in samples:
        prediction = parsed.get(of.id)
        found = [score for score in scores if score.sample_id == of.id]
        assert found, "every sample is told of"
        if prediction is None or prediction.generation.finish_reason == "error":
            assert {(score.value, score.statistics) for score in found} == {(None, ())}
        else:
            assert found == [score for metric in METRICS.of(of.task) for score in metric.score(prediction, of)]
    assert parts.num_predictions == len(parsed) == 51
    assert parts.num_unparsed == sum(
        prediction.error is not None and prediction.generation.finish_reason != "error" for prediction in parsed.values()
    )
    assert parts.num_unparsed > 0


def test_columns_measure_as_objects_do(tmp_path: Path) -> None:
    samples = [sample(number) for number in range(60)]
    predictions = read_predictions(stored(tmp_path / "predictions.jsonl", samples), {of.id for of in samples}).predictions
    found = score_file(samples, predictions, METRICS, tmp_path / "scores.jsonl")
    scores = list(read_scores(tmp_path / "scores.jsonl"))
    values = {value.name: load_metric(name) for name in ("closed", "rouge", "bleu") for value in load_metric(name).values}
    tasks, groups = ({of.id: getattr(of, field) for of in samples} for field in ("task", "group"))
    columns = ScoreTable(found.columns, tasks, groups, values, num_resamples=200)
    objects = ScoreTable.build(scores, tasks, groups, values, num_resamples=200, seed=0)
    assert set(columns.scores) == set(objects.scores)
    for metric in objects.scores:
        assert list(columns.scores[metric]) == list(objects.scores[metric])
        assert measure(columns, metric) == measure(objects, metric)
        for name, score in objects.scores[metric].items():
            mine = columns.scores[metric][name]
            assert (mine.value, mine.statistics) == (
                score.value,
                score.statistics or (() if score.value is None else (score.value, 1.0)),
            )
    assert "s0" not in columns.scores["closed/specificity"], "a value that does not apply to a sample has no score"
    assert any(score.value is None for score in columns.scores["closed/accuracy"].values())


def test_columns_give_the_statistics_of_the_objects() -> None:
    """Two conditions that claim different findings, one sample unscored, one without a score."""
    plain = [
        [Score(sample_id="a", metric="m", value=1.0), Score(sample_id="b", metric="m", value=0.5, statistics=(1.0, 2.0))],
        [Score(sample_id="b", metric="m", value=0.25), Score(sample_id="a", metric="m", value=0.0, statistics=(0.0, 3.0))],
    ]
    placed = [
        [
            Score(sample_id="a", metric="m", value=1.0, statistics=(1.0, 2.0), places=(7, 3), width=3),
            Score(sample_id="b", metric="m", value=1.0, statistics=(4.0,), places=(2**52,), width=3),
        ],
        [
            Score(sample_id="a", metric="m", value=0.0, statistics=(0.0,), places=(0,), width=3),
            Score(sample_id="b", metric="m", value=1.0, statistics=(5.0, 6.0, 7.0), places=(20, 7, 8), width=3),
        ],
    ]
    for pair in (plain, placed):
        tables = [
            ScoreTable.build([*scores, Score(sample_id="c", metric="m", value=None)], {}, {}, {}, num_resamples=1, seed=0)
            for scores in pair
        ]
        columns = [table.scores["m"] for table in tables]
        assert [table.is_scored("m", ["c", "b", "nobody", "a"]).tolist() for table in tables] == [[False, True, False, True]] * 2
        objects = [{score.sample_id: score for score in scores} for scores in pair]
        for ids in (["a", "b"], ["b", "a"], ["a"]):
            expected = statistics_of([of[name] for of in objects for name in ids])
            alone = sums_together(columns, ids, np.arange(len(ids)))
            assert np.array_equal(np.concatenate(alone.of), expected)
            together = sums_together(columns, ids, np.full(len(ids), 7))
            assert np.array_equal(np.concatenate(together.of), expected.reshape(2, len(ids), -1).sum(axis=1))
            assert together.sizes.tolist() == [len(ids)]


def test_groups_by_number_are_drawn_as_groups_by_name() -> None:
    groups = {f"s{number}": name for number, name in enumerate(["b", "ä", "a10", "a9", "Z", "b", "中"] * 3)}
    table = ScoreTable.build([], {}, groups, {}, num_resamples=1, seed=0)
    statistics = np.array([[float(number % 5), 1.0] for number in range(len(groups))])
    by_number = cluster_bootstrap(statistics, table.groups_of(list(groups)), mean_of, num_resamples=200, seed=3)
    assert by_number == cluster_bootstrap(statistics, list(groups.values()), mean_of, num_resamples=200, seed=3)


def test_nothing_is_written_when_scoring_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [sample(number) for number in range(9)]
    predictions = read_predictions(stored(tmp_path / "predictions.jsonl", samples), {of.id for of in samples}).predictions
    monkeypatch.setattr(scoring, "_ROWS", 3)
    calls = iter([True, False])
    judge = scoring.judge_rows

    def fail_later(*arguments: object) -> dict[str, object]:
        if not next(calls):
            raise KeyboardInterrupt
        return judge(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring, "judge_rows", fail_later)
    with pytest.raises(KeyboardInterrupt):
        score_file(samples, predictions, METRICS, tmp_path / "scores.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl"]
