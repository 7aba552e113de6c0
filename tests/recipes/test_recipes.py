"""Every shipped recipe goes its whole road on a tiny random model of its family and a few rows in its data's schema."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medtune import api
from medtune.hpo.design import num_trials
from medtune.hpo.space import find_space, load_space
from medtune.models.config import LoraSettings
from medtune.recipe import diff_settings, load_recipe, read_head, shipped_recipes
from medtune.runs import Run
from source_files import write_brain, write_json, write_medtrinity, write_vqa_rad
from tiny_models import tiny_model

ROOT = Path(__file__).resolve().parents[2]

NUM_GROUPS = 24
"""Pictures or questions: enough that a split by group leaves none of its parts empty."""


def write_questions() -> None:
    organs = ("heart", "lung", "liver", "kidney", "spleen", "pancreas", "stomach", "bladder")
    rows = [
        {
            "instruction": f"Name {count} functions of the {organ}.",
            "input": "In one sentence." if count == 3 else "",
            "output": f"The {organ} has at least {count}.",
        }
        for organ in organs
        for count in (1, 2, 3)
    ]
    assert len(rows) == NUM_GROUPS
    write_json(Path("data/medical_qa.json"), rows)


# What is odd in the published file: an answer that is a number, an answer type with a blank behind it.
ODD = {11: {"answer": 2, "question": "How many are there?"}, 12: {"answer_type": "CLOSED "}}

# Recipe -> family of the tiny model, and what writes the data to the place that the recipe names.
REFERENCE: dict[str, tuple[str, Callable[[], object]]] = {
    "medtrinity_qwen3_vl_30b": (
        "qwen3-vl-moe",
        lambda: write_medtrinity(Path("data/medtrinity/train-00000-of-00010.parquet"), num_rows=NUM_GROUPS),
    ),
    "brain_qwen3_vl_8b": ("qwen3-vl", lambda: write_brain(Path("data/medtrinity_brain"), num_images=NUM_GROUPS // 3)),
    "medical_qa_qwen3": ("qwen3", write_questions),
    "vqa_rad_qwen2_vl_2b": ("qwen2-vl", lambda: write_vqa_rad(Path("data/vqa-rad"), num_images=NUM_GROUPS, changes=ODD)),
}

# Recipe -> the key of the override in its head that is tried as well. R3's names another base model, so its run name stands here.
OVERRIDE = {
    "medtrinity_qwen3_vl_30b": "adapter.targets",
    "brain_qwen3_vl_8b": "adapter.init_from",
    "medical_qa_qwen3": "run.name",
    "vqa_rad_qwen2_vl_2b": "train.epochs",
}

# Recipe -> what makes it small besides: fewer synthetic pictures instead of other data.
EMBEDDED: dict[str, tuple[str, ...]] = {
    # With the model that ships, as for everybody.
    "demo": ("data.sources.0.options.num_patients=24", "data.sources.0.options.slices_per_patient=1"),
    "nano_claims": ("data.sources.0.options.num_patients=48",),
    # Its base is the first of the three commands that make the model; here it is a tiny one.
    "nano_pretrain": (
        "model.base=tiny",
        "data.sources.0.options.num_pictures=24",
        "data.sources.0.options.questions_per_picture=3",
    ),
}

# Recipes with a search space beside them, ``<name>.sweep.yaml``. tests/unit/hpo runs sweeps.
SPACES = ("nano_claims",)

# What the originals are known to have set. A value that is changed in a recipe is no longer the reference's.
SETTINGS: dict[str, dict[str, Any]] = {
    "medtrinity_qwen3_vl_30b": {
        "data.sources.0.max_samples": 100000,
        "data.split.fractions.train": 0.8,
        "data.num_workers": 32,
        "adapter.kind": "lora",
        "adapter.rank": 8,
        "adapter.alpha": 16.0,
        "adapter.dropout": 0.0,
        "train.epochs": 2.0,
        "train.learning_rate": 5e-5,
        "train.schedule": "cosine",
        "train.warmup_steps": 0,
        "train.batch_size": 32,
        "train.gradient_accumulation_steps": 8,
        "train.max_grad_norm": 1.0,
        "train.precision": "bf16",
        "train.max_tokens": 2048,
        "train.log_every": 5,
        "train.save_every": 200,
        "distributed.zero_stage": 3,
        "distributed.num_processes": 4,
    },
    "brain_qwen3_vl_8b": {
        "adapter.rank": 8,
        "adapter.alpha": 16.0,
        "adapter.dropout": 0.1,
        "adapter.targets": ["language"],
        "data.num_workers": 15,
        "model.max_pixels": 589824,
        "model.min_pixels": 1024,
        "train.epochs": 3.0,
        "train.learning_rate": 5e-5,
        "train.schedule": "cosine",
        "train.batch_size": 2,
        "train.gradient_accumulation_steps": 8,
        "train.precision": "bf16",
        "train.max_tokens": 2048,
    },
    "medical_qa_qwen3": {
        "model.system_prompt": "You are a professional doctor",
        "generation.sampling.temperature": 0.6,
        "generation.sampling.top_p": 0.8,
        "generation.sampling.top_k": 10,
    },
    "vqa_rad_qwen2_vl_2b": {
        "adapter.rank": 64,
        "adapter.alpha": 16.0,
        "train.epochs": 3.0,
        "train.learning_rate": 2e-4,
        "train.schedule": "cosine",
        "train.weight_decay": 0.01,
        "train.batch_size": 1,
        "train.gradient_accumulation_steps": 8,
        "train.max_tokens": 2048,
    },
}

SMALL = (
    "model.dtype=float32",
    "train.precision=float32",
    "train.max_steps=2",
    "train.batch_size=2",
    "train.gradient_accumulation_steps=1",
    "train.num_workers=0",
    "data.num_workers=1",
    # Of two dozen groups a twentieth may be none.
    "data.split.fractions={train: 0.5, validation: 0.25, test: 0.25}",
    "distributed.kind=none",
    "generation.batch_size=4",
    "generation.sampling.max_new_tokens=8",
    "evaluation.max_samples=6",
    "evaluation.num_resamples=100",
)


def test_every_shipped_recipe_is_run_here() -> None:
    files = sorted((ROOT / "src" / "medtune" / "recipes").rglob("*.y*ml"))
    assert len(files) == len(REFERENCE) + len(EMBEDDED) + len(SPACES)
    assert set(shipped_recipes()) == REFERENCE.keys() | EMBEDDED.keys()


@pytest.mark.parametrize("name", SPACES)
def test_a_shipped_search_space_fits_the_recipe_beside_it(name: str) -> None:
    """Every key is a setting of the recipe and every value one that it takes: reading it checks that."""
    recipe = load_recipe(name)
    space = load_space(find_space(name), recipe)
    assert len(space.seeds) >= 3, "an example without intervals"
    assert num_trials(space, recipe) > len(space.parameters)


def test_the_link_at_the_top_shows_the_shipped_recipes() -> None:
    assert (ROOT / "recipes").resolve() == ROOT / "src" / "medtune" / "recipes"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory: the recipes' relative paths start here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def run(name: str, overrides: tuple[str, ...]) -> Path:
    """prepare, validate, train, evaluate and report, and look at what each leaves; returns the run folder."""
    dataset = api.prepare(name, overrides)
    rows = dataset.manifest.num_samples
    assert all(rows[split] for split in ("train", "validation", "test")), rows
    assert not any(record.left_out for record in dataset.manifest.sources)

    found = api.validate(name, overrides)
    assert found.num_errors == 0, [issue.message.render("en") for issue in found.issues if issue.severity == "error"]

    trained = api.train(name, overrides)
    assert trained.record.status == "trained"
    assert trained.record.num_steps == 2
    assert trained.record.dataset_hash == dataset.manifest.hash
    assert trained.record.train_loss is not None
    assert trained.record.train_loss > 0

    report = api.evaluate(trained.folder)
    assert {condition.model for condition in report.conditions} == {"base", "tuned"}
    assert report.dataset_hash == dataset.manifest.hash
    assert report.num_samples > 0
    for condition in report.conditions:
        assert condition.num_predictions > 0
        assert any(measurement.num_scored + measurement.num_unscored for measurement in condition.measurements)
    stored = json.loads((trained.folder / "report.json").read_text(encoding="utf-8"))
    assert stored["dataset_hash"] == dataset.manifest.hash
    page = (trained.folder / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert not re.search(r"""(?:src|href)=["']https?://""", page), "the page loads something from elsewhere"
    return trained.folder


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_a_reference_recipe_goes_the_whole_road(workplace: Path, name: str) -> None:
    family, write_data = REFERENCE[name]
    write_data()
    small = (f"model.base={tiny_model(workplace / 'tiny', family)}", *SMALL)
    adapter = run(name, small) / "adapter"
    recipe = load_recipe(name)
    contract = json.loads((adapter / "contract.json").read_text(encoding="utf-8"))
    assert contract["family"] == family
    assert contract["system_prompt"] == recipe.model.system_prompt
    assert [entry["name"] for entry in contract["transforms"]] == [entry.transform for entry in recipe.data.transforms]
    for key in ("min_pixels", "max_pixels"):
        wanted = getattr(recipe.model, key)
        assert wanted is None or contract[key] == wanted
    written = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert isinstance(recipe.adapter, LoraSettings)
    assert (written["r"], written["lora_alpha"], written["lora_dropout"]) == (
        recipe.adapter.rank,
        recipe.adapter.alpha,
        recipe.adapter.dropout,
    )

    shown = next(line for line in commands(name) if line.startswith("medtune train ") and OVERRIDE[name] in line)
    again = api.train(name, [*small, *(word for word in shlex.split(shown)[3:] if not word.startswith("model.base="))])
    assert again.record.status == "trained"
    assert again.folder != adapter.parent
    if "experts" in shown:
        second = json.loads((again.folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
        assert not written["target_parameters"]
        assert any("experts" in parameter for parameter in second["target_parameters"])


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_an_embedded_recipe_goes_the_whole_road(workplace: Path, name: str) -> None:
    tiny_model(workplace / "tiny", "qwen3-vl")
    folder = run(name, (*SMALL, *EMBEDDED[name]))
    assert sorted(path.name for path in workplace.iterdir()) == ["datasets", "runs", "tiny"], "nothing is written elsewhere"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["synthetic"]


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_the_head_of_an_embedded_recipe_tells_what_is_needed(name: str) -> None:
    head = read_head(shipped_recipes()[name])
    for words in ("# Prerequisites:", "# Launch:", "# One override: medtune train "):
        assert words in head, words
    shown = shlex.split(re.findall(r"One override: (medtune train .*)", head)[0])[2:]
    assert shown[0] == name
    assert len(shown) > 1
    load_recipe(shown[0], shown[1:])


def test_the_packed_model_was_made_by_the_shipped_recipe() -> None:
    """Every setting of the run whose weights ship is still the recipe's."""
    packed = load_recipe(ROOT / "src" / "medtune" / "nano" / "recipe.yaml")
    # The number of threads changes no row, and computing activations again no gradient.
    without_effect = {"data.num_workers", "train.gradient_checkpointing"}
    different = {entry.key for entry in diff_settings(packed, load_recipe("nano_pretrain"))} - without_effect
    # How it is asked and judged afterwards changes no weight.
    assert {key for key in different if key.split(".")[0] not in ("evaluation", "generation")} == set()


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_reference_recipe_has_the_settings_of_its_original(name: str) -> None:
    settings = {setting.key: setting.value for setting in api.show_recipe(name).settings}
    wrong = {key: (settings.get(key), value) for key, value in SETTINGS[name].items() if settings.get(key) != value}
    assert not wrong, f"key: (recipe, original) {wrong}"


def test_r2_applies_its_enhancement_and_letterbox_in_order() -> None:
    transforms = load_recipe("brain_qwen3_vl_8b").data.transforms
    assert [(entry.transform, entry.options) for entry in transforms] == [
        ("clahe", {"clip_limit": 2.0, "tiles": 8}),
        ("letterbox", {"size": 448, "fill": 0}),
    ]


def test_every_row_of_r4_fits_as_published(shared: Path) -> None:
    """VQA-RAD has pictures of 4,000 tokens at full size; a recipe that refuses its own data is no recipe."""
    recipe = load_recipe("vqa_rad_qwen2_vl_2b")
    side = 28  # Qwen2-VL: patches of 14 pixels, 2 x 2 of them a token (arXiv:2409.12191, section 2.1)
    assert recipe.model.max_pixels is not None
    words = 0
    for name in ("trainset.json", "testset.json"):
        for row in json.loads((shared / "data" / "vqa-rad" / name).read_text(encoding="utf-8")):
            # No token of Qwen's vocabulary is less than a byte.
            words = max(words, len(f"{row['question']} {row['answer']}".encode()))
    frame = 200  # chat template, instructions
    assert recipe.model.max_pixels // side**2 + words + frame <= recipe.train.max_tokens


def test_the_two_parameter_sets_of_r1_differ_in_two_settings() -> None:
    line = next(line for line in commands("medtrinity_qwen3_vl_30b") if "zero_stage" in line)
    first = load_recipe("medtrinity_qwen3_vl_30b")
    second = load_recipe("medtrinity_qwen3_vl_30b", shlex.split(line)[3:])
    differences = {
        entry.key: (entry.first, entry.second) for entry in diff_settings(first, second) if not entry.key.startswith("run.")
    }
    assert differences == {"train.batch_size": (32, 4), "distributed.zero_stage": (3, 2)}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_both_parameter_sets_of_r1_train_under_their_zero_stage(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written: rows of a step, stage, schedule, targets. Smaller: model, data, two devices instead of four, and no GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    name = "medtrinity_qwen3_vl_30b"
    family, write = REFERENCE[name]
    write()
    small = (
        f"model.base={tiny_model(workplace / 'model', family)}",
        *(entry for entry in SMALL if entry.startswith(("model.dtype", "train.precision", "train.num_workers", "data."))),
        "distributed.num_processes=2",
    )
    line = next(line for line in commands(name) if "zero_stage" in line)
    losses = []
    for written in ((), tuple(shlex.split(line)[3:])):
        view = api.train(name, [*written, *small])
        recipe = load_recipe(view.folder / "recipe.yaml")
        assert view.record.status == "trained", view.record.error
        assert view.record.num_steps == 2  # 12 rows, 256 or 32 of them in a step of each device
        assert view.record.measured is None or view.record.measured.num_devices == 2
        assert (recipe.train.batch_size, recipe.distributed.zero_stage) == ((4, 2) if written else (32, 3))
        losses.append([event["loss"] for event in Run(view.folder).events() if event["kind"] == "log" and "loss" in event])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5), "so few rows are one step in either set, and the stage changes no loss"


@pytest.mark.parametrize("stage", [3, 2])
@pytest.mark.parametrize("gpu", ["H800", "H100"])
def test_r1_is_planned_from_the_real_configuration_without_weights(
    workplace: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, stage: int, gpu: str
) -> None:
    name = "medtrinity_qwen3_vl_30b"
    REFERENCE[name][1]()
    monkeypatch.setattr("medtune.training.forecast.free_memory", lambda: 256 * 1024**3)
    base = workplace / "model"
    shutil.copytree(shared / "model-configs" / "qwen3-vl-30b-a3b", base)
    shutil.copytree(shared / "tokenizers" / "qwen3", base, dirs_exist_ok=True)
    small = [f"model.base={base}", *(entry for entry in SMALL if entry.startswith("data."))]
    api.prepare(name, small)
    rows = 32 if stage == 3 else 4
    plan = api.plan(name, [*small, f"distributed.zero_stage={stage}", f"train.batch_size={rows}"], gpu=gpu, num_gpus=4, price=2.5)
    gib = 1024**3
    assert (plan.num_devices, plan.precision) == (4, "bf16")
    assert 30e9 < plan.size.num_parameters < 32e9
    assert plan.adapter.num_trainable == 6_684_672  # rank 8 on the attention's four linear modules; the experts are no modules
    whole = 2 * plan.size.num_parameters
    assert (plan.estimate.memory.loading == whole) is (stage == 3), "every device loads all weights before it gives its part away"
    assert (plan.estimate.memory.weights < whole / 2) is (stage == 3)
    assert whole / gib <= plan.estimate.memory.peak / gib < 80
    assert plan.cost is not None
    assert plan.cost > 0


def commands(name: str) -> list[str]:
    """The command lines in the comment at the head of a recipe."""
    return re.findall(r"(?m)^#\s+(medtune .*)$", read_head(shipped_recipes()[name]))


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_the_head_of_a_reference_recipe_tells_what_is_needed(name: str) -> None:
    head = read_head(shipped_recipes()[name])
    for words in ("# Needs:", "# Launch", "# One override", "# The original", "# What is not repeated here:"):
        assert words in head, words
    lines = commands(name)
    launched = [shlex.split(line)[2:] for line in lines if line.startswith("medtune train ")]
    assert [name] in launched, "the plain launch line"
    assert any(len(arguments) > 1 for arguments in launched), "an override"
    for recipe, *overrides in launched:
        assert recipe == name
        load_recipe(recipe, overrides)
    for line in lines:
        if line.startswith(("medtune evaluate ", "medtune chat ")):
            assert shlex.split(line)[2] == f"runs/{name}"
