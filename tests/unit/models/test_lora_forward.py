"""LoRA layers in the type of their input, sharing products: the numbers are PEFT's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from medtune.models.fused_projections import fused_projections
from medtune.models.lora_forward import all_plain, low_rank_in_input_type


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(16, 16), nn.Linear(16, 8), nn.Linear(16, 8)
        self.o_proj = nn.Linear(32, 16)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.o_proj(torch.cat([self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)], dim=-1))
        return output


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.first, self.second = Attention(), Attention()

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.second(torch.tanh(self.first(hidden)))
        return output


def adapted(**options: Any) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], **options)
    model: Any = get_peft_model(Tiny(), config)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter.data, std=0.1)
    return model.train()


def result(model: Any, hidden: Tensor) -> dict[str, Tensor]:
    hidden = hidden.clone().requires_grad_()
    torch.manual_seed(1)
    output = model(hidden)
    (output.float() * torch.linspace(0.1, 1.0, 16)).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return {**found, "output": output.detach(), "input": hidden.grad}  # type: ignore[dict-item]


HIDDEN = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("options", "plain", "groups"),
    [
        ({}, 8, 2),
        ({"use_rslora": True}, 8, 2),
        ({"lora_dropout": 0.4}, 8, 0),
        ({"use_dora": True}, 0, 0),
        ({"lora_bias": True}, 0, 0),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_pefts(options: dict[str, Any], plain: int, groups: int) -> None:
    model = adapted(**options)
    expected = result(model, HIDDEN)
    classes = [type(module) for module in model.modules()]
    assert all_plain(model) == bool(plain)
    with fused_projections(model) as shared, low_rank_in_input_type(model) as cast:
        assert (shared, cast + 3 * shared) == (groups, plain)
        found = result(model, HIDDEN)
        # A pass that broke off half-way must not hand its products to the next one.
        if groups:
            model.base_model.model.first.q_proj(HIDDEN + 1)
            again = result(model, HIDDEN)
            assert torch.equal(again["output"], found["output"])
    assert [type(module) for module in model.modules()] == classes
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_sixteen_bits_in_sixteen_bits_out_and_gradients_of_the_weights_own_type() -> None:
    model = adapted()
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    expected = result(adapted(), HIDDEN)
    with fused_projections(model), low_rank_in_input_type(model):
        found = result(model, HIDDEN.bfloat16())
    assert found["output"].dtype == found["input"].dtype == torch.bfloat16
    for name, value in found.items():
        if "lora_" in name:
            assert value.dtype == torch.float32
            assert float((value - expected[name]).norm() / expected[name].norm()) < 0.02, name


def test_a_merged_or_disabled_adapter_is_pefts_affair() -> None:
    model = adapted()
    with model.disable_adapter(), fused_projections(model) as shared, low_rank_in_input_type(model) as cast:
        assert (shared, cast) == (0, 0)
    model.merge_adapter()
    with fused_projections(model) as shared, low_rank_in_input_type(model) as cast:
        assert (shared, cast) == (0, 0)
