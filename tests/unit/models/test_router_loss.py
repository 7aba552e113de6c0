"""The balancing loss: worked by hand, against transformers, and without padding."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from medtune.models.router_loss import balancing_loss, returns_router_loss, router_loss
from tiny_experts import text_model


def test_by_hand() -> None:
    even = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
    torch.testing.assert_close(balancing_loss([even], top_k=1), torch.tensor(1.0))
    p = torch.softmax(torch.tensor([3.0, 0.0]), 0)[0]
    collapsed = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
    torch.testing.assert_close(balancing_loss([collapsed], top_k=1), 2 * p)
    # The layers collapse onto different experts: each is as bad as before.
    torch.testing.assert_close(balancing_loss([collapsed, collapsed.flip(1)], top_k=1), 2 * p)


@pytest.mark.parametrize("mask", [None, torch.tensor([1, 1, 1, 0, 0, 1, 1])])
def test_one_layer_agrees_with_transformers(mask: torch.Tensor | None) -> None:
    module = importlib.import_module("transformers.models.qwen3_moe.modeling_qwen3_moe")
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    wanted = module.load_balancing_loss_func((logits,), 5, 2, None if mask is None else mask[None])
    torch.testing.assert_close(balancing_loss([logits], top_k=2, mask=None if mask is None else mask.bool()), wanted)


@pytest.mark.parametrize("model_type", ["qwen3_moe", "qwen3_vl_moe"])
def test_in_the_model(model_type: str) -> None:
    model: Any = text_model(model_type)
    model.config.get_text_config().output_router_logits = True
    ids = torch.arange(3, 12)[None]
    padded = {
        "input_ids": torch.nn.functional.pad(ids, (0, 4)),
        "attention_mask": torch.nn.functional.pad(torch.ones_like(ids), (0, 4)),
    }
    plain = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    model.train()
    with router_loss(model, 0.01) as found:
        assert found
        assert model.config.get_text_config().router_aux_loss_coef == 0.01
        loss = model(**plain)["aux_loss"]
        torch.testing.assert_close(model(**padded, routed=padded["attention_mask"].flatten() != 0)["aux_loss"], loss)
        assert abs(float((model(**padded)["aux_loss"] - loss).detach())) > 1e-3
        nothing = model(**plain, routed=torch.zeros(9, dtype=torch.bool))["aux_loss"]
        assert nothing == 0
        nothing.backward()
        assert all(parameter.grad.abs().max() == 0 for name, parameter in model.named_parameters() if "mlp.gate." in name)
        assert 1.8 < loss.item() < 6.0
        loss.backward()
        gates = [parameter.grad for name, parameter in model.named_parameters() if "mlp.gate." in name]
        assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gates)
        assert returns_router_loss(model)
        model.eval()
        assert model(**plain, routed=torch.ones(9, dtype=torch.bool)).get("aux_loss") is None
        assert model(**plain).get("aux_loss") is None
        model.train()
    assert model.config.get_text_config().output_router_logits
    assert "forward" not in vars(model)
    with router_loss(model, None):
        assert not returns_router_loss(model)
        assert model(**plain).get("aux_loss") is None


def test_with_gradient_checkpointing() -> None:
    model: Any = text_model("qwen3_moe")
    ids = torch.arange(3, 12)[None]
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        model.zero_grad()
        with router_loss(model, 0.01):
            model(input_ids=ids)["aux_loss"].backward()
        gradients.append(model.model.layers[0].mlp.gate.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_dense_models_have_none() -> None:
    import transformers

    config = transformers.Qwen3Config(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with router_loss(transformers.Qwen3ForCausalLM(config), 0.1) as found:
        assert not found
