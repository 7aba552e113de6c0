from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medtune.data.dataset import Dataset
from medtune.errors import EvaluationError, GenerationError, PluginError
from medtune.evaluation import bootstrap, permutation
from medtune.evaluation import report as report_module
from medtune.evaluation.compare import compare
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate, read_report, rescore
from medtune.evaluation.score import Scored
from medtune.evaluation.subgroups import subgroup_labels
from medtune.types import Condition, Difference, Event, Measurement, Report, Request, Sampling
from toy_evaluation import Guessing, Looking, make_dataset

pytestmark = pytest.mark.usefixtures("toys")

SETTINGS = EvaluationSettings(num_resamples=200, min_subgroup_samples=4)


def run(dataset: Dataset, folder: Path, **changes: object) -> Report:
    arguments: dict[str, object] = {
        "generators": {"base": ("base", Guessing()), "tuned": ("tuned", Looking())},
        "settings": SETTINGS,
        "folder": folder,
    }
    return evaluate(dataset, **{**arguments, **changes})  # type: ignore[arg-type]


def measurement(report: Report, label: str, metric: str, task: str | None = None) -> Measurement:
    condition = next(entry for entry in report.conditions if entry.label == label)
    return next(entry for entry in condition.measurements if (entry.metric, entry.task) == (metric, task))


def difference(report: Report, first: str, second: str, metric: str) -> Difference:
    entries = next(entries for one, other, entries in report.differences if (one, other) == (first, second))
    return next(entry for entry in entries if entry.metric == metric and entry.task is None)


def templates(report: Report) -> str:
    return "\n".join(warning.render("en") for warning in report.warnings)


def test_a_looking_model_beats_a_guessing_one_and_only_with_its_own_pictures(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=40)
    report = run(dataset, tmp_path / "run")
    assert [condition.label for condition in report.conditions] == ["base", "base-shuffled", "tuned", "tuned-shuffled"]
    base, tuned = measurement(report, "base", "closed/accuracy"), measurement(report, "tuned", "closed/accuracy")
    assert (base.value, tuned.value) == (0.5, 1.0)
    assert (tuned.num_scored, tuned.num_unscored, tuned.num_groups) == (80, 0, 40)
    assert base.low is not None
    assert base.high is not None
    assert base.low < 0.5 < base.high
    gain = difference(report, "base", "tuned", "closed/accuracy")
    assert (gain.first, gain.second, gain.difference) == (0.5, 1.0, 0.5)
    assert gain.low is not None
    assert gain.low > 0.2
    lost = difference(report, "tuned", "tuned-shuffled", "closed/accuracy")
    assert lost.high is not None
    assert lost.high < 0
    # "bright" has two letters more than "dark": half of the guesses are two letters off, the root of the mean square is √2.
    assert measurement(report, "base", "bleu/letters").value == pytest.approx(2**0.5)
    assert report.headline == ("closed/accuracy", "bleu/letters")
    assert "looks" not in templates(report)
    assert report == read_report(tmp_path / "run")


def test_the_report_says_when_the_pictures_do_not_matter(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=40)
    report = run(dataset, tmp_path / "run", generators={"base": ("base", Looking()), "tuned": ("tuned", Guessing())})
    assert "With pictures of other groups the tuned model is not measurably worse on Accuracy" in templates(report)
    assert "the base model is not measurably worse" not in templates(report)


def test_an_interrupted_evaluation_asks_only_what_is_missing(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=8)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "run", generators={"tuned": ("tuned", Looking(fail_after=5))})
    path = tmp_path / "run" / "evaluations" / "tuned" / "predictions.jsonl"
    assert len(path.read_text().splitlines()) == 5
    with path.open("a") as file:
        file.write('{"sample_id": "s0-0", "generation": {"id"')  # torn
    second = Looking()
    run(dataset, tmp_path / "run", generators={"tuned": ("tuned", second)}, controls=())
    assert len(second.asked) == 16 - 5
    assert sorted(json.loads(line)["sample_id"] for line in path.read_text().splitlines()) == sorted(
        sample.id for sample in dataset.rows("test")
    )
    third = Looking()
    report = run(dataset, tmp_path / "run", generators={"tuned": ("tuned", third)}, controls=())
    assert third.asked == []
    assert measurement(report, "tuned", "closed/accuracy").value == 1.0


