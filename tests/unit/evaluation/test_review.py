from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from medtune.data.dataset import Dataset
from medtune.errors import EvaluationError
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate, read_report, rescore
from medtune.evaluation.reading import Marks, import_marks, join_marks, stored_review
from medtune.evaluation.report_html import render_report
from medtune.evaluation.review import make_review, sides_of
from medtune.evaluation.review_key import CaseKey, ReviewKey, read_key
from medtune.types import Request
from toy_evaluation import Guessing, Looking, make_dataset

pytestmark = pytest.mark.usefixtures("toys")

ATTACK = "</p><script>alert(1)</script>"


class Writing(Looking):
    """The right word, with words of its own around it."""

    def answer(self, request: Request) -> str:
        return f"It is {super().answer(request)}. {ATTACK}"


SETTINGS = EvaluationSettings(num_resamples=100, controls=())


@pytest.fixture
def evaluated(tmp_path: Path) -> tuple[Path, Dataset]:
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    folder = tmp_path / "run"
    generators = {"base": ("base", Guessing()), "tuned": ("tuned", Writing())}
    evaluate(dataset, generators=generators, settings=SETTINGS, folder=folder)  # type: ignore[arg-type]
    return folder, dataset


def make(folder: Path, dataset: Dataset, **options: object) -> Path:
    first, second, names = sides_of(folder, None)
    report = read_report(folder)
    return make_review(first, second, names=names, report=report, dataset=dataset, folder=folder, **options)  # type: ignore[arg-type]


def marks(key: ReviewKey, reader: str, prefer: str, **more: object) -> dict[str, object]:
    """A reader's file that prefers one model in every case, and marks an invented finding in the first model's answers."""
    cases = {}
    for case in key.cases:
        other = {"a": "b", "b": "a"}
        of_first = "a" if case.a == "first" else "b"
        side = {"first": of_first, "second": other[of_first], "tie": "tie"}[prefer]
        cases[case.case] = {
            "preference": side,
            of_first: {"errors": ["invented"], "severity": "severe"},
            other[of_first]: {"errors": [], "severity": "none"},
            "remark": "",
        }
    return {"format": "medtune-review", "version": 1, "review": key.review, "reader": reader, "cases": cases, **more}


def send(tmp_path: Path, name: str, content: object) -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_page_says_nothing_of_who_wrote_what(evaluated: tuple[Path, Dataset]) -> None:
    folder, dataset = evaluated
    page = make(folder, dataset, in_language="en").read_text(encoding="utf-8")
    key = read_key(folder)
    body = page[page.index("<body") :]
    for secret in ("tuned", "run/", "first model", *(case.sample_id for case in key.cases)):
        assert secret not in body, secret
    assert re.search(r"\bbase\b", body) is None
    assert {case.a for case in key.cases} == {"first", "second"}
    assert page.count('<article class="case"') == len(key.cases) == 12


def test_the_order_of_the_answers_is_that_of_the_key_and_of_the_seed(evaluated: tuple[Path, Dataset]) -> None:
    folder, dataset = evaluated
    page = make(folder, dataset).read_text(encoding="utf-8")
    key = read_key(folder)
    answers = re.findall(r'<p class="words">(.*?)</p>', page, re.DOTALL)
    assert len(answers) == 2 * len(key.cases)
    for case, shown in zip(key.cases, zip(answers[::2], answers[1::2], strict=True), strict=True):
        of_first = shown[0] if case.a == "first" else shown[1]
        assert of_first == "bright"
    make(folder, dataset)
    assert read_key(folder) == key
    make(folder, dataset, seed=1)
    assert read_key(folder).cases != key.cases


