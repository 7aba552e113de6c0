"""What happens to a run after it was trained: scored again, gone on from, asked by somebody else, measured on other data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medtune import api
from medtune.cli.app import app
from medtune.errors import EvaluationError, ModelError, RecipeError
from medtune.models.contract import read_contract
from medtune.recipe import load_recipe
from medtune.types import Event
from tiny_models import tiny_model

if TYPE_CHECKING:
    from unit.conftest import Workplace

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def run(workplace: Workplace, tmp_path: Path) -> Path:
    """A copy of the finished run, to change."""
    return Path(shutil.copytree(workplace.folder / "runs" / "small", tmp_path / "small"))


# ------------------------------------------------------------------------------------------------------------ scored again


def test_stored_answers_are_scored_again_without_a_model(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = api.show_run(run).report
    assert before is not None
    monkeypatch.setattr("medtune.models.load.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    predictions = (run / "evaluations" / "tuned" / "predictions.jsonl").read_bytes()
    for file in (run / "report.html", run / "evaluations" / "tuned" / "scores.jsonl"):
        file.unlink()
    again = api.rescore(run)
    assert again.conditions == before.conditions
    assert again.differences == before.differences
    assert (run / "report.html").is_file()
    assert (run / "evaluations" / "tuned" / "scores.jsonl").is_file()
    assert (run / "evaluations" / "tuned" / "predictions.jsonl").read_bytes() == predictions
    # The settings are those of the report (100 resamples of 6 samples), and can be overridden.
    assert again.settings["evaluation"]["num_resamples"] == 100  # type: ignore[call-overload,index]
    fewer = api.rescore(run, ["evaluation.metrics=[bleu]", "evaluation.num_resamples=150"])
    assert [value.name for value in fewer.metrics] == ["bleu/corpus"]
    with pytest.raises(RecipeError):
        api.rescore(run, ["evaluation.num_resample=150"])


def test_rescore_on_the_command_line(run: Path) -> None:
    from typer.testing import CliRunner

    (run / "report.json").unlink()
    shown = CliRunner().invoke(app, ["evaluate", str(run), "--rescore", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["num_samples"] == 6
    assert (run / "report.json").is_file()
    refused = CliRunner().invoke(app, ["evaluate", str(run), "--rescore", "--overwrite"])
    assert refused.exit_code == 2
    assert (run / "evaluations" / "tuned" / "predictions.jsonl").stat().st_size > 0


def test_a_run_without_answers_cannot_be_scored_again(run: Path) -> None:
    shutil.rmtree(run / "evaluations")
    with pytest.raises(EvaluationError, match="no predictions"):
        api.rescore(run)


# -------------------------------------------------------------------------------------------------------- asked by another


def test_answers_of_another_generator_are_not_mixed_with_those_of_the_run(run: Path) -> None:
    overrides = ["generation.generator={kind: echo, answers: [perhaps]}"]
    with pytest.raises(EvaluationError, match="differ in identity"):
        api.evaluate(run, overrides)
    report = api.evaluate(run, overrides, overwrite=True)
    assert report.settings["weights"] == {"tuned": "echo"}
    assert {json.loads(line)["generation"]["text"] for line in (run / "evaluations/tuned/predictions.jsonl").open()} == {"perhaps"}
    # What the base model said stays in its folder, but is none of this report's, nor of the one that is made from it again.
    assert [condition.label for condition in report.conditions] == ["tuned", "tuned-shuffled"]
    assert [condition.label for condition in api.rescore(run).conditions] == ["tuned", "tuned-shuffled"]


# ------------------------------------------------------------------------------------------------------------- other data


def test_pictures_that_went_through_other_transforms_are_not_asked_about(run: Path) -> None:
    with_letterbox = ["data.transforms=[{transform: letterbox, options: {size: 64}}]", "data.folder=datasets/boxed"]
    api.prepare("small.yaml", with_letterbox)
    with pytest.raises(ModelError, match=r"trained with transforms -, but here it is letterbox\(fill=0, size=64\)") as caught:
        api.evaluate(run, [*with_letterbox, "evaluation.max_samples=2"])
    assert caught.value.key == "data.transforms"


# ------------------------------------------------------------------------------------------------------------- gone on from


def test_a_run_goes_on_from_the_adapter_of_another_under_its_contract() -> None:
    first = api.train(
        "small.yaml",
        ["run.name=first", "adapter.rank=3", "model.max_pixels=4000", "model.system_prompt=Be brief.", "train.max_steps=1"],
    )
    adapter = first.folder / "adapter"
    # Pixel limits, system prompt and rank are left open: they are the earlier adapter's.
    overrides = ["run.name=second", f"adapter.init_from={adapter}", "train.max_steps=3", "train.save_every=1"]

    def stop(event: Event) -> None:
        if event.kind == "progress" and event.total == 3 and event.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.train("small.yaml", overrides, listener=stop)
    written = load_recipe("runs/second").adapter
    assert "rank" not in written.model_fields_set, "its recipe.yaml must not claim a rank that nobody set"
    second = api.train("runs/second", resume=True)
    assert second.record.status == "trained"
    one, other = read_contract(adapter), read_contract(second.folder / "adapter")
    assert (other.max_pixels, other.system_prompt) == (one.max_pixels, one.system_prompt) == (4000, "Be brief.")
    assert json.loads((second.folder / "adapter" / "adapter_config.json").read_text())["r"] == 3
    with pytest.raises(ModelError, match="max_pixels 4000, but here it is 5000"):
        api.train("small.yaml", ["run.name=third", f"adapter.init_from={adapter}", "model.max_pixels=5000"])
    with pytest.raises(RecipeError, match=r"adapter\.rank is 8, but the adapter to continue from has 3"):
        api.train("small.yaml", ["run.name=third", f"adapter.init_from={adapter}", "adapter.rank=8"])
    assert not Path("runs/third").exists()


# ------------------------------------------------------------------------------------------------------------- other families


@pytest.mark.parametrize("family", ["qwen2.5-vl", "llava"])
def test_a_family_without_a_recipe_goes_the_whole_road(workplace: Workplace, family: str) -> None:
    """Train, evaluate, chat. The other families do it in their recipes; ``llava`` is what ``auto`` serves."""
    tiny_model(workplace.folder / family, family)
    view = api.train("small.yaml", [f"model.base={family}", f"run.name={family}", "adapter.targets=[language, vision, projector]"])
    report = api.evaluate(view.folder)
    assert [condition.num_predictions for condition in report.conditions] == [6, 6, 6, 6]
    picture = next((workplace.folder / "datasets" / "small" / "images").rglob("*.jpg"))
    tuned, base = api.open_chat(view.folder, side_by_side=True, images=[picture])
    assert base is not None
    for session in (tuned, base):
        assert "".join(session.ask("What is seen?")) == session.turns[0].answer
        assert session.turns[0].pictures[0].name == picture.name
