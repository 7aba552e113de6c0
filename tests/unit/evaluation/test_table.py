from __future__ import annotations

from pathlib import Path

import pytest

from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.evaluation.table import (
    about,
    choose_headline,
    format_interval,
    format_value,
    headline_rows,
    verdict,
)
from medtune.types import Difference, MetricValue
from toy_evaluation import Guessing, Looking, make_dataset

SHARE = MetricValue(name="closed/accuracy", title="Accuracy", direction="higher", low=0, high=1)
ERROR = MetricValue(name="region/area-error", title="Error", direction="lower", low=0, high=100)


def difference(low: float | None, high: float | None) -> Difference:
    return Difference(metric="m", first=0, second=0, difference=0, low=low, high=high, num_samples=9, num_groups=3)


@pytest.mark.parametrize(
    ("low", "high", "of_share", "of_error"),
    [
        (0.1, 0.2, "better", "worse"),
        (-0.2, -0.1, "worse", "better"),
        (-0.1, 0.1, "unclear", "unclear"),
        (0.0, 0.1, "unclear", "unclear"),
        (None, None, None, None),
    ],
)
def test_a_difference_is_for_better_or_worse_only_clear_of_zero(
    low: float | None, high: float | None, of_share: str | None, of_error: str | None
) -> None:
    assert (verdict(difference(low, high), SHARE), verdict(difference(low, high), ERROR)) == (of_share, of_error)


def test_numbers() -> None:
    assert format_value(0.12345, SHARE) == "0.123"
    assert format_value(76.0512, ERROR) == "76.05"
    assert format_value(0.5, SHARE, signed=True) == "+0.500"
    assert format_value(-0.5, SHARE) == "−0.500"
    assert format_value(-0.0001, SHARE) == "0.000"
    assert format_value(0.0004, SHARE, signed=True) == "+0.0004", "a difference is not rounded to none"
    assert format_value(-0.0004, SHARE, signed=True) == "−0.0004"
    assert format_value(-1e-9, SHARE, signed=True) == "+0.000"
    assert format_value(None, SHARE) == "–"
    assert format_interval(0.1, 0.25, SHARE) == "0.100 … 0.250"
    assert format_interval(None, None, SHARE) == ""


def test_the_short_table_leads_with_the_picture_and_takes_in_metrics_it_does_not_know() -> None:
    names = [
        "mine/a",
        "mine/b",
        "llamafactory/rouge-1",
        "llamafactory/bleu-4",
        "json-record/valid",
        "closed/mcc",
        "closed/accuracy",
        "box/iou",
    ]
    values = {name: SHARE.model_copy(update={"name": name}) for name in names}
    assert choose_headline(values, [name for name in names if name != "box/iou"]) == (
        "closed/accuracy",
        "json-record/valid",
        "llamafactory/bleu-4",
        "mine/a",
    )
    assert (about("region/side-accuracy"), about("region/area-stated"), about("mine/a")) == ("picture", "form", "wording")
    assert (about("calibration/brier"), about("medevalkit-nojudge/accuracy"), about("radgraph/partial")) == (
        "certainty",
        "protocol",
        "picture",
    )


@pytest.mark.usefixtures("toys")
def test_a_row_has_all_columns_of_its_metric(tmp_path: Path) -> None:
    report = evaluate(
        make_dataset(tmp_path / "data", num_groups=40),
        generators={"base": ("base", Guessing()), "tuned": ("tuned", Looking())},
        settings=EvaluationSettings(num_resamples=200),
        folder=tmp_path / "run",
    )
    accuracy, letters = headline_rows(report)
    assert accuracy.metric.name == "closed/accuracy"
    assert accuracy.verdict == "better"
    assert letters.verdict == "better"
    assert accuracy.control is not None
    assert accuracy.reliance is not None
    assert accuracy.control.value == pytest.approx(1 + (accuracy.reliance.difference or 0))


@pytest.mark.usefixtures("toys")
def test_a_report_of_one_model_has_no_difference(tmp_path: Path) -> None:
    report = evaluate(
        make_dataset(tmp_path / "data"),
        generators={"base": ("base", Guessing())},
        settings=EvaluationSettings(num_resamples=200, controls=()),
        folder=tmp_path / "run",
    )
    row = headline_rows(report)[0]
    assert (row.tuned, row.difference, row.control, row.verdict) == (None, None, None, None)
