"""Every value of every metric: defined in its docstring, and worked by hand here.

:data:`CASES` has, for each built-in metric, a few answers with their references and each value over all of them, worked out with
pencil and paper in the comment, or published. The first two tests walk over the registry: a metric, or a value, without a formula,
a source, a range, a direction or a case fails.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtune.evaluation.metrics.additive import statistics_of
from medtune.plugins import names, resolve
from medtune.types import Generation, ImageRef, Message, MetricValue, Prediction, Sample, Score

WITH_WEIGHTS = dict.fromkeys(
    ("semantic", "radgraph", "chexbert", "radbert-ct", "green", "ratescore", "srrbert"),
    "tests/unit/evaluation/test_metrics_models.py",
)
"""Metrics whose numbers come from a model: no pencil gives them. The file tests what is around the model."""


@dataclass(frozen=True)
class Answered:
    """One answer, its reference, and what else the sample holds."""

    answer: str
    reference: str
    task: str = "open-vqa"
    question: str = "?"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    yes: float | None = None
    """The probability of yes as the answer's first token."""


def boxes(*corners: tuple[list[int], str]) -> str:
    return json.dumps([{"bbox_2d": box, "label": label} for box, label in corners])


REGION = {
    "box": [0.0, 0.0, 133.33333333333334, 100.0],
    "horizontal": "left",
    "vertical": "upper",
    "side": "right",
    "area_percent": 4.0,
    "kind": "meningioma",
    "density": "hyperdense",
}

