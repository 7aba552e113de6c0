"""``local_only``: every door through which a data set, or what was made from it, could leave this machine is locked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medtune import api, assembly
from medtune.data.dataset import Dataset
from medtune.errors import GenerationError, RecipeError
from medtune.models.config import LoraSettings
from medtune.models.contract import read_contract
from medtune.recipe import load_recipe
from medtune.training.config import TrainSettings
from medtune.training.locality import locked_by, refuse_sending

pytestmark = pytest.mark.usefixtures("workplace")

LOCK = "data.local_only=true"
ELSEWHERE = "generation.generator={kind: openai, base_url: 'http://elsewhere.example/v1', model: m}"
HERE = "generation.generator={kind: openai, base_url: 'http://127.0.0.1:9/v1', model: m}"


@pytest.fixture
def locked() -> Path:
    """A run that was trained on a locked data set."""
    run = Path("runs/locked")
    if not run.exists():
        api.train("small.yaml", [LOCK, "data.folder=datasets/locked", "run.name=locked", "train.max_steps=1"])
    return run


def test_data_set_and_adapter_have_the_lock(locked: Path) -> None:
    assert Dataset.open(Path("datasets/locked")).manifest.local_only
    assert read_contract(locked / "adapter").local_only
    assert not read_contract(Path("runs/small/adapter")).local_only


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("train.trackers=[wandb]", "train.trackers_online"),
        ("train.trackers=[tensorboard, mlflow]", "train.trackers_online"),
        ("train.hf={push_to_hub: true}", "train.hf.push_to_hub"),
        ("train.hf={hub_model_id: me/mine}", "train.hf.hub_model_id"),
    ],
)
def test_trackers_and_hubs_are_refused_before_the_run_begins(setting: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtune.training.trackers.check_trackers", lambda settings: None)  # noqa: ARG005 - as if installed
    overrides = [LOCK, "data.folder=datasets/locked", "run.name=never", "train.trackers_online=true", setting]
    with pytest.raises(RecipeError, match="local_only") as refused:
        api.train("small.yaml", overrides)
    assert [name for name, _ in refused.value.faults] == [key]
    assert refused.value.file == "datasets/locked"
    assert not Path("runs/never").exists()


def test_what_stays_here_is_allowed_and_an_open_data_set_may_be_tracked() -> None:
    lock = Path("datasets/locked")
    refuse_sending(TrainSettings(trackers=("wandb", "mlflow")), lock)
    refuse_sending(TrainSettings(trackers=("tensorboard",), trackers_online=True, hf={"push_to_hub": False}), lock)
    refuse_sending(TrainSettings(trackers=("wandb",), trackers_online=True, hf={"push_to_hub": True}), None)


def test_an_adapter_passes_its_lock_on(locked: Path) -> None:
    open_data = Dataset.open(Path("datasets/small"))
    assert locked_by(open_data, LoraSettings()) is None
    assert locked_by(open_data, LoraSettings(init_from=Path("runs/small/adapter"))) is None
    assert locked_by(open_data, LoraSettings(init_from=locked / "adapter")) == locked / "adapter"


def test_a_worker_refuses_too(locked: Path) -> None:
    """A worker process reads its job from the run folder, which may have been written by hand."""
    from medtune.runs import Run
    from medtune.training.job import TrainJob, run_job

    job = TrainJob(
        dataset=Path("datasets/locked"),
        model=load_recipe("small.yaml").model,
        train=TrainSettings(trackers=("wandb",), trackers_online=True),
    )
    with pytest.raises(RecipeError, match="local_only"):
        run_job(Run(locked), job)


def test_evaluation_asks_no_server_elsewhere(locked: Path) -> None:
    with pytest.raises(GenerationError, match="may not leave this machine") as refused:
        api.evaluate(locked, [ELSEWHERE], overwrite=True)
    assert refused.value.file == "datasets/locked"
    assert refused.value.key == "generation.generator.base_url"


@pytest.mark.parametrize("how", ["recipe", "run", "manifest gone", "adapter alone"])
def test_chat_asks_no_server_elsewhere(locked: Path, tmp_path: Path, how: str) -> None:
    if how == "recipe":
        with pytest.raises(GenerationError, match="may not leave this machine"):
            api.open_chat("small.yaml", [LOCK, ELSEWHERE], base_only=True)
        return
    if how == "run":
        with pytest.raises(GenerationError, match="may not leave this machine"):
            api.open_chat(locked, [ELSEWHERE])
        return
    # The lock goes with the adapter when data set and recipe are not there to say so.
    alone = tmp_path / "alone"
    shutil.copytree(locked / "adapter", alone)
    overrides = [ELSEWHERE, "data.local_only=false", "data.folder=datasets/nowhere"]
    run, adapter = (None, alone) if how == "adapter alone" else (locked, None)
    with pytest.raises(GenerationError, match="may not leave this machine"):
        api.open_chat(run, overrides if run is not None else [ELSEWHERE], adapter=adapter)


def test_a_server_on_this_machine_may_be_asked(locked: Path) -> None:
    assert api.open_chat(locked, [HERE])[0].server == "m (http://127.0.0.1:9/v1)"
    assert api.open_chat("small", [ELSEWHERE])[0].server == "m (http://elsewhere.example/v1)"
    assert assembly.may_leave(load_recipe("small.yaml"), None)
