"""What is trained is what was named, all of it and nothing else: after two real steps, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medtune.models.config import SCOPES, FullSettings, LoraSettings, Scope
from tiny_models import FAMILIES
from tiny_training import Setup, make_setup

STEPS: dict[str, Any] = {
    "max_steps": 2,
    "learning_rate": 1e-2,
    "gradient_accumulation_steps": 1,
    "evaluate_every": "never",
    "warmup_steps": 0,
}


@pytest.fixture(scope="module", params=FAMILIES)
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return make_setup(tmp_path_factory.mktemp(request.param), family=request.param, num_rows=8)


def scopes_of(setup: Setup) -> list[Scope]:
    names = [name for name, _ in setup.model(FullSettings(freeze=())).named_parameters()]
    return [scope for scope in SCOPES if any(setup.encoder.family.scope_of(name) == scope for name in names)]


def tensors(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def base_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def out_of_reach(name: str) -> bool:
    """Weights whose work no answer of the *tiny* models depends on.

    The second DeepStack features join the picture's places behind the last of two language layers, where no later token can
    look at them; LLaVA takes its features from before the vision tower's last norm.
    """
    return "deepstack_merger_list.1." in name or "vision_tower.post_layernorm" in name


def test_lora_trains_every_module_of_its_scope_and_leaves_the_base_alone(setup: Setup, tmp_path: Path) -> None:
    """With gradient checkpointing, where a tower whose input needs no gradient is easily cut off."""
    for scope in scopes_of(setup):
        model = setup.model(LoraSettings(rank=2, targets=(scope,)))
        before = tensors(model)
        setup.train(setup.run(tmp_path / scope), model=model, gradient_checkpointing=True, **STEPS)
        changed = {name for name, value in tensors(model).items() if not torch.equal(value, before[name])}
        trained = {name for name in before if ".lora_" in name}
        # With B at zero no gradient reaches A in the first step; after the second both have moved.
        assert changed == {name for name in trained if not out_of_reach(name)}, scope
        owners = {setup.encoder.family.scope_of(base_name(name)) for name in trained}
        assert owners == {scope}


def test_a_full_fine_tune_trains_what_is_not_frozen(setup: Setup, tmp_path: Path) -> None:
    scopes = scopes_of(setup)
    for scope in scopes:
        model = setup.model(FullSettings(freeze=tuple(other for other in scopes if other != scope)))
        before = tensors(model)
        setup.train(setup.run(tmp_path / scope), model=model, **STEPS)
        changed = {name for name, value in tensors(model).items() if not torch.equal(value, before[name])}
        own = {name for name in before if setup.encoder.family.scope_of(name) == scope}
        assert changed == {name for name in own if not out_of_reach(name)}, scope
