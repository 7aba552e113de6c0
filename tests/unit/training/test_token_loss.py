"""The loss from labelled positions only is the model's own loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medtune.models.adapter import add_adapter
from medtune.models.config import FullSettings, LoraSettings, ModelSettings
from medtune.models.load import load_model
from medtune.training.data import EncodedRows
from medtune.training.loss import TokenLoss
from tiny_models import FAMILIES
from tiny_training import Setup, make_setup


def batch_of(setup: Setup, num_rows: int = 3) -> dict[str, Any]:
    rows = EncodedRows(setup.rows, setup.encoder, setup.image_path)
    return dict(setup.encoder.collate([rows[index] for index in range(num_rows)]).inputs)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_models_own_loss_and_gradients(family: str, tmp_path: Path) -> None:
    setup = make_setup(tmp_path, family=family, num_rows=4)
    base: Any = load_model(ModelSettings(base=str(setup.model_folder)), device="cpu")
    model: Any = add_adapter(base, FullSettings(freeze=()), setup.encoder.family)
    inputs = batch_of(setup)
    own = model(**inputs).loss
    own.backward()
    expected = gradients(model)

    token_loss = TokenLoss(model)
    losses, _ = token_loss(model, inputs)
    assert len(losses) == int((inputs["labels"][:, 1:] >= 0).sum())
    loss = losses.mean()
    loss.backward()
    assert torch.testing.assert_close(loss, own, rtol=1e-5, atol=1e-6) is None
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)

    token_loss.close()
    assert model(**inputs).logits.shape[:2] == inputs["labels"].shape


def test_a_model_without_an_output_head_is_served_from_its_full_logits(setup: Setup) -> None:
    model = setup.model()
    inputs = batch_of(setup)
    short, _ = TokenLoss(model)(model, inputs)

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = setup.model()

        def forward(self, **kwargs: Any) -> Any:
            return self.inner(**kwargs)

    hidden = Hidden()
    full, outputs = TokenLoss(hidden)(hidden, inputs)
    assert outputs.logits.dim() == 3
    torch.testing.assert_close(full, short, rtol=1e-5, atol=1e-6)


def test_an_adapter_on_the_output_head_is_trained_too(setup: Setup) -> None:
    model = setup.model(LoraSettings(rank=2, extra=("lm_head",)))
    losses, _ = TokenLoss(model)(model, batch_of(setup))
    losses.sum().backward()
    touched = [name for name in gradients(model) if "lm_head" in name]
    assert touched


@pytest.mark.parametrize("adapter", [LoraSettings(rank=2), FullSettings(freeze=())], ids=["frozen head", "trained head"])
def test_the_logits_of_all_tokens_are_never_there_at_once(setup: Setup, monkeypatch: pytest.MonkeyPatch, adapter: Any) -> None:
    model: Any = setup.model(adapter)
    inputs = batch_of(setup)
    whole, _ = TokenLoss(model)(model, inputs)
    weights = torch.linspace(0.1, 2.0, len(whole))
    (whole * weights).sum().backward()
    expected = gradients(model)
    model.zero_grad()

    monkeypatch.setattr("medtune.training.loss.CHUNK_TOKENS", 7)
    seen: list[int] = []
    linear = torch.nn.functional.linear
    vocabulary = model.get_output_embeddings().weight.shape[0]

    def watched(values: Any, weight: Any, bias: Any = None) -> Any:
        if weight.shape[0] == vocabulary:
            seen.append(len(values))
        return linear(values, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    losses, _ = TokenLoss(model)(model, inputs)
    (losses * weights).sum().backward()
    assert max(seen) == 7
    torch.testing.assert_close(losses, whole, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
