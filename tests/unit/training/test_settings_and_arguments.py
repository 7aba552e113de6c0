"""Settings of a training run, and what they become for transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from medtune.errors import RecipeError, TrainingError
from medtune.language import Text
from medtune.recipe import load_recipe
from medtune.training.arguments import check_hf, training_arguments
from medtune.training.config import OWNED_BY_MEDTUNE, DeepSpeedSettings, DistributedSettings, TrainSettings


def fault(**settings: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        TrainSettings(**settings)
    found = [(entry["msg"], entry.get("ctx", {}).get("error")) for entry in caught.value.errors()]
    return "; ".join(words if error is None else error.args[0].render("en") for words, error in found)


def test_a_share_of_steps_as_warmup_steps_names_the_setting_that_is_meant() -> None:
    assert fault(warmup_steps=0.1).endswith("write warmup_ratio: 0.1")
    assert fault(warmup_steps="0.03").endswith("write warmup_ratio: 0.03")
    assert TrainSettings(warmup_steps="20").warmup_steps == 20  # type: ignore[arg-type]
    assert "exclude each other" in fault(warmup_steps=3, warmup_ratio=0.1)


def test_contradictions_are_refused() -> None:
    assert "patience" in fault(patience=2, evaluate_every="never")
    assert "train.learning_rate" in fault(hf={"learning_rate": 1e-3})
    assert "itself" in fault(hf={"disable_tqdm": False})
    assert "never" in fault(evaluate_every="sometimes")
    assert "greater than 0" in fault(evaluate_every=0)


def test_yaml_numbers_and_intervals() -> None:
    assert TrainSettings(learning_rate="2e-4").learning_rate == 2e-4  # type: ignore[arg-type]
    assert TrainSettings(evaluate_every="50").evaluate_every == 50  # type: ignore[arg-type]
    settings = TrainSettings(save_every=200, hf={"optim": "adafactor"})
    assert TrainSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("written", "read"), [(True, "all"), (1, "all"), (False, "none"), (0, "none"), (3, 3), ("offload", "offload")]
)
def test_every_layer_and_no_layer_have_names(written: Any, read: Any) -> None:
    assert TrainSettings(gradient_checkpointing=written).gradient_checkpointing == read
    assert load_recipe("demo", [f"train.gradient_checkpointing={str(written).lower()}"]).train.gradient_checkpointing == read


def test_settings_load_nothing_heavy() -> None:
    code = "import sys, medtune.training.config; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_distributed_is_a_tagged_union() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(DistributedSettings)
    settings = adapter.validate_python({"kind": "deepspeed", "zero_stage": 3})
    assert isinstance(settings, DeepSpeedSettings)
    assert settings.zero_stage == 3
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "ddp", "zero_stage": 3})


def test_names_in_hf_are_checked_with_the_nearest() -> None:
    with pytest.raises(RecipeError) as caught:
        check_hf(TrainSettings(hf={"adam_beta_2": 0.95, "optim": "adamw_torch", "xyzzy": 1}))
    rendered = caught.value.render("en")
    assert "did you mean adam_beta2?" in rendered
    assert "train.hf.xyzzy" in rendered
    assert "optim" not in rendered.replace("option", "")


def test_every_argument_that_is_refused_in_hf_has_a_recipe_key_that_exists() -> None:
    for owner in OWNED_BY_MEDTUNE.values():
        if owner.startswith("train."):
            assert owner.removeprefix("train.") in TrainSettings.model_fields


def test_arguments(tmp_path: Path) -> None:
    settings = TrainSettings(schedule="constant", warmup_ratio=0.1, hf={"adam_beta2": 0.95}, epochs=2, seed=7)
    arguments = training_arguments(settings, tmp_path, num_steps=30, cached=False)
    assert (arguments.max_steps, arguments.warmup_steps, arguments.adam_beta2, arguments.seed) == (30, 3, 0.95, 7)
    assert arguments.lr_scheduler_type == "constant_with_warmup"
    assert list(arguments.report_to) == []
    assert arguments.n_gpu <= 1
    assert TrainSettings().warmup_steps is None
    default = training_arguments(TrainSettings(), tmp_path, num_steps=100, cached=False)
    assert default.warmup_steps == 3
    none = training_arguments(TrainSettings(warmup_steps=0), tmp_path, num_steps=100, cached=False)
    assert none.warmup_steps == 0


def test_numbers_in_hf_reach_transformers_as_numbers(tmp_path: Path) -> None:
    read = yaml.safe_load("{adam_epsilon: 1e-6, lr_scheduler_kwargs: {min_lr: 1e-7, name: x}, optim_args: 1e-6}")
    assert read["adam_epsilon"] == "1e-6", "YAML 1.1 takes this for text"
    arguments = training_arguments(TrainSettings(hf=read), tmp_path, num_steps=1, cached=False)
    assert (arguments.adam_epsilon, arguments.lr_scheduler_kwargs) == (1e-6, {"min_lr": 1e-7, "name": "x"})
    assert arguments.optim_args == "1e-6"
    with pytest.raises(RecipeError) as caught:
        training_arguments(TrainSettings(hf={"adam_epsilon": "small"}), tmp_path, num_steps=1, cached=False)
    assert [key for key, _ in caught.value.faults] == ["train.hf.adam_epsilon"]


def test_a_value_that_transformers_refuses_names_the_section(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        training_arguments(TrainSettings(hf={"optim": "adamvv"}), tmp_path, num_steps=1, cached=False)
    assert caught.value.key == "train.hf"
    assert "adamvv" in caught.value.render("en")


def test_bf16_without_a_gpu_for_it_says_what_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(TrainingError) as caught:
        training_arguments(TrainSettings(precision="bf16"), tmp_path, num_steps=1, cached=False)
    assert caught.value.key == "train.precision"
    assert isinstance(caught.value.remedy, Text)
    assert "precision=auto" in caught.value.remedy.render("en")
