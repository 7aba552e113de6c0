"""Reading, overriding, writing and explaining recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medtune import recipe as module
from medtune.errors import RecipeError
from medtune.recipe import (
    dataset_folder,
    diff_settings,
    dump_recipe,
    explain,
    find_recipe,
    load_recipe,
    read_head,
    recipe_schema,
    rename,
    run_folder,
    shipped_recipes,
)

TEXT = """\
# Needs: nothing.
# Start: medtune train small.yaml

name: small
title: A small one   # stays
data:
  sources:
    - source: phantom
      max_samples: 40
    - source: vqa-rad
model:
  base: medtune-nano
adapter:
  kind: lora
  rank: 4
train:
  learning_rate: 2e-4
distributed:
  kind: deepspeed
  zero_stage: 3
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def faults_of(path: Path, *overrides: str) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert caught.value.file == str(path)
    return {key: text.render("en") for key, text in caught.value.faults}


def test_a_recipe_is_read_with_the_defaults_of_every_section(small: Path) -> None:
    recipe = load_recipe(small)
    assert (recipe.name, recipe.adapter.kind, recipe.generation.sampling.temperature) == ("small", "lora", 0.0)
    assert recipe.data.sources[0].max_samples == 40


def test_exponents_that_yaml_reads_as_text_are_numbers(small: Path) -> None:
    assert yaml.safe_load("2e-4") == "2e-4"  # the trap
    assert load_recipe(small).train.learning_rate == 2e-4
    assert load_recipe(small, ["train.learning_rate=5e-5"]).train.learning_rate == 5e-5


def test_the_name_is_the_files_when_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {sources: [{source: phantom}]}\nmodel: {base: medtune-nano}\n")
    assert load_recipe(path).name == "mine"


def test_a_dumped_recipe_is_read_back_equal_and_dumps_to_the_same_text(small: Path, tmp_path: Path) -> None:
    recipe = load_recipe(small, ["data.folder=some/where", "data.sources.0.options={path: 三/数据.parquet, 'n': 1.5e-7}"])
    again = tmp_path / "again.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe
    assert dump_recipe(load_recipe(again)) == dump_recipe(recipe)


def test_the_dump_writes_out_every_default(small: Path) -> None:
    data: dict[str, Any] = yaml.safe_load(dump_recipe(load_recipe(small)))
    assert data["train"]["weight_decay"] == 0.0
    assert data["generation"]["sampling"]["max_new_tokens"] == 256


def test_overrides_are_typed_by_yaml(small: Path) -> None:
    recipe = load_recipe(
        small, ["adapter.rank=64", "data.sources.1.max_samples=7", "train.keep_best=no", "evaluation.controls=[]", "run.name=other"]
    )
    assert recipe.adapter.model_dump()["rank"] == 64
    assert recipe.data.sources[1].max_samples == 7
    assert (recipe.train.keep_best, recipe.evaluation.controls) == (False, ())
    assert run_folder(recipe) == Path("runs/other")


def test_overrides_reach_sections_that_the_file_does_not_have(small: Path) -> None:
    assert load_recipe(small, ["evaluation.seed=3", "generation.sampling.temperature=0.6"]).generation.sampling.temperature == 0.6


def test_another_kind_takes_the_settings_of_the_former_kind_away(small: Path) -> None:
    assert load_recipe(small, ["distributed.kind=none"]).distributed.kind == "none"
    qlora = load_recipe(small, ["adapter.kind=qlora"]).adapter
    assert (qlora.kind, qlora.model_dump()["rank"]) == ("qlora", 4)


