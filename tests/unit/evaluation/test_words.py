"""A report speaks of models, metrics, tasks and controls by their titles, in either language, never by a key of its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medtune.evaluation import cautions
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.evaluation.report_html import render_report
from medtune.evaluation.wording import condition_title, listed, model_name
from medtune.language import Language, Text
from medtune.types import ControlName, Difference, MetricValue
from toy_evaluation import Guessing, make_dataset

_KEYS = re.compile(
    r"\b(tuned|base|shuffled|blank|majority|nearest|task|group-hash)\b(?! (model|pictures|split|training|question))|/"
)
_ACCURACY = MetricValue(name="closed/accuracy", title="Accuracy, closed questions", direction="higher", low=0, high=1)
_POSITION = MetricValue(name="region/side-accuracy", title="Side of the patient", direction="higher", low=0, high=1)


@pytest.mark.usefixtures("toys")
def test_no_warning_of_a_report_holds_a_key(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=8, train=4)
    report = evaluate(
        dataset,
        generators={"base": ("base", Guessing()), "tuned": ("tuned", Guessing())},
        settings=EvaluationSettings(num_resamples=100, subgroups=("task", "kind"), abstain=True),
        folder=tmp_path / "run",
        controls=("shuffled", "blank", "question-only", "majority", "nearest"),
    )
    said = [text.render("zh") for text in report.warnings]
    assert any(text.startswith("换成其他组的图像时，微调后的模型在“") for text in said)
    assert any("基座模型与微调后的模型对每个问题的回答都相同" in text for text in said)
    assert any(text.startswith("按“任务”划分的亚组") for text in said)
    # Keys of recipes, which have a dot, tell what to ask for; the names of data are the data's own.
    for text in said:
        assert not _KEYS.search(re.sub(r"[a-z]+\.[a-z_]+|`[^`]+`", "", text)), text
    page = render_report(report, tmp_path / "run", dataset, "zh")
    assert "微调后的模型：换成他人图像" in page
    assert ">tuned-shuffled<" not in page


@pytest.mark.parametrize("control", ["shuffled", "blank", "question-only", "majority", "nearest"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_control_is_told_with_the_titles_of_the_metrics(control: ControlName, language: Language) -> None:
    metrics = {metric.name: metric for metric in (_ACCURACY, _POSITION)}
    entries = [
        Difference(metric=name, first=0.5, second=0.5, difference=0.0, low=-0.1, high=0.1, num_samples=9, num_groups=9, p_value=1.0)
        for name in metrics
    ]
    text = cautions.unused_pictures("tuned", control, entries, metrics)
    assert text is not None
    said = text.render(language)
    assert {"en": "Accuracy, closed questions; Side of the patient", "zh": "封闭式问题准确率；"}[language] in said
    assert {"en": "the tuned model", "zh": "微调后的模型"}[language] in said
    assert not _KEYS.search(said)


def test_titles_of_conditions() -> None:
    assert [
        condition_title(label).render("en") for label in ("base", "tuned-blank", "majority", "tuned-repeated-2", "mine-blank")
    ] == [
        "Base model",
        "Tuned model: blank pictures",
        "most frequent training answer",
        "Tuned model: Drawn again",
        "mine-blank",
    ]
    assert model_name("mine").render("zh") == "mine"
    assert listed([Text("a, b"), Text("c"), Text("d")]).render("zh") == "a, b；c；d"
