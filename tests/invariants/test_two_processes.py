"""Two devices have the losses of one that takes their batches together. On the CPU, with gloo."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from medtune.data.config import DataSettings, Fractions, SourceSettings, SplitSettings
from medtune.data.prepare import prepare
from medtune.errors import TrainingError
from medtune.models.config import ModelSettings
from medtune.runs import Run, now
from medtune.training.config import DdpSettings, TrainSettings
from medtune.training.job import JOB_FILE, TrainJob
from medtune.training.launch import EVENTS_FILE, LOG_FILE, launch
from medtune.training.watch import NOTES, log_file
from medtune.types import Event, RunRecord
from tiny_models import tiny_model
from tiny_training import eval_losses, losses


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    folder = tmp_path_factory.mktemp("job")
    organs = ("heart", "lung", "liver", "kidney", "spleen", "pancreas", "stomach", "bladder")
    rows = [
        {
            "instruction": f"Name {count} functions of the {organ}.",
            "input": "",
            "output": f"The {organ} has {'many, ' * count}functions.",
        }
        for organ in organs
        for count in (1, 2, 9)
    ]
    (folder / "qa.json").write_text(json.dumps(rows), encoding="utf-8")
    settings = DataSettings(
        sources=(SourceSettings(source="alpaca", options={"path": str(folder / "qa.json")}),),
        split=SplitSettings(fractions=Fractions(train=0.7, validation=0.2, test=0.1)),
    )
    prepare(settings, name="qa", folder=folder / "dataset")
    return TrainJob(
        dataset=folder / "dataset",
        model=ModelSettings(base=str(tiny_model(folder / "model", "qwen3"))),
        train=TrainSettings(
            max_steps=3,
            batch_size=4,
            gradient_accumulation_steps=1,
            learning_rate=5e-3,
            warmup_steps=0,
            log_every=1,
            evaluate_every=2,
        ),
    )


def new_run(folder: Path, job: TrainJob) -> Run:
    record = RunRecord(
        name=folder.name, status="created", created=now(), updated=now(), recipe="tiny", base_model=job.model.base, seed=0
    )
    return Run.create(folder, recipe_text="name: tiny\n", record=record)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.slow
def test_two_processes_lose_like_one(job: TrainJob, tmp_path: Path) -> None:
    one = new_run(tmp_path / "one", job)
    launch(one, job)
    two, heard = new_run(tmp_path / "two", job), list[Event]()
    pair = job.model_copy(
        update={"distributed": DdpSettings(kind="ddp", num_processes=2), "train": job.train.model_copy(update={"batch_size": 2})}
    )
    record = launch(two, pair, listener=heard.append)

    assert record.status == "trained"
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert eval_losses(two) == pytest.approx(eval_losses(one), abs=1e-5)
    assert losses(one)[3] < losses(one)[1]
    assert [event.done for event in heard if event.kind == "progress" and event.total == 3] == [1, 2, 3]
    assert heard[-1].kind == "finished"
    assert heard[-1].text is not None
    assert heard[-1].text.render("zh") != heard[-1].text.render("en"), "its sentence came through translatable"
    assert not (two.folder / JOB_FILE).exists()
    assert not (two.folder / EVENTS_FILE).exists()


@pytest.mark.slow
def test_a_failing_worker_is_an_error_with_its_reason(job: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path / "run", job)
    broken = job.model_copy(
        update={"distributed": DdpSettings(kind="ddp", num_processes=2), "train": job.train.model_copy(update={"max_tokens": 3})}
    )
    # One worker without a launcher says the same, in a third of the time.
    command = [sys.executable, "-m", "medtune.training.worker", str(run.folder)]
    monkeypatch.setattr("medtune.training.launch.launch_command", lambda *_, **__: command)
    with pytest.raises(TrainingError) as caught:
        launch(run, broken)
    assert "longer than 3 tokens" in caught.value.render("en")
    assert caught.value.file == str(run.folder / LOG_FILE)
    assert "what to do" in (run.folder / LOG_FILE).read_text(encoding="utf-8")
    assert run.record.status == "failed"


@pytest.mark.slow
def test_when_a_worker_is_killed_the_others_are_ended_and_the_run_can_go_on(job: TrainJob, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", job)
    pair = job.model_copy(
        update={
            "distributed": DdpSettings(kind="ddp", num_processes=2),
            "train": job.train.model_copy(update={"batch_size": 2, "max_steps": 2000, "save_every": 2}),
        }
    )
    pids: dict[int, int] = {}
    killed = 0.0

    def listener(event: Event) -> None:
        nonlocal killed
        if event.kind == "progress" and event.total == 2000 and event.done == 3:
            for rank in (0, 1):
                pids[rank] = json.loads((run.folder / NOTES / f"{rank}.json").read_text())["pid"]
            os.kill(pids[1], signal.SIGKILL)
            killed = time.monotonic()

    with pytest.raises(TrainingError) as caught:
        launch(run, pair, listener=listener)
    assert time.monotonic() - killed < 300  # the other one would wait half an hour for it
    assert "Worker process 1 died" in caught.value.render("en")
    assert f"medtune train {run.folder} --resume" in caught.value.render("en")
    assert caught.value.file == str(run.folder / log_file(1))
    assert run.record.status == "failed"
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not (run.folder / NOTES).exists()

    heard: list[Event] = []

    def stop_soon(event: Event) -> None:
        heard.append(event)
        if event.kind == "progress" and event.total == 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(run, pair.model_copy(update={"resume": True}), listener=stop_soon)
    assert run.record.status == "interrupted"
    assert any("Continuing after step" in event.text.render("en") for event in heard if event.text is not None)
