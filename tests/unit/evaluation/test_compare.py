from __future__ import annotations

from pathlib import Path

import pytest

from medtune.data.dataset import Dataset
from medtune.errors import EvaluationError
from medtune.evaluation import overlaps
from medtune.evaluation.bootstrap import bound_without_exceptions
from medtune.evaluation.compare import compare
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.language import Text
from medtune.types import Generator, Report, Request
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
        assert entry.difference == 0.0
        # Six groups without a change leave room for one in others; a measure without ends has no such bound.
        reach = 1 - 0.025 ** (1 / 6) if entry.metric.startswith("closed/") else 0.0
        assert (entry.low, entry.high) == pytest.approx((-reach, reach))


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
    with pytest.raises(EvaluationError, match="This run has not been evaluated"):
        compare(folder, tmp_path / "nothing")
    with pytest.raises(EvaluationError, match=r"no condition 'base'[\s\S]*It has: tuned"):
        compare(folder, folder, second_label="base")
    with pytest.raises(EvaluationError, match="not scored with a metric in common"):
        compare(folder, run(dataset, tmp_path / "b", Looking(), metrics=()))
    scores = folder / "evaluations" / "tuned" / "scores.jsonl"
    scores.write_text(scores.read_text() + "{broken\n")
    with pytest.raises(EvaluationError, match=r"scores cannot be read \(line 25\)"):
        compare(folder, folder)


def test_every_row_that_leaks_is_named_once(tmp_path: Path) -> None:
    """The first alone stood for all of them, so that 23 pictures shared with training read like one."""
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    folders = [run(dataset, tmp_path / name, Looking()) for name in ("a", "b")]
    leaks = tuple(overlaps.validation_found(Text("Nearly the same."), row) for row in ("r1", "r2", "r3"))
    for folder in folders:
        report = Report.model_validate_json((folder / "report.json").read_bytes())
        changed = report.model_copy(update={"warnings": (*leaks, *report.warnings)})
        (folder / "report.json").write_text(changed.model_dump_json(), encoding="utf-8")
    found = compare(*folders, num_resamples=200)
    assert found.alerts == leaks
    assert [text.render("en") for text in found.warnings][:2] == [
        f"Validation of the data found: {row}: Nearly the same." for row in ("r1", "r2")
    ]


def test_two_conditions_of_one_run(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=12)
    generators = {"base": ("base", Guessing()), "tuned": ("tuned", Looking())}
    report = evaluate(dataset, generators=generators, settings=EvaluationSettings(num_resamples=200), folder=tmp_path / "run")  # type: ignore[arg-type]
    found = compare(tmp_path / "run", tmp_path / "run", first_label="base", num_resamples=200)
    assert found.differences[0] == report.differences[0][2][0]
    # The same answers on both sides, also by another spelling of the path, or as one of several runs.
    said = "Both sides of this comparison are the answers of run/tuned: they are compared with themselves."
    for same in (tmp_path / "run", tmp_path / "data" / ".." / "run"):
        itself = compare(tmp_path / "run", [same], num_resamples=200)
        assert itself.warnings[0].render("en") == said
        assert itself.alerts[0] == itself.warnings[0]
    assert said not in [text.render("en") for text in found.warnings]


def test_tests_stand_beside_the_intervals(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=40)
    first, second = run(dataset, tmp_path / "a", Guessing()), run(dataset, tmp_path / "b", Looking())
    accuracy, letters = compare(first, second, num_resamples=200).differences
    # Half of the 80 answers became right and none wrong; 20 of 40 patients changed, all for the better.
    assert accuracy.discordant == (0, 40)
    assert accuracy.p_mcnemar == pytest.approx(2 / 2**40)
    assert accuracy.p_value == 1 / 2001, "ten times as many exchanges, since none of the first 200 was as extreme"
    assert accuracy.p_adjusted == 2 / 2001
    # Letters too many are no answers that are right or wrong.
    assert (letters.discordant, letters.p_mcnemar) == (None, None)


