"""Weights in 4 bits: the numbers, what is packed and what is not, and what training then computes."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medtune.models import four_bit, four_bit_load
from medtune.models.adapter import adapter_report, add_adapter
from medtune.models.config import LoraSettings, ModelSettings, QloraSettings
from medtune.models.expert_lora import low_rank_experts
from medtune.models.load import load_adapter, load_model
from medtune.models.qwen_vl import QWEN3_VL_MOE
from tiny_models import tiny_model

pytest.importorskip("bitsandbytes")

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The sixteen values of NF4 (Dettmers et al. 2023, arXiv:2305.14314, appendix E)."""

LORA = LoraSettings(targets=("language", "experts"), rank=4, train_router=True)
QLORA = QloraSettings(**LORA.model_dump(exclude={"kind"}))


def nearest_nf4(weight: Tensor) -> Tensor:
    """Every value as the nearest of :data:`NF4`, times the largest magnitude in its block of 64."""
    blocks = weight.reshape(-1, 64)
    largest = blocks.abs().amax(dim=1, keepdim=True)
    nearest = (blocks / largest).unsqueeze(-1).sub(torch.tensor(NF4)).abs().argmin(dim=-1)
    return (torch.tensor(NF4)[nearest] * largest).reshape(weight.shape)


class Box(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 8, 64), (4, 64)])
def test_values_are_nf4(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    box = Box(weight)
    four_bit.attach(box, {"weight": four_bit.pack(weight, quantization="nf4", double_quantization=False)})
    torch.testing.assert_close(box.weight, nearest_nf4(weight), rtol=1e-6, atol=1e-6)
    assert [(p.dtype, p.numel(), p.requires_grad) for p in box.parameters()] == [(torch.uint8, weight.numel() // 2, False)]
    box.to(torch.bfloat16)
    torch.testing.assert_close(box.weight, nearest_nf4(weight), rtol=1e-6, atol=1e-6)


def test_double_quantization_costs_little() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    box = Box(weight)
    packed = four_bit.pack(weight, quantization="nf4", double_quantization=True)
    assert packed.state.absmax.dtype == torch.uint8
    four_bit.attach(box, {"weight": packed})
    assert (box.weight - nearest_nf4(weight)).norm() < 0.02 * weight.norm()


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """Rows of 64 and 128, so that linear layers are packed too."""
    folder = tiny_model(tmp_path_factory.mktemp("moe") / "base", "qwen3-vl-moe")
    from transformers import AutoConfig, Qwen3VLMoeForConditionalGeneration

    config = AutoConfig.from_pretrained(folder)
    config.text_config.hidden_size = config.vision_config.out_hidden_size = 64
    config.text_config.moe_intermediate_size, config.text_config.head_dim = 128, 16
    torch.manual_seed(0)
    Qwen3VLMoeForConditionalGeneration(config).save_pretrained(folder)
    return ModelSettings(base=str(folder))


@pytest.fixture
def packed(moe: ModelSettings) -> Any:
    return load_model(moe, device="cpu", quantization=QLORA)


def unpacked(model: Any, moe: ModelSettings) -> Any:
    """The same model in float32 with the values that the packed one has."""
    from bitsandbytes import functional

    plain: Any = load_model(moe, device="cpu")
    with torch.no_grad():
        for name, module in model.named_modules():
            if type(module).__name__ == "Linear4bit":
                weight = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
                plain.get_submodule(name).weight.copy_(weight)
            elif hasattr(module, "parametrizations"):
                for parameter in ("gate_up_proj", "down_proj"):
                    getattr(plain.get_submodule(name), parameter).copy_(getattr(module, parameter))
    return plain


def with_adapter(model: Any, settings: Any) -> Any:
    torch.manual_seed(1)
    model = add_adapter(model, settings, QWEN3_VL_MOE)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            # By name, because the two models draw in different order.
            generator = torch.Generator().manual_seed(len(name) * 1000 + sum(map(ord, name)))
            parameter.data.normal_(std=0.1, generator=generator)
    return model


def step(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    ids = torch.arange(5, 16)[None]
    model.train()
    model.zero_grad(set_to_none=True)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    (logits**2).mean().backward()
    return logits.detach(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def test_what_is_packed(packed: Any) -> None:
    kinds = {name: type(module).__name__ for name, module in packed.named_modules()}
    layer = "model.language_model.layers.1"
    assert kinds[f"{layer}.self_attn.q_proj"] == "Linear4bit"
    assert all(kind == "Linear" for name, kind in kinds.items() if "visual" in name and kind.startswith("Linear"))
    assert kinds["lm_head"] == "Linear"
    dtypes = {name: parameter.dtype for name, parameter in packed.named_parameters()}
    for name in ("gate_up_proj", "down_proj"):
        assert dtypes[f"{layer}.mlp.experts.parametrizations.{name}.original"] == torch.uint8
    assert dtypes[f"{layer}.mlp.gate.weight"] == dtypes["model.language_model.embed_tokens.weight"] == torch.float32
    assert packed.is_loaded_in_4bit


def test_loading_holds_one_weight_at_a_time(moe: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[Tensor]] = []
    pack = four_bit.pack

    def watched(weight: Tensor, **options: Any) -> Any:
        assert not any(earlier() is not None for earlier in seen)
        seen.append(weakref.ref(weight))
        return pack(weight, **options)

    monkeypatch.setattr(four_bit_load, "pack", watched)
    load_model(moe, device="cpu", quantization=QLORA)
    assert len(seen) == 4


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_equals_the_unpacked_model(packed: Any, moe: ModelSettings, checkpointing: bool) -> None:
    wanted = step(with_adapter(unpacked(packed, moe), LORA))
    model = with_adapter(packed, QLORA)
    if checkpointing:
        model.enable_input_require_grads()
        packed.gradient_checkpointing_enable({"use_reentrant": False})
    with low_rank_experts(model) as served:
        assert served == 2
        found = step(model)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-4)
    assert found[1].keys() == wanted[1].keys()
    assert len(wanted[1]) == 2 * 2 * (4 + 2 + 1)
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))
    # Outside of the context nothing of the adapter may pile up.
    for _ in range(2):
        torch.testing.assert_close(step(model)[0], wanted[0], rtol=1e-4, atol=1e-4)


def test_experts_without_adapter_are_served_too(packed: Any, moe: ModelSettings) -> None:
    attention = {"targets": ("language",)}
    wanted = step(with_adapter(unpacked(packed, moe), LoraSettings(**attention)))
    model = with_adapter(packed, QloraSettings(**attention))
    with low_rank_experts(model) as served, one_at_a_time(model):
        assert served == 2
        found = step(model)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-4)


@contextlib.contextmanager
def one_at_a_time(model: Any) -> Iterator[list[int]]:
    """Fail when a weight is spread out while another one still is; yields the elements of each that was."""
    alive: list[weakref.ref[Tensor]] = []
    counted: list[int] = []

    def watch(module: nn.Module, args: Any, weight: Tensor) -> None:  # noqa: ARG001
        assert not any(earlier() is not None for earlier in alive)
        alive.append(weakref.ref(weight.untyped_storage()))  # type: ignore[arg-type]
        counted.append(weight.numel())

    hooks = [module.register_forward_hook(watch) for module in model.modules() if isinstance(module, four_bit.FourBitWeight)]
    yield counted
    for hook in hooks:
        hook.remove()


def test_one_weight_is_unpacked_at_a_time(packed: Any) -> None:
    model = with_adapter(packed, QLORA)
    with low_rank_experts(model), one_at_a_time(model) as counted:
        step(model)
    assert len(counted) == 2 * 2 * 2  # layers, weights, forward and backward


def test_report_counts_packed_numbers(packed: Any, moe: ModelSettings) -> None:
    plain = adapter_report(with_adapter(load_model(moe, device="cpu"), LORA))
    report = adapter_report(with_adapter(packed, QLORA))
    assert (report.num_total, report.num_trainable, report.rows) == (plain.num_total, plain.num_trainable, plain.rows)


def test_adapter_goes_between_packed_and_plain(packed: Any, moe: ModelSettings, tmp_path: Path) -> None:
    from peft import PeftModel

    plain = unpacked(packed, moe)
    model = with_adapter(packed, QLORA)
    with low_rank_experts(model):
        wanted, _ = step(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(plain, str(tmp_path), is_trainable=True)
    torch.testing.assert_close(step(loaded)[0], wanted, rtol=1e-4, atol=1e-4)
    again = load_adapter(load_model(moe, device="cpu", quantization=QLORA), tmp_path, trainable=True)
    torch.testing.assert_close(step(again)[0], wanted, rtol=1e-4, atol=1e-4)


def test_packed_layers_share_one_compiled_graph(packed: Any) -> None:
    import torch._dynamo.testing

    model = with_adapter(packed, QLORA)
    blocks = [layer.mlp for layer in model.base_model.model.model.language_model.layers]
    x = torch.randn(1, 7, 64)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    with low_rank_experts(model):
        wanted = [block(x) for block in blocks]
        compiled = torch.compile(lambda block, x: block(x), backend=counter, fullgraph=True)
        for block, output in zip(blocks, wanted, strict=True):
            torch.testing.assert_close(compiled(block, x), output, rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 1