CASES: dict[str, tuple[Sequence[Answered], dict[str, float]]] = {
    # Right: 1st and 4th of five, and "axial". TP 1, FN 2 (one of them unreadable), TN 1, FP 1:
    # mcc (1 * 1 - 1 * 2) / sqrt(2 * 3 * 2 * 3) = -1/6. Yes is said 2 times and true 3 times of 5.
    "closed": (
        [
            Answered("Yes.", "yes"),
            Answered("no", "Yes"),
            Answered("I cannot tell", "yes"),
            Answered("No", "no"),
            Answered("是的", "no"),
            Answered("an axial plane", "axial"),
        ],
        {
            "accuracy": 3 / 6,
            "sensitivity": 1 / 3,
            "specificity": 1 / 2,
            "mcc": -1 / 6,
            "yes-rate": 2 / 5,
            "yes-bias": 1 / 5,
            "parse-failure": 1 / 5,
        },
    ),
    # B is right, "A or B" names two, the words of B are B, and "C" is wrong.
    "choice": (
        [
            Answered("B", "B", question="Which? A. CT B. MRI"),
            Answered("CT or MRI", "A", question="Which? A. CT B. MRI"),
            Answered("This is an MRI.", "B", question="Which? A. CT B. MRI"),
            Answered("C", "B", question="Which? A. CT B. MRI C. PET"),
        ],
        {"accuracy": 2 / 4, "parse-failure": 1 / 4},
    ),
    # {right, lower, lobe} and {right, lung}: one in common; "two" is 2.
    "open": (
        [Answered("The right lower lobe", "right lung"), Answered("Two.", "2")],
        {"exact": 1 / 2, "f1": (2 / 5 + 1) / 2, "recall": (1 / 2 + 1) / 2},
    ),
    # (0.8 - 1)² = 0.04 and (0.6 - 0)² = 0.36; each alone in its bin: 0.2 + 0.6; the surer answer is right, the other wrong:
    # risks 0 and 1/2.
    "calibration": (
        [Answered("yes", "yes", "closed-vqa", yes=0.8), Answered("yes", "no", "closed-vqa", yes=0.6)],
        {"brier": 0.4 / 2, "ece": 0.8 / 2, "aurc": (0 + 1 / 2) / 2},
    ),
    # N-grams in common 4, 3, 2, 1 of 5, 4, 3, 2; equal length, so no brevity penalty.
    "bleu": ([Answered("a b c d e", "a b c d f")], {"corpus": 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25}),
    # Characters: 2 of 2 and 2 of 3; pairs: 1 of 1 and 1 of 2; the answer has no three. p = 1, r = (2/3 + 1/2) / 2 = 7/12.
    "chrf": ([Answered("ab", "abc")], {"chrf2": 100 * 5 * (7 / 12) / (4 + 7 / 12)}),
    # Words 2 of 4 and of 2; pairs 1 of 3 and of 1; the longest common subsequence has 2 words.
    "rouge": (
        [Answered("a small left effusion", "left effusion")],
        {"rouge-1": 2 * 2 / 6, "rouge-2": 2 * 1 / 4, "rouge-l": 2 * 2 / 6},
    ),
    # One answer is LLaMA-Factory's own arithmetic: published vectors are in test_llamafactory_metric.py. "yes": its 3 characters
    # match as 3, 2, 1 n-grams, and the missing fourth order is smoothed to 1/2: (1/2)^(1/4); with the newline the label has 4
    # characters: times exp(1 - 4/3).
    "llamafactory": (
        [Answered("yes", "yes")],
        {
            "bleu-4": round(100 * 0.5**0.25, 4),
            "bleu-4-newline": round(100 * 0.5**0.25 * math.exp(-1 / 3), 4),
            "rouge-1": 100.0,
            "rouge-2": 0.0,
            "rouge-l": 100.0,
        },
    ),
    # Right: upper, the patient's right, meningioma. Wrong: left, hyperdense. Area 6.1 for 4. The true centre is that of the upper
    # left ninth of 400 x 300 pixels, the stated one two ninths to the right of it: 800/3 pixels, of a diagonal of 500.
    "region": (
        [
            Answered(
                "On the right side and in the upper part of the image, 6.1% of it: hypodense meningioma, right frontal lobe.",
                "On the left side and in the upper part of the image, 4.0% of it: hyperdense meningioma, right frontal lobe.",
                "region-description",
                metadata=REGION,
            )
        ],
        {
            "position-accuracy": 0,
            "horizontal-accuracy": 0,
            "vertical-accuracy": 1,
            "side-accuracy": 1,
            "kind-accuracy": 1,
            "density-accuracy": 0,
            "area-error": 2.1,
            "area-stated": 1,
            "centre-error": 800 / 3 / 500,
        },
    ),
    # First: effusion and pleural effusion found (sure for doubtful, left for right), pneumothorax missed and denied. Second: rib
    # fracture and fracture found, pneumothorax invented. Found 4, missed 1, invented 1; each F1 is 1 but for pneumothorax: 0.
    # A subdural hematoma is an intracranial hemorrhage is a hemorrhage: found 1, missed 2 with F1 of 0, and one finding named
    # coarser, none missed. Both speak of 3 + 2 + 1 findings, one is contradicted; of 4 sides 2 agree, and of 5 certainties 3.
    "findings": (
        [
            Answered("Left pleural effusion. No pneumothorax.", "Possible right pleural effusion. Pneumothorax.", "report"),
            Answered("Left rib fracture and right pneumothorax.", "Left rib fracture.", "report"),
            Answered("Hemorrhage.", "Subdural hematoma.", "report"),
        ],
        {
            "micro-precision": 5 / 6,
            "micro-recall": 5 / 8,
            "micro-f1": 10 / 14,
            "macro-f1": 5 / 8,
            "invented": 1 / 3,
            "missed": 1 / 3,
            "coarser": 1 / 3,
            "contradicted": 1 / 6,
            "side-accuracy": 2 / 4,
            "certainty-accuracy": 3 / 5,
        },
    ),
    # 10.5 is within 1 mm of 10; 40 is not within 3 of 30; 20 % is another kind. One pair of 3 written and 2 wanted, off by 0.5
    # of 10.
    "measurements": (
        [Answered("A nodule of 1.05 cm, a mass of 4 cm, 20%.", "A nodule of 10 mm and a mass of 3.0 cm.", "report")],
        {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "exact-f1": 0, "error": 0.05},
    ),
    "modality-organ": (
        [
            Answered("MRI of the brain.", "CT of the brain.", "caption", metadata={"modality": "CT", "organ": "brain"}),
            Answered("CT of the liver.", "CT of the abdomen.", "caption", metadata={"modality": "CT", "organ": "abdomen"}),
            Answered("CT or MRI.", "CT of the head.", "caption", metadata={"modality": "CT", "organ": "brain"}),
        ],
        {"modality-accuracy": 1 / 3, "organ-accuracy": 2 / 3},
    ),
    # Sections in common 1 of 1 and 2, then 2 of 2 and 2: 2 * 3 / (3 + 4).
    "sections": (
        [
            Answered("Findings: clear.", "Findings: clear. Impression: normal.", "report"),
            Answered("Findings: clear. Impression: normal.", "Findings: clear. Impression: normal.", "report"),
        ],
        {"f1": 6 / 7, "complete": 1 / 2},
    ),
    # "Pleural effusion" is a term, "bright spot" advised against; the reference has pneumothorax besides.
    "terminology": (
        [Answered("Pleural effusion and a bright spot.", "Pleural effusion and pneumothorax.", "report")],
        {"share": 1 / 2, "recall": 1 / 2},
    ),
    # First picture: the half box overlaps 1/2 and its centre is inside; the far one has no partner: GIoU (1/2 - 1) / 2. The
    # centres are 25 thousandths of 300 pixels apart, of a diagonal of 500. Second: a box where there is none. Third: none, rightly.
    # Cyst: 1 of 1 found by one of 2 boxes, at the first of ten thresholds only. Without labels: by one of 3.
    "box": (
        [
            Answered(
                boxes(([0, 0, 100, 50], "cyst"), ([500, 500, 600, 600], "mass")), boxes(([0, 0, 100, 100], "cyst")), "detection"
            ),
            Answered(boxes(([0, 0, 9, 9], "cyst")), "[]", "detection"),
            Answered("[]", "[]", "detection"),
        ],
        {
            "iou": 0.5 / 2,
            "accuracy-0.1": 1 / 2,
            "accuracy-0.3": 1 / 2,
            "accuracy-0.5": 1 / 2,
            "giou": -0.5 / 2,
            "pointing": 1 / 2,
            "centre-error": 7.5 / 500,
            "ap-50": 1 / 2,
            "map": 1 / 20,
            "ap-50-any-label": 1 / 3,
            "map-any-label": 1 / 30,
            "specificity": 1 / 2,
        },
    ),
    # Keys: 3 in common of 4 and 4; then none of 4 and 0. "head CT scan" has 2 of its 3 words in "Head CT": F1 4/5; "x" for "" 0.
    "json-record": (
        [
            Answered(
                '{"caption": "head CT scan", "notes": "x", "more": 1, "plane": "Axial."}',
                '{"caption": "Head CT", "notes": "", "count": 2, "plane": "axial"}',
                "json-record",
            ),
            Answered("{'caption': ", '{"caption": "Head CT", "notes": "", "count": 2, "plane": "axial"}', "json-record"),
        ],
        {"valid": 1 / 2, "key-f1": 6 / 12, "value-match": 1 / 8, "value-f1": 1.8 / 8},
    ),
    # The open answer has {right, right, lobe} for {right, lung}: one in common.
    "strict": (
        [Answered("Yes, abnormal", "yes"), Answered("no", "yes"), Answered("right right lobe", "right lung")],
        {
            "accuracy": 1 / 3,
            "closed-accuracy": 1 / 2,
            "open-exact": 0,
            "open-precision": 1 / 3,
            "open-recall": 1 / 2,
            "open-f1": 2 / 5,
        },
    ),
    # The wrong closed answer is left out; right counts twice: 2 of 3, with lung missed; one distinct word of three is "exact".
    "llava-med-v1": (
        [Answered("Yes, abnormal", "yes"), Answered("no", "yes"), Answered("right right lobe", "right lung")],
        {"closed-accuracy": 1, "open-exact": 1 / 3, "open-precision": 2 / 3, "open-recall": 2 / 3, "open-f1": 2 / 3},
    ),
    # "abnormal" holds a no, so the first is wrong; of "seen in lung" p = 1/3, r = 1, F1 = 1/2, printed in the wrong order.
    "medevalkit-nojudge": (
        [Answered("Yes, abnormal", "yes"), Answered("Yes", "yes"), Answered("seen in lung", "lung")],
        {
            "accuracy": 1 / 3,
            "closed-accuracy": 1 / 2,
            "open-exact": 0,
            "open-precision": 1 / 2,
            "open-recall": 1 / 3,
            "open-f1": 1,
        },
    ),
}

