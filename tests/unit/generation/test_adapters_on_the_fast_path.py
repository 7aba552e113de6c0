"""Whatever PEFT has put into a model, and wherever: tuned and base answer on the fast path as in transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model

from medtune.errors import GenerationError
from medtune.generation.hf import HfGenerator
from medtune.models.decoder import Decoder, can_decode
from medtune.models.encoder import Encoder
from medtune.types import Request, Sampling
from tiny_generation import Loaded, answered, load_answering, requests_for

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_answering(tmp_path_factory.mktemp("model"), "qwen3-vl")


def questions(encoder: Encoder) -> list[Request]:
    made = requests_for(encoder, Sampling(max_new_tokens=6))
    return [made[1], made[2], made[4]]


def texts(model: Any, encoder: Encoder, *, fast: bool, use_adapter: bool = True) -> dict[str, str]:
    generator = HfGenerator(model, encoder, fast=fast, use_adapter=use_adapter)
    return {name: answer.text for name, answer in answered(generator, questions(encoder)).items()}


def drawn(model: Any, config: Any) -> Any:
    """An adapter whose every number is as if trained."""
    torch.manual_seed(0)
    adapted = get_peft_model(copy.deepcopy(model), config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return adapted.eval()


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": LINEAR, **options})


@pytest.mark.parametrize(
    ("config", "called"),
    [
        (lora(lora_dropout=0.5, use_rslora=True), (False, False)),
        (lora(rank_pattern={"q_proj": 2, "up_proj": 7}, alpha_pattern={"k_proj": 31}), (False, False)),
        (lora(target_modules=["q_proj", "gate_proj"], layers_to_transform=[1]), (False, False)),
        pytest.param(lora(lora_bias=True), (True, False), marks=pytest.mark.filterwarnings("ignore:.*merging LoRA weights")),
        (lora(use_dora=True), (True, False)),
        (lora(target_parameters=["o_proj.weight"], target_modules=["k_proj"]), (True, False)),
        (lora(target_modules=[*LINEAR, "embed_tokens", "lm_head"]), (True, True)),
        (lora(target_modules=["q_proj", "qkv", "linear_fc1"]), (True, True)),
        (lora(trainable_token_indices=[5, 9, 30]), (True, True)),
        (lora(target_modules=["v_proj"], modules_to_save=["q_proj", "input_layernorm", "q_norm", "merger"]), (True, True)),
        (peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]), (True, False)),
        pytest.param(
            peft.LNTuningConfig(target_modules=["input_layernorm", "k_norm"]),
            (True, True),
            marks=pytest.mark.filterwarnings("ignore:Unsupported layer type"),
        ),
    ],
    ids=lambda value: "" if isinstance(value, tuple) else type(value).__name__,
)
def test_an_adapter_acts_as_in_transformers(config: Any, called: tuple[bool, bool], tiny: Loaded) -> None:
    """``called``: whether PEFT's modules are, with the adapter and without."""
    model, encoder = tiny
    base = texts(model, encoder, fast=False)
    adapted = drawn(model, config)
    expected = texts(adapted, encoder, fast=False)
    assert expected != base
    assert tuple(Decoder(adapted, use_adapter=use).calls_adapters for use in (True, False)) == called
    assert texts(adapted, encoder, fast=True) == expected
    assert texts(adapted, encoder, fast=True, use_adapter=False) == base
    with adapted.disable_adapter():
        assert texts(adapted, encoder, fast=True) == base


@pytest.mark.parametrize("names", [["default"], ["default", "second"]])
def test_merged_adapters_and_several(names: list[str], tiny: Loaded) -> None:
    model, encoder = tiny
    base = texts(model, encoder, fast=False)
    adapted = drawn(model, lora(init_lora_weights=False))
    adapted.add_adapter("second", lora(target_modules=["k_proj", "up_proj"], init_lora_weights=False))
    adapted.base_model.set_adapter(names)
    expected = texts(adapted, encoder, fast=False)
    assert expected != base
    for _ in ("apart", "merged"):
        assert texts(adapted, encoder, fast=True) == expected
        assert texts(adapted, encoder, fast=True, use_adapter=False) == base
        adapted.merge_adapter()


def test_an_adapter_on_experts_acts_as_in_transformers(tmp_path: Path) -> None:
    model, encoder = load_answering(tmp_path, "qwen3-vl-moe")
    base = texts(model, encoder, fast=False)
    experts = [name for name, _ in model.named_parameters() if name.endswith(("gate_up_proj", "down_proj")) and "experts" in name]
    adapted = drawn(model, lora(r=2, target_modules=["q_proj"], target_parameters=experts))
    expected = texts(adapted, encoder, fast=False)
    assert expected != base
    assert texts(adapted, encoder, fast=True) == expected
    assert texts(adapted, encoder, fast=True, use_adapter=False) == base


@pytest.mark.parametrize("block", ["mlp", "self_attn", "language_model"])
def test_a_block_that_the_adapter_replaces_is_left_to_transformers(block: str, tiny: Loaded) -> None:
    """The decoder calls what is in a block, and which of the two blocks that would be is decided when the block is called."""
    model, encoder = tiny
    base = texts(model, encoder, fast=False)
    adapted = drawn(model, lora(target_modules=["qkv"], modules_to_save=[block]))
    assert not can_decode(adapted)
    assert texts(adapted, encoder, fast="auto", use_adapter=False) == base  # type: ignore[arg-type]
    with pytest.raises(GenerationError, match="whole block"):
        HfGenerator(adapted, encoder, fast=True)


@pytest.mark.parametrize(
    "config",
    [
        peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        lora(alora_invocation_tokens=[5, 9], task_type="CAUSAL_LM"),
    ],
    ids=lambda config: type(config).__name__,
)
def test_an_adapter_that_acts_outside_of_modules_is_refused(config: Any, tiny: Loaded) -> None:
    """It would be left out silently, and the tuned model would answer as the base model."""
    model, encoder = tiny
    adapted = get_peft_model(copy.deepcopy(model), config)
    with pytest.raises(GenerationError, match="acts outside"):
        HfGenerator(adapted, encoder)
    assert texts(adapted, encoder, fast=False, use_adapter=False) == texts(model, encoder, fast=False)


@pytest.mark.parametrize("options", [{"bias": "all"}, {"init_lora_weights": "pissa"}])
def test_a_base_model_that_the_adapter_has_changed_is_not_asked(options: dict[str, Any], tiny: Loaded) -> None:
    """It would answer with what the adapter has left in its weights."""
    model, encoder = tiny
    adapted = drawn(model, lora(**options))
    with pytest.raises(GenerationError, match="has changed weights"):
        HfGenerator(adapted, encoder, use_adapter=False)
    assert texts(adapted, encoder, fast=True) == texts(adapted, encoder, fast=False)
