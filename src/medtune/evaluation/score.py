"""Predictions -> scores: read each answer with its task, judge it with the task's metrics. No model is needed.

Scoring is a stream: samples and predictions are read a few hundred at a time, judged by as many processes as there are cores, and
written to ``scores.jsonl``; columns of numbers are all that stays. A score depends on its sample alone, so the number of processes
changes nothing.
"""

from __future__ import annotations

import os
import queue
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from medtune.errors import EvaluationError, MedtuneError
from medtune.evaluation.prediction_lines import PredictionLines
from medtune.evaluation.predictions import MAX_CHARACTERS
from medtune.evaluation.score_columns import Part, SampleNumbers, ScoreColumns, parts_of
from medtune.imaging.child import Child, ChildDiedError
from medtune.language import msg
from medtune.plugins import resolve_stored
from medtune.runs import atomic_file
from medtune.types import Generation, Metric, MetricValue, Prediction, Sample, Score, Task

__all__ = ["Metrics", "Scored", "judge_rows", "load_metric", "parse_generation", "score_file"]


@cache
def load_task(name: str) -> Task:
    found = resolve_stored("task", name)
    return cast("Task", found() if isinstance(found, type) else found)


def score_tokens(task: str) -> tuple[str, ...]:
    """Words whose probability as an answer's first token is wanted: the task's ``score_tokens``, where it has any."""
    words: tuple[str, ...] = getattr(load_task(task), "score_tokens", ())
    return words


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
    """Read a raw text with its sample's task. What cannot be read is a prediction too: one with an error and no answer.

    Raises:
        EvaluationError: The task fails with anything but a ValueError, which is a defect of its ``parse``.
    """
    answer, error = None, None
    if generation.finish_reason == "error":
        error = "the generation failed"
    else:
        try:
            answer = load_task(sample.task).parse(generation.text[:MAX_CHARACTERS], sample)
        except ValueError as fault:
            error = str(fault) or "the answer cannot be read"
        except (MedtuneError, MemoryError):
            raise
        except Exception as fault:
            raise EvaluationError(
                msg("The task {task} fails on this answer ({error}).", task=sample.task, error=_described(fault)),
                sample=sample.id,
                remedy=msg("Mend its parse, which may raise ValueError only; then evaluate again: stored answers are kept."),
            ) from fault
    return Prediction(sample_id=sample.id, generation=generation, answer=answer, error=error, image_sha256=image_sha256)


def _judge(sample: Sample, prediction: Prediction | None, metrics: Metrics) -> list[Score]:
    """The scores of one sample.

    Without a prediction, or where its generation failed, it is unscored on every value that applies to it (no number, no
    statistics). An answer that was generated but cannot be read is the metric's to judge.
    """
    if prediction is not None and prediction.generation.finish_reason != "error":
        if len(prediction.generation.text) > MAX_CHARACTERS:
            start = prediction.generation.model_copy(update={"text": prediction.generation.text[:MAX_CHARACTERS]})
            prediction = prediction.model_copy(update={"generation": start})
        return [score for metric in metrics.of(sample.task) for score in _scores(metric, prediction, sample)]
    reason = "no prediction" if prediction is None else "the generation failed"
    nothing = Generation(id=sample.id, text="", finish_reason="error")
    stand_in = Prediction(sample_id=sample.id, generation=nothing, error=reason)
    return [
        Score(sample_id=sample.id, metric=score.metric, value=None, explanation=reason)
        for metric in metrics.of(sample.task)
        for score in _scores(metric, stand_in, sample)
    ]