def test_unscored_samples_are_counted(tmp_path: Path) -> None:
    class Silent(Looking):
        def answer(self, request: Request) -> str:
            return "" if request.id.endswith("-1") else super().answer(request)

    dataset = make_dataset(tmp_path / "data", num_groups=8)
    found = compare(run(dataset, tmp_path / "a", Silent()), run(dataset, tmp_path / "b", Looking()), num_resamples=200)
    letters = next(entry for entry in found.differences if entry.metric == "bleu/letters")
    assert (letters.num_samples, letters.num_unscored) == (8, 8)


def test_several_runs_of_a_recipe_are_averaged_and_never_pooled(tmp_path: Path) -> None:
    class Often(Guessing):
        def __init__(self, wrong: str) -> None:
            super().__init__()
            self.wrong = wrong

        def answer(self, request: Request) -> str:
            return "neither" if request.id.endswith(self.wrong) else Looking.answer(self, request)

    dataset = make_dataset(tmp_path / "data", num_groups=20, per_group=4)
    plain = [run(dataset, tmp_path / f"a{number}", Guessing()) for number in range(2)]
    tuned = [run(dataset, tmp_path / f"b{number}", Often(wrong)) for number, wrong in enumerate(("-0", "no", "-3"))]
    found = compare(plain, tuned, num_resamples=200)
    accuracy = found.differences[0]
    assert accuracy.first_runs == (0.5, 0.5)
    assert accuracy.second_runs == (0.75, 1.0, 0.75)
    assert accuracy.second == pytest.approx(5 / 6)
    assert accuracy.num_samples == 80, "not 240: three runs are no three times as many patients"
    assert found.runs == (("a0/tuned", "a1/tuned"), ("b0/tuned", "b1/tuned", "b2/tuned"))
    assert found.second == "b0/tuned (+2)"
    alone = compare(plain[0], tuned[0], num_resamples=200).differences[0]
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert alone.low is not None
    assert alone.high is not None
    assert accuracy.high - accuracy.low > alone.high - alone.low, "runs that differ make the interval wider"
    assert accuracy.p_value is not None
    same = compare([plain[0], plain[1]], [plain[0], plain[1]], num_resamples=200).differences[0]
    # No answer differs, as between two runs: the interval is what so many groups may have missed.
    reach = bound_without_exceptions(same.num_groups)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, pytest.approx(-reach), pytest.approx(reach), 1.0)
    with pytest.raises(EvaluationError, match="at least one run"):
        compare([], tuned)


def test_what_one_run_cannot_tell_is_said(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    runs = [run(dataset, tmp_path / name, Looking()) for name in ("a", "b")]

    def said(*arms: Path | list[Path]) -> str:
        return " ".join(text.render("en") for text in compare(*arms, num_resamples=200).warnings)

    assert "not other training seeds" in said(*runs)
    assert "one run only of a/tuned" in said(runs[0], runs)
    assert "seed" not in said(runs, runs)


def test_leakage_and_missing_patients_are_alerts(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=6, group_kind="image", train=2)
    first, second = run(dataset, tmp_path / "a", Looking()), run(dataset, tmp_path / "b", Looking())
    report = Report.model_validate_json((first / "report.json").read_bytes())
    for alerts, warnings in (
        (report.alerts, report.warnings),
        (lambda c: (c.alerts, c.warnings))(compare(first, second, num_resamples=200)),
    ):
        assert [text.render("en")[:30] for text in alerts] == [
            "4 of the 12 evaluated pictures",
            "2 of the 6 evaluated groups ar",
            "The data set has no patient id",
        ]
        assert set(map(str, alerts)) <= set(map(str, warnings))


def test_leakage_that_was_found_after_one_of_the_runs_is_said_of_both(tmp_path: Path) -> None:
    """The first run was evaluated before anybody validated the data, the second after."""
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    first, second = run(dataset, tmp_path / "a", Guessing()), run(dataset, tmp_path / "b", Looking())
    late = [
        overlaps.validation_found(Text("Two pictures look alike.")),
        overlaps.validation_found(Text("Three rows are the same.")),
    ]
    report = Report.model_validate_json((second / "report.json").read_bytes())
    changed = report.model_copy(update={"warnings": (*report.warnings, *late)})
    (second / "report.json").write_text(changed.model_dump_json(), encoding="utf-8")
    assert list(compare(first, second, num_resamples=200).alerts) == late
    assert list(compare(second, first, num_resamples=200).alerts) == late
