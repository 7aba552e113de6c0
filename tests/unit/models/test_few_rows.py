"""Which linear layers the products of few rows serve."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from medtune.models.few_rows import FewRows
from medtune.models.projections import Projections


def weight(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype)


def test_an_adapter_is_filled_up_with_zeros() -> None:
    first, second = weight(20, 256), weight(20, 64)
    layer = FewRows.of((weight(64, 256),), first, second, None)
    assert layer is not None
    assert layer.first is not None
    assert layer.second is not None
    assert layer.first.shape == (32, 256)
    assert layer.second.shape == (32, 64)
    assert torch.equal(layer.first[:20], first)
    assert torch.equal(layer.second[:20], second)
    assert not layer.first[20:].any()
    assert not layer.second[20:].any()


@pytest.mark.parametrize(
    ("weights", "rank", "bias"),
    [
        ((weight(64, 256, dtype=torch.float32),), 0, None),
        ((weight(64, 192),), 0, None),
        ((weight(256, 64).t(),), 0, None),
        ((weight(64, 256), weight(32, 256)), 0, None),
        ((weight(64, 256), weight(64, 256)), 0, weight(64)),
        ((weight(64, 256),) * 3, 0, None),
        ((weight(64, 256),), 33, None),
    ],
)
def test_what_is_not_served(weights: tuple[torch.Tensor, ...], rank: int, bias: torch.Tensor | None) -> None:
    adapter = (weight(rank, 256), weight(rank, 64)) if rank else (None, None)
    assert FewRows.of(weights, *adapter, bias) is None
    assert FewRows.of((weight(64, 256),), None, None, weight(64)) is not None


@pytest.mark.parametrize("ranks", [{}, {"second": 7}, {"first": 12, "second": 3}])
@pytest.mark.parametrize("targets", [["first"], ["second"], ["first", "second"], ["first", "second", "third"], []])
@pytest.mark.parametrize("members", [["first"], ["first", "second"], ["first", "second", "third"]])
@pytest.mark.parametrize("bias", [False, True])
def test_they_compute_what_the_layers_do(members: list[str], targets: list[str], ranks: dict[str, int], bias: bool) -> None:
    """Whichever of them are adapted, and with whatever ranks."""
    torch.manual_seed(0)
    layers = nn.ModuleDict({name: nn.Linear(128, 64, bias=bias) for name in ("first", "second", "third")})
    if targets:
        ranks = {name: rank for name, rank in ranks.items() if name in targets}
        config = LoraConfig(r=4, lora_alpha=8, rank_pattern=ranks, target_modules=targets, init_lora_weights=False)
        layers = get_peft_model(layers, config).base_model.model  # type: ignore[arg-type]
    layers.bfloat16().eval()
    chosen = [layers[name] for name in members]
    layer = Projections(chosen, use_adapter=True, copied=len(members) == 3).few
    if (bias and len(members) == 2) or (len(members) == 3 and len(targets) in (1, 2)):
        assert layer is None
        return
    assert layer is not None
    x = torch.randn(5, 128, dtype=torch.float64)
    found = torch.cat([x @ weight.double().T for weight in layer.weights], dim=-1)
    if layer.first is not None and layer.second is not None:
        found += x @ layer.first.double().T @ layer.second.double()
    if layer.bias is not None:
        found += layer.bias.double()
    layers.double()
    wanted = torch.cat([member(x) for member in chosen], dim=-1)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=2e-2)


def test_projections_hold_what_their_call_computes() -> None:
    """Of one layer, of two, and of three as one copied weight; other modules and other numbers of layers have none."""
    torch.manual_seed(0)
    layers = [nn.Linear(256, 64, bias=False, dtype=torch.bfloat16) for _ in range(3)]

    def of(members: list[Any], **options: Any) -> FewRows | None:
        return Projections(members, use_adapter=True, **options).few

    one, two, three = of(layers[:1]), of(layers[:2]), of(layers, copied=True)
    assert one is not None
    assert two is not None
    assert three is not None
    assert [each.data_ptr() for each in two.weights] == [layer.weight.data_ptr() for layer in layers[:2]]
    assert torch.equal(three.weights[0], torch.cat([layer.weight for layer in layers]))
    assert of(layers) is None
    assert of([nn.LayerNorm(256)]) is None
    assert of([nn.Linear(256, 64, dtype=torch.bfloat16)] * 2) is None
    biased = of([nn.Linear(256, 64, dtype=torch.bfloat16)])
    assert biased is not None
    assert biased.bias is not None