SOURCE = re.compile(r"\b(?:1[89]|20)\d\d\b|arXiv:|doi:|aclanthology\.org|RFC \d|[Cc]onventions? of medtune")
FORMULA = re.compile(r"[/=·]|\bmean\b|\bshare\b|\bsum\b|the same|in fact")
ENDS = {"higher": "higher is better", "lower": "lower is better", "neither": "neither end is better"}


def definitions(doc: str) -> dict[str, tuple[str, str]]:
    """Value -> (range and direction, definition) of the docstring's list items "- ``a``, ``b`` (0 to 1, higher is better): ..."."""
    found = {}
    for item in re.split(r"\n(?=- |\n)", doc):
        match = re.match(r"- ((?:``[\w.-]+``(?:, )?)+) \(([^)]*)\): (.*)", item, re.DOTALL)
        for name in re.findall(r"``([\w.-]+)``", match[1]) if match else ():
            assert match is not None
            found[name] = (match[2], " ".join(match[3].split()))
    return found


@cache
def metric(name: str) -> Any:
    return resolve("metric", name)()


VALUES: list[MetricValue] = [value for name in names("metric") for value in metric(name).values]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.name)
def test_a_value_is_defined_where_its_metric_is(value: MetricValue) -> None:
    name, _, short = value.name.partition("/")
    doc = inspect.getdoc(type(metric(name))) or ""
    assert short in definitions(doc), f"{value.name} has no item in the docstring of its metric"
    stated, definition = definitions(doc)[short]
    assert stated.startswith(f"{value.low:g} to {value.high:g}")
    assert stated.endswith(ENDS[value.direction])
    assert FORMULA.search(definition), f"{value.name} has no formula"
    assert SOURCE.search(doc), f"{name} has no source"
    assert "``" not in stated


