"""The toy tasks and metrics under the names of built-in ones, so that the report sorts them as it would those."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from medtune.plugins import BUILT_IN


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from medtune.evaluation import score

    monkeypatch.setitem(BUILT_IN["task"], "toy", "toy_evaluation:ToyTask")
    monkeypatch.setitem(BUILT_IN["task"], "other", "toy_evaluation:OtherTask")
    monkeypatch.setitem(BUILT_IN["metric"], "closed", "toy_evaluation:ToyAccuracy")
    monkeypatch.setitem(BUILT_IN["metric"], "bleu", "toy_evaluation:ToyLength")
    score.load_task.cache_clear()
    score.load_metric.cache_clear()
    yield
    score.load_task.cache_clear()
    score.load_metric.cache_clear()
