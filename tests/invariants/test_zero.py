"""DeepSpeed's ZeRO divides what is stored and changes nothing that is computed. On the CPU, with gloo, on two processes."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from medtune.models.config import FullSettings, LoraSettings, ModelSettings
from medtune.models.load import load_model
from medtune.runs import Run
from medtune.training.checkpoints import all_checkpoints
from medtune.training.config import DeepSpeedSettings, TrainSettings
from medtune.training.outer import accelerate_environment
from medtune.types import Event
from process_group import run_ranks
from tiny_training import eval_losses, losses, make_setup, with_few_pictures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]

STEP_ROWS, NUM_STEPS, STOP_AFTER = 6, 4, 2

ADAPTERS: dict[str, Any] = {
    "qwen3": LoraSettings(rank=4),
    "qwen3-vl": LoraSettings(rank=4, targets=("language", "vision", "projector")),
    "qwen3-vl-moe": LoraSettings(rank=4, targets=("language", "experts"), train_router=True),
    "full": FullSettings(),
}


_NOT_FOR_ACCELERATE = {"ACCELERATE_USE_CPU": "false"}
"""Told to use the CPU, accelerate passes DeepSpeed by; DeepSpeed finds by itself that there is nothing else."""


def zero_2(folder: Path) -> dict[str, str]:  # noqa: ARG001
    """Every process has all weights."""
    return accelerate_environment(DeepSpeedSettings(kind="deepspeed", zero_stage=2), TrainSettings()) | _NOT_FOR_ACCELERATE


def zero_3(folder: Path) -> dict[str, str]:
    """Weights of all sizes are divided. DeepSpeed would leave those below 100,000 elements whole: all of a tiny model's."""
    divided = {"stage": 3, "stage3_param_persistence_threshold": 0}
    file = folder / "zero.json"
    file.write_text(
        json.dumps({"train_micro_batch_size_per_gpu": "auto", "gradient_clipping": "auto", "zero_optimization": divided})
    )
    return accelerate_environment(DeepSpeedSettings(kind="deepspeed", config_file=file), TrainSettings()) | _NOT_FOR_ACCELERATE


def train_here(folder: Path, run: Path, family: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One process's part. 13 rows, most of them without a picture: the last step of the epoch has one row, and of the device that
    gets none of it every pass is a stand-in."""
    setup = make_setup(folder, family="qwen3" if family == "full" else family)
    rows = with_few_pictures(setup.rows)
    stop_after = settings.pop("stop_after", None)
    passes: list[int] = []
    wrapped: list[tuple[str, int]] = []

    def listener(event: Event) -> None:
        if event.kind == "progress" and event.total == NUM_STEPS and event.done == stop_after:
            raise KeyboardInterrupt

    _note_passes(passes, wrapped)
    record = setup.train(
        Run(run),
        adapter=ADAPTERS[family],
        listener=listener,
        train_rows=rows[:13],
        validation_rows=rows[13:14],
        learning_rate=2e-2,
        max_steps=NUM_STEPS,
        batch_size=STEP_ROWS // int(os.environ["WORLD_SIZE"]),
        gradient_accumulation_steps=1,
        vision_cache="none",
        evaluate_every=2,
        micro_batch_tokens=64,
        **settings,
    )
    return {
        "status": record.status,
        "loss": losses(Run(run)),
        "eval_loss": eval_losses(Run(run)),
        "rows": passes,
        "wrapped": wrapped[0],
    }


def _note_passes(passes: list[int], wrapped: list[tuple[str, int]]) -> None:
    """How many rows each pass has, stand-ins left out; what wraps the model before it, and how many weights are whole then."""
    from medtune.training.trainer import TokenWeightedTrainer

    loss = TokenWeightedTrainer._loss

    def counted(self: Any, model: Any, micro_batch: dict[str, Any], *rest: Any) -> Any:
        passes.append(sum(map(bool, micro_batch["sample_ids"])))
        wrapped.append((type(model).__name__, sum(parameter.numel() > 0 for parameter in model.parameters())))
        return loss(self, model, micro_batch, *rest)

    TokenWeightedTrainer._loss = counted  # type: ignore[method-assign]


class Runs:
    """Runs of each kind, done when they are first asked for: several tests compare with the same ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done: dict[str, tuple[list[Any], dict[str, Tensor]]] = {}

    def __call__(self, family: str, kind: str = "one") -> tuple[list[Any], dict[str, Tensor]]:
        """What each process returned, and the weights that were saved."""
        name = f"{family}-{kind}"
        if name not in self._done:
            run = self.new(name, family)
            num_processes = 1 if kind == "one" else 2
            results = run_ranks(
                train_here, num_processes, self.data(family), run.folder, family, {}, environment=self.environment(kind)
            )
            for result in results:
                assert isinstance(result, dict), result
                wrapper, num_whole = result["wrapped"]
                assert (wrapper == "DeepSpeedEngine") == kind.startswith("zero")
                assert (num_whole == 0) == (kind == "zero-3")
            self._done[name] = results, saved(run)
        return self._done[name]

    def data(self, family: str) -> Path:
        folder = self._folder / ("qwen3" if family == "full" else family)
        folder.mkdir(exist_ok=True)
        return folder

    def new(self, name: str, family: str) -> Run:
        return make_setup(self.data(family), family=self.data(family).name).run(self._folder / name)

    def environment(self, kind: str) -> dict[str, str]:
        kinds: dict[str, Callable[[Path], dict[str, str]]] = {"zero-2": zero_2, "zero-3": zero_3}
        return kinds[kind](self._folder) if kind in kinds else {}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("zero"))