def test_a_finished_evaluation_does_not_load_the_model_again(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=4)
    made: list[Looking] = []

    def make() -> Looking:
        made.append(Looking())
        return made[-1]

    run(dataset, tmp_path / "run", generators={"tuned": ("tuned", make)})
    assert [generator.closed for generator in made] == [True]
    run(dataset, tmp_path / "run", generators={"tuned": ("tuned", make)})
    assert len(made) == 1
    own = Looking()
    run(dataset, tmp_path / "other", generators={"tuned": ("tuned", own)})
    assert not own.closed


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sampling": Sampling(max_new_tokens=7)}, "sampling"),
        ({"identities": {"tuned": "b"}}, "identity"),
        ({"settings": EvaluationSettings(num_resamples=200, seed=9)}, "seed"),
    ],
)
def test_predictions_of_something_else_are_refused_unless_overwritten(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=4)
    run(dataset, tmp_path / "run", identities={"tuned": "a"})
    with pytest.raises(EvaluationError, match=f"differ in {field} from"):
        run(dataset, tmp_path / "run", **{"identities": {"tuned": "a"}, **changes})
    again = Looking()
    run(dataset, tmp_path / "run", overwrite=True, generators={"tuned": ("tuned", again)}, **changes)
    assert len(again.asked) == 16


def test_predictions_on_other_data_are_refused(tmp_path: Path) -> None:
    run(make_dataset(tmp_path / "data", num_groups=4), tmp_path / "run")
    other = make_dataset(tmp_path / "other", num_groups=6)
    with pytest.raises(EvaluationError, match="dataset_hash"):
        run(other, tmp_path / "run")
    with pytest.raises(EvaluationError, match="were made from the data set toy"):
        rescore(tmp_path / "run", other)


def test_scoring_again_needs_no_model_and_gives_the_same(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    report = run(dataset, tmp_path / "run", provenance={"command": "medtune evaluate"})
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert rescore(tmp_path / "run", dataset) == report
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files
    fewer = rescore(tmp_path / "run", dataset, EvaluationSettings(metrics=("bleu",), num_resamples=200))
    assert [value.name for value in fewer.metrics] == ["bleu/letters"]


def test_every_fault_of_a_predictions_file_is_counted_and_named(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=8)
    run(dataset, tmp_path / "run", generators={"tuned": ("tuned", Looking())}, controls=())
    path = tmp_path / "run" / "evaluations" / "tuned" / "predictions.jsonl"
    lines = {json.loads(line)["sample_id"]: line for line in path.read_text().splitlines()}
    empty = json.loads(lines["s1-0"])
    empty["generation"]["text"] = "  "
    failed = json.loads(lines["s2-0"])
    failed["generation"] |= {"text": "", "finish_reason": "error"}
    stranger = lines["s3-0"].replace("s3-0", "stranger")
    del lines["s3-0"]
    lines["s1-0"], lines["s2-0"] = json.dumps(empty), json.dumps(failed)
    written = [lines.pop("s0-0"), "not json", *lines.values(), lines["s1-1"], stranger, lines["s2-1"][:30]]
    path.write_text("\n".join(written), encoding="utf-8")
    report = rescore(tmp_path / "run", dataset)
    said = templates(report)
    assert "tuned/predictions.jsonl: lines that are no predictions: 1, the first is line 2." in said
    assert "the last line was cut off" in said
    assert "samples predicted more than once (the first prediction counts): 1, such as s1-1." in said
    assert "predictions of samples that the split does not have: 1, such as stranger." in said
    assert "samples without a prediction: 1, such as s3-0." in said
    assert "samples whose generation failed (unscored): 1, such as s2-0." in said
    assert "empty answers: 1, such as s1-0." in said
    accuracy, letters = measurement(report, "tuned", "closed/accuracy"), measurement(report, "tuned", "bleu/letters")
    # The empty answer is an answer, and wrong; the missing and the failed one are none.
    assert (accuracy.num_scored, accuracy.num_unscored, accuracy.value) == (14, 2, 13 / 14)
    assert (letters.num_scored, letters.num_unscored, letters.value) == (13, 3, 0.0)
    assert report.conditions[0].num_unparsed == 1


def test_a_failed_generation_is_asked_again(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=4)
    run(dataset, tmp_path / "run", generators={"tuned": ("tuned", Looking())}, controls=())
    path = tmp_path / "run" / "evaluations" / "tuned" / "predictions.jsonl"
    path.write_text(path.read_text().replace('"stop"', '"error"', 1))
    again = Looking()
    run(dataset, tmp_path / "run", generators={"tuned": ("tuned", again)}, controls=())
    assert len(again.asked) == 1


def test_a_generator_that_leaves_a_request_open_is_found_out(tmp_path: Path) -> None:
    class Lazy(Looking):
        def generate(self, requests):  # type: ignore[no-untyped-def]
            yield from super().generate(requests[1:])

    dataset = make_dataset(tmp_path / "data", num_groups=4)
    with pytest.raises(GenerationError, match="left 1 of 8 requests without an answer"):
        run(dataset, tmp_path / "run", generators={"tuned": ("tuned", Lazy())})


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="The split validation of the data set toy is empty"):
        run(make_dataset(tmp_path / "data"), tmp_path / "run", split="validation")
    assert not (tmp_path / "run").exists()