def test_another_kind_keeps_what_was_never_known(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(TEXT.replace("zero_stage: 3", "zero_stag: 3"), encoding="utf-8")
    assert "distributed.zero_stag" in faults_of(path, "distributed.kind=none")


def test_every_fault_is_reported_at_once_with_its_key(small: Path) -> None:
    found = faults_of(
        small,
        "train.learning_rat=1e-4",
        "adapter.rank=0",
        "data.sources.0.max_samples=many",
        "modle.base=x",
        "rank=8",
        "train.schedule=cosinus",
        "noequals",
        "data.sources.5.source=a",
        "name.first=x",
        "train.seed=[1",
    )
    assert found["train.learning_rat"] == "There is no such setting. Did you mean learning_rate?"
    assert found["adapter.rank"] == "0 must be greater than 0."
    assert found["data.sources.0.max_samples"] == "A whole number is expected, not 'many'."
    assert found["modle"] == "There is no such setting. Did you mean model?"
    assert found["rank"].endswith("Did you mean adapter.rank?"), "the same name elsewhere comes before a similar one here"
    assert found["train.schedule"].startswith("'cosinus' is not one of cosine")
    assert found["noequals"] == "An override is written section.key=value."
    assert found["data.sources.5.source"] == "data.sources is a list of 2 entries, counted from 0."
    assert found["name.first"] == "name is not a group of settings."
    assert "train.seed" in found
    assert len(found) == 10, sorted(found)


def test_the_message_lists_the_faults_and_the_file(small: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, ["adapter.rnak=1", "train.epochs=-1"])
    text = caught.value.render("en")
    assert "has 2 faults" in text
    assert "- adapter.rnak: There is no such setting. Did you mean rank?" in text
    assert str(small) in text


def test_a_key_written_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(TEXT + "train:\n  epochs: 1\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"Line 21 .*'train' is written twice"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1", "not sound YAML"),
        ("- 1\n- 2\n", "is a group of settings"),
        ("", "is a group of settings"),
        ("!!python/name:os.system x", "not sound"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=said):
        load_recipe(path)


def test_a_recipe_in_another_encoding_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes("title: 脑".encode("utf-16"))
    with pytest.raises(RecipeError, match="not UTF-8 text") as caught:
        load_recipe(path)
    assert caught.value.remedy is not None


def test_a_path_that_leads_nowhere_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe in this place"):
        load_recipe(tmp_path / "elsewhere" / "mine")


def test_a_digit_revision_without_quotes_asks_for_quotes(small: Path) -> None:
    assert "quotes" in faults_of(small, "model.revision=1234567")["model.revision"]


def test_warm_up_as_a_share_is_refused_with_the_room_s_own_sentence(small: Path) -> None:
    assert "warmup_ratio" in faults_of(small, "train.warmup_steps=0.1")["train.warmup_steps"]


def test_an_unknown_name_gets_the_nearest(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    monkeypatch.setattr(module, "shipped_recipes", lambda: {"small": small})
    assert find_recipe("small") == small
    with pytest.raises(RecipeError, match="Did you mean small"):
        find_recipe("smal")


def test_a_missing_file_names_the_file() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("nowhere/none.yaml")
    assert caught.value.file == "nowhere/none.yaml"


def test_a_run_folder_stands_for_its_recipe(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump_recipe(load_recipe(small)))
    assert load_recipe(folder) == load_recipe(small)


def test_paths_are_relative_to_the_current_directory(small: Path) -> None:
    recipe = load_recipe(small, ["data.folder=there", "run.folder=here"])
    assert (dataset_folder(recipe), run_folder(recipe)) == (Path("there"), Path("here"))
    assert dataset_folder(load_recipe(small)) == Path("datasets/small")


def test_the_head_is_the_comments_before_the_first_setting(small: Path) -> None:
    assert read_head(small) == "# Needs: nothing.\n# Start: medtune train small.yaml"


def test_rename_changes_nothing_but_the_name() -> None:
    assert rename(TEXT, "mine") == TEXT.replace("name: small", "name: mine")
    assert rename("# head\n\ndata: 1\n", "mine") == "# head\n\ndata: 1\n"


def test_explain_has_every_setting_with_a_description(small: Path) -> None:
    settings = {setting.key: setting for setting in explain(load_recipe(small))}
    assert settings["adapter.rank"].value == 4
    assert settings["adapter.rank"].default == 8
    assert settings["adapter.rank"].changed
    assert not settings["train.weight_decay"].changed
    assert settings["data.sources.1.source"].value == "vqa-rad"
    undescribed = [key for key, setting in settings.items() if not setting.description and not key.endswith(".kind")]
    assert undescribed == []


def test_diff_names_the_settings_that_differ(small: Path) -> None:
    first, second = load_recipe(small), load_recipe(small, ["adapter.rank=8", "distributed.kind=none"])
    found = {entry.key: (entry.first, entry.second) for entry in diff_settings(first, second)}
    assert found["adapter.rank"] == (4, 8)
    assert found["distributed.zero_stage"] == (3, None)
    assert diff_settings(first, first) == []


def test_the_schema_describes_every_section(small: Path) -> None:
    schema = recipe_schema()
    assert set(schema["properties"]) == set(type(load_recipe(small)).model_fields)
    assert schema["$defs"]["TrainSettings"]["properties"]["learning_rate"]["description"]


def test_shipped_recipes_are_found_and_sound() -> None:
    for name in shipped_recipes():
        assert load_recipe(name).name
