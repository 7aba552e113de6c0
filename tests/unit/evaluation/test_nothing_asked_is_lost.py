"""Answers are stored before anything else can go wrong with them: a full disk, a task or a metric with a defect."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from medtune.data.dataset import Dataset
from medtune.errors import EvaluationError
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.evaluation.predictions import append_prediction
from medtune.types import Generation, Prediction, Report
from toy_evaluation import Looking, ToyAccuracy, ToyTask, make_dataset

pytestmark = pytest.mark.usefixtures("toys")


def run(dataset: Dataset, folder: Path, model: Looking) -> Report:
    settings = EvaluationSettings(num_resamples=200)
    return evaluate(dataset, generators={"tuned": ("tuned", model)}, settings=settings, folder=folder, controls=())


def stored(folder: Path) -> list[str]:
    """Ids of the stored answers; each line must be whole."""
    path = folder / "evaluations" / "tuned" / "predictions.jsonl"
    return [json.loads(line)["sample_id"] for line in path.read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    """As on a disk that is full: the system takes the first bytes of a write and refuses the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_names_the_file_and_costs_no_stored_answer(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=8)
    folder = tmp_path / "run"
    with files_end_at(1500), pytest.raises(EvaluationError, match="The answer cannot be stored") as caught:
        run(dataset, folder, Looking())
    assert caught.value.file == str(folder / "evaluations" / "tuned" / "predictions.jsonl")
    assert caught.value.sample is not None
    assert "再次运行同一命令" in caught.value.render("zh")
    kept = stored(folder)
    assert 0 < len(kept) < 16
    again = Looking()
    run(dataset, folder, again)
    assert len(again.asked) == 16 - len(kept)
    assert len(set(stored(folder))) == 16


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    answer = Prediction(sample_id="s", generation=Generation(id="s", text="x" * 100, finish_reason="stop"))
    with files_end_at(40), pytest.raises(EvaluationError):
        append_prediction(path, answer)
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_task_that_fails_is_named_after_every_answer_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_: object) -> str:
        raise KeyError("side")

    dataset = make_dataset(tmp_path / "data", num_groups=4)
    with monkeypatch.context() as patch:
        patch.setattr(ToyTask, "parse", parse)
        with pytest.raises(EvaluationError, match=r"The task toy fails on this answer \(KeyError: 'side'\)") as caught:
            run(dataset, tmp_path / "run", Looking())
    assert caught.value.sample == "s0-0"
    assert len(stored(tmp_path / "run")) == 8
    mended = Looking()
    report = run(dataset, tmp_path / "run", mended)
    assert mended.asked == []
    assert report.conditions[0].measurements[0].value == 1.0
    assert report.conditions[0].num_unparsed == 0


def test_a_metric_that_fails_is_named_with_its_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(*_: object) -> None:
        raise ZeroDivisionError("no words")

    monkeypatch.setattr(ToyAccuracy, "score", score)
    with pytest.raises(EvaluationError, match=r"The metric closed fails on this answer \(ZeroDivisionError: no words\)") as caught:
        run(make_dataset(tmp_path / "data", num_groups=4), tmp_path / "run", Looking())
    assert caught.value.sample == "s0-0"
    assert len(stored(tmp_path / "run")) == 8