def test_a_smaller_draw_lies_within_a_larger_and_keeps_its_predictions(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=12)
    small, large = Looking(), Looking()
    settings = EvaluationSettings(num_resamples=200, max_samples=5)
    report = run(dataset, tmp_path / "run", generators={"tuned": ("tuned", small)}, settings=settings)
    assert report.num_samples == 5
    settings = EvaluationSettings(num_resamples=200, max_samples=9)
    report = run(dataset, tmp_path / "run", generators={"tuned": ("tuned", large)}, settings=settings)
    assert len(large.asked) == 2 * (9 - 5)
    assert report.num_samples == 9


def test_warnings_about_the_data(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=6, group_kind="image", synthetic=True, train=2)
    said = templates(run(dataset, tmp_path / "run", controls=()))
    assert "The data set has no patient ids" in said
    assert "synthetic" in said
    assert "Only 6 groups" in said
    assert "4 of the 12 evaluated pictures are also in the training split" in said
    assert "2 of the 6 evaluated groups are also in the training split" in said
    assert "learnt by heart" in templates(run(dataset, tmp_path / "train", split="train", controls=()))


def test_base_and_tuned_that_answer_alike_are_suspicious(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=4)
    generators = {"base": ("base", Looking()), "tuned": ("tuned", Looking())}
    assert "is the adapter in use?" in templates(run(dataset, tmp_path / "run", generators=generators))


def test_measurements_by_task_and_a_metric_that_only_one_task_has(tmp_path: Path) -> None:
    def change(row: dict[str, object]) -> None:
        row["task"] = "other" if str(row["id"]).endswith("-1") else "toy"

    report = run(make_dataset(tmp_path / "data", num_groups=8, change=change), tmp_path / "run")
    assert measurement(report, "tuned", "bleu/letters").num_scored == 16
    assert measurement(report, "tuned", "bleu/letters", "other").num_scored == 8
    overall = measurement(report, "tuned", "closed/accuracy")
    assert measurement(report, "tuned", "closed/accuracy", "toy") == overall.model_copy(update={"task": "toy"})
    assert not any(entry.task == "other" and entry.metric == "closed/accuracy" for entry in report.conditions[0].measurements)


def test_many_samples_of_few_patients_are_no_subgroup(tmp_path: Path) -> None:
    def at_a_site(row: dict[str, object]) -> None:
        few = int(str(row["group"])[1:]) < 4
        row["metadata"] = {
            "site": "few patients" if few else "many patients",
            "sex": "F" if int(str(row["group"])[1:]) % 2 else "M",
        }

    dataset = make_dataset(tmp_path / "data", num_groups=16, per_group=6, change=at_a_site)
    report = run(dataset, tmp_path / "run")
    assert set(report.subgroups) == {"sex"}
    assert "Subgroups (Site) with fewer than 4 samples or 5 groups, not shown: 1." in templates(report)


def test_subgroups_have_a_least_size_and_numbers_are_cut_into_thirds(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=18)
    report = run(dataset, tmp_path / "run")
    assert set(report.subgroups) == {"kind", "area_percent"}
    assert {label: entries[0].num_scored for label, entries in report.subgroups["kind"].items()} == {"even": 18, "odd": 18}
    assert sorted(entries[0].num_scored for entries in report.subgroups["area_percent"].values()) == [12, 12, 12]
    strict = EvaluationSettings(num_resamples=200, min_subgroup_samples=15)
    report = rescore(tmp_path / "run", dataset, strict)
    assert set(report.subgroups) == {"kind"}
    assert "Subgroups (Share of the picture's area, %) with fewer than 15 samples or 5 groups, not shown: 3." in templates(report)
    assert set(subgroup_labels(dataset.rows("test"), "modality").values()) == {"CT"}


def test_text_only_samples_are_not_asked_under_a_control(tmp_path: Path) -> None:
    def change(row: dict[str, object]) -> None:
        if str(row["id"]).endswith("-1"):
            row["images"] = ()
            row["messages"] = [
                message.model_copy(update={"content": message.content.replace("<image>", "")}) for message in row["messages"]
            ]  # type: ignore[attr-defined]

    report = run(make_dataset(tmp_path / "data", num_groups=6, change=change), tmp_path / "run", controls=("shuffled", "blank"))
    counts = {condition.label: condition.num_predictions for condition in report.conditions}
    assert counts == {"base": 12, "base-shuffled": 6, "base-blank": 6, "tuned": 12, "tuned-shuffled": 6, "tuned-blank": 6}
    assert "The control “blank pictures” leaves out 6 of 12 samples" in templates(report)
    assert measurement(report, "tuned-blank", "closed/accuracy").value == 0.0


