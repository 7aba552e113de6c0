"""What gets an adapter, what the report says of it, and what the contract keeps."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from medtune.assembly import tell_of_boxes
from medtune.errors import ModelError, PluginError, RecipeError
from medtune.models.adapter import adapter_report, add_adapter
from medtune.models.config import AdapterSettings, FullSettings, LoraSettings, ModelSettings, QloraSettings
from medtune.models.contract import check_contract, read_contract, with_contract, write_contract
from medtune.models.encoder import load_encoder
from medtune.models.load import load_model
from medtune.models.qwen_vl import QWEN3_VL, QWEN3_VL_MOE
from medtune.types import Event, TransformRecord
from tiny_models import tiny_model


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    return ModelSettings(base=str(tiny_model(tmp_path_factory.mktemp("dense") / "base", "qwen3-vl")))


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    return ModelSettings(base=str(tiny_model(tmp_path_factory.mktemp("moe") / "base", "qwen3-vl-moe")))


def adapted(base: ModelSettings, settings: Any, **options: Any) -> Any:
    family = QWEN3_VL_MOE if "moe" in base.base else QWEN3_VL
    return add_adapter(load_model(base, device="cpu"), settings, family, **options)


def modules(model: Any) -> set[str]:
    return {row.module for row in adapter_report(model)}


def sizes_of(moe: ModelSettings) -> tuple[int, int, int, int]:
    """(layers, experts, hidden size, inner size) of the mixture of experts."""
    config = json.loads((Path(moe.base) / "config.json").read_text(encoding="utf-8"))["text_config"]
    experts = config.get("num_local_experts") or config["num_experts"]
    return config["num_hidden_layers"], experts, config["hidden_size"], config["moe_intermediate_size"]


def test_the_union_is_read_by_its_tag() -> None:
    reader: TypeAdapter[Any] = TypeAdapter(AdapterSettings)
    assert isinstance(reader.validate_python({"kind": "lora", "rank": 4}), LoraSettings)
    assert isinstance(reader.validate_python({"kind": "qlora"}), QloraSettings)
    assert isinstance(reader.validate_python({"kind": "full"}), FullSettings)
    with pytest.raises(ValidationError, match="rank"):
        reader.validate_python({"kind": "full", "rank": 4})
    with pytest.raises(ValidationError, match="not a regular expression"):
        reader.validate_python({"kind": "lora", "exclude": ["("]})
    with pytest.raises(ValidationError, match="min_pixels"):
        ModelSettings(base="x", min_pixels=9, max_pixels=8)


def test_no_warning_of_a_library_reaches_the_user(dense: ModelSettings, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = saved(dense, tmp_path / "adapter")
        load_model(dense, adapter=folder, device="cpu")


def test_rank_alpha_and_variants(dense: ModelSettings) -> None:
    config = adapted(dense, LoraSettings(rank=4)).peft_config["default"]
    assert (config.r, config.lora_alpha, config.use_rslora, config.use_dora) == (4, 8, False, False)
    config = adapted(dense, LoraSettings(rank=4, alpha=6, dropout=0.1, rslora=True, dora=True)).peft_config["default"]
    assert (config.lora_alpha, config.lora_dropout, config.use_rslora, config.use_dora) == (6, 0.1, True, True)


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("model.visual.patch_embed.proj.weight", "vision"),
        ("model.visual.blocks.0.attn.qkv", "vision"),
        ("model.visual.merger.linear_fc1", "projector"),
        ("model.visual.deepstack_merger_list.2.linear_fc2", "projector"),
        ("model.language_model.layers.3.mlp.experts.gate_up_proj", "experts"),
        ("model.language_model.layers.3.mlp.gate.weight", "language"),
        ("model.language_model.layers.3.self_attn.q_proj", "language"),
        ("lm_head.weight", "language"),
        ("something.else", None),
    ],
)
def test_parts_of_a_mixture_of_experts(name: str, scope: str | None) -> None:
    assert QWEN3_VL_MOE.scope_of(name) == scope


def test_the_output_layer_gets_no_adapter(dense: ModelSettings) -> None:
    assert not any("lm_head" in module for module in modules(adapted(dense, LoraSettings())))


def test_exclude_and_extra(dense: ModelSettings) -> None:
    found = modules(adapted(dense, LoraSettings(exclude=(r"\.mlp\.", r"layers\.0\."), extra=(r"visual\.merger\.linear_fc2",))))
    assert found == {
        "model.visual.merger.linear_fc2",
        *(f"model.language_model.layers.*.self_attn.{name}_proj" for name in "qkvo"),
    }
    model = adapted(dense, LoraSettings(exclude=(r"layers\.0\.",)))
    assert not any("layers.0." in name and ".lora_" in name for name, _ in model.named_parameters())
    with pytest.raises(RecipeError, match="No linear module's name matches nothing-like-it") as caught:
        adapted(dense, LoraSettings(extra=("nothing-like-it",)))
    assert caught.value.key == "adapter.extra"
    with pytest.raises(RecipeError, match="leaves nothing to adapt"):
        adapted(dense, LoraSettings(exclude=(".",)))


def test_experts_left_out_are_named(moe: ModelSettings) -> None:
    """What other trainers call ``all`` reaches only attention in a mixture of experts, and they do not say so."""
    report = adapter_report(adapted(moe, LoraSettings(targets=("language",))))
    assert {row.module for row in report} == {f"model.language_model.layers.*.self_attn.{name}_proj" for name in "qkvo"}
    layers, experts, hidden, inner = sizes_of(moe)
    fused = layers * experts * 3 * hidden * inner
    note = next(str(note) for note in report.notes if str(note).startswith("experts: "))
    assert note.startswith(f"experts: {fused:,} parameters ({100 * fused / report.num_total:.1f} % of the model)")


def test_routers(moe: ModelSettings, dense: ModelSettings) -> None:
    layers, experts, hidden, _ = sizes_of(moe)
    without = adapter_report(adapted(moe, LoraSettings(targets=("language",))))
    assert any(str(note).startswith(f"router: {layers * experts * hidden:,} parameters") for note in without.notes)
    report = adapter_report(adapted(moe, LoraSettings(targets=("language",), rank=2, train_router=True)))
    assert ("model.language_model.layers.*.mlp.gate", layers * 2 * (experts + hidden)) in [row[:2] for row in report]
    assert not any(str(note).startswith("router") for note in report.notes)
    with pytest.raises(RecipeError, match="no router to train") as caught:
        adapted(dense, LoraSettings(train_router=True))
    assert caught.value.key == "adapter.train_router"


def test_experts_are_adapted_each_by_itself(moe: ModelSettings) -> None:
    report = adapter_report(adapted(moe, LoraSettings(targets=("experts",), rank=2)))
    layers, experts, hidden, inner = sizes_of(moe)
    assert [(row.module, row.num_parameters) for row in report] == [
        ("model.language_model.layers.*.mlp.experts.gate_up_proj", layers * experts * 2 * (hidden + 2 * inner)),
        ("model.language_model.layers.*.mlp.experts.down_proj", layers * experts * 2 * (inner + hidden)),
    ]
    only = adapter_report(adapted(moe, LoraSettings(targets=("experts",), exclude=("down_proj",))))
    assert {row.module for row in only} == {"model.language_model.layers.*.mlp.experts.gate_up_proj"}


@pytest.mark.parametrize("wrong", [{"dropout": 0.1}, {"dora": True}])
def test_experts_take_neither_dropout_nor_dora(moe: ModelSettings, wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="neither dropout nor DoRA") as caught:
        adapted(moe, LoraSettings(targets=("experts",), **wrong))
    assert caught.value.key == f"adapter.{next(iter(wrong))}"


def test_large_untouched_modules_are_named(dense: ModelSettings) -> None:
    notes = [str(note) for note in adapter_report(adapted(dense, LoraSettings())).notes]
    assert any(note.startswith("model.language_model.embed_tokens: ") for note in notes)
    assert any(note.startswith("lm_head: ") for note in notes)
    assert any(note.startswith("vision: ") for note in notes)


@pytest.mark.parametrize("targets", [("language",), ("experts",)])
def test_adapter_weights_are_float32_beside_16_bits(moe: ModelSettings, targets: Any) -> None:
    settings = moe.model_copy(update={"dtype": "bfloat16"})
    model = adapted(settings, LoraSettings(targets=targets))
    dtypes = {".lora_" in name: parameter.dtype for name, parameter in model.named_parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def saved(base: ModelSettings, folder: Path, **settings: Any) -> Path:
    adapted(base, LoraSettings(**settings)).save_pretrained(folder)
    write_contract(load_encoder(base).contract(), folder)
    return folder


def test_continue_from_an_earlier_adapter(dense: ModelSettings, tmp_path: Path) -> None:
    earlier = saved(dense, tmp_path / "adapter", rank=3, targets=("vision",))
    model = adapted(dense, LoraSettings(init_from=earlier), contract=load_encoder(dense).contract())
    assert model.peft_config["default"].r == 3
    assert {name.split(".lora_")[0].split(".")[3] for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        "visual"
    }
    with pytest.raises(RecipeError, match=r"adapter\.rank is 8, but .* 3"):
        adapted(dense, LoraSettings(init_from=earlier, rank=8))
    other = load_encoder(dense.model_copy(update={"max_pixels": 50_000})).contract()
    with pytest.raises(ModelError, match=r"max_pixels 16777216, but here it is 50000"):
        adapted(dense, LoraSettings(init_from=earlier), contract=other)


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"alpha": 5}, "adapter.alpha", r"adapter\.alpha is 5, but the adapter to continue from has 6"),
        ({"dropout": 0.1}, "adapter.dropout", r"adapter\.dropout is 0\.1, but .* 0\.0"),
        ({"rslora": True}, "adapter.rslora", "but the adapter to continue from has False"),
        ({"dora": True}, "adapter.dora", "but the adapter to continue from has False"),
        (
            {"targets": ("language",)},
            "adapter.targets",
            r"other modules .* the first is model\.language_model\.layers\.0\.mlp\.down_proj",
        ),
        ({"exclude": ("blocks.1",)}, "adapter.targets", "other modules"),
    ],
)
def test_settings_that_an_earlier_adapter_contradicts_are_told(
    dense: ModelSettings, tmp_path: Path, settings: dict[str, Any], key: str, message: str
) -> None:
    earlier = saved(dense, tmp_path / "adapter", rank=3, targets=("vision",))
    with pytest.raises(RecipeError, match=message) as caught:
        adapted(dense, LoraSettings(init_from=earlier, **settings))
    assert caught.value.key == key


def test_settings_that_an_earlier_adapter_agrees_with_may_be_written_out(moe: ModelSettings, tmp_path: Path) -> None:
    written: dict[str, Any] = {"rank": 3, "alpha": 6, "rslora": True, "targets": ("language", "experts"), "exclude": ("o_proj",)}
    earlier = saved(moe, tmp_path / "adapter", **written)
    model = adapted(moe, LoraSettings(init_from=earlier, **written))
    assert adapter_report(model).num_trainable > 0


def test_a_setting_that_was_left_open_stays_open_when_it_is_written_down(tmp_path: Path) -> None:
    """Else a run that continues from an adapter of rank 3 could not be resumed from its own recipe.yaml, which says rank 8."""
    reader: TypeAdapter[Any] = TypeAdapter(AdapterSettings)
    for settings in (LoraSettings(init_from=tmp_path, alpha=6), QloraSettings(init_from=tmp_path, alpha=6)):
        again = reader.validate_json(reader.dump_json(settings))
        assert again == settings
        assert again.model_fields_set & {"rank", "alpha", "targets"} == {"alpha"}
    assert LoraSettings().model_dump()["rank"] == 8


def test_what_is_trained_in_full_is_float32_and_what_is_frozen_stays(dense: ModelSettings) -> None:
    """A step of AdamW at 1e-5 is smaller than bfloat16 can add to a weight of 0.02: half of the training would be lost."""
    model = adapted(dense.model_copy(update={"dtype": "bfloat16"}), FullSettings(freeze=("vision",)))
    dtypes = {QWEN3_VL.scope_of(name): parameter.dtype for name, parameter in model.named_parameters()}
    assert dtypes == {"language": torch.float32, "projector": torch.float32, "vision": torch.bfloat16}


def test_pickled_adapters_are_not_read(dense: ModelSettings, tmp_path: Path) -> None:
    folder = saved(dense, tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        load_model(dense, adapter=folder)


def test_a_full_fine_tune_is_loaded_in_place_of_the_base(dense: ModelSettings, tmp_path: Path) -> None:
    model = adapted(dense, FullSettings(freeze=("vision",)))
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.save_pretrained(tmp_path / "model")
    write_contract(load_encoder(dense).contract(), tmp_path / "model")
    loaded: Any = load_model(dense, adapter=tmp_path / "model", device="cpu")
    torch.testing.assert_close(loaded.lm_head.weight, model.lm_head.weight)


class TestContract:
    def test_round_trip(self, dense: ModelSettings, tmp_path: Path) -> None:
        transforms = (TransformRecord(name="letterbox", parameters={"size": 336}),)
        settings = dense.model_copy(update={"system_prompt": "Be brief.", "max_pixels": 40_000})
        contract = load_encoder(settings).contract(transforms=transforms)
        write_contract(contract, tmp_path)
        assert read_contract(tmp_path) == contract
        assert (contract.max_pixels, contract.min_pixels, contract.resize_backend) == (40_000, 4096, "pil")
        assert contract.box_convention == "relative-1000"
        assert load_encoder(dense).contract(box_convention="pixels").box_convention == "pixels"

    def test_what_is_left_open_comes_from_the_contract(self, dense: ModelSettings, tmp_path: Path) -> None:
        transforms = (TransformRecord(name="clahe"),)
        settings = dense.model_copy(update={"system_prompt": "Be brief.", "max_pixels": 40_000})
        write_contract(load_encoder(settings).contract(transforms=transforms), tmp_path)
        encoder = load_encoder(dense, adapter=tmp_path)
        assert encoder.pixel_limits == (4096, 40_000)
        assert encoder.settings.system_prompt == "Be brief."
        assert encoder.transforms == transforms
        assert encoder.contract() == load_encoder(settings).contract(transforms=transforms)

    @pytest.mark.parametrize(
        ("setting", "value", "message"),
        [
            ("max_pixels", 50_000, "max_pixels 16777216, but here it is 50000"),
            ("min_pixels", 5000, "min_pixels 4096, but here it is 5000"),
            ("system_prompt", "Hello.", "system_prompt -, but here it is Hello."),
        ],
    )
    def test_other_settings(self, dense: ModelSettings, tmp_path: Path, setting: str, value: Any, message: str) -> None:
        write_contract(load_encoder(dense).contract(), tmp_path)
        with pytest.raises(ModelError, match=message) as caught:
            load_encoder(dense.model_copy(update={setting: value}), adapter=tmp_path)
        assert caught.value.key == f"model.{setting}"
        assert str(caught.value.remedy) == f"Leave model.{setting} out."

    def test_another_resize_backend(self, dense: ModelSettings, tmp_path: Path) -> None:
        contract = load_encoder(dense).contract()
        write_contract(contract.model_copy(update={"resize_backend": "torchvision"}), tmp_path)
        with pytest.raises(ModelError, match="resize_backend torchvision, but here it is pil"):
            load_encoder(dense.model_copy(update={"resize_backend": "pil"}), adapter=tmp_path)
        assert with_contract(dense, read_contract(tmp_path), tmp_path).resize_backend == "torchvision"

    def test_another_base(self, dense: ModelSettings, tmp_path: Path) -> None:
        folder = saved(dense, tmp_path / "adapter")
        other = Path(str(tiny_model(tmp_path / "other", "qwen3-vl")))
        config = json.loads((other / "config.json").read_text(encoding="utf-8"))
        config["text_config"]["rms_norm_eps"] = 1e-5
        (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for load in (load_model, load_encoder):
            with pytest.raises(ModelError, match=r"trained with config\.json [0-9a-f]{12}, but here it is [0-9a-f]{12}") as caught:
                load(ModelSettings(base=str(other)), adapter=folder)  # type: ignore[operator]
            assert dense.base in str(caught.value.remedy)

    def test_another_chat_template(self, dense: ModelSettings, tmp_path: Path) -> None:
        folder = saved(dense, tmp_path / "adapter")
        other = tiny_model(tmp_path / "other", "qwen3-vl")
        path = other / "chat_template.jinja"
        path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
        with pytest.raises(ModelError, match="trained with chat template"):
            load_encoder(ModelSettings(base=str(other)), adapter=folder)

    def test_other_transforms(self, dense: ModelSettings, tmp_path: Path) -> None:
        contract = load_encoder(dense).contract(transforms=[TransformRecord(name="letterbox", parameters={"size": 336})])
        check_contract(contract, contract, tmp_path)
        with pytest.raises(ModelError, match=r"transforms letterbox\(size=336\), but here it is -") as caught:
            check_contract(contract, load_encoder(dense).contract(), tmp_path)
        assert caught.value.key == "data.transforms"

    def test_other_colours(self, dense: ModelSettings, tmp_path: Path) -> None:
        """A model tuned on three windows in red, green and blue cannot read ordinary greys."""
        displays = ("0/2048 40/350 40/80",)
        contract = load_encoder(dense).contract(displays=displays)
        write_contract(contract, tmp_path)
        assert load_encoder(dense, adapter=tmp_path).contract().displays == displays
        for now in (("picture",), ("40/80",)):
            with pytest.raises(ModelError, match="windows 0/2048 40/350 40/80, but here it is") as caught:
                check_contract(contract, contract.model_copy(update={"displays": now}), tmp_path)
            assert caught.value.key == "data.sources"
        check_contract(contract, contract.model_copy(update={"displays": ()}), tmp_path)

    @pytest.mark.parametrize(("family", "told"), [("qwen2.5-vl", True), ("qwen3-vl", False)])
    def test_a_base_model_of_another_box_unit_is_told_of(
        self, dense: ModelSettings, tmp_path: Path, family: str, told: bool
    ) -> None:
        write_contract(load_encoder(dense).contract(box_convention="relative-1000").model_copy(update={"family": family}), tmp_path)
        heard: list[Event] = []
        for tasks, expected in (({"report": 3}, 0), ({"detection": 3}, int(told))):
            dataset: Any = SimpleNamespace(manifest=SimpleNamespace(tasks=tasks))
            tell_of_boxes(dataset, tmp_path, heard.append)
            assert len(heard) == expected

    def test_a_family_that_only_the_contract_names(self, dense: ModelSettings, tmp_path: Path) -> None:
        """A contract comes with an adapter from elsewhere: it may not bring code into play."""
        contract = load_encoder(dense).contract().model_copy(update={"family": "some_module_of_theirs:FAMILY"})
        write_contract(contract, tmp_path)
        with pytest.raises(PluginError, match="the recipe does not name"):
            load_encoder(dense, adapter=tmp_path)

    def test_missing_or_damaged(self, dense: ModelSettings, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no such adapter folder"):
            load_encoder(dense, adapter=tmp_path / "none")
        with pytest.raises(ModelError, match=r"no contract\.json"):
            load_model(dense, adapter=tmp_path)
        (tmp_path / "contract.json").write_text("{}", encoding="utf-8")
        with pytest.raises(ModelError, match="cannot be read"):
            load_encoder(dense, adapter=tmp_path)