def test_the_page_loads_nothing_and_an_answer_cannot_run(evaluated: tuple[Path, Dataset]) -> None:
    folder, dataset = evaluated
    page = make(folder, dataset).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http" not in re.sub(r'http-equiv="', "", page)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_boxes_are_drawn_and_keep_the_blinding(tmp_path: Path) -> None:
    """As [x1, y1, x2, y2] in thousandths nobody could judge them."""

    class Boxing(Looking):
        def __init__(self, left: int) -> None:
            super().__init__()
            self.left = left

        def answer(self, request: Request) -> str:
            assert request.images
            return json.dumps([{"bbox_2d": [self.left, 250, 750, 750], "label": "lesion"}])

    dataset = make_dataset(tmp_path / "data", num_groups=6, change=lambda row: row.update(task="detection"))
    generators = {"base": ("base", Boxing(0)), "tuned": ("tuned", Boxing(500))}
    settings = SETTINGS.model_copy(update={"metrics": ("box",)})
    evaluate(dataset, generators=generators, settings=settings, folder=tmp_path / "run")  # type: ignore[arg-type]
    page = make(tmp_path / "run", dataset, in_language="en").read_text(encoding="utf-8")
    drawn = re.findall(r'<rect class="box ([ab])" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/>', page)
    key = read_key(tmp_path / "run")
    assert len(drawn) == 2 * len(key.cases)
    for case, (a, b) in zip(key.cases, zip(drawn[::2], drawn[1::2], strict=True), strict=True):
        assert (a[0], b[0]) == ("a", "b")
        # Pictures are 24 x 16: thousandths become pixels.
        lefts = ["0.0", "12.0"] if case.a == "first" else ["12.0", "0.0"]
        assert [a[1], b[1]] == lefts
        assert (a[2], a[4]) == ("4.0", "8.0")