def saved(run: Run) -> dict[str, Tensor]:
    assert run.adapter is not None
    (file,) = run.adapter.glob("*.safetensors")
    return dict(load_file(file))


def check_equal(ours: tuple[list[Any], dict[str, Tensor]], theirs: tuple[list[Any], dict[str, Tensor]]) -> None:
    assert all(isinstance(result, dict) for result in ours[0]), ours[0]
    assert ours[0][0]["status"] == "trained"
    for kind in ("loss", "eval_loss"):
        assert ours[0][0][kind].keys() == theirs[0][0][kind].keys()
        assert ours[0][0][kind] == pytest.approx(theirs[0][0][kind], abs=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    for name, weight in theirs[1].items():
        assert float((ours[1][name] - weight).abs().max()) < 1e-4, name


@pytest.mark.parametrize("kind", ["ddp", "zero-2", "zero-3"])
@pytest.mark.parametrize("family", ["qwen3", "qwen3-vl"])
def test_two_processes_learn_what_one_learns(runs: Runs, family: str, kind: str) -> None:
    ours = runs(family, kind)
    check_equal(ours, runs(family))


def test_experts_learn_the_same_under_zero_3_when_devices_have_other_numbers_of_rows(runs: Runs) -> None:
    ours = runs("qwen3-vl-moe", "zero-3")
    first, second = (result["rows"] for result in ours[0])
    assert len(first) == len(second)
    assert first != second
    assert 0 in second, "a pass that is a stand-in's alone"
    check_equal(ours, runs("qwen3-vl-moe"))
    assert any("experts" in name for name in ours[1])


def test_a_run_under_zero_3_that_was_interrupted_goes_on_as_if_it_had_not_been(runs: Runs) -> None:
    run, environment = runs.new("again", "qwen3"), runs.environment("zero-3")
    stopped = run_ranks(train_here, 2, runs.data("qwen3"), run.folder, "qwen3", {"stop_after": STOP_AFTER}, environment=environment)
    assert [result.split(":")[0] for result in stopped] == ["KeyboardInterrupt"] * 2
    assert sorted(losses(run)) == list(range(1, STOP_AFTER + 1))
    results = run_ranks(train_here, 2, runs.data("qwen3"), run.folder, "qwen3", {"resume": True}, environment=environment)
    check_equal((results, saved(run)), runs("qwen3", "zero-3"))


def train_and_spoil(*arguments: Any) -> Any:
    """As :func:`train_here`, and before the first checkpoint one number that the second process alone holds becomes NaN."""
    from medtune.training.trainer import TokenWeightedTrainer

    save = TokenWeightedTrainer._save_checkpoint

    def spoiled(self: Any, *rest: Any) -> None:
        if os.environ["RANK"] == "1":
            weight = next(weight for weight in self._trained_weights() if weight.numel() == 0)  # what is whole now is no test
            weight.ds_tensor.data[-1] = float("nan")
        save(self, *rest)

    TokenWeightedTrainer._save_checkpoint = spoiled  # type: ignore[method-assign]
    return train_here(*arguments)


def test_a_weight_that_is_no_number_on_one_device_is_seen_under_zero_3(runs: Runs) -> None:
    run = runs.new("spoiled", "qwen3")
    results = run_ranks(
        train_and_spoil, 2, runs.data("qwen3"), run.folder, "qwen3", {"save_every": 1}, environment=runs.environment("zero-3")
    )
    assert ["the training has diverged" in str(result) for result in results] == [True, True], results
    assert all_checkpoints(run.checkpoints) == []
    assert run.record.status == "failed"


def test_a_whole_model_that_was_tuned_under_zero_3_is_saved_whole(runs: Runs) -> None:
    ours, theirs = runs("full", "zero-3"), runs("full")
    check_equal(ours, theirs)
    run = Run(runs._folder / "full-zero-3")
    assert run.adapter is not None
    model = load_model(ModelSettings(base=str(run.adapter)), device="cpu")
    state = model.state_dict()
    assert all(bool((state[name] == weight).all()) for name, weight in ours[1].items())
