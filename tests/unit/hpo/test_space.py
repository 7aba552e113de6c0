"""What a search space may say, and how a point of it becomes a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medtune.errors import RecipeError
from medtune.hpo.config import Space
from medtune.hpo.design import num_trials, planned
from medtune.hpo.space import find_space, load_space, overrides_of, with_changes, yaml_text
from medtune.recipe import Recipe, make_recipe


def recipe(**sections: Any) -> Recipe:
    return make_recipe({"name": "r", "data": {"sources": [{"source": "phantom"}]}, "model": {"base": "medtune-nano"}, **sections})


def load(tmp_path: Path, parameters: dict[str, Any], **settings: Any) -> Space:
    path = tmp_path / "r.sweep.yaml"
    path.write_text(yaml.safe_dump({"parameters": parameters, **settings}, sort_keys=False), encoding="utf-8")
    return load_space(path, recipe())


def faults(tmp_path: Path, parameters: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, parameters, **settings)
    return caught.value.render("en")


def test_an_unknown_key_gets_the_nearest_setting(tmp_path: Path) -> None:
    said = faults(tmp_path, {"adapter.rnak": {"choices": [4, 8]}, "train.learning_rat": {"low": 1e-5, "high": 1e-3}})
    assert "adapter.rnak: There is no such setting. Did you mean rank?" in said
    assert "train.learning_rat: There is no such setting. Did you mean learning_rate?" in said


def test_a_value_that_the_setting_does_not_take_is_refused_before_anything_runs(tmp_path: Path) -> None:
    assert "adapter.rank: 0 must be greater than 0" in faults(tmp_path, {"adapter.rank": {"choices": [8, 0]}})
    assert "train.schedule: 'step' is not one of" in faults(tmp_path, {"train.schedule": {"choices": ["cosine", "step"]}})
    assert "adapter.dropout" in faults(tmp_path, {"adapter.dropout": {"low": 0.0, "high": 1.5}})


@pytest.mark.parametrize(
    "key",
    ["data.split.seed", "evaluation.split", "evaluation.max_samples", "model.base", "train.seed", "train.max_tokens", "run.name"],
)
def test_what_would_make_trials_incomparable_cannot_be_varied(tmp_path: Path, key: str) -> None:
    assert f"{key}: A sweep may not vary this." in faults(tmp_path, {key: {"choices": [1, 2]}})


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ({"choices": [1, 2], "low": 1}, "exclude each other"),
        ({"low": 1}, "Write choices: [...], or low and high."),
        ({"low": 2, "high": 1}, "low (2) is not below high (1)"),
        ({"low": 0, "high": 1, "log": True}, "A logarithmic range begins above zero"),
        ({"choices": [4, 4]}, "A choice is named twice."),
        ({"choices": ["a"], "times": "adapter.alpha"}, "With times the choices are numbers."),
        ({"choices": [1, 2], "steps": 3}, "Did you mean step?"),
    ],
)
def test_a_parameter_has_one_meaning(tmp_path: Path, parameter: dict[str, Any], said: str) -> None:
    assert said in faults(tmp_path, {"adapter.rank": parameter})


def test_designs_need_choices(tmp_path: Path) -> None:
    said = faults(tmp_path, {"train.learning_rate": {"low": 1e-5, "high": 1e-3}}, sampler="grid")
    assert "train.learning_rate needs choices: a grid design has no ranges." in said


def test_numbers_without_a_point_are_read_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "r.sweep.yaml"
    path.write_text("parameters:\n  train.learning_rate: {low: 1e-5, high: 1e-3, log: true}\n", encoding="utf-8")
    parameter = load_space(path, recipe()).parameters["train.learning_rate"]
    assert (parameter.low, parameter.high, parameter.whole) == (1e-5, 1e-3, False)


def test_a_point_becomes_overrides_that_yaml_reads_back(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        {
            "adapter.alpha": {"choices": [1, 4], "times": "adapter.rank"},
            "adapter.rank": {"choices": [4, 16]},
            "train.learning_rate": {"choices": [5e-5, 1e-4]},
            "adapter.targets": {"choices": [["language"], ["language", "projector"]]},
        },
    )
    point = {"adapter.alpha": 4, "adapter.rank": 16, "train.learning_rate": 5e-5, "adapter.targets": ["language", "projector"]}
    changed = with_changes(recipe(), overrides_of(point, space, recipe()))
    assert changed.adapter.model_dump()["alpha"] == 64, "four times the rank of the point, not the recipe's"
    assert changed.train.learning_rate == 5e-5
    assert changed.adapter.model_dump()["targets"] == ("language", "projector")
    assert with_changes(recipe(), overrides_of({"adapter.alpha": 4}, space, recipe())).adapter.model_dump()["alpha"] == 32
    for value in (5e-5, 1e300, True, None, "cosine", "1e-4", [1, "a: b"], ""):
        assert yaml.safe_load(f"key: {yaml_text(value)}") == {"key": value}


def test_designs_leave_out_what_the_recipe_has_already(tmp_path: Path) -> None:
    # rank 8 and alpha twice the rank are the defaults: the recipe as it stands is trial 0 anyway.
    parameters = {"adapter.rank": {"choices": [4, 8]}, "adapter.alpha": {"choices": [1, 2], "times": "adapter.rank"}}
    one = load(tmp_path, parameters, sampler="one-at-a-time")
    assert planned(one, recipe()) == [{"adapter.rank": 4}, {"adapter.alpha": 1}]
    grid = load(tmp_path, parameters, sampler="grid")
    assert len(planned(grid, recipe())) == 3
    assert num_trials(grid, recipe()) == 4
    assert num_trials(load(tmp_path, parameters, trials=7), recipe()) == 8


def test_the_space_lies_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: {base: medtune-nano}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"mine\.sweep\.yaml"):
        find_space(tmp_path / "mine.yaml")
    (tmp_path / "mine.sweep.yaml").write_text("", encoding="utf-8")
    assert find_space(tmp_path / "mine.yaml") == tmp_path / "mine.sweep.yaml"
    assert find_space("nano_claims").name == "nano_claims.sweep.yaml"
