"""`medtune plan`: for a GPU that is not here, from a model folder without weights, in two languages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medtune import api
from medtune.cli import main
from medtune.errors import DataError, TrainingError
from medtune.models.hub import base_folder
from medtune.recipe import load_recipe


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    code = end.value.code
    assert code is None or isinstance(code, int)
    return code or 0


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The demo's recipe on a prepared data set, with a model folder that has no weights."""
    monkeypatch.chdir(tmp_path)
    source = base_folder(load_recipe("demo").model)
    shutil.copytree(source, "model", ignore=shutil.ignore_patterns("*.safetensors"))
    assert run("recipe", "copy", "demo", "small") == 0
    return "small.yaml"


@pytest.fixture
def prepared(recipe: str) -> list[str]:
    # 12 patients instead of 700; the plan reads the folder that is there.
    api.prepare(recipe, ["data.sources=[{source: phantom, options: {num_patients: 12, slices_per_patient: 1, image_size: 128}}]"])
    return [recipe, "model.base=./model"]


def test_without_a_data_set_it_says_how_to_prepare_one(recipe: str) -> None:
    with pytest.raises(DataError) as raised:
        api.plan(recipe)
    assert raised.value.remedy is not None
    assert "medtune prepare small.yaml" in raised.value.remedy.render("en")


def test_the_plan_in_two_languages_and_as_json(
    prepared: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--gpu", "RTX 4090", "--num-gpus", "2", "--price", "0.5")
    monkeypatch.setenv("MEDTUNE_LANG", "en")
    assert run("plan", *prepared, *options) == 0
    english = capsys.readouterr().out
    for words in ("2 x RTX4090", "memory of a device", "peak", "tokens/s", "hours", "cost", "packing: yes", "linear_fc1", "ddp"):
        assert words in english, words
    monkeypatch.setenv("MEDTUNE_LANG", "zh")
    assert run("plan", *prepared, *options) == 0
    chinese = capsys.readouterr().out
    for words in ("每个设备的内存", "峰值", "费用", "打包：是"):
        assert words in chinese, words
    assert "packing" not in chinese
    assert run("plan", *prepared, *options, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["device"]["name"] == "RTX4090"
    assert plan["peak"] == pytest.approx(sum(value for name, value in plan["memory"].items() if name not in ("host", "disk")))
    assert plan["cost"] == pytest.approx(plan["hours"] * 2 * 0.5)
    assert plan["choice"]["packing"] is True
    assert sum(plan["parameters"].values()) + plan["adapter"]["num_trainable"] == plan["adapter"]["num_total"]
    # Rows that train would refuse are told of, not counted.
    monkeypatch.setenv("MEDTUNE_LANG", "en")
    assert run("plan", *prepared, "train.max_tokens=100", "--gpu", "H100") == 0
    assert "longer than 100 tokens" in capsys.readouterr().out
    # A fault of the user's: one message, exit code 2.
    assert run("plan", *prepared, "--gpu", "Abacus") == 2
    assert "A100-40GB" in capsys.readouterr().err


def test_a_plan_says_when_the_data_set_is_not_the_recipe_s(prepared: list[str]) -> None:
    recipe, base = prepared
    other = api.plan(recipe, [base], gpu="H100")
    assert "`medtune train` will refuse it" in other.notes[0].render("en")
    sources = "data.sources=[{source: phantom, options: {num_patients: 12, slices_per_patient: 1, image_size: 128}}]"
    assert not api.plan(recipe, [base, sources], gpu="H100").notes
    with pytest.raises(DataError, match="made with other settings"):
        api.train(recipe)


@pytest.mark.parametrize("wrong", [{"price": -1.0}, {"price": float("nan")}, {"num_gpus": 0}], ids=str)
def test_a_price_or_number_that_cannot_be_is_refused(prepared: list[str], wrong: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match="cannot be"):
        api.plan(prepared[0], prepared[1:], gpu="H100", **wrong)  # type: ignore[arg-type]


def test_a_device_that_was_measured_is_said_so_in_chinese_too(
    prepared: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("MEDTUNE_LANG", "zh")
    assert run("plan", *prepared, "--gpu", "cpu") == 0
    shown = capsys.readouterr().out
    assert "在本机测得" in shown
    assert "measured" not in shown
