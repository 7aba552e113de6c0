"""Predictions files as they come from elsewhere: each fault is counted and named, nothing is lost, crashes or takes long."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from medtune.data.dataset import Dataset
from medtune.errors import EvaluationError
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate, rescore
from medtune.evaluation.predictions import MAX_CHARACTERS
from medtune.types import Measurement, Message, Report
from toy_evaluation import Looking, make_dataset

SETTINGS = EvaluationSettings(num_resamples=100, controls=())
REFERENCE = "Findings: A small left pleural effusion of 3 cm.\nImpression: Effusion."


def as_report(row: dict[str, object]) -> None:
    messages = (Message(role="user", content="<image>Write the report."), Message(role="assistant", content=REFERENCE))
    row.update(task="report", target=REFERENCE, messages=messages)


def ask(data: Dataset, folder: Path) -> Path:
    evaluate(data, generators={"tuned": ("tuned", Looking())}, settings=SETTINGS, folder=folder)
    return folder / "evaluations" / "tuned" / "predictions.jsonl"


def line_of(sample: str, text: str, **changes: object) -> str:
    return json.dumps({"sample_id": sample, "generation": {"id": sample, "text": text, "finish_reason": "stop"}, **changes})


def said(report: Report) -> str:
    return "\n".join(warning.render("en") for warning in report.warnings)


def measured(report: Report, metric: str) -> Measurement:
    return next(entry for entry in report.conditions[0].measurements if entry.metric == metric and entry.task is None)


FAULTS: dict[str, tuple[str | bytes, str]] = {
    "a missing id": (
        '{"generation": {"id": "s0-0", "text": "x", "finish_reason": "stop"}}',
        "no predictions: 1, the first is line 8",
    ),
    "an id that is no text": (line_of("s0-0", "x").replace('"s0-0"', "17"), "no predictions: 1, the first is line 8"),
    "a duplicate": (line_of("s1-0", "x"), "more than once (the first prediction counts): 1, such as s1-0"),
    "another data set's id": (line_of("stranger", "x"), "that the split does not have: 1, such as stranger"),
    "an id with a line break": (line_of("s1\n-0", "x"), "that the split does not have: 1"),
    "broken JSON": ('{"sample_id": "s0-0", "generation": {', "no predictions: 1, the first is line 8"),
    "a list": ("[1, 2]", "no predictions: 1, the first is line 8"),
    "nested too deeply": ("[" * 100_000, "no predictions: 1, the first is line 8"),
    "an unknown key": (line_of("s0-0", "x", colour="red"), "no predictions: 1, the first is line 8"),
    "an unknown reason": (line_of("s0-0", "x").replace("stop", "tired"), "no predictions: 1, the first is line 8"),
    "bytes that are no UTF-8": (b"\xff\xfe\x00", "no predictions: 1, the first is line 8"),
    "half a surrogate": (
        '{"sample_id": "s0-0", "generation": {"id": "s0-0", "text": "\\ud800", "finish_reason": "stop"}}',
        "no predictions: 1",
    ),
}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_line_is_counted_named_and_costs_itself_only(tmp_path: Path, fault: str) -> None:
    """Eight samples, of which s0-0 has no sound line; the fault stands in the eighth, a sound line behind it."""
    data = make_dataset(tmp_path / "data", num_groups=4)
    path = ask(data, tmp_path / "run")
    lines = {json.loads(line)["sample_id"]: line for line in path.read_text(encoding="utf-8").splitlines()}
    del lines["s0-0"]
    bad, sentence = FAULTS[fault]
    raw = bad if isinstance(bad, bytes) else bad.encode("utf-8")
    path.write_bytes("".join(f"{line}\n" for line in lines.values()).encode("utf-8") + raw + b"\n")
    report = rescore(tmp_path / "run", data)
    assert sentence in said(report)
    assert "samples without a prediction: 1, such as s0-0" in said(report)
    accuracy = measured(report, "closed/accuracy")
    assert (accuracy.num_scored, accuracy.num_unscored, accuracy.value) == (7, 1, 1.0)
    # Going on asks what is missing, and the line that could not be used is kept beside.
    path = ask(data, tmp_path / "run")
    assert (path.parent / "set_aside.jsonl").read_bytes() == raw + b"\n"
    assert len(path.read_text(encoding="utf-8").splitlines()) == 8
    assert measured(rescore(tmp_path / "run", data), "closed/accuracy").num_scored == 8


@pytest.mark.usefixtures("toys")
def test_a_file_of_another_data_set_is_refused_with_its_count(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", num_groups=4)
    path = ask(data, tmp_path / "run")
    path.write_text("".join(line_of(f"other-{number}", "x") + "\n" for number in range(5)), encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"None of the 5 predictions belongs to this split[\s\S]*other-0"):
        rescore(tmp_path / "run", data)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 5


@pytest.mark.usefixtures("toys")
def test_a_file_without_one_prediction_is_refused_and_set_aside(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", num_groups=4)
    path = ask(data, tmp_path / "run")
    before = (tmp_path / "run" / "report.json").read_bytes()
    path.write_text("no\njson\n", encoding="utf-8")
    with pytest.raises(
        EvaluationError, match=r"None of the lines is a prediction: 2, the first is line 1\.[\s\S]*predictions\.jsonl"
    ):
        rescore(tmp_path / "run", data)
    assert (tmp_path / "run" / "report.json").read_bytes() == before
    path = ask(data, tmp_path / "run")
    assert (path.parent / "set_aside.jsonl").read_text(encoding="utf-8") == "no\njson\n"
    assert measured(rescore(tmp_path / "run", data), "closed/accuracy").num_scored == 8


@pytest.mark.usefixtures("toys")
def test_an_empty_file_and_empty_texts(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", num_groups=4)
    path = ask(data, tmp_path / "run")
    path.write_text("", encoding="utf-8")
    report = rescore(tmp_path / "run", data)
    assert "samples without a prediction: 8" in said(report)
    accuracy = measured(report, "closed/accuracy")
    assert (accuracy.value, accuracy.num_scored, accuracy.num_unscored) == (None, 0, 8)
    path.write_text("".join(line_of(sample.id, " \n") + "\n" for sample in data.rows("test")), encoding="utf-8")
    report = rescore(tmp_path / "run", data)
    assert "empty answers: 8" in said(report)
    assert report.conditions[0].num_unparsed == 8
    assert measured(report, "closed/accuracy").value == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "left lung no effusion of 3.5 cm ",
        "1",
        "左侧胸腔积液",
        "[",
        '{"a":',
        "\n",
        "4% ",
    ],
)
def test_a_million_characters_are_kept_and_judged_by_their_beginning(tmp_path: Path, text: str) -> None:
    data = make_dataset(tmp_path / "data", num_groups=2, per_group=1, change=as_report)
    path = ask(data, tmp_path / "run")
    million = "x" + text * (1_000_000 // len(text))
    lines = [line_of("s0-0", million), line_of("s1-0", REFERENCE)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    started = time.process_time()
    report = rescore(tmp_path / "run", data)
    assert time.process_time() - started < 30
    assert f"answers of more than {MAX_CHARACTERS} characters, of which the rest is not read: 1, such as s0-0" in said(report)
    assert report.conditions[0].num_predictions == 2
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["generation"]["text"] == million