def test_equal_answers_are_counted_and_not_shown(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    generators = {"base": ("base", Guessing()), "tuned": ("tuned", Looking())}
    evaluate(dataset, generators=generators, settings=SETTINGS, folder=tmp_path / "run")  # type: ignore[arg-type]
    make(tmp_path / "run", dataset)
    key = read_key(tmp_path / "run")
    assert (len(key.cases), key.num_identical) == (6, 6)  # bright is right in half of the samples
    make(tmp_path / "run", dataset, num_cases=4)
    assert len(read_key(tmp_path / "run").cases) == 4


def test_marks_join_the_report_and_stay_in_it(evaluated: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, dataset = evaluated
    make(folder, dataset)
    key = read_key(folder)
    files = [send(tmp_path, f"{name}.json", marks(key, name, prefer)) for name, prefer in (("Ann", "second"), ("Bo", "tie"))]
    result = import_marks(folder, files)
    assert (result.num_readers, result.num_cases, result.num_judgements) == (2, 12, 24)
    assert (result.num_first, result.num_ties, result.num_second) == (0, 12, 12)
    assert result.preference == pytest.approx(0.75)
    assert result.low is not None
    assert result.high is not None
    assert 0 <= result.low < 0.75 < result.high <= 1, "that all cases went alike does not make the next one sure"
    assert result.errors["invented"] == (24, 0)
    assert result.severity["severe"] == (24, 0)
    assert result.error_agreement["invented"] == 1
    assert result.agreement["cohen-kappa"] == pytest.approx(0)
    report = rescore(folder, dataset, SETTINGS)
    assert report.review == result
    assert read_report(folder).review == result
    page = render_report(report, folder, dataset, "en")
    assert "What readers preferred" in page
    assert f"{result.low:.3f} … {result.high:.3f}" in page
    assert "Ann" not in (folder / "report.json").read_text(encoding="utf-8")
    assert "Ann" not in page


def test_a_reader_who_sends_again_replaces_the_earlier_marks(evaluated: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, dataset = evaluated
    make(folder, dataset)
    key = read_key(folder)
    import_marks(folder, [send(tmp_path, "one.json", marks(key, "Ann", "first"))])
    result = import_marks(folder, [send(tmp_path, "two.json", marks(key, "Ann", "second"))])
    assert (result.num_readers, result.preference) == (1, 1.0)
    assert result.agreement == {}


def test_new_answers_void_the_marks(evaluated: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, dataset = evaluated
    make(folder, dataset)
    file = send(tmp_path, "one.json", marks(read_key(folder), "Ann", "first"))
    assert import_marks(folder, [file]).num_readers == 1
    generators = {"base": ("base", Guessing()), "tuned": ("tuned", Looking())}
    report = evaluate(dataset, generators=generators, settings=SETTINGS, folder=folder, overwrite=True)  # type: ignore[arg-type]
    assert report.review is None
    assert stored_review(folder) is None
    with pytest.raises(EvaluationError, match="The answers have changed"):
        import_marks(folder, [file])


def test_files_that_do_not_fit_are_refused_and_nothing_is_taken(evaluated: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, dataset = evaluated
    make(folder, dataset)
    key = read_key(folder)
    good = send(tmp_path, "good.json", marks(key, "Ann", "first"))
    stranger = marks(key, "Bo", "first")
    stranger["cases"]["999"] = {}  # type: ignore[index]
    for content, said in (
        ("{broken", "no file of a reader's marks"),
        ("[]", "no file of a reader's marks"),
        (marks(key, "", "first"), "no file of a reader's marks"),
        (marks(key, "Bo", "first", review="0" * 16), "another review"),
        (marks(key, "Ann", "second"), "by the same reader"),
        (stranger, "no case 999"),
    ):
        with pytest.raises(EvaluationError, match=said):
            import_marks(folder, [good, send(tmp_path, "bad.json", content)])
        assert stored_review(folder) is None


def test_marks_are_not_thrown_away_unasked(evaluated: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, dataset = evaluated
    make(folder, dataset)
    import_marks(folder, [send(tmp_path, "one.json", marks(read_key(folder), "Ann", "first"))])
    with pytest.raises(EvaluationError, match="have marked this review already"):
        make(folder, dataset)
    make(folder, dataset, overwrite=True)
    assert stored_review(folder) is None


def test_the_interval_is_over_groups_and_not_over_judgements() -> None:
    """Ten cases of one patient for the first, ten patients with a case each for the second."""
    cases = tuple(
        CaseKey(case=f"{number:03d}", sample_id=f"s{number}", group=0 if number < 10 else number, a="first") for number in range(20)
    )
    key = ReviewKey(
        review="r", first="x/base", second="x/tuned", dataset_hash="h", seed=0, num_identical=0, answers="d", cases=cases
    )
    choices = {case.case: {"preference": "a" if case.group == 0 else "b"} for case in cases}
    reader = Marks.model_validate({"format": "medtune-review", "version": 1, "review": "r", "reader": "Ann", "cases": choices})
    result = join_marks(key, [reader])
    assert (result.preference, result.num_groups) == (0.5, 11)
    assert result.low is not None
    assert result.high is not None
    # Of independent judgements the interval would be about 0.28 to 0.72.
    assert result.low < 0.25
    assert result.high == 1.0


def test_one_model_alone_cannot_be_reviewed(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=2)
    evaluate(dataset, generators={"tuned": ("tuned", Looking())}, settings=SETTINGS, folder=tmp_path / "run")
    with pytest.raises(EvaluationError, match="only one model"):
        sides_of(tmp_path / "run", None)


def test_two_runs_are_compared_with_each_other(evaluated: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, dataset = evaluated
    evaluate(dataset, generators={"tuned": ("tuned", Looking())}, settings=SETTINGS, folder=tmp_path / "other")
    first, second, names = sides_of(folder, tmp_path / "other")
    assert names == ("other/tuned", "run/tuned")
    make_review(first, second, names=names, report=read_report(folder), dataset=dataset, folder=folder)
    key = read_key(folder)
    assert (key.first, key.second) == names
    result = import_marks(folder, [send(tmp_path, "one.json", marks(key, "Ann", "second"))])
    assert result.preference == 1
