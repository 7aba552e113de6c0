"""Findings of single cases: what became of them, how cases are chosen and filtered by them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from medtune.evaluation.case_filters import finding_title
from medtune.evaluation.cases import QUOTA, choose_cases
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.evaluation.finding_marks import FindingMark, finding_marks, known_findings
from medtune.evaluation.metrics.findings import ReportFindings, finding_outcomes
from medtune.evaluation.report_html import render_report
from medtune.evaluation.score_columns import ScoreColumns
from medtune.types import Generation, Message, Prediction, Request, Sample, Score
from toy_evaluation import Looking, make_dataset


def sample_of(target: str, name: str = "s") -> Sample:
    turns = (Message(role="user", content="Write a report."), Message(role="assistant", content=target))
    return Sample(id=name, task="report", messages=turns, target=target, group=name, source="t", metadata={"kind": "stain"})


def scored(target: str, answer: str, name: str = "s") -> dict[str, Score]:
    generation = Generation(id=name, text=answer, finish_reason="stop")
    found = ReportFindings().score(Prediction(sample_id=name, generation=generation), sample_of(target, name))
    return {score.metric: score for score in found}


def marks(target: str, answer: str) -> dict[str, FindingMark]:
    found = finding_marks(sample_of(target), answer, scored(target, answer)["findings/macro-f1"])
    return {mark.finding: mark for mark in found}


def test_what_became_of_each_finding() -> None:
    target = "Left pneumothorax. Right pleural effusion. The heart is enlarged. No fracture."
    answer = "Right pneumothorax. Right pleural effusion. No cardiomegaly. Consolidation in the left lower lobe."
    fates = {name: mark.fate for name, mark in marks(target, answer).items() if not mark.is_kind}
    assert fates == {
        "pneumothorax": "wrong-side",
        "pleural effusion": "found",
        "cardiomegaly": "missed",
        "consolidation": "invented",
    }
    assert marks(target, "There is a pneumothorax.")["pneumothorax"].fate == "wrong-side", "a side left out is wrong"
    assert marks("There is a pneumothorax.", "Left pneumothorax.")["pneumothorax"].fate == "found", "no side was asked for"


def test_a_coarser_finding_of_the_same_fate_says_nothing_new() -> None:
    missed = marks("Acute subdural hematoma.", "Unremarkable study.")
    assert missed["subdural hematoma"].is_kind is False
    assert [mark.is_kind for name, mark in missed.items() if name != "subdural hematoma"] == [True] * (len(missed) - 1)
    half = marks("Acute subdural hematoma.", "There is a hemorrhage.")
    assert (half["hemorrhage"].fate, half["hemorrhage"].is_kind) == ("found", False)
    told = {name: (mark.fate, mark.is_kind) for name, mark in half.items() if name != "hemorrhage"}
    assert told == {"subdural hematoma": ("coarser", False), "intracranial hemorrhage": ("coarser", True)}


def test_reports_without_a_finding_have_no_marks() -> None:
    score = scored("No pneumothorax.", "No pleural effusion.")["findings/macro-f1"]
    assert score.value == 1.0
    assert finding_outcomes(score) == {}
    assert finding_marks(sample_of("No pneumothorax."), "No pleural effusion.", score) == ()
    assert finding_marks(sample_of("No pneumothorax."), "Pneumothorax.", None) == ()


def test_every_kind_of_finding_error_gets_cases_before_one_gets_a_second() -> None:
    pairs = {f"a{number}": ("Left pneumothorax.", "The lungs are clear.") for number in range(60)}
    pairs["side"] = ("Left pleural effusion.", "Right pleural effusion.")
    pairs["rare"] = ("The lungs are clear.", "Displaced rib fracture.")
    table = ScoreColumns.of(score for name, (target, answer) in pairs.items() for score in scored(target, answer, name).values())
    chosen = choose_cases(dict.fromkeys(pairs, "report"), ScoreColumns(), table, [], [])
    mine = [name for name, tags in chosen.items() if "finding" in tags]
    assert {"side", "rare"} <= set(mine)
    assert len(mine) == QUOTA["finding"]


class Dictating(Looking):
    """Reports: one right, one that misses, one that invents, one on the wrong side."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        texts = ("Left pneumothorax.", "No pneumothorax.", "Left pneumothorax and cardiomegaly.", "Right pneumothorax.")
        for request in requests:
            place = int(request.id[1:].split("-")[0]) % len(texts)
            yield Generation(id=request.id, text=texts[place], finish_reason="stop", seconds=0.1)


def test_the_page_filters_by_findings_of_the_texts_and_not_by_metadata(tmp_path: Path) -> None:
    def report(row: dict[str, object]) -> None:
        turns = (Message(role="user", content="<image>Report."), Message(role="assistant", content="Left pneumothorax."))
        row.update(task="report", messages=turns, target="Left pneumothorax.")

    dataset = make_dataset(tmp_path / "data", num_groups=8, change=report)
    settings = EvaluationSettings(metrics=("findings",), controls=(), num_resamples=100)
    made = evaluate(dataset, generators={"tuned": ("tuned", Dictating())}, settings=settings, folder=tmp_path / "run")
    page = render_report(made, tmp_path / "run", dataset, "en")
    found = [json.loads(html.unescape(text)) for text in re.findall(r'data-finding="([^"]*)"', page)]
    assert len(found) == 16
    assert sum(["pneumothorax", "missed"] in one for one in found) == 4
    assert sum(["cardiomegaly", "invented"] in one for one in found) == 4
    assert sum(["pneumothorax", "wrong-side"] in one for one in found) == 4
    assert not any(name in ("even", "odd") for one in found for name, _ in one)
    lists = page[page.index('<div class="filters">') :]
    assert 'data-en="Pneumothorax (16)" data-zh="气胸 (16)"' in lists
    assert 'data-en="Wrong side (4)"' in lists
    assert '<option value="even"' not in lists


def test_a_finding_of_the_metadata_is_that_of_the_texts() -> None:
    """In British spelling it stood beside itself in the list of findings, and had no Chinese name."""
    assert known_findings("subdural haematoma") == ("subdural hematoma", "intracranial hemorrhage", "hemorrhage")
    assert known_findings("subdural hematoma") == ("subdural hematoma",)
    assert known_findings("stain") == known_findings("no pneumothorax") == ()
    title = finding_title("subdural haematoma")
    assert (title.render("en"), title.render("zh")) == ("Subdural hematoma", "硬膜下血肿")
    assert finding_title("subdural haematoma", "subdural haematoma").render("en") == "subdural haematoma"
    assert finding_title("stain").render("zh") == "stain"


@pytest.mark.usefixtures("toys")
def test_cases_that_no_report_metric_read_are_filtered_by_their_metadata(tmp_path: Path) -> None:
    def kind(row: dict[str, object]) -> None:
        row["metadata"] = {"kind": "subdural haematoma"}

    dataset = make_dataset(tmp_path / "data", num_groups=4, change=kind)
    settings = EvaluationSettings(controls=(), num_resamples=100)
    made = evaluate(dataset, generators={"tuned": ("tuned", Looking())}, settings=settings, folder=tmp_path / "run")
    page = render_report(made, tmp_path / "run", dataset, "en")
    found = [json.loads(html.unescape(text)) for text in re.findall(r'data-finding="([^"]*)"', page)]
    assert found
    assert all(["hemorrhage", None] in one for one in found)
    assert f'data-en="Subdural hematoma ({len(found)})" data-zh="硬膜下血肿 ({len(found)})"' in page
