"""The contract of a metric, over every registered name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from medtune.evaluation.metrics.additive import statistics_of
from medtune.plugins import names, resolve
from medtune.types import Generation, ImageRef, Message, Metric, Prediction, Sample, Score

ELSEWHERE = ("semantic", "radgraph", "chexbert", "radbert-ct", "green", "ratescore", "srrbert", "calibration")
"""Metrics of optional packages with weights, and one that judges probabilities instead of texts: they have tests of their own."""
NAMES = [name for name in names("metric") if name not in ELSEWHERE]

METADATA: dict[str, Any] = {
    "box": [0.0, 0.0, 32.0, 16.0],
    "kind": "meningioma",
    "side": "right",
    "horizontal": "left",
    "vertical": "upper",
    "area_percent": 4.1,
    "density": "hyperdense",
    "organ": "brain",
}
PROSE = "On the left side and in the upper part of the image, 4.1% of it: a hyperdense meningioma of the right frontal lobe."
TARGETS = {
    "closed-vqa": "yes",
    "detection": '{"bbox_2d": [0, 0, 500, 500], "label": "meningioma"}',
    "json-record": '{"caption": "Head CT", "notes": "none"}',
}
OF_METRIC = {"choice": "B", "sections": "Findings: A clear lung. Impression: Normal."}
"""Reference answers for metrics that judge one form only of what their tasks hold."""
OPTIONAL = {"strict": "closed-vqa", "llava-med-v1": "closed-vqa", "medevalkit-nojudge": "closed-vqa"}
"""Metrics that are asked for by name: no task names them."""
TASKS = {name: [task for task in names("task") if name in resolve("task", task)().metrics] or [OPTIONAL[name]] for name in NAMES}


def sample(task: str, *, target: str | None = None, metadata: dict[str, Any] | None = None) -> Sample:
    target = TARGETS.get(task, PROSE) if target is None else target
    return Sample(
        id="r",
        task=task,
        images=(ImageRef(path="images/x.png", sha256="0" * 64, width=64, height=32),),
        messages=(Message(role="user", content="<image>?"), Message(role="assistant", content=target)),
        target=target,
        group="g",
        source="t",
        metadata=METADATA if metadata is None else metadata,
    )


def said(text: str, of: Sample) -> Prediction:
    generation = Generation(id="r", text=text, finish_reason="stop")
    try:
        return Prediction(sample_id="r", generation=generation, answer=resolve("task", of.task)().parse(text, of))
    except ValueError as error:
        return Prediction(sample_id="r", generation=generation, error=str(error))


def check(metric: Metric, scores: tuple[Score, ...]) -> None:
    known = {value.name: value for value in metric.values}
    assert len({score.metric for score in scores}) == len(scores), "one score for each value"
    for score in scores:
        assert score.sample_id == "r"
        value = known[score.metric]
        if score.value is None:
            assert score.statistics == ()
            continue
        assert value.low <= score.value <= value.high
        json.dumps(score.model_dump(), allow_nan=False)
        statistics = statistics_of([score])[0]
        number = metric.aggregate(score.metric, statistics)
        assert np.shape(number) == ()
        assert np.isnan(number) or value.low - 1e-9 <= float(number) <= value.high + 1e-9


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_others_are_metrics_too(name: str) -> None:
    assert isinstance(resolve("metric", name)(), Metric)


def test_every_built_in_metric_is_here_and_used() -> None:
    assert len(NAMES) >= 8
    assert all(TASKS.values()), "each metric judges some task"


@pytest.mark.parametrize("name", NAMES)
def test_it_follows_the_protocol(name: str) -> None:
    metric = resolve("metric", name)()
    assert isinstance(metric, Metric)
    assert metric.name == name
    assert metric.values
    assert all(value.name.startswith(f"{name}/") and value.low < value.high and value.title for value in metric.values)
    assert len({value.name for value in metric.values}) == len(metric.values)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_the_best_answer(name: str) -> None:
    """The reference itself reaches the best end of every range, but for LLaMA-Factory's, which cannot."""
    metric = resolve("metric", name)()
    for task in TASKS[name]:
        of = sample(task, target=OF_METRIC.get(name))
        scores = metric.score(said(of.target, of), of)
        check(metric, scores)
        assert any(score.value is not None for score in scores)
        for score in scores:
            value = next(value for value in metric.values if value.name == score.metric)
            if score.value is not None and name != "llamafactory" and value.direction != "neither":
                best = value.high if value.direction == "higher" else value.low
                assert score.value == pytest.approx(best, abs=0.2 if score.metric == "region/centre-error" else 1e-6), score.metric


@pytest.mark.parametrize("text", ["", "I cannot tell.", "\x00", "{", "[]", "NaN", "100%", "是", "x" * 3000])
@pytest.mark.parametrize("name", NAMES)
def test_no_answer_brings_it_down(name: str, text: str) -> None:
    metric = resolve("metric", name)()
    for task in TASKS[name]:
        of = sample(task, target=OF_METRIC.get(name))
        check(metric, metric.score(said(text, of), of))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_answer_is_never_credited(name: str) -> None:
    metric = resolve("metric", name)()
    for task in TASKS[name]:
        of = sample(task, target=OF_METRIC.get(name))
        for score in metric.score(said("", of), of):
            value = next(value for value in metric.values if value.name == score.metric)
            if value.direction == "higher":
                assert score.value in (value.low, None)
            elif value.direction == "lower" and score.metric != "closed/yes-bias":
                # Counts have no worst value; the best they must not have.
                assert score.value is None or score.value > value.low


@pytest.mark.parametrize("name", [name for name in NAMES if name != "llamafactory"])
def test_without_a_truth_there_is_no_number(name: str) -> None:
    """LLaMA-Factory's own rule is another: it counts an empty reference as 0."""
    metric = resolve("metric", name)()
    for task in TASKS[name]:
        blank = sample(task, target=" ", metadata={})
        scores = metric.score(said(PROSE, blank), blank)
        assert all(score.value is None and score.statistics == () for score in scores)


@pytest.mark.parametrize("name", NAMES)
def test_statistics_add_up_in_any_shape(name: str) -> None:
    metric = resolve("metric", name)()
    of = sample(TASKS[name][0], target=OF_METRIC.get(name))
    for score in metric.score(said(of.target, of), of):
        if score.value is None:
            continue
        one = statistics_of([score])[0]
        stacked = np.stack([np.stack([one, 2 * one, 5 * one]), np.zeros((3, len(one)))])
        numbers = metric.aggregate(score.metric, stacked)
        assert numbers.shape == (2, 3)
        assert numbers[0] == pytest.approx(float(metric.aggregate(score.metric, one)), nan_ok=True)
        assert np.isnan(numbers[1]).all(), "nothing summed is no number"


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_value_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        resolve("metric", name)().aggregate(f"{name}/nonsense", np.ones(2))
