"""The verbs, end to end on a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from medtune import api, assembly
from medtune import recipe as recipe_module
from medtune.errors import (
    DataError,
    GenerationError,
    MedtuneError,
    ModelError,
    PluginError,
    RecipeError,
    RunError,
    TrainingError,
    UnreadableImageError,
)
from medtune.recipe import load_recipe
from medtune.runs import Run
from medtune.types import Event

if TYPE_CHECKING:
    from unit.conftest import Workplace

pytestmark = pytest.mark.usefixtures("workplace")


def test_the_stages_are_told_in_order(workplace: Workplace) -> None:
    told = list(workplace.phases)
    expected = ["Preparing the data set datasets/small", "Checking the data set", "Loading tiny", "Saving the result.", "Scoring"]
    assert [phase for phase in told if phase in expected][:3] == expected[:3]
    assert set(expected) <= set(told)


def test_the_run_folder_explains_itself() -> None:
    view = api.show_run("small")
    assert view.record.status == "trained"
    assert view.record.dataset_hash
    assert load_recipe(view.folder) == load_recipe("small.yaml")
    assert view.evaluations == ("base", "base-shuffled", "tuned", "tuned-shuffled")
    assert view.next_command == "medtune chat runs/small"
    assert "<html" in (view.folder / "report.html").read_text(encoding="utf-8")


def test_the_weights_are_loaded_once_and_not_again_for_stored_answers(workplace: Workplace) -> None:
    # Loaded twice in all: to train, and to ask base and tuned.
    assert workplace.phases.count("Loading tiny") == 2
    heard: list[Event] = []
    again = api.evaluate("small", listener=heard.append)
    assert again.conditions == api.show_run("small").report.conditions  # type: ignore[union-attr]
    assert not any(event.text is not None and event.text.template.startswith("Loading") for event in heard)


def test_one_process_at_a_time_writes_what_is_measured_of_a_run() -> None:
    """Each would put the file of answers into order while the other appends to it."""
    run = Run(Path("runs/small"))
    stored = (run.folder / "evaluations/tuned/predictions.jsonl").read_bytes()
    with run.hold():
        for verb in (api.evaluate, api.rescore, lambda name: api.import_review(name, ())):
            with pytest.raises(RunError, match="is working on this run"):
                verb("small")
    assert (run.folder / "evaluations/tuned/predictions.jsonl").read_bytes() == stored
    api.rescore("small")


def test_base_and_tuned_are_two_models(workplace: Workplace, tmp_path: Path) -> None:
    run = tmp_path / "loud"
    shutil.copytree(workplace.folder / "runs" / "small", run, ignore=shutil.ignore_patterns("evaluations", "report.*"))
    from safetensors.torch import load_file, save_file

    path = run / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor + 1.0 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    api.evaluate(run, ["evaluation.max_samples=2", "evaluation.controls=[]"])
    lines = {label: (run / "evaluations" / label / "predictions.jsonl").read_text().splitlines() for label in ("base", "tuned")}
    texts = {label: [line.split('"text":')[1].split('"finish_reason"')[0] for line in found] for label, found in lines.items()}
    assert texts["base"] != texts["tuned"]
    kept = (workplace.folder / "runs" / "small" / "evaluations" / "base" / "predictions.jsonl").read_text()
    assert all(text in kept for text in texts["base"])


def test_a_run_folder_is_not_overwritten() -> None:
    with pytest.raises(RunError, match="exists already"):
        api.train("small.yaml")


def test_a_run_that_fails_before_its_first_step_leaves_nothing() -> None:
    overrides = ["run.name=failing", "train.max_tokens=3"]
    for _ in range(2):  # the same words the second time, not "exists already"
        with pytest.raises(TrainingError, match="longer than 3 tokens"):
            api.train("small.yaml", overrides)
        assert not Path("runs/failing").exists()


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("model.base=nowhere/here/model", ModelError),
        ("train.hf={adam_epsilonn: 1}", RecipeError),
        ("train.hf={adam_epsilon: small}", RecipeError),
    ],
)
def test_a_wrong_model_or_argument_is_told_before_the_data_are_prepared(override: str, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        api.train("small.yaml", [override, "run.name=never", "data.folder=datasets/never"])
    assert not Path("datasets/never").exists()


def test_the_report_says_by_which_command_it_was_made(tmp_path: Path) -> None:
    shutil.copytree("runs/small", tmp_path / "cited")
    report = api.evaluate(tmp_path / "cited", ["evaluation.num_resamples=101"])
    assert report.settings["command"] == "medtune evaluate cited evaluation.num_resamples=101", "no folder that may name a person"
    assert report.settings["base_model"] == "tiny"
    assert report.settings["trained_with"]["torch"] == report.versions["torch"]  # type: ignore[call-overload,index]
    page = (tmp_path / "cited" / "report.html").read_text(encoding="utf-8")
    assert "medtune evaluate cited evaluation.num_resamples=101" in page
    said = assembly.provenance(Run(Path("runs/small")), ["run.name=a b"], overwrite=True)
    assert said["command"] == "medtune evaluate runs/small 'run.name=a b' --overwrite"


def test_faulty_records_stop_the_training_unless_the_recipe_goes_on_without_them(tmp_path: Path) -> None:
    shutil.copytree("vqa-rad", tmp_path / "rad")
    next((tmp_path / "rad" / "images").glob("*.jpg")).unlink()
    changes = [f"data.sources.0.options.path={tmp_path / 'rad'}", f"data.folder={tmp_path / 'data'}", "run.name=faulty"]
    with pytest.raises(DataError, match="The picture is missing") as caught:
        api.train("small.yaml", changes)
    assert "data.faulty_records=leave-out" in str(caught.value.remedy)
    assert "medtune validate" in str(caught.value.remedy)
    assert api.validate("small.yaml", changes).num_errors > 0
    heard: list[Event] = []
    changes.append("data.faulty_records=leave-out")
    view = api.train("small.yaml", [*changes, f"run.folder={tmp_path / 'run'}"], listener=heard.append)
    assert view.record.status == "trained"
    assert any("records were left out" in str(event.text) for event in heard)
    assert api.validate("small.yaml", changes).num_errors == 0


def test_a_metric_that_is_not_there_is_told_before_a_question_is_asked() -> None:
    heard: list[Event] = []
    with pytest.raises(PluginError) as caught:
        api.evaluate("small", ["evaluation.metrics=[nosuch]"], listener=heard.append)
    assert (caught.value.key, heard) == ("evaluation.metrics", [])


def test_a_folder_without_a_data_set_is_not_taken_for_a_recipe() -> None:
    with pytest.raises(DataError, match="not a data set folder"):
        api.validate("datasets")


def test_a_picture_is_looked_at_before_the_weights_are_loaded(workplace: Workplace) -> None:
    heard: list[Event] = []
    with pytest.raises(UnreadableImageError):
        api.open_chat("small", images=[workplace.folder / "small.yaml"], listener=heard.append)
    assert heard == []


def test_a_resumed_run_keeps_its_settings() -> None:
    with pytest.raises(RecipeError) as caught:
        api.train("small.yaml", ["train.seed=7", "adapter.rank=2", "train.log_every=1"], resume=True)
    assert [key for key, _ in caught.value.faults] == ["adapter.rank", "train.seed"]
    with pytest.raises(RunError, match="not a run folder"):
        api.train("small.yaml", ["run.name=never"], resume=True)


def test_an_interrupted_run_is_resumed_to_its_end() -> None:
    overrides = ["run.name=stopped", "train.max_steps=4", "train.save_every=1", "train.log_every=1"]

    def stop(event: Event) -> None:
        if event.kind == "log" and event.values.get("step") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.train("small.yaml", overrides, listener=stop)
    view = api.show_run("stopped")
    assert (view.record.status, view.next_command) == ("interrupted", "medtune train runs/stopped --resume")
    with pytest.raises(RunError, match="has not been trained"):
        api.evaluate("stopped")
    free = ["train.save_every=2", "train.keep_best=false", "train.log_every=2"]  # what is kept and told, not what is computed
    resumed = api.train("runs/stopped", free, resume=True)
    assert (resumed.record.status, resumed.record.num_steps) == ("trained", 4)
    shutil.rmtree("runs/stopped")


def test_a_data_set_made_with_other_settings_is_not_used() -> None:
    with pytest.raises(DataError):
        api.train("small.yaml", ["run.name=other", "data.split.seed=5"])
    assert not Path("runs/other").exists()


def test_training_on_a_faulty_data_set_is_not_begun(tmp_path: Path) -> None:
    dataset = tmp_path / "faulty"
    shutil.copytree("datasets/small", dataset)
    picture = next((dataset / "images").rglob("*.*g"))
    picture.write_bytes(picture.read_bytes()[:100])
    assert api.validate(dataset).num_errors > 0
    with pytest.raises(DataError, match="errors, the first"):
        api.train("small.yaml", ["run.name=faulty", f"data.folder={dataset}"])
    assert not Path("runs/faulty").exists()


def test_validate_counts_tokens_for_a_recipe_only() -> None:
    assert api.validate("datasets/small").skipped.keys() - api.validate("small.yaml").skipped.keys()
    assert api.validate("small.yaml", ["train.max_tokens=3"]).num_errors > 0


def test_several_runs_of_a_side_are_averaged() -> None:
    comparison = api.compare("small", "small", first_also=["small"], second_also=["small"])
    assert comparison.runs == (("small/tuned", "small/tuned"), ("small/tuned", "small/tuned"))
    assert any("hold the same weights" in text.render("en") for text in comparison.warnings), (
        "one run given twice is no second seed"
    )
    assert comparison.alerts == tuple(text for text in comparison.warnings if text in comparison.alerts)


def test_compare_of_a_run_with_itself_finds_nothing() -> None:
    comparison = api.compare("small", Run(Path("runs/small")))
    assert comparison.differences
    assert {entry.difference for entry in comparison.differences if entry.difference is not None} == {0.0}


@pytest.mark.parametrize(
    ("arguments", "adapters"),
    [
        ({"run": "small"}, ["runs/small/adapter"]),
        ({}, ["runs/small/adapter"]),
        ({"run": "small", "side_by_side": True}, ["runs/small/adapter", None]),
        ({"run": "small", "base_only": True}, [None]),
        ({"run": "small.yaml", "base_only": True, "side_by_side": True}, [None]),
        ({"adapter": Path("runs/small/adapter")}, ["runs/small/adapter"]),
    ],
)
def test_who_answers_in_a_chat(arguments: dict[str, Any], adapters: list[str | None]) -> None:
    picture = next(Path("vqa-rad/images").glob("*.jpg"))
    sessions = [session for session in api.open_chat(**arguments, images=[picture]) if session is not None]
    assert [session.adapter for session in sessions] == adapters
    for session in sessions:
        assert session.pending[0].name == picture.name
        "".join(session.ask("What is seen?"))
        assert session.turns[-1].finish_reason in ("stop", "length")


ECHO = "generation.generator={kind: echo, answers: [Clear.]}"


def test_a_chat_with_another_generator_loads_no_weights() -> None:
    heard: list[Event] = []
    session, second = api.open_chat("small", [ECHO], side_by_side=True, listener=heard.append)
    assert "".join(session.ask("What is seen?")) == "Clear."
    assert (second, session.server) == (None, "echo")
    assert ["one model" in str(event.text) for event in heard] == [True]


def test_a_recipe_is_enough_to_talk_with_a_server(tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(Path("small.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    session, _ = api.open_chat(new, [ECHO])
    assert "".join(session.ask("What is seen?")) == "Clear."
    with pytest.raises(RunError, match="has not been trained yet"):
        api.open_chat(new)
    assert api.open_chat("small.yaml")[0].adapter == "runs/small/adapter"


def test_data_that_may_not_leave_are_not_shown_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = "generation.generator={kind: openai, base_url: 'http://elsewhere.example/v1', model: m}"
    assert api.open_chat("small", [server])[0].server == "m (http://elsewhere.example/v1)"
    monkeypatch.setattr(assembly, "may_leave", lambda *_: False)
    with pytest.raises(MedtuneError, match="may not leave this machine"):
        api.open_chat("small", [server])


def test_base_only_with_an_adapter_is_the_adapter_s_base_model() -> None:
    session, _ = api.open_chat(adapter=Path("runs/small/adapter"), base_only=True)
    assert (session.base_model, session.adapter) == ("tiny", None)


def test_an_adapter_that_left_its_run_still_names_its_base_model(tmp_path: Path) -> None:
    shutil.copytree("runs/small/adapter", tmp_path / "alone")
    session, _ = api.open_chat(adapter=tmp_path / "alone", overrides=["generation.sampling.max_new_tokens=2"])
    assert (session.base_model, session.sampling.max_new_tokens) == ("tiny", 2)


def test_runs_are_listed_with_the_latest_first(tmp_path: Path) -> None:
    from medtune.types import RunRecord

    for number, name in enumerate(("b", "a", "c")):
        record = RunRecord(
            name=name, status="created", created="-", updated=f"2026-01-0{3 - number}", recipe="r", base_model="m", seed=0
        )
        Run.create(tmp_path / name, recipe_text="", record=record)
    (tmp_path / "a" / "run.json").write_text("{")
    assert [run.folder.name for run in api.list_runs(tmp_path)] == ["b", "c", "a"]
    assert api.list_runs(tmp_path / "none") == []


def test_an_unknown_run_gets_the_nearest() -> None:
    with pytest.raises(RunError, match="Did you mean runs/small"):
        api.find_run("smal")


def test_copy_keeps_the_comments_and_takes_the_new_name(tmp_path: Path) -> None:
    target = api.copy_recipe("small.yaml", tmp_path / "mine")
    assert target.name == "mine.yaml"
    shown = api.show_recipe(target)
    assert shown.head.startswith("# Needs:")
    assert shown.recipe.name == "mine"
    assert [entry.key for entry in api.diff_recipes("small.yaml", target)] == ["name"]
    with pytest.raises(RecipeError, match="exists already"):
        api.copy_recipe("small.yaml", target)
    with pytest.raises(RecipeError):
        api.copy_recipe("small.yaml", tmp_path / "no name!.yaml")
    assert not (tmp_path / "no name!.yaml").exists()


def test_the_resolved_recipe_is_a_recipe_with_its_head(tmp_path: Path) -> None:
    shown = api.show_recipe("small.yaml", ["adapter.rank=3"])
    path = tmp_path / "resolved.yaml"
    path.write_text(shown.resolved, encoding="utf-8")
    assert load_recipe(path) == shown.recipe == load_recipe("small.yaml", ["adapter.rank=3"])
    assert shown.resolved.startswith("# Needs:")


def test_a_recipe_object_may_be_changed_by_overrides() -> None:
    loaded = load_recipe("small.yaml")
    assert api.prepare(loaded).manifest == api.prepare(loaded, ["adapter.rank=1"]).manifest
    with pytest.raises(RecipeError):
        api.prepare(loaded, ["adapter.rnk=1"])


@pytest.mark.slow
def test_two_processes_evaluate_as_one(tmp_path: Path) -> None:
    """Against the finished run, which one process has evaluated. Greedy, in float32, with pictures, base and tuned."""

    def answers(run: Path) -> list[Any]:
        lines = []
        for label in ("base", "tuned"):
            for line in (run / "evaluations" / label / "predictions.jsonl").read_text().splitlines():
                prediction = json.loads(line)
                prediction["generation"].pop("seconds")
                told = prediction["generation"].pop("first_token_logprobs")  # equal up to rounding
                lines.append([prediction, sorted(told or {})])
        return lines

    run = tmp_path / "by-2"
    shutil.copytree("runs/small", run)
    shutil.rmtree(run / "evaluations")
    heard: list[Event] = []
    api.evaluate(run, ["generation.num_processes=2", "evaluation.controls=[]"], listener=heard.append)
    assert [event.text.render("en") for event in heard if event.text is not None].count("Loading tiny") == 1
    assert len(answers(run)) == 12
    assert answers(run) == answers(Path("runs/small"))
    assert not [path for path in (run / "evaluations").glob("worker-*.log") if path.stat().st_size == 0]


def test_the_demo_goes_the_whole_road_and_uses_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = tmp_path / "demo.yaml"
    shutil.copy("small.yaml", demo)
    monkeypatch.setattr(recipe_module, "shipped_recipes", lambda: {"demo": demo})
    result = api.demo(tmp_path / "a place")
    assert result.run.folder == tmp_path / "a place" / "runs" / "demo"
    assert (tmp_path / "a place" / "datasets" / "demo" / "manifest.json").is_file()
    assert result.next_command == f"medtune chat {result.run.folder}"
    heard: list[Event] = []
    again = api.demo(tmp_path / "a place", listener=heard.append)
    assert again.report.conditions == result.report.conditions
    assert not any(event.kind == "epoch" for event in heard)


def test_a_server_is_one_model_that_is_told_of_local_data() -> None:
    recipe = load_recipe("small.yaml", ["generation.generator={kind: openai, base_url: 'http://example.org/v1', model: m}"])
    found = assembly.generators(recipe, Path("runs/small/adapter"), local_only=True, listener=None)
    assert list(found) == ["tuned"]
    make: Any = found["tuned"][1]
    with pytest.raises(GenerationError, match="machine"):
        make()


def test_the_doctor_finds_this_machine_sound() -> None:
    findings = {finding.subject: finding for finding in api.doctor()}
    assert findings["torch"].status == "ok"
    assert findings["Python"].status == "ok"
    assert {"CPU", "memory", "disk", "writing"} <= findings.keys()


def test_the_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "4.9" if name == "transformers" else real(name))
    found = {finding.subject: finding for finding in api.doctor()}["transformers"]
    assert found.status == "missing"
    assert found.remedy is not None
    assert 'pip install "transformers>=5' in found.remedy.render("en")


def test_the_doctor_says_that_a_folder_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert {finding.subject: finding.status for finding in api.doctor(folder=tmp_path / "not" / "yet")}["writing"] == "missing"
