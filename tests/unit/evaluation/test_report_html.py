from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from medtune.data.dataset import Dataset
from medtune.errors import EvaluationError
from medtune.evaluation.cases import PICTURE_BYTES, QUOTA, describe_case
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.evaluation.report_html import render_report, write_report
from medtune.generation.echo import EchoGenerator
from medtune.language import Text, msg
from medtune.types import FindingCount, Generation, Measurement, PictureShare, ReliabilityBin, Report, Request
from toy_evaluation import Guessing, Looking, make_dataset

pytestmark = pytest.mark.usefixtures("toys")

ATTACK = "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \"quoted\""


class Hostile(Looking):
    """Answers with markup every third time, with nothing every fifth."""

    def generate(self, requests: list[Request]) -> Iterator[Generation]:  # type: ignore[override]
        for number, request in enumerate(requests):
            text = "" if number % 5 == 4 else ATTACK if number % 3 == 2 else self.answer(request)
            yield Generation(id=request.id, text=text, finish_reason="length" if number == 2 else "stop", seconds=0.25)


class Page(HTMLParser):
    """Which elements and attributes the page has, and its text in one language."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str, skip: str = "zh") -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self._skip, self._skipped = skip, 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.elements.append((tag, values))
        if tag not in self.VOID:
            self.open.append(tag)
        if self._skipped or values.get("class") == self._skip:
            self._skipped += tag not in self.VOID

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._skipped -= self._skipped > 0

    def handle_data(self, data: str) -> None:
        if not self._skipped and self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def make_report(tmp_path: Path, **data: object) -> tuple[Report, Path, Dataset]:
    dataset = make_dataset(tmp_path / "data", num_groups=30, **data)  # type: ignore[arg-type]
    report = evaluate(
        dataset,
        generators={"base": ("base", Guessing()), "tuned": ("tuned", Hostile())},
        settings=EvaluationSettings(num_resamples=200),
        folder=tmp_path / "run",
        provenance={"command": "medtune evaluate <run>"},
    )
    return report, tmp_path / "run", dataset


def test_markup_in_an_answer_is_text(tmp_path: Path) -> None:
    text = render_report(*make_report(tmp_path), "en")
    page = Page(text)
    assert page.open == []
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert not any(tag == "img" for tag, _ in page.elements)
    assert "<script>alert(" not in text
    assert "alert" in page.text
    assert "medtune evaluate <run>" in page.text


def test_the_page_loads_nothing_and_lets_only_its_own_script_run(tmp_path: Path) -> None:
    text = render_report(*make_report(tmp_path), "en")
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), (tag, name)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_the_headline_numbers_stand_with_n_and_unscored(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    text = Page(render_report(report, folder, dataset, "en")).text
    tuned = next(condition for condition in report.conditions if condition.label == "tuned")
    accuracy = next(entry for entry in tuned.measurements if entry.metric == "closed/accuracy" and entry.task is None)
    letters = next(entry for entry in tuned.measurements if entry.metric == "bleu/letters" and entry.task is None)
    assert accuracy.value is not None
    assert f"{accuracy.value:.3f}" in text
    assert letters.num_unscored == 12
    assert "+ 12 unscored" in text
    assert "What the picture shows" in text
    assert text.index("What the picture shows") < text.index("Nearness to the reference's wording")
    assert "For research only. Not a medical device" in text
    assert report.dataset_hash in text


def test_both_languages_are_in_the_page_and_the_chosen_one_is_set(tmp_path: Path) -> None:
    made = make_report(tmp_path)
    english, chinese = render_report(*made, "en"), render_report(*made, "zh")
    assert '<html lang="en">' in english
    assert '<html lang="zh-CN">' in chinese
    for text in (english, chinese):
        assert "图像所示内容" in text
        assert "What the picture shows" in text
    only = Page(english, skip="en").text
    assert "图像所示内容" in only
    assert "What the picture shows" not in only
    pairs = [attributes.get("lang") for tag, attributes in Page(english).elements if tag == "span"]
    assert pairs.count("en") == pairs.count("zh-CN") > 60


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"train": 5}, "evaluated pictures are also in the training split"),
        ({"group_kind": "image"}, "no patient ids"),
    ],
)
def test_leakage_and_missing_patients_are_red(tmp_path: Path, data: dict[str, object], said: str) -> None:
    text = render_report(*make_report(tmp_path, **data), "en")
    severe = re.search(r'<div class="severe">.*?</div>', text, re.DOTALL)
    assert severe is not None
    assert said in severe.group()


def test_a_sound_report_has_nothing_red(tmp_path: Path) -> None:
    text = render_report(*make_report(tmp_path), "en")
    assert '<div class="severe">' not in text
    assert '<p class="banner' not in text


def test_banners_of_synthetic_and_of_local_data(tmp_path: Path) -> None:
    text = Page(render_report(*make_report(tmp_path, synthetic=True, local_only=True), "en")).text
    assert "Synthetic data" in text
    assert "may not leave this machine" in text


def test_cases_show_the_picture_the_box_and_the_words(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    text = render_report(report, folder, dataset, "en")
    page = Page(text)
    cards = [attributes for tag, attributes in page.elements if tag == "article"]
    assert 0 < len(cards) <= sum(QUOTA.values())
    assert {tag for card in cards for tag in json.loads(card["data-tag"] or "[]")} == {
        "worst",
        "best",
        "improved",
        "worsened",
        "to-wrong",
        "to-right",
        "unread",
        "random",
    }
    pictures = [attributes["href"] or "" for tag, attributes in page.elements if tag == "image"]
    assert len(pictures) == len(cards)
    with Image.open(io.BytesIO(base64.b64decode(pictures[0].split(",")[1]))) as image:
        assert image.size == (24, 16)
    boxes = [attributes for tag, attributes in page.elements if tag == "rect"]
    assert {box["class"] for box in boxes} == {"box edge", "box true"}
    assert {(box["x"], box["y"], box["width"], box["height"]) for box in boxes} == {("4.0", "2.0", "8.0", "8.0")}
    assert "<mark>" in text
    assert "(no answer)" in page.text
    assert "could not be read: nothing was written" in page.text
    assert "cut off at the token limit" in page.text


def test_a_picture_that_is_gone_leaves_a_note(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    for path in (dataset.folder / "images").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    page = Page(render_report(report, folder, dataset, "en"))
    assert "The picture cannot be shown." in page.text
    assert not any(tag == "image" for tag, _ in page.elements)


def test_without_the_data_set_there_are_numbers_and_no_cases(tmp_path: Path) -> None:
    report, folder, _ = make_report(tmp_path)
    page = Page(render_report(report, folder, None, "en"))
    assert "What the picture shows" in page.text
    assert not any(tag == "article" for tag, _ in page.elements)


def test_a_measure_without_a_score_is_named_with_its_count(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=30)
    generators = {"tuned": ("tuned", EchoGenerator([""]))}
    settings = EvaluationSettings(num_resamples=200, controls=())
    report = evaluate(dataset, generators=generators, settings=settings, folder=tmp_path / "run")  # type: ignore[arg-type]
    text = Page(render_report(report, tmp_path / "run", dataset, "en")).text
    assert "On no sample could be scored: Letters off (60 unscored )" in text


def test_another_data_set_is_refused(tmp_path: Path) -> None:
    report, folder, _ = make_report(tmp_path)
    with pytest.raises(EvaluationError, match="The report was made from the data set toy"):
        render_report(report, folder, make_dataset(tmp_path / "other", num_groups=4), "en")


def test_the_training_part_stands_when_there_was_a_training(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    assert "Loss during training" not in render_report(report, folder, dataset, "en")
    Image.new("RGB", (4, 4)).save(folder / "loss.png")
    path = write_report(report, folder, dataset, "en")
    assert path == folder / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert any(tag == "img" and (a["src"] or "").startswith("data:image/png;base64,") for tag, a in page.elements)


def test_tables_have_heads_and_buttons_have_states(tmp_path: Path) -> None:
    page = Page(render_report(*make_report(tmp_path), "en"))
    heads = [attributes for tag, attributes in page.elements if tag == "th"]
    assert heads
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for attributes in heads)
    buttons = [attributes for tag, attributes in page.elements if tag == "button"]
    assert all(attributes.get("aria-pressed") in ("true", "false") for attributes in buttons)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    assert named <= set(ids)


def test_alerts_come_first_and_in_red_and_once(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    alert = msg("The adapter changes nothing <b>.")
    report = report.model_copy(update={"alerts": (alert,), "warnings": (*report.warnings, alert)})
    text = render_report(report, folder, dataset, "en")
    severe = re.search(r'<div class="severe">.*?</div>', text, re.DOTALL)
    assert severe is not None
    assert "The adapter changes nothing &lt;b&gt;." in severe.group()
    assert text.count("The adapter changes nothing") == 1
    assert text.index('<div class="severe">') < text.index('id="results"')


def test_many_alerts_of_one_kind_do_not_hide_another(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    many = tuple(Text("Row {row} is also in training.", {"row": row}) for row in range(20))
    report = report.model_copy(update={"alerts": (*many, Text("The adapter changes nothing."))})
    text = render_report(report, folder, dataset, "en")
    severe = re.search(r'<div class="severe">.*?</details></li>(.*?)</div>', text, re.DOTALL)
    assert severe is not None
    assert "The adapter changes nothing." in severe.group(1)
    assert severe.group().index("Row 2 is") < severe.group().index("<details>") < severe.group().index("Row 3 is")
    assert "+ 17 more of this kind" in Page(text).text


def test_a_command_in_a_sentence_is_set_as_code_and_markup_in_it_is_text(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    report = report.model_copy(update={"alerts": (msg("Run `medtune <validate>` first."),)})
    text = render_report(report, folder, dataset, "en")
    assert "Run <code>medtune &lt;validate&gt;</code> first." in text


def test_the_chinese_page_says_split_sex_and_counts_in_chinese(tmp_path: Path) -> None:
    def sex(row: dict[str, object]) -> None:
        row["metadata"] = {"sex": "F" if int(str(row["group"])[1:]) % 2 else "M"}

    report, folder, dataset = make_report(tmp_path, change=sex)
    text = Page(render_report(report, folder, dataset, "zh"), skip="en").text
    assert "测试集" in text
    assert "30 名患者" in text
    group = text[text.index("性别") :]
    assert " 女 " in group
    assert " 男 " in group


def test_a_subgroup_with_few_scored_samples_is_named_and_not_drawn(tmp_path: Path) -> None:
    """Of 30 samples in a subgroup 5 may belong to the task that the measure is of."""
    report, folder, dataset = make_report(tmp_path)

    def scored(number: int) -> Measurement:
        return Measurement(metric="closed/accuracy", value=0.5, low=0.4, high=0.6, num_scored=number, num_unscored=30, num_groups=9)

    groups = {"many": (scored(30),), "enough": (scored(20),), "few": (scored(19),)}
    page = Page(render_report(report.model_copy(update={"subgroups": {"scanner": groups}}), folder, dataset, "en")).text
    drawn = page[page.index("By subgroup") :]
    assert "Too few scored samples, not shown : few (n = 19)" in drawn
    assert drawn.index("enough 20 + 30 unscored") < drawn.index("few (n = 19)")
    assert "few 19" not in drawn


def test_what_depends_on_the_picture_is_shown_for_each_control(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    share = PictureShare(
        label="tuned",
        control="shuffled",
        metric="closed/accuracy",
        real=0.75,
        without=0.25,
        gain=0.5,
        low=0.375,
        high=0.625,
        share=0.667,
        share_low=0.5,
        share_high=0.8,
        num_samples=60,
        num_groups=30,
    )
    unclear = share.model_copy(update={"control": "majority", "gain": 0.01, "low": -0.125, "high": 0.2, "share": None})
    report = report.model_copy(update={"picture_share": (share, unclear)})
    text = Page(render_report(report, folder, dataset, "en")).text
    assert "+0.375 … +0.625" in text
    assert "67 %" in text
    assert "50 % … 80 %" in text
    assert "the picture is used" in text
    assert "most frequent training answer n = 60 nothing shows that it is used" in text


def test_a_measure_without_a_better_end_is_said_to_gain_nothing(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    metrics = tuple(
        metric.model_copy(update={"direction": "neither"}) if metric.name == "closed/accuracy" else metric
        for metric in report.metrics
    )
    assert "With the pictures of others it loses on" in render_report(report, folder, dataset, "en")
    assert 'id="h-picture"' in render_report(report, folder, dataset, "en")
    page = render_report(report.model_copy(update={"metrics": metrics}), folder, dataset, "en")
    assert "With the pictures of others it loses on" not in page
    assert 'id="h-picture"' not in page


def test_findings_stand_with_sensitivity_and_precision(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    rows = (
        FindingCount(finding="a", title="Rare", num_reference=0, num_found=0, num_missed=0, num_invented=0),
        FindingCount(finding="b", title="Common", num_reference=8, num_found=6, num_missed=2, num_invented=4),
    )
    text = Page(render_report(report.model_copy(update={"findings": {"tuned": rows}}), folder, dataset, "en")).text
    assert "Common 8 6 2 4 0.750 0.600 Rare 0 0 0 0 – –" in text


def test_calibration_is_drawn(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    bins = (
        ReliabilityBin(low=0, high=0.5, num_samples=0, probability=None, share=None),
        ReliabilityBin(low=0.5, high=1, num_samples=9, probability=0.75, share=0.5),
    )
    page = Page(render_report(report.model_copy(update={"calibration": {"tuned": bins}}), folder, dataset, "en"))
    # The square is 26 to 194 of 220: 0.75 across is 152, 0.5 up is 110.
    places = [(found["cx"], found["cy"]) for tag, found in page.elements if tag == "circle" and found["class"] == "tuned mark"]
    assert ("152.0", "110.0") in places


def test_a_huge_answer_is_cut_on_the_page_and_said(tmp_path: Path) -> None:
    class Endless(Looking):
        def answer(self, request: Request) -> str:
            return "& " * 500_000 + request.id

    dataset = make_dataset(tmp_path / "data", num_groups=4)
    settings = EvaluationSettings(num_resamples=100, controls=())
    report = evaluate(dataset, generators={"tuned": ("tuned", Endless())}, settings=settings, folder=tmp_path / "run")
    text = render_report(report, tmp_path / "run", dataset, "en")
    cases = text.count("<article")
    assert cases
    assert "letters more are not shown" in text
    # 32 MB less the pictures, divided by the cases that a page has at most.
    assert len(text[text.index("<article") :]) / cases < (32_000_000 - PICTURE_BYTES) / sum(QUOTA.values())


def test_a_picture_beyond_the_page_s_room_is_left_out_and_said(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=1)
    sample = next(dataset.rows("test"))
    case = describe_case(sample, ("worst",), dataset=dataset, predictions={}, scores=(), picture_bytes=10)
    assert (case.pictures[0].data, case.pictures[0].too_large) == (None, True)


def test_prompt_and_raw_text_are_there_on_demand(tmp_path: Path) -> None:
    report, folder, dataset = make_report(tmp_path)
    text = render_report(report, folder, dataset, "en")
    raw = re.search(r'<details class="raw">.*?</details>', text, re.DOTALL)
    assert raw is not None
    assert "&lt;image&gt;Is the picture dark or bright?" in raw.group()


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        ("ink", "paper"),
        ("soft", "paper"),
        ("soft", "panel"),
        ("ink", "plain-ground"),
        ("ink", "bad-ground"),
        ("bad", "bad-ground"),
        ("good", "good-ground"),
        ("caution", "caution-ground"),
        ("ink", "caution-ground"),
        ("ink", "mark"),
        ("link", "paper"),
    ],
)
def test_text_has_the_contrast_of_wcag_aa(scheme: str, ink: str, ground: str) -> None:
    from importlib import resources

    style = (resources.files("medtune.evaluation") / "templates" / "report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-fA-F]{6});", light))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-fA-F]{6});", dark))
    one, other = sorted((luminance(colours[ink]), luminance(colours[ground])))
    assert (other + 0.05) / (one + 0.05) >= 4.5
