from __future__ import annotations

from pathlib import Path

import pytest

from medtune.data.dataset import Dataset
from medtune.errors import EvaluationError
from medtune.evaluation.compare import compare
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.types import Generator, Report
from toy_evaluation import Guessing, Looking, make_dataset

pytestmark = pytest.mark.usefixtures("toys")


def run(dataset: Dataset, folder: Path, generator: Generator, **settings: object) -> Path:
    chosen = EvaluationSettings(num_resamples=200, controls=(), **settings)  # type: ignore[arg-type]
    evaluate(dataset, generators={"tuned": ("tuned", generator)}, settings=chosen, folder=folder)
    return folder


def test_the_second_is_compared_with_the_first_in_pairs(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=40)
    first, second = run(dataset, tmp_path / "a", Guessing()), run(dataset, tmp_path / "b", Looking())
    found = compare(first, second, num_resamples=200)
    assert (found.first, found.second) == ("a/tuned", "b/tuned")
    assert (found.num_samples, found.num_groups) == (80, 40)
    accuracy = found.differences[0]
    assert (accuracy.first, accuracy.second, accuracy.difference) == (0.5, 1.0, 0.5)
    assert accuracy.low is not None
    assert accuracy.low > 0.2
    back = compare(second, first, num_resamples=200).differences[0]
    assert back.difference == -0.5


def test_a_run_is_no_better_than_itself(tmp_path: Path) -> None:
    folder = run(make_dataset(tmp_path / "data", num_groups=6), tmp_path / "a", Guessing())
    for entry in compare(folder, folder, num_resamples=200).differences:
        assert (entry.difference, entry.low, entry.high) == (0.0, 0.0, 0.0)


def test_only_common_samples_count(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=20)
    first, second = run(dataset, tmp_path / "a", Guessing(), max_samples=12), run(dataset, tmp_path / "b", Looking())
    found = compare(first, second, num_resamples=200)
    assert found.num_samples == 12
    assert found.differences[0].num_samples == 12
    said = " ".join(text.render("en") for text in found.warnings)
    assert "Only 12 samples are common to both runs, which have 12 and 40." in said


@pytest.mark.parametrize("kind", ["study", "volume", "image", "row", "patient"])
def test_what_is_no_patient_is_said_in_report_and_comparison(tmp_path: Path, kind: str) -> None:
    first = run(make_dataset(tmp_path / "data", num_groups=6, group_kind=kind), tmp_path / "a", Looking())
    report = Report.model_validate_json((first / "report.json").read_bytes())
    for warnings in (report.warnings, compare(first, first, num_resamples=200).warnings):
        said = [text.render("en") for text in warnings if "has no patient ids" in text.render("en")]
        assert len(said) == (kind != "patient")


def test_other_data_or_another_split_is_an_error(tmp_path: Path) -> None:
    one = make_dataset(tmp_path / "one", num_groups=6, train=6)
    first = run(one, tmp_path / "a", Looking())
    second = run(make_dataset(tmp_path / "two", num_groups=8), tmp_path / "b", Looking())
    with pytest.raises(EvaluationError, match="different data"):
        compare(first, second)
    with pytest.raises(EvaluationError, match="different splits: test and train"):
        compare(first, run(one, tmp_path / "c", Looking(), split="train"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    folder = run(dataset, tmp_path / "a", Looking())
    with pytest.raises(EvaluationError, match="The report cannot be read"):
        compare(folder, tmp_path / "nothing")
    with pytest.raises(EvaluationError, match=r"no condition 'base'[\s\S]*It has: tuned"):
        compare(folder, folder, second_label="base")
    with pytest.raises(EvaluationError, match="not scored with a metric in common"):
        compare(folder, run(dataset, tmp_path / "b", Looking(), metrics=()))
    scores = folder / "evaluations" / "tuned" / "scores.jsonl"
    scores.write_text(scores.read_text() + "{broken\n")
    with pytest.raises(EvaluationError, match=r"scores cannot be read \(line 25\)"):
        compare(folder, folder)


def test_two_conditions_of_one_run(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=12)
    generators = {"base": ("base", Guessing()), "tuned": ("tuned", Looking())}
    report = evaluate(dataset, generators=generators, settings=EvaluationSettings(num_resamples=200), folder=tmp_path / "run")  # type: ignore[arg-type]
    found = compare(tmp_path / "run", tmp_path / "run", first_label="base", num_resamples=200)
    assert found.differences[0] == report.differences[0][2][0]
