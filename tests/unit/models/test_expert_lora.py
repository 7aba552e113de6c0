"""Low-rank experts against PEFT's own forward, which adds the delta to every expert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing

from medtune.models.expert_lora import low_rank_experts
from tiny_experts import text_model

GATE_UP, DOWN, ROUTER = "mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"


def adapted(model: Any, *, parameters: tuple[str, ...] = (GATE_UP, DOWN), rank: int = 4, rslora: bool = False) -> Any:
    """With adapters on experts (none of them zero) and on the queries."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(
        r=rank,
        lora_alpha=16,
        use_rslora=rslora,
        target_modules=["q_proj"],
        target_parameters=list(parameters),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def step(model: Any, *, num_tokens: int = 11) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and gradients of one training step."""
    device = next(model.parameters()).device
    torch.manual_seed(2)
    ids = torch.randint(0, 60, (2, num_tokens)).to(device)
    model.train()
    model.zero_grad(set_to_none=True)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    (logits.float() ** 2).mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return logits.detach(), gradients


def is_plain(model: Any) -> bool:
    return not any(hasattr(module, "_own_forward") for module in model.modules())


def assert_same(found: Any, wanted: Any, *, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found[0], wanted[0], rtol=tolerance, atol=tolerance)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        assert gradient.abs().max() > 0 or "q_proj" in name, name  # a lone token attends to itself whatever its query
        torch.testing.assert_close(found[1][name], gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max()), msg=name)


@pytest.mark.parametrize("model_type", ["qwen3_moe", "qwen3_vl_moe"])
@pytest.mark.parametrize(
    ("parameters", "rank", "rslora", "num_tokens"),
    [
        ((GATE_UP, DOWN), 4, False, 11),
        ((GATE_UP, DOWN), 3, True, 11),
        ((GATE_UP,), 8, False, 11),
        ((DOWN,), 1, False, 11),
        ((GATE_UP, DOWN), 4, False, 1),
    ],
    ids=["both", "rslora, odd rank", "gate-up only", "down only", "experts without tokens"],
)
def test_equals_peft(model_type: str, parameters: tuple[str, ...], rank: int, rslora: bool, num_tokens: int) -> None:
    model = adapted(text_model(model_type), parameters=parameters, rank=rank, rslora=rslora)
    wanted = step(model, num_tokens=num_tokens)
    with low_rank_experts(model) as served:
        assert served == 2
        assert_same(step(model, num_tokens=num_tokens), wanted)
    assert is_plain(model)
    assert torch.equal(step(model, num_tokens=num_tokens)[0], wanted[0])


def test_no_delta_of_all_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.layer import ParamWrapper

    model = adapted(text_model("qwen3_moe"))
    monkeypatch.setattr(ParamWrapper, "_activate_lora", lambda *_: pytest.fail("PEFT built the delta"))
    with low_rank_experts(model):
        step(model)


def test_with_gradient_checkpointing() -> None:
    model = adapted(text_model("qwen3_moe"))
    wanted = step(model)
    model.enable_input_require_grads()
    model.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
    with low_rank_experts(model):
        assert_same(step(model), wanted)


@pytest.mark.parametrize("parameters", [(GATE_UP, DOWN, ROUTER), (ROUTER,)])
def test_routers(parameters: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.layer import ParamWrapper

    model = adapted(text_model("qwen3_moe"), parameters=parameters)
    wanted = step(model)
    assert sum("mlp.gate." in name for name in wanted[1]) == 4
    monkeypatch.setattr(ParamWrapper, "_activate_lora", lambda *_: pytest.fail("PEFT registered a parametrization"))
    with low_rank_experts(model) as served:
        assert served == 2 * (len(parameters) > 1)
        assert_same(step(model), wanted)


def test_switched_off_adapter_is_the_base_model() -> None:
    model = adapted(text_model("qwen3_moe"))
    ids = torch.arange(5)[None]
    with torch.no_grad(), model.disable_adapter():
        wanted = model(input_ids=ids).logits
        with low_rank_experts(model):
            assert torch.equal(model(input_ids=ids).logits, wanted)


def test_models_without_adapted_experts_are_left_alone() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(text_model("qwen3_moe"), LoraConfig(r=2, target_modules=["q_proj"]))
    with low_rank_experts(model) as served:
        assert served == 0
        assert is_plain(model)


def test_taken_away_after_an_error() -> None:
    model = adapted(text_model("qwen3_moe"))
    with pytest.raises(RuntimeError, match="stop"), low_rank_experts(model):
        raise RuntimeError("stop")
    assert is_plain(model)


def test_loads_in_plain_peft(tmp_path: Path) -> None:
    from peft import PeftModel

    model = adapted(text_model("qwen3_vl_moe"), rslora=True)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1.0)
    with low_rank_experts(model):
        before, _ = step(model)
        optimizer.step()
        after, _ = step(model)
        model.save_pretrained(tmp_path)
    assert not torch.allclose(before, after, atol=1e-4)
    plain = PeftModel.from_pretrained(text_model("qwen3_vl_moe"), str(tmp_path), is_trainable=True)
    torch.testing.assert_close(step(plain)[0], after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", ["qwen3_moe", "qwen3_vl_moe"])
def test_experts_without_adapter_run_in_one_kernel(model_type: str) -> None:
    """Attention-only LoRA leaves the experts to transformers, whose default must not be the loop over experts."""
    config = text_model(model_type).config.get_text_config()
    assert config._experts_implementation == "grouped_mm"


def test_all_layers_share_one_compiled_graph() -> None:
    model = adapted(text_model("qwen3_moe", num_hidden_layers=3), parameters=(GATE_UP, DOWN, ROUTER))
    blocks = [layer.mlp for layer in model.base_model.model.model.layers]
    x = torch.randn(1, 7, 32)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    with low_rank_experts(model):
        wanted = [block(x) for block in blocks]
        compiled = torch.compile(lambda block, x: block(x), backend=counter, fullgraph=True)
        for block, output in zip(blocks, wanted, strict=True):
            torch.testing.assert_close(compiled(block, x), output, rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rank", [8, 3])
@pytest.mark.parametrize("num_tokens", [64, 1])
def test_equals_peft_in_bf16_on_a_gpu(rank: int, num_tokens: int) -> None:
    model = text_model("qwen3_moe", hidden_size=128, moe_intermediate_size=64).to("cuda", torch.bfloat16)
    model = adapted(model, rank=rank)
    wanted = step(model, num_tokens=num_tokens)
    with low_rank_experts(model):
        found = step(model, num_tokens=num_tokens)
    assert (found[0] - wanted[0]).float().norm() < 0.02 * wanted[0].float().norm()
    for name, gradient in wanted[1].items():
        assert (found[1][name] - gradient).float().norm() < 0.05 * gradient.float().norm(), name
