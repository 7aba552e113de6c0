"""Predictions -> scores: read each answer with its task, judge it with the task's metrics. No model is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from medtune.plugins import resolve_stored
from medtune.types import Generation, Metric, MetricValue, Prediction, Sample, Score, Task

__all__ = ["Metrics", "load_metric", "parse_generation", "score_predictions"]


@cache
def load_task(name: str) -> Task:
    found = resolve_stored("task", name)
    return cast("Task", found() if isinstance(found, type) else found)


@cache
def load_metric(name: str) -> Metric:
    """The registered metric ``name``, with its default settings.

    Raises:
        PluginError: There is none.
    """
    found = resolve_stored("metric", name)
    return cast("Metric", found() if isinstance(found, type) else found)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Which metrics judge which samples: each task's own, or ``override`` for all."""

    override: tuple[str, ...] | None = None

    def of(self, task: str) -> list[Metric]:
        """The metrics that judge samples of ``task``."""
        names = load_task(task).metrics if self.override is None else self.override
        return [load_metric(name) for name in names]

    def values(self, tasks: Iterable[str]) -> dict[str, tuple[MetricValue, Metric]]:
        """What the metrics of ``tasks`` report, by name, in the order in which the tasks bring them, and who reports it."""
        return {value.name: (value, metric) for task in dict.fromkeys(tasks) for metric in self.of(task) for value in metric.values}


def parse_generation(generation: Generation, sample: Sample, *, image_sha256: tuple[str, ...] = ()) -> Prediction:
    """Read a raw text with its sample's task. What cannot be read is a prediction too: one with an error and no answer."""
    answer, error = None, None
    if generation.finish_reason == "error":
        error = "the generation failed"
    else:
        try:
            answer = load_task(sample.task).parse(generation.text, sample)
        except ValueError as fault:
            error = str(fault) or "the answer cannot be read"
    return Prediction(sample_id=sample.id, generation=generation, answer=answer, error=error, image_sha256=image_sha256)


def score_predictions(samples: Sequence[Sample], predictions: Mapping[str, Prediction], metrics: Metrics) -> list[Score]:
    """Scores of every sample, in the order of ``samples``.

    A sample without a prediction, or whose generation failed, is unscored on every value that applies to it (no number,
    no statistics). An answer that was generated but cannot be read is the metric's to judge.
    """
    scores: list[Score] = []
    for sample in samples:
        prediction = predictions.get(sample.id)
        if prediction is None or prediction.generation.finish_reason == "error":
            reason = "no prediction" if prediction is None else "the generation failed"
            nothing = Generation(id=sample.id, text="", finish_reason="error")
            stand_in = Prediction(sample_id=sample.id, generation=nothing, error=reason)
            for metric in metrics.of(sample.task):
                scores.extend(
                    Score(sample_id=sample.id, metric=score.metric, value=None, explanation=reason)
                    for score in metric.score(stand_in, sample)
                )
            continue
        for metric in metrics.of(sample.task):
            scores.extend(metric.score(prediction, sample))
    return scores
