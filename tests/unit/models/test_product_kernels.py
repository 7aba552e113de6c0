"""Products of few rows in Triton beside torch's; ``test_step_kernels.py`` runs these where there is no GPU."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import silu

CUDA = torch.cuda.is_available()
if find_spec("triton") is None or not (CUDA or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("test_step_kernels.py runs these with Triton's interpreter", allow_module_level=True)

from medtune.models import product_kernels  # noqa: E402
from medtune.models.few_rows import MOST_ROWS, FewRows  # noqa: E402
from medtune.models.product_kernels import can_run, gated_product, product  # noqa: E402
from medtune.models.projections import Projections  # noqa: E402
from medtune.models.step_kernels import TritonOperations  # noqa: E402
from medtune.models.step_operations import TorchOperations  # noqa: E402

DEVICE = torch.device("cuda" if CUDA else "cpu")
TYPES = [torch.float32, torch.bfloat16 if CUDA else torch.float16]
CHAINED = [False, True] if CUDA and torch.cuda.get_device_capability() >= (9, 0) else [False]


def drawn(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, device=DEVICE, dtype=dtype)


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    loose = {} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 2e-2}
    torch.testing.assert_close(found.float(), wanted.float(), **loose)


@pytest.mark.parametrize("chained", CHAINED)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rank", [0, 16, 32])
@pytest.mark.parametrize(("rows", "width", "depth"), [(1, 64, 128), (5, 96, 256), (16, 70, 384), (33, 128, 512)])
def test_product(rows: int, width: int, depth: int, rank: int, dtype: torch.dtype, chained: bool, monkeypatch: Any) -> None:
    """Whole and in parts, with weights whose rows are no whole multiple of what a program takes."""
    torch.manual_seed(0)
    x, weight = drawn(rows, depth, dtype=dtype), drawn(width, depth, dtype=dtype, scale=0.05)
    first, second = drawn(rank, depth, dtype=dtype, scale=0.05), drawn(rank, width, dtype=dtype, scale=0.3)
    bias = drawn(width, dtype=dtype)
    wanted = x.double() @ weight.double().T + x.double() @ first.double().T @ second.double()
    adapter = (first, second) if rank else (None, None)
    for busy in (1, product_kernels._BUSY):  # the wide tiling, then the one that fits
        monkeypatch.setattr(product_kernels, "_BUSY", busy)
        close(product(x, FewRows((weight,), *adapter), apart=False, chained=chained), wanted, dtype)
        close(product(x, FewRows((weight,), *adapter, bias), apart=True, chained=chained), wanted + bias.double(), dtype)
        apart = product(x, FewRows((weight,), *adapter), apart=True, chained=chained)
        if busy > 1 and depth % 256 == 0:
            assert apart.ndim == 3
            assert apart.dtype == torch.float32
            assert len(apart) == depth // 128
            apart = apart.sum(dim=0)
        close(apart, wanted, dtype)


@pytest.mark.parametrize("chained", CHAINED)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rank", [0, 16])
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (20, 50)])
def test_gated_product(rows: int, width: int, rank: int, dtype: torch.dtype, chained: bool) -> None:
    torch.manual_seed(0)
    x, gate, up = drawn(rows, 256, dtype=dtype), *(drawn(width, 256, dtype=dtype, scale=0.05) for _ in range(2))
    first, second = drawn(rank, 256, dtype=dtype, scale=0.05), drawn(rank, 2 * width, dtype=dtype, scale=0.3)
    more = x.double() @ first.double().T @ second.double()
    wanted = silu(x.double() @ gate.double().T + more[:, :width]) * (x.double() @ up.double().T + more[:, width:])
    found = gated_product(x, FewRows((gate, up), *((first, second) if rank else (None, None))), chained=chained)
    close(found, wanted, dtype)


@pytest.mark.parametrize("dtype", [dtype for dtype in TYPES if dtype != torch.float32])
@pytest.mark.parametrize("targets", [None, ["gate", "up", "down"], ["up"], ["gate", "down"]])
def test_operations(targets: list[str] | None, dtype: torch.dtype) -> None:
    """Layers with an adapter on all, some and none of them; what the products leave in parts is added up by the norm."""
    torch.manual_seed(0)
    layers: Any = nn.ModuleDict({"gate": nn.Linear(256, 512, bias=False), "up": nn.Linear(256, 512, bias=False)})
    layers["down"] = nn.Linear(512, 256, bias=False)
    if targets is not None:
        layers = adapted(layers, targets)
    layers = layers.to(DEVICE, dtype)
    norm = nn.Module()
    norm.weight, norm.variance_epsilon = nn.Parameter(torch.rand(256, device=DEVICE, dtype=dtype)), 1e-6  # type: ignore[assignment]
    into, out = (Projections([layers[name] for name in names], use_adapter=True) for names in (("gate", "up"), ("down",)))
    assert into.few is not None
    assert out.few is not None
    fused = TritonOperations(DEVICE, dtype)
    assert fused._multiplies
    parts: list[int] = []

    def run(operations: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (added,) = operations.product(out, operations.gated_product(into, x, nn.SiLU()), apart=True)
        parts.append(len(added) if added.ndim > x.ndim else 1)
        hidden, normed = operations.add_norm(x.clone(), added, norm)
        return hidden, normed

    with torch.inference_mode():
        for shape in ((3, 1, 256), (MOST_ROWS, 256), (MOST_ROWS + 1, 256)):
            x = drawn(*shape, dtype=dtype)
            for found, wanted in zip(run(fused, x), run(TorchOperations(), x), strict=True):
                assert found.shape == wanted.shape
                close(found, wanted, dtype)
        assert parts == [4, 1, 4, 1, 1, 1], "of ours and of torch's, at three numbers of rows"
        # Asked for both results, the kernel that multiplies them with each other does not serve.
        for found, wanted in zip(fused.product(into, x[:3]), into(x[:3]), strict=True):
            close(found, wanted, dtype)


def adapted(layers: nn.Module, targets: list[str]) -> Any:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(layers, LoraConfig(r=8, lora_alpha=16, target_modules=targets))  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.base_model.model.eval()


def test_they_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_run(DEVICE, torch.float16, chained=False)
    assert not can_run(DEVICE, torch.float32, chained=False)

    def scarce(*_: object, **__: object) -> None:
        raise RuntimeError("out of resource: shared memory\nmore")

    monkeypatch.setattr(product_kernels, "_launch", scarce)
    can_run.cache_clear()
    assert not can_run(DEVICE, torch.float16, chained=False)
    can_run.cache_clear()
