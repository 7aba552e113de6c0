"""Sweeps with a tiny model: killed and gone on with, trials stopped, the best recipe run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medtune import api
from medtune.errors import DataError, RecipeError
from medtune.hpo import sweep as sweep_module
from medtune.hpo.config import Space
from medtune.hpo.pool import Pool
from medtune.hpo.sweep import Sweep
from medtune.hpo.trial import TrialJob, run_trial
from medtune.recipe import load_recipe
from medtune.runs import Run
from medtune.types import Event
from source_files import write_json
from tiny_models import tiny_model

RECIPE = """\
data:
  sources:
    - source: alpaca
      options: {path: rows.json}
  split:
    fractions: {train: 0.5, validation: 0.25, test: 0.25}
model: {base: tiny, dtype: float32}
adapter: {rank: 2}
train: {max_steps: 6, batch_size: 2, gradient_accumulation_steps: 1, precision: float32, learning_rate: 1e-3, num_workers: 0,
        evaluate_every: 2, save_every: 2, log_every: 1, packing: false}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    words = ("heart", "lung", "liver", "kidney", "spleen", "pancreas", "stomach", "bladder")
    rows = [
        {"instruction": f"Name {n} functions of the {word}.", "input": "", "output": f"The {word} has {n}."}
        for word in words
        for n in (1, 2, 3)
    ]
    write_json(folder / "rows.json", rows)
    tiny_model(folder / "tiny", "qwen3")
    (folder / "small.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("MEDTUNE_LANG", "en")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return place


def write_space(text: str, name: str = "small.sweep.yaml") -> None:
    Path(name).write_text(text, encoding="utf-8")


def wait_for(condition: Any, seconds: float = 600.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "nothing happened"
        time.sleep(0.02)


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"medtune.hpo.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
def test_a_sweep_goes_on_after_kill_9_of_itself_and_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    write_space("parameters: {adapter.rank: {choices: [1, 4]}}\nsampler: one-at-a-time\nseeds: [3]\n")
    command = [sys.executable, "-m", "medtune", "sweep", "small.yaml", "--workers", "1"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: Path("sweeps/small/trials/0000/seed-3/events.jsonl").exists() or first.poll() is not None)
    assert first.poll() is None, "it was too fast to be killed"
    (worker,) = workers_of(first.pid)
    first.kill()
    first.wait()
    wait_for(lambda: not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2])

    pools: list[Pool] = []

    class WatchedPool(Pool):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pools.append(self)

    monkeypatch.setattr(sweep_module, "Pool", WatchedPool)
    said: list[str] = []
    killed: list[int] = []

    def hear(event: Event) -> None:
        if event.text is not None:
            said.append(event.text.render("en"))
        if event.values.get("trial") == 0 and not killed:
            # Trial 1 has not been sent yet: its worker is dead before it reads it.
            killed.append(pools[0].workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    result = api.sweep("small.yaml", listener=hear)
    assert any("Going on with the sweep: 0 trials are done, 1 are begun again." in line for line in said), said
    assert any("Trial 1: its process ended; it goes on in a new one." in line for line in said), said
    assert [(trial.number, trial.state) for trial in result.report.trials] == [(0, "complete"), (1, "complete"), (2, "complete")]
    assert len(list(Path("sweeps/small/trials").iterdir())) == 3
    for trial in result.report.trials:
        run = Run(Path(f"sweeps/small/trials/{trial.number:04d}/seed-3"))
        assert run.record.status == "trained"
        assert run.record.num_steps == 6
        assert trial.value is not None
        assert trial.value.mean == run.record.eval_loss
        assert not run.checkpoints.exists()

    assert api.sweep("small.yaml").report == result.report, "a finished sweep is not done again"
    with pytest.raises(RecipeError, match=r"train\.learning_rate: The sweep began with 0\.001, now it is 0\.01"):
        api.sweep("small.yaml", ["train.learning_rate=0.01"])
    assert (result.folder / "report.html").is_file()

    best = load_recipe(result.best)
    chosen = result.report.trial(result.report.best or 0)
    assert f"adapter.rank={best.adapter.rank}" in (chosen.overrides or ("adapter.rank=2",))  # type: ignore[union-attr]
    trained = api.train(result.best, ["train.max_steps=1", "train.evaluate_every=1", "train.save_every=never"])
    assert trained.folder == Path("runs/small-best")
    assert trained.record.status == "trained"


def job(place: Path, name: str, *overrides: str, **fields: Any) -> TrialJob:
    return TrialJob(number=1, recipe=Path("small.yaml"), overrides=overrides, seeds=(0, 1), folder=place / name, **fields)


def test_a_pruned_trial_stops_its_run_cleanly(here: Path) -> None:
    asked: list[tuple[int, float]] = []

    def stop(percent: int, loss: float) -> bool:
        asked.append((percent, loss))
        return True

    outcome = run_trial(job(here, "pruned"), stop)
    assert (outcome.state, outcome.runs) == ("pruned", ())
    assert [percent for percent, _ in asked] == [33]
    run = Run(here / "pruned" / "seed-0")
    assert run.record.status == "interrupted"
    assert run.adapter is None
    steps = [event["step"] for event in run.events() if event["kind"] == "log" and "loss" in event]
    assert max(steps) < 6
    assert not (here / "pruned" / "seed-1").exists(), "further seeds of a stopped trial would be wasted"


def test_a_trial_asks_about_its_first_seed_alone_and_measures_each(here: Path) -> None:
    asked: list[int] = []
    outcome = run_trial(job(here, "whole"), lambda percent, _: bool(asked.append(percent)))
    assert outcome.state == "complete"
    assert asked == [33, 67], "the last loss is the result, not a reason to stop"
    assert [run.seed for run in outcome.runs] == [0, 1]
    assert outcome.runs[0].value != outcome.runs[1].value
    again = run_trial(job(here, "whole"), lambda *_: False)
    assert again == outcome, "what is finished is not trained again"


def test_a_metric_is_measured_on_the_validation_split_whatever_the_recipe_says(here: Path) -> None:
    import json

    overrides = ("train.max_steps=1", "generation.sampling.max_new_tokens=2", "evaluation.split=test")
    outcome = run_trial(job(here, "metric", *overrides, objective="llamafactory/rouge-1"), lambda *_: False)
    assert outcome.state == "complete", outcome.error
    found = json.loads((here / "metric" / "seed-0" / "report.json").read_text(encoding="utf-8"))
    assert found["split"] == "validation"
    assert [condition["label"] for condition in found["conditions"]] == ["tuned"]


def test_a_trial_that_cannot_run_says_why(here: Path) -> None:
    outcome = run_trial(job(here, "failed", "train.max_tokens=3"), lambda *_: False)
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert "longer than 3 tokens" in outcome.error.render("en")


@pytest.mark.usefixtures("here")
def test_a_sweep_goes_on_whatever_the_recipe_says_of_answers_it_does_not_ask_for(tmp_path: Path) -> None:
    """Such as defaults of a newer version. Where a metric is the objective they count."""
    measured = {"parameters": {"adapter.rank": {"choices": [4]}}}
    data: Any = None  # only what stands in the folder is looked at
    for objective, changed in (("validation-loss", False), ("rouge_l", True)):
        space = Space.model_validate({**measured, "objective": objective})
        recipes = [load_recipe("small.yaml", given) for given in ([], ["generation.sampling.max_new_tokens=2"])]
        first, second = (Sweep(recipe, space, tmp_path / objective) for recipe in recipes)
        (tmp_path / objective).mkdir()
        first._settle(data)
        if changed:
            with pytest.raises(RecipeError, match="other settings"):
                second._settle(data)
        else:
            second._settle(data)
            with pytest.raises(RecipeError, match="other settings"):
                Sweep(load_recipe("small.yaml", ["train.learning_rate=1"]), space, tmp_path / objective)._settle(data)


@pytest.mark.usefixtures("here")
def test_a_sweep_needs_validation_losses() -> None:
    write_space("parameters: {adapter.rank: {choices: [1, 4]}}\n", "other.yaml")
    with pytest.raises(RecipeError, match="evaluate_every"):
        api.sweep("small.yaml", ["train.evaluate_every=never"], space="other.yaml", folder="none")
    split = "data.split.fractions={train: 0.5, validation: 0, test: 0.5}"
    with pytest.raises(DataError, match="validation"):
        api.sweep("small.yaml", [split, "data.folder=datasets/unvalidated"], space="other.yaml", folder="none")
    assert not Path("none").exists()


@pytest.mark.usefixtures("here")
def test_advice_names_every_source_in_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    from medtune.cli.settings import advise
    from medtune.hpo.rules import RULES

    for language in ("en", "zh"):
        os.environ["MEDTUNE_LANG"] = language  # the fixture puts it back
        advise("small.yaml")
        said = capsys.readouterr().out
        for rule in RULES:
            assert rule.says.render(language) in said  # type: ignore[arg-type]
            assert rule.source.render(language) in said  # type: ignore[arg-type]
    found = api.advise("small.yaml")
    assert found.num_train_rows > 0
    assert found.num_tokens is not None
    assert found.num_tokens > found.num_train_rows
    assert {rule.verdict for rule in found.rules} == {None}, "nothing is said to be measured without a sweep"
