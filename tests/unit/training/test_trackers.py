"""Trackers write into the run folder and send nothing, unless the recipe says so."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from medtune.errors import MissingDependencyError
from medtune.training import trackers
from medtune.training.arguments import training_arguments
from medtune.training.config import TrainSettings
from medtune.training.trackers import check_trackers, environment, recipe_hash, tracked
from tiny_training import Setup

ALL = ("tensorboard", "wandb", "mlflow", "swanlab")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("WANDB_", "MLFLOW_", "SWANLAB_", "TENSORBOARD_", "KUBEFLOW_")):
            monkeypatch.delenv(name)


def test_every_place_is_in_the_run_folder_and_nothing_is_sent(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = setup.run(tmp_path / "run")
    # What the user's shell says of servers counts only online.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://elsewhere.example")
    monkeypatch.setenv("WANDB_MODE", "online")
    values = environment(run, TrainSettings(trackers=ALL))
    folder = run.folder / "trackers"
    assert values["TENSORBOARD_LOGGING_DIR"] == str(folder / "tensorboard")
    assert values["MLFLOW_TRACKING_URI"] == f"sqlite:///{folder}/mlflow/mlflow.db"
    assert (values["WANDB_MODE"], values["SWANLAB_MODE"]) == ("offline", "offline")
    assert values["WANDB_DIR"] == str(folder / "wandb")
    assert values["SWANLAB_LOG_DIR"] == str(folder / "swanlab")
    assert values["WANDB_LOG_MODEL"] == "false"
    assert {path.name for path in folder.iterdir()} == {"mlflow", "swanlab", "wandb"}
    digest = recipe_hash(run)
    assert len(digest) == 12
    assert digest in values["WANDB_TAGS"]
    assert json.loads(values["MLFLOW_TAGS"]) == {"recipe": "tiny", "recipe_hash": digest}


def test_online_the_user_s_own_variables_count(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = setup.run(tmp_path / "run")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    values = environment(run, TrainSettings(trackers=ALL, trackers_online=True))
    assert not {"WANDB_MODE", "SWANLAB_MODE", "MLFLOW_TRACKING_URI", "WANDB_PROJECT"} & values.keys()
    assert values["WANDB_LOG_MODEL"] == "false", "weights are not sent to a tracker"


def test_the_environment_is_as_it_was(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = setup.run(tmp_path / "run")
    monkeypatch.setenv("WANDB_MODE", "online")
    before = dict(os.environ)
    with tracked(run, TrainSettings(trackers=("wandb",))):
        assert os.environ["WANDB_MODE"] == "offline"
    assert dict(os.environ) == before


def test_inside_a_cluster_job_nothing_is_reported_without_being_asked_for(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 5.2x adds its Kubeflow reporter by itself when this variable is there."""
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "https://elsewhere.example")
    run = setup.run(tmp_path / "run")
    with tracked(run, TrainSettings()):
        assert list(training_arguments(TrainSettings(), run.checkpoints, num_steps=1, cached=True).report_to) == []


@pytest.mark.parametrize("name", ALL)
def test_a_package_that_is_missing_is_named_before_the_run(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda package: None)  # noqa: ARG005
    with pytest.raises(MissingDependencyError) as caught:
        check_trackers(TrainSettings(trackers=(name,)))
    assert f"pip install {name}" in caught.value.render("en")
    assert f"train.trackers={name}" in caught.value.render("en")
    check_trackers(TrainSettings())


def test_names_are_checked_and_report_to_has_an_owner() -> None:
    with pytest.raises(ValidationError, match="tensorboard"):
        TrainSettings(trackers=("tensorbord",))  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"train\.trackers"):
        TrainSettings(hf={"report_to": "wandb"})


class FakeWandb(ModuleType):
    """What transformers' integration uses of wandb."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = SimpleNamespace(name="wandb", loader=None, origin="")  # type: ignore[assignment]
        self.run: Any = None
        self.begun: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.logged: list[dict[str, Any]] = []
        self.config = type("Config", (dict,), {"update": lambda self, values, **_: dict.update(self, values)})()

    def init(self, **given: Any) -> None:
        self.begun.append((given, {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}))
        self.run = SimpleNamespace(summary={}, _label=lambda **_: None, id="1")

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.run = None


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake, config_util = FakeWandb(), ModuleType("wandb.sdk.lib.config_util")
    config_util.ConfigError = ValueError  # type: ignore[attr-defined]
    for name in ("wandb.sdk", "wandb.sdk.lib"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.config_util", config_util)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: True)
    return fake


def test_the_trainer_s_own_integration_hears_of_the_losses(setup: Setup, tmp_path: Path, wandb: FakeWandb) -> None:
    first, second = setup.run(tmp_path / "first"), setup.run(tmp_path / "second")
    for run in (first, second):
        setup.train(run, trackers=("wandb",), max_steps=2)
    assert [given["name"] for given, _ in wandb.begun] == ["first", "second"], "the second run went into the first one's record"
    assert wandb.run is None
    seen = wandb.begun[0][1]
    assert seen["WANDB_MODE"] == "offline"
    assert seen["WANDB_DIR"] == str(first.folder / "trackers" / "wandb")
    losses = [each["train/loss"] for each in wandb.logged if "train/loss" in each]
    assert len(losses) == 4
    assert any("eval/loss" in each for each in wandb.logged)
    assert "WANDB_MODE" not in os.environ