def _scores(metric: Metric, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
    try:
        return tuple(metric.score(prediction, sample))
    except (MedtuneError, MemoryError):
        raise
    except Exception as fault:
        raise EvaluationError(
            msg("The metric {metric} fails on this answer ({error}).", metric=metric.name, error=_described(fault)),
            sample=sample.id,
            remedy=msg("Mend the metric or leave it out of evaluation.metrics; then score again: stored answers are kept."),
        ) from fault


def _described(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}".splitlines()[0]


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known of a condition after scoring.

    Attributes:
        columns: Metric value -> sample id -> score.
        num_predictions: Samples with a prediction.
        num_unparsed: Of these, how many answers their task could not read; failed generations are not among them.
    """

    columns: ScoreColumns
    num_predictions: int
    num_unparsed: int


_ROWS = 256
"""Samples that are read and judged together."""
_ALONE_UP_TO = 2048
"""Samples that are judged in this process: other processes take about a second to start and to load jieba's dictionary."""
_SILENCE_S = 3600.0
"""A few answers of a million characters may keep a process busy for long."""


def score_file(
    samples: Sequence[Sample],
    predictions: PredictionLines,
    metrics: Metrics,
    file: Path,
    *,
    numbers: SampleNumbers | None = None,
    processes: int | None = None,
) -> Scored:
    """Read, judge and write the scores of every sample to ``file``, in the order of ``samples``.

    The raw texts are read again: a task may have learnt to read more since they were generated. A lazy sequence
    (:meth:`medtune.data.dataset.Dataset.sequence`) is gone through once, so that memory does not grow with the texts.

    Args:
        numbers: Of the samples, where other conditions share them.
        processes: Worker processes; 1 = this one. When not given, as many as there are cores, where there are enough samples.
            Metrics and tasks that are no registered names are judged in this process.

    Raises:
        RunError: ``file`` cannot be written.
    """
    columns = ScoreColumns(numbers, file.parent)
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = processes if len(samples) > _ALONE_UP_TO else 1
    if any(":" in name for name in metrics.override or ()):
        processes = 1
    num_predictions = num_unparsed = 0
    with atomic_file(file) as lines:
        for judged in _judged(_rows(samples, predictions), metrics.override, processes):
            lines.write(judged["lines"])
            columns.add(judged["ids"], {metric: _unpacked(part) for metric, part in judged["parts"].items()})
            num_predictions += judged["predictions"]
            num_unparsed += judged["unparsed"]
    return Scored(columns, num_predictions, num_unparsed)


Rows = list[tuple[Sample, bytes | None]]
"""Samples with the line of their prediction."""


def _rows(samples: Iterable[Sample], predictions: PredictionLines) -> Iterator[Rows]:
    left = iter(samples)
    while some := list(islice(left, _ROWS)):
        yield list(zip(some, predictions.lines(sample.id for sample in some), strict=True))


def _judged(rows: Iterable[Rows], override: tuple[str, ...] | None, processes: int) -> Iterator[dict[str, Any]]:
    """What :func:`judge_rows` returns of each, in order."""
    if processes == 1:
        for some in rows:
            yield judge_rows(some, override)
        return
    idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
    children = [Child(seconds=_SILENCE_S) for _ in range(processes)]

    def judge(some: Rows) -> dict[str, Any]:
        if any(":" in sample.task for sample, _ in some):
            return judge_rows(some, override)
        child = idle.get()
        try:
            found: dict[str, Any] = child.call("medtune.evaluation.score:judge_rows", some, override)
        except ChildDiedError:  # out of its memory, say: this process has no limit
            found = judge_rows(some, override)
        finally:
            idle.put(child)
        return found

    for child in children:
        idle.put(child)
    try:
        with ThreadPoolExecutor(processes) as threads:
            waiting: deque[Future[dict[str, Any]]] = deque()
            for some in rows:
                waiting.append(threads.submit(judge, some))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        for child in children:
            child.close()


def judge_rows(rows: Rows, override: tuple[str, ...] | None) -> dict[str, Any]:
    """Read and judge some samples; what comes back can cross from one process to another as JSON and bytes.

    Returns:
        ``lines``: the scores as lines of ``scores.jsonl``; ``parts``: metric value -> places from 0, values and statistics as the
        bytes of their arrays, and the width of the statistics; ``ids``: of the samples; ``predictions`` and ``unparsed``: counts.
    """
    metrics = Metrics(None if override is None else tuple(override))
    scores: list[tuple[int, Score]] = []
    num_predictions = num_unparsed = 0
    for place, (sample, line) in enumerate(rows):
        prediction = None
        if line is not None:
            stored = Prediction.model_validate_json(line)
            prediction = parse_generation(stored.generation, sample, image_sha256=stored.image_sha256)
            num_predictions += 1
            num_unparsed += prediction.error is not None and prediction.generation.finish_reason != "error"
        scores.extend((place, score) for score in _judge(sample, prediction, metrics))
    return {
        "lines": b"".join(score.model_dump_json().encode() + b"\n" for _, score in scores),
        "parts": {metric: _packed(part) for metric, part in parts_of(scores).items()},
        "ids": [sample.id for sample, _ in rows],
        "predictions": num_predictions,
        "unparsed": num_unparsed,
    }


def _packed(part: Part) -> list[Any]:
    return [part.places.tobytes(), part.values.tobytes(), part.statistics.tobytes(), part.statistics.shape[1], part.placed]


def _unpacked(packed: Sequence[Any]) -> Part:
    places, values, statistics, width, placed = packed
    return Part(
        np.frombuffer(places, dtype=np.int32),
        np.frombuffer(values, dtype=np.float64),
        np.frombuffer(statistics, dtype=np.float64).reshape(-1, width) if width else np.zeros((len(values) // 8, 0)),
        bool(placed),
    )
