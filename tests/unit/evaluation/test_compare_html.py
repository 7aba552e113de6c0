from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medtune.data.dataset import Dataset
from medtune.errors import EvaluationError
from medtune.evaluation.compare import compare
from medtune.evaluation.compare_html import Pair, render_comparisons, write_comparisons
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.types import Request
from toy_evaluation import Guessing, Looking, make_dataset

pytestmark = pytest.mark.usefixtures("toys")


class Marked(Guessing):
    """Always bright, in markup."""

    def answer(self, request: Request) -> str:
        return "bright" if len(request.id) % 2 else "<script>alert(1)</script>"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Pair, Dataset]:
    dataset = make_dataset(tmp_path / "data", num_groups=40)
    settings = EvaluationSettings(num_resamples=200, controls=())
    for name, model in (("guessing", Guessing()), ("looking", Looking())):
        evaluate(dataset, generators={"tuned": ("tuned", model)}, settings=settings, folder=tmp_path / name)
    comparison = compare(tmp_path / "guessing", tmp_path / "looking", num_resamples=200)
    return Pair(comparison, tmp_path / "guessing", tmp_path / "looking"), dataset


def test_the_difference_stands_with_its_interval_and_p(pair: tuple[Pair, Dataset]) -> None:
    one, dataset = pair
    page = render_comparisons([one], dataset, "en")
    entry = next(entry for entry in one.comparison.differences if entry.metric == "closed/accuracy" and entry.task is None)
    assert entry.difference == 0.5
    assert "+0.500" in page
    assert f"{entry.low:+.3f} … {entry.high:+.3f}" in page
    assert "▲" in page
    assert entry.p_value is not None
    assert f"{entry.p_value:.3f}" in page or "&lt; 0.001" in page
    assert entry.discordant == (0, 40)
    assert "0 : 40" in page
    assert "looking/tuned is better than guessing/tuned on 1 of 1 measures" in page


def test_cases_that_changed_can_be_picked(pair: tuple[Pair, Dataset]) -> None:
    one, dataset = pair
    page = render_comparisons([one], dataset, "en")
    tags = [json.loads(tag.replace("&#34;", '"')) for tag in re.findall(r'<article[^>]* data-tag="([^"]*)"', page)]
    assert {tag for found in tags for tag in found} == {"to-right", "improved", "random"}
    assert 'data-filter="tag" data-value="to-right"' in page
    backwards = compare(one.second, one.first, num_resamples=200)
    page = render_comparisons([Pair(backwards, one.second, one.first)], dataset, "en")
    assert 'data-filter="tag" data-value="to-wrong"' in page
    assert "Right to wrong" in page


def test_several_comparisons_share_a_page(pair: tuple[Pair, Dataset]) -> None:
    one, dataset = pair
    other = Pair(compare(one.first, one.first, num_resamples=200), one.first, one.first)
    page = render_comparisons([one, other], dataset, "en")
    assert "2 runs against guessing/tuned" in page
    assert page.count('<h2 id="h-pair-') == 2
    assert 'data-filter="pair"' in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_without_the_data_set_there_are_numbers_and_no_cases(pair: tuple[Pair, Dataset], tmp_path: Path) -> None:
    one, _ = pair
    path = write_comparisons([one], tmp_path / "page.html", None, "zh")
    page = path.read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in page
    assert "<article" not in page
    assert "+0.500" in page
    with pytest.raises(ValueError, match="no comparison"):
        render_comparisons([], None)


def test_another_data_set_is_refused(pair: tuple[Pair, Dataset], tmp_path: Path) -> None:
    one, _ = pair
    with pytest.raises(EvaluationError, match="was made from the data set"):
        render_comparisons([one], make_dataset(tmp_path / "another", num_groups=2))


def test_markup_in_an_answer_is_text(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=4)
    settings = EvaluationSettings(num_resamples=100, controls=())
    for name, model in (("first", Marked()), ("second", Looking())):
        evaluate(dataset, generators={"tuned": ("tuned", model)}, settings=settings, folder=tmp_path / name)
    comparison = compare(tmp_path / "first", tmp_path / "second", num_resamples=100)
    page = render_comparisons([Pair(comparison, tmp_path / "first", tmp_path / "second")], dataset)
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in page
