"""Linear layers with one input, called together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from medtune.models.projections import Projections

WIDTHS = {"first": 12, "second": 6, "third": 5}


class Three(nn.Module):
    def __init__(self, bias: set[str]) -> None:
        super().__init__()
        for name, width in WIDTHS.items():
            self.add_module(name, nn.Linear(16, width, bias=name in bias))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [getattr(self, name)(x) for name in WIDTHS]


def adapted(targets: list[str], bias: set[str], rank: int = 3) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(Three(bias), LoraConfig(r=rank, lora_alpha=5, target_modules=targets))  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model.eval()


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("bias", [set[str](), {"second"}, set(WIDTHS)])
@pytest.mark.parametrize("targets", [["first", "second", "third"], ["first", "third"], ["second"]])
def test_they_are_what_they_are_one_by_one(targets: list[str], bias: set[str], copied: bool) -> None:
    model = adapted(targets, bias)
    inner = model.base_model.model
    members = [getattr(inner, name) for name in WIDTHS]
    with torch.inference_mode():
        for shape in ((1, 16), (7, 16), (2, 3, 16)):
            x = torch.randn(shape)
            for use_adapter in (True, False):
                found = Projections(members, use_adapter=use_adapter, copied=copied)(x)
                if use_adapter:
                    wanted = model(x)
                else:
                    with model.disable_adapter():
                        wanted = model(x)
                for part, whole in zip(found, wanted, strict=True):
                    assert part.shape == whole.shape
                    assert part.stride(-1) == 1
                    torch.testing.assert_close(part, whole)


def test_a_copy_begins_its_rows_at_whole_pieces() -> None:
    model = adapted(list(WIDTHS), set())
    projections = Projections(list(model.base_model.model.children()), use_adapter=True, copied=True)
    assert projections._weight is not None
    assert projections._weight.shape == (32, 16), "12 + 6 + 5 rows, 3 x 3 of the adapter: 32 in all"
    alone = Projections(list(model.base_model.model.children()), use_adapter=False, copied=True)
    assert alone._weight is not None
    assert alone._weight.shape == (32, 16), "12 + 6 + 5 rows"


def test_what_is_no_plain_layer_is_not_copied() -> None:
    class Packed(nn.Linear):
        """As layers of 4 bits are."""

    class PackedNumbers(torch.Tensor):
        """As the weights of plain layers are that torchao has quantized."""

    quantized = nn.Linear(16, 4)
    quantized.weight = nn.Parameter(quantized.weight.detach().as_subclass(PackedNumbers))
    x = torch.randn(2, 16)
    for other in (Packed(16, 4), quantized):
        members = [nn.Linear(16, 4), other]
        projections = Projections(members, use_adapter=True, copied=True)
        assert projections._weight is None
        assert projections.few is None
        with torch.inference_mode():
            for found, member in zip(projections(x), members, strict=True):
                torch.testing.assert_close(found, member(x))
