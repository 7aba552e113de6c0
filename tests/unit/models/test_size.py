"""The size of a model from its config against the model itself, of every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medtune.errors import ModelError
from medtune.models.adapter import adapter_report, add_adapter
from medtune.models.adapter_size import adapter_size
from medtune.models.config import AdapterSettings, FullSettings, LoraSettings, ModelSettings
from medtune.models.family import find_family
from medtune.models.hub import read_config
from medtune.models.load import load_model
from medtune.models.size import ModelSize, read_size, size_of
from tiny_models import FAMILIES, tiny_model

CONFIGS = ("qwen2-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b", "qwen3-vl-30b-a3b")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: tiny_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def linear_names(model: Any) -> set[str]:
    import torch

    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def empty_model(folder: Path) -> Any:
    """The real class at its real size, without memory for its weights."""
    import torch
    import transformers

    with torch.device("meta"):
        return transformers.AutoModelForImageTextToText.from_config(transformers.AutoConfig.from_pretrained(folder))


def assert_same(size: ModelSize, model: Any) -> None:
    assert {weight.name: weight.shape for weight in size.weights} == shapes(model)
    tied = {"lm_head.weight"} if size.tied else set()
    assert {weight.name for weight in size.weights if weight.is_linear} == linear_names(model) - tied


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llava"])
def test_names_and_shapes_are_those_of_the_model(folders: dict[str, Path], family: str) -> None:
    size = size_of(read_config(folders[family]))
    assert_same(size, load_model(ModelSettings(base=str(folders[family])), device="cpu"))
    assert sum(size.parts.values()) == size.num_parameters


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3_moe"])
def test_text_families_without_a_tiny_model(model_type: str) -> None:
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        **({"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16} if model_type == "qwen3_moe" else {}),
        **({"mlp_only_layers": [0], "decoder_sparse_step": 2, "head_dim": 8} if model_type == "qwen3_moe" else {}),
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    size = size_of(json.loads(config.to_json_string(use_diff=False)))
    assert_same(size, model)
    assert size.sparse_layers == (2 if model_type == "qwen3_moe" else 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_real_configs(shared: Path, name: str) -> None:
    folder = shared / "model-configs" / name
    model = empty_model(folder)
    size = read_size(folder)
    assert_same(size, model)
    assert size.stored_bytes == 2.0
    assert size.tied == (name in ("qwen2-vl-2b", "qwen3-vl-4b"))


def test_what_the_8b_model_computes(shared: Path) -> None:
    size = read_size(shared / "model-configs" / "qwen3-vl-8b")
    # 36 layers of 4096 x 128 x (2 x 32 + 2 x 8) + 3 x 4096 x 12288 products, each an addition and a multiplication.
    assert size.flops_per_token == 2 * 36 * (4096 * 128 * 80 + 3 * 4096 * 12288)
    assert size.head_flops_per_token == 2 * 4096 * 151936
    assert size.vision is not None
    # A picture of 512 x 512: 32 x 32 patches; four maps of 256 tokens of 4096 values of 2 bytes.
    assert size.cache_bytes(1024) == 4 * 256 * 4096 * 2
    flops = size.vision_flops_per_patch * 1024 + size.vision.attention_flops(1024)
    assert flops == pytest.approx(1.05e12, rel=0.02)


def test_experts_count_as_far_as_a_token_goes_through_them(shared: Path) -> None:
    size = read_size(shared / "model-configs" / "qwen3-vl-30b-a3b")
    assert size.parts["experts"] == 48 * 128 * 3 * 2048 * 768
    assert size.expert_flops_per_token == 2 * 48 * 8 * 3 * 2048 * 768


def test_any_other_model_is_counted_from_its_files(folders: dict[str, Path]) -> None:
    folder = folders["llava"]
    size = read_size(folder)
    model = load_model(ModelSettings(base=str(folder)), device="cpu")
    assert size.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.parts["embedding"] == size.parts["head"] > 0
    assert size.parts["vision"] > 0
    assert size.parts["projector"] > 0
    assert size.stored_bytes == 4.0
    assert size.vision is not None
    assert size.vision.patches_per_picture == 16


def test_any_other_model_without_weights_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folders["llava"] / "config.json").read_bytes())
    with pytest.raises(ModelError, match="can only be read from its weights"):
        read_size(tmp_path)


def test_a_torn_file_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folders["llava"] / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folders["llava"] / "model.safetensors").read_bytes()[:100])
    with pytest.raises(ModelError) as raised:
        read_size(tmp_path)
    assert raised.value.file == str(tmp_path / "model.safetensors")


def test_a_config_without_a_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(ModelError, match="does not say how large"):
        read_size(tmp_path)


ADAPTERS: list[tuple[str, AdapterSettings]] = [
    ("qwen3-vl", LoraSettings()),
    ("qwen3-vl", LoraSettings(rank=4, targets=("language", "vision", "projector"), exclude=(r"layers\.0\.", r"blocks\.1\."))),
    ("qwen2.5-vl", LoraSettings(dora=True, targets=("vision",))),
    ("qwen2-vl", LoraSettings(extra=(r"merger\.mlp\.0$",))),
    ("qwen3-vl-moe", LoraSettings(targets=("language", "experts"), train_router=True)),
    ("qwen3", LoraSettings(rank=2)),
    ("llava", LoraSettings()),
    ("qwen3-vl", FullSettings()),
    ("qwen3-vl-moe", FullSettings(freeze=("vision", "experts"))),
]


@pytest.mark.parametrize(("family", "settings"), ADAPTERS)
def test_the_adapter_is_counted_as_it_will_be(folders: dict[str, Path], family: str, settings: AdapterSettings) -> None:
    folder = folders[family]
    record = find_family(read_config(folder), None)
    counted = adapter_size(read_size(folder), settings, record)
    report = adapter_report(add_adapter(load_model(ModelSettings(base=str(folder)), device="cpu"), settings, record))
    assert counted.num_trainable == report.num_trainable
    assert counted.num_total == report.num_total
    if family == "llava":  # its modules have other names on disk
        assert sorted(row.num_parameters for row in counted.rows) == sorted(row.num_parameters for row in report.rows)
    else:
        assert {row.module: row.num_parameters for row in counted.rows} == {row.module: row.num_parameters for row in report.rows}


def test_an_adapter_to_continue_from_is_counted_from_its_file(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["qwen3-vl"]
    record = find_family(read_config(folder), None)
    model = add_adapter(load_model(ModelSettings(base=str(folder)), device="cpu"), LoraSettings(rank=3), record)
    model.save_pretrained(str(tmp_path))
    again = adapter_size(read_size(folder), LoraSettings(init_from=tmp_path), record)
    assert again.num_trainable == adapter_report(model).num_trainable
    assert {row.module for row in again.rows} == {row.module for row in adapter_report(model)}
