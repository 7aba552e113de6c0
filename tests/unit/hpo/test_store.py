"""The store: what is tried, what is stopped, and what another process finds there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medtune.errors import RunError
from medtune.hpo.config import Space
from medtune.hpo.study import Store, Trial
from medtune.hpo.trial import SeedRun
from medtune.language import msg
from medtune.recipe import Recipe, make_recipe

RECIPE: Recipe = make_recipe({"name": "r", "data": {"sources": [{"source": "phantom"}]}, "model": {"base": "medtune-nano"}})
RANGE = {"adapter.rank": {"low": 2, "high": 64, "log": True}, "train.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}


def store(tmp_path: Path, *, higher: bool = False, **settings: Any) -> Store:
    settings.setdefault("parameters", RANGE)
    return Store(tmp_path / "study.db", Space.model_validate(settings), RECIPE, higher_is_better=higher)


def complete(opened: Store, trial: Trial, value: float) -> None:
    opened.finish(trial.number, "complete", (SeedRun(seed=0, value=value),), None)


def begin(opened: Store) -> Trial:
    trial = opened.next()
    assert trial is not None
    return trial


def test_the_first_trial_is_the_recipe_as_it_is(tmp_path: Path) -> None:
    first = begin(store(tmp_path, trials=2))
    assert (first.number, first.overrides) == (0, ())


def test_a_sweep_ends_after_its_trials_and_can_be_given_more(tmp_path: Path) -> None:
    opened = store(tmp_path, trials=2, sampler="random")
    for value in (1.0, 2.0, 3.0):
        complete(opened, begin(opened), value)
    assert opened.next() is None
    more = begin(store(tmp_path, trials=3, sampler="random"))
    assert more.number == 3


def test_a_resumed_sweep_tries_what_an_uninterrupted_one_would(tmp_path: Path) -> None:
    def tried(folder: Path, *, reopen_at: tuple[int, ...]) -> list[tuple[str, ...]]:
        folder.mkdir()
        opened, found = store(folder, trials=12), []
        for number in range(13):
            if number in reopen_at:
                opened = store(folder, trials=12)
            trial = begin(opened)
            found.append(trial.overrides)
            complete(opened, trial, float(len(str(trial.overrides))))
        return found

    whole = tried(tmp_path / "whole", reopen_at=())
    assert tried(tmp_path / "cut", reopen_at=(2, 12)) == whole, "the last one is no longer drawn at random"
    assert len(set(whole)) == 13, "no trial is drawn again after a start"


def test_a_trial_that_a_dead_process_began_keeps_its_settings(tmp_path: Path) -> None:
    opened = store(tmp_path, trials=3)
    complete(opened, begin(opened), 1.0)
    left = begin(opened)
    opened.begin(left.number)
    again = store(tmp_path, trials=3)
    (found,) = again.unfinished()
    assert (found.number, found.overrides, found.attempts) == (left.number, left.overrides, 1)
    complete(again, found, 0.5)
    assert again.unfinished() == []


def test_the_median_stops_a_trial_that_lies_behind_and_never_the_first(tmp_path: Path) -> None:
    opened = store(tmp_path, trials=9, sampler="random", pruning={"kind": "median", "startup_trials": 3, "warmup_percent": 20})
    first = begin(opened)
    for value in (1.0, 1.1, 1.2):
        trial = begin(opened)
        assert not opened.prune(trial.number, 25, 5.0 + value)
        assert not opened.prune(trial.number, 50, value)
        complete(opened, trial, value)
    slow, good = begin(opened), begin(opened)
    assert not opened.prune(slow.number, 10, 99.0), "too early to tell"
    assert opened.prune(slow.number, 50, 9.0) is True, "a plain bool: the worker is told in JSON"
    assert opened.prune(good.number, 50, 0.9) is False
    assert not opened.prune(first.number, 50, 9.0), "all others are held against it"
    assert opened.trials()[slow.number].losses == {10: 99.0, 50: 9.0}


def test_losses_stop_trials_also_where_a_metric_is_maximised(tmp_path: Path) -> None:
    pruning = {"kind": "median", "startup_trials": 2, "warmup_percent": 0}
    opened = store(tmp_path, trials=9, sampler="random", higher=True, pruning=pruning)
    for value in (0.5, 0.6, 0.7):
        trial = begin(opened)
        opened.prune(trial.number, 50, 1.0)
        complete(opened, trial, value)
    assert opened.prune(begin(opened).number, 50, 2.0)
    assert not opened.prune(begin(opened).number, 50, 0.5)


def test_a_failed_trial_is_kept_with_its_reason(tmp_path: Path) -> None:
    opened = store(tmp_path, trials=2)
    trial = begin(opened)
    opened.finish(trial.number, "failed", (), msg("{what} {remedy}", what=msg("Interrupted."), remedy="x"))
    found = store(tmp_path, trials=2).trials()[trial.number]
    assert found.state == "failed"
    assert found.error is not None
    assert found.error.render("zh") == "已中断。x"
    assert begin(opened).number == trial.number + 1, "the sweep goes on"


def test_a_list_can_be_a_choice(tmp_path: Path) -> None:
    parameters = {"adapter.targets": {"choices": [["language"], ["language", "projector"]]}}
    opened = store(tmp_path, parameters=parameters, sampler="one-at-a-time")
    assert begin(opened).overrides == ()
    assert begin(opened).overrides == ("adapter.targets=[language, projector]",)


def test_importance_finds_what_matters_and_is_silent_about_designs(tmp_path: Path) -> None:
    opened = store(tmp_path, trials=14, sampler="random")
    while (trial := opened.next()) is not None:
        complete(opened, trial, abs(float(trial.settings.get("train.learning_rate", 1e-3)) - 3e-3))
    found = opened.importance()
    assert found["train.learning_rate"] > found["adapter.rank"]
    assert sum(found.values()) == pytest.approx(1.0)
    (tmp_path / "design").mkdir()
    assert store(tmp_path / "design", parameters={"adapter.rank": {"choices": [2]}}, sampler="one-at-a-time").importance() == {}


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(RunError, match="cannot be opened"):
        store(tmp_path)