def test_timing_has_the_fields_and_roundings_of_llamafactory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wall time of generating and scoring, not of loading the model; what generations say of themselves may overlap."""
    clock = {"now": 100.0}

    class Slow(Looking):
        loaded = False

        def answer(self, request: Request) -> str:
            if not self.loaded:
                self.load(1)
            clock["now"] += 0.25
            return super().answer(request)

        def load(self, num_requests: int) -> None:
            """As a generator whose processes load their models when they are first asked, or before."""
            assert num_requests == 8
            clock["now"] += 3000.0
            self.loaded = True

    def load() -> Slow:
        clock["now"] += 1000.0
        return Slow()

    def score(*arguments: Any, **named: Any) -> Scored:
        clock["now"] += 0.5
        return score_file(*arguments, **named)

    score_file = report_module.score_file
    monkeypatch.setattr(report_module, "score_file", score)
    monkeypatch.setattr("medtune.evaluation.asking.time", SimpleNamespace(perf_counter=lambda: clock["now"]))
    monkeypatch.setattr(report_module, "time", SimpleNamespace(perf_counter=lambda: clock["now"]))
    dataset = make_dataset(tmp_path / "data", num_groups=5)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "run", controls=(), generators={"tuned": ("tuned", Looking(fail_after=2))})
    report = run(dataset, tmp_path / "run", controls=(), generators={"tuned": ("tuned", load)})
    # 2 answers that took no time, 8 of a quarter of a second, half a second of scoring; in batches of 4.
    assert report.conditions[0].seconds == 2.5
    assert report.conditions[0].timing == {
        "predict_runtime": 2.5,
        "predict_samples_per_second": 4.0,
        "predict_steps_per_second": 1.2,
    }
    assert rescore(tmp_path / "run", dataset) == report


def test_predictions_that_came_without_a_wall_time(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=5)
    run(dataset, tmp_path / "run", controls=())
    for path in (tmp_path / "run" / "evaluations").glob("*/asked.json"):
        asked = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in asked.items() if "seconds" not in name}))
    condition: Condition = rescore(tmp_path / "run", dataset).conditions[1]
    # 10 answers that say half a second each, in batches of 4.
    assert condition.seconds == 5.0
    assert condition.timing["predict_samples_per_second"] == 2.0
    assert condition.timing["predict_steps_per_second"] == 0.6


def test_a_folder_that_would_have_scores_written_elsewhere_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=4)
    run(dataset, tmp_path / "run", controls=(), generators={"tuned": ("tuned", Looking())})
    path = tmp_path / "run" / "evaluations" / "tuned" / "asked.json"
    path.write_text(path.read_text().replace('"label": "tuned"', '"label": "../../elsewhere"'))
    with pytest.raises(EvaluationError, match="which is not its folder"):
        rescore(tmp_path / "run", dataset)
    assert not (tmp_path / "elsewhere").exists()


def test_a_metric_may_be_named_by_its_place(tmp_path: Path) -> None:
    """``package.module:object``, whose values need not begin with a registered name; comparing finds it too."""
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    settings = EvaluationSettings(metrics=("toy_evaluation:ToyOwn",), num_resamples=100)
    for name in ("one", "two"):
        run(dataset, tmp_path / name, settings=settings, controls=())
    report = read_report(tmp_path / "one")
    assert measurement(report, "tuned", "mine/right").value == 1.0
    assert difference(report, "base", "tuned", "mine/right").difference == 0.5
    assert [entry.metric for entry in compare(tmp_path / "one", tmp_path / "two").differences] == ["mine/right"]


def test_code_that_only_the_data_name_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_module.py").write_text(
        f"import pathlib\n\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n\nclass Task: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    dataset = make_dataset(tmp_path / "data", num_groups=4, change=lambda row: row.update(task="their_module:Task"))
    with pytest.raises(PluginError, match="the recipe does not name"):
        run(dataset, tmp_path / "run")
    assert not (tmp_path / "ran").exists()


def test_progress_is_reported_to_the_end(tmp_path: Path) -> None:
    events: list[Event] = []
    run(make_dataset(tmp_path / "data", num_groups=4), tmp_path / "run", listener=events.append, controls=())
    progress = [(event.done, event.total) for event in events if event.kind == "progress"]
    assert progress == [(number, 8) for number in range(9)] * 2
    assert events[-1].kind == "finished"


def test_no_draw_stays_in_memory_after_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = bootstrap._draw

    def count(*arguments: Any) -> Any:
        drawn.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(bootstrap, "_draw", count)
    dataset = make_dataset(tmp_path / "data", num_groups=14)
    run(dataset, tmp_path / "run", controls=())
    assert drawn
    assert not bootstrap._kept
    assert not permutation._kept_exchanges.cache_info().currsize