@pytest.mark.parametrize("name", names("metric"))
def test_a_docstring_defines_nothing_that_is_not_there(name: str) -> None:
    doc = inspect.getdoc(type(metric(name))) or ""
    assert set(definitions(doc)) == {value.name.partition("/")[2] for value in metric(name).values}


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.name)
def test_a_value_has_a_case_worked_by_hand(value: MetricValue) -> None:
    name, _, short = value.name.partition("/")
    if name in WITH_WEIGHTS:
        text = (Path(__file__).parents[2] / WITH_WEIGHTS[name]).read_text(encoding="utf-8")
        assert type(metric(name)).__name__ in text
    else:
        assert short in CASES[name][1]


def test_every_metric_of_a_task_is_registered() -> None:
    asked = {name for task in names("task") for name in resolve("task", task)().metrics}
    assert asked <= set(names("metric")) - set(WITH_WEIGHTS)


@pytest.mark.parametrize("name", CASES)
def test_the_values_worked_by_hand(name: str) -> None:
    answers, expected = CASES[name]
    scores: dict[str, list[Score]] = {}
    for answered in answers:
        sample = _sample(answered)
        for score in metric(name).score(_prediction(answered, sample), sample):
            if score.value is not None:
                scores.setdefault(score.metric, []).append(score)
    numbers = {
        value.partition("/")[2]: float(metric(name).aggregate(value, statistics_of(parts).sum(axis=0)))
        for value, parts in scores.items()
    }
    assert numbers == pytest.approx(expected, abs=1e-9)


def _sample(answered: Answered) -> Sample:
    return Sample(
        id="s",
        task=answered.task,
        images=(ImageRef(path="images/x.png", sha256="0" * 64, width=400, height=300),),
        messages=(
            Message(role="user", content=f"<image>{answered.question}"),
            Message(role="assistant", content=answered.reference),
        ),
        target=answered.reference,
        group="g",
        source="t",
        metadata=dict(answered.metadata),
    )


def _prediction(answered: Answered, sample: Sample) -> Prediction:
    logprobs = None if answered.yes is None else {"yes": float(np.log(answered.yes)), "no": float(np.log(1 - answered.yes))}
    generation = Generation(id="s", text=answered.answer, finish_reason="stop", first_token_logprobs=logprobs)
    try:
        answer = resolve("task", answered.task)().parse(answered.answer, sample)
    except ValueError as error:
        return Prediction(sample_id="s", generation=generation, error=str(error))
    return Prediction(sample_id="s", generation=generation, answer=answer)
