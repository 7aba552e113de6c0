"""AdamW with its states in 8 bits: what it takes, and that a run with it goes on where it was stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medtune.errors import MissingDependencyError
from medtune.models.adapter import add_adapter
from medtune.models.config import LoraSettings, ModelSettings, QloraSettings
from medtune.models.load import load_model
from medtune.runs import Run
from medtune.training import train as training
from medtune.training.arguments import training_arguments
from medtune.training.checkpoints import all_checkpoints
from medtune.training.config import TrainSettings
from medtune.training.memory import state_bytes
from medtune.types import Event
from tiny_training import Setup, losses, make_setup

pytest.importorskip("bitsandbytes")

QLORA = QloraSettings(targets=("language", "experts"), rank=64)  # tensors of less than 4,096 values keep states in float32
LORA = LoraSettings(targets=("language",), rank=256)
STEPS: dict[str, Any] = {
    "max_steps": 4,
    "save_every": 2,
    "evaluate_every": "never",
    "keep_best": False,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return make_setup(tmp_path_factory.mktemp("mixture"), family="qwen3-vl-moe")


def four_bit_model(mixture: Setup) -> Any:
    model = load_model(ModelSettings(base=str(mixture.model_folder)), device="cpu", quantization=QLORA)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return add_adapter(model, QLORA, mixture.encoder.family)


def trained(mixture: Setup, folder: Path, **settings: Any) -> Run:
    run = mixture.run(folder)
    mixture.train(run, adapter=LORA, **{**STEPS, **settings})
    return run


def state_sizes(checkpoint: Path) -> tuple[int, int]:
    """(bytes of AdamW's states of the tensors with at least 4,096 values, those values) in a checkpoint."""
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"].values()
    states = [state["__bnb_optimizer_quant_state__"] for state in saved]
    large = [state for state in states if state["state1"].numel() >= 4096]
    size = sum(state[name].nbytes for state in large for name in ("state1", "state2", "absmax1", "absmax2"))
    return size, sum(state["state1"].numel() for state in large)


def test_a_mixture_in_4_bits_learns_and_resumes(mixture: Setup, tmp_path: Path) -> None:
    settings = {**STEPS, "max_steps": 2, "save_every": 1, "optimizer": "adamw_8bit"}
    straight, run = mixture.run(tmp_path / "straight"), mixture.run(tmp_path / "run")
    mixture.train(straight, model=four_bit_model(mixture), **settings)

    def stop(event: Event) -> None:
        if event.kind == "progress" and event.done == 1 and event.total == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixture.train(run, model=four_bit_model(mixture), listener=stop, **settings)
    assert [step for step, _ in all_checkpoints(run.checkpoints)] == [1]
    mixture.train(run, model=four_bit_model(mixture), resume=True, **settings)
    assert losses(run) == losses(straight)
    size, values = state_sizes(straight.checkpoints / "checkpoint-2")
    assert values > 0
    assert size == pytest.approx(values * state_bytes("adamw_8bit"), rel=0.02)
    weights = [load_file(each.folder / "adapter" / "adapter_model.safetensors") for each in (straight, run)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_it_computes_what_32_bits_compute_but_for_rounding(mixture: Setup, tmp_path: Path) -> None:
    short = {"save_every": "never", "max_steps": 3}
    eight, whole = (losses(trained(mixture, tmp_path / name, optimizer=name, **short)) for name in ("adamw_8bit", "adamw"))
    assert eight[1] == whole[1]
    assert eight[3] != whole[3]  # else the setting reached nothing
    assert eight[3] == pytest.approx(whole[3], rel=0.02)


def test_a_checkpoint_decides_which_states_go_on(mixture: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen by the plan for a small card, they stay on a large one, also where another setting is changed by hand: what is in
    the checkpoint could not be read as float32."""
    real = training.decide
    with monkeypatch.context() as patch:
        patch.setattr(training, "decide", lambda *given: replace(real(*given), optimizer="adamw_8bit"))
        straight = trained(mixture, tmp_path / "straight")
        run = mixture.run(tmp_path / "run")

        def stop(event: Event) -> None:
            if event.kind == "progress" and event.done == 2 and event.total == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            mixture.train(run, adapter=LORA, listener=stop, **STEPS)
    record = mixture.train(run, adapter=LORA, resume=True, **STEPS, micro_batch_tokens=1024)
    chosen: Any = record.engine["chosen"]
    assert (chosen["optimizer"], chosen["micro_batch_tokens"]) == ("adamw_8bit", 1024)
    assert losses(run) == pytest.approx(losses(straight), rel=1e-4)


def test_the_setting_reaches_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def optim(settings: TrainSettings, optimizer: str) -> str:
        return str(training_arguments(settings, tmp_path, num_steps=1, cached=False, optimizer=optimizer).optim.value)

    assert optim(TrainSettings(), "adamw_8bit") == "adamw_8bit"
    assert optim(TrainSettings(), "adamw").startswith("adamw_torch")
    assert optim(TrainSettings(hf={"optim": "paged_adamw_8bit"}), "paged_adamw_8bit") == "paged_adamw_8bit"
    with pytest.raises(ValueError, match="exclude each other"):
        TrainSettings(optimizer="adamw_8bit", hf={"optim": "adafactor"})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="bitsandbytes"):
        optim(TrainSettings(), "adamw_8bit")
