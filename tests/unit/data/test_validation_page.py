"""``validation.html``: whole, in both languages, harmless whatever the data say; and the benchmark's table as a test."""

from __future__ import annotations

import importlib.util
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from medtune.data.checks.meanings import MEANINGS, meaning_of
from medtune.data.dataset import Dataset
from medtune.data.validate import validate
from medtune.data.validation_page import PAGE_NAME, SHOWN, render_page, write_page
from medtune.language import msg
from medtune.types import Issue, ValidationReport

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = '</p><script>alert(1)</script><img src="http://example.org/x" onerror=alert(2)>{{ 7*7 }}'


def benchmark(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


planting = benchmark("planted")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, ValidationReport]:
    planted = planting.PlantedSet()
    planting.add_clean(planted, 6)
    for _ in range(SHOWN + 3):
        planted.add("box-words", box=[8, 80, 40, 112], horizontal="right", answer=f"A lesion. {HOSTILE}")
    planted.say(planted.add(HOSTILE), "XXXX")
    planted.lines.append(("train", '{"id": "torn' + HOSTILE))
    missing = planted.add("missing")["images"][0]
    dataset = planted.write(tmp_path_factory.mktemp("page") / "data", name=f"a{HOSTILE}")
    (dataset.folder / missing).unlink()
    return dataset, validate(dataset)


def test_other_peoples_text_stays_text(hostile: tuple[Dataset, ValidationReport]) -> None:
    page = render_page(hostile[1], hostile[0], "en")
    tags = Tags()
    tags.feed(page)
    assert not {"script", "iframe", "object", "link", "form", "base"} & {tag for tag, _ in tags.found}
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), (tag, value)
    assert "{{ 7*7 }}" in page
    assert "&lt;script&gt;" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_what_the_page_shows(hostile: tuple[Dataset, ValidationReport]) -> None:
    dataset, report = hostile
    page = render_page(report, dataset, "en")
    section = page[page.index(">box-position <") if ">box-position <" in page else page.index("box-position <b") :]
    section = section[: section.index("</section>")]
    assert section.count('class="finding"') == SHOWN
    assert section.count('class="picture"') == SHOWN
    assert "<code>medtune validate --json</code>" in section
    assert section.count('class="box"') == SHOWN
    assert "... and 3 more" in section
    assert re.search(r"train\.jsonl:\d+", section)
    assert "The picture is missing." in page
    assert str(dataset.folder) not in page
    assert report.skipped["burned-in-text"].render("zh") in page


def test_a_picture_that_may_name_a_person_is_not_shown(tmp_path: Path) -> None:
    planted = planting.PlantedSet()
    row = planted.add("named", answer="XXXX")
    planted.add("other", answer="XXXX")
    dataset = planted.write(tmp_path / "data")
    report = validate(dataset)
    found = report.issues[0].model_copy(
        update={"code": "burned-in-identifier", "sample": row["id"], "file": str(dataset.folder / row["images"][0])}
    )
    page = render_page(report.model_copy(update={"issues": (*report.issues, found)}), dataset, "en")
    assert page.count("The picture may name a person and is not shown.") == 2  # under both kinds
    assert page.count('class="picture"') == 1


def test_both_languages_and_the_one_it_opens_in(hostile: tuple[Dataset, ValidationReport]) -> None:
    english, chinese = (render_page(hostile[1], hostile[0], language) for language in ("en", "zh"))  # type: ignore[arg-type]
    for page in (english, chinese):
        assert "The position words place the finding elsewhere than the box." in page
        assert "方位词所说的位置与框不符。" in page
    assert 'id="lang-zh" aria-label="中文" checked' in chinese
    assert 'id="lang-en" aria-label="English" checked' in english
    assert '<html lang="zh-CN">' in chinese


def test_the_page_stands_in_the_folder_and_changes_no_hashed_file(hostile: tuple[Dataset, ValidationReport]) -> None:
    dataset, report = hostile
    path = write_page(report, dataset)
    assert path == dataset.folder / PAGE_NAME
    assert dataset.changed_files() == []
    assert Dataset.open(dataset.folder).manifest.hash == dataset.manifest.hash


def test_every_planted_fault_is_found(tmp_path: Path) -> None:
    validation = benchmark("validation")
    lines, alarms = validation.measure(tmp_path, num_clean=40)
    assert alarms == {}
    assert set(validation.not_planted(lines)) == {"burned-in-identifier", "burned-in-text", "burned-in-marker"}, "--ocr plants them"
    assert validation.missed(lines) == []
    assert {line.code: line.precision for line in lines if line.precision < 1} == {}
    assert {line.code: line.recall for line in lines if line.recall < 0.75} == {}
    for line in lines:
        assert meaning_of(line.code) is not None, line.code


def test_a_finding_about_a_clean_row_is_a_wrong_one() -> None:
    validation = benchmark("validation")
    planted = planting.PlantedSet()
    planting.add_clean(planted, 2)
    planted.add("planted")
    planted.expected = {"patient-overlap": 1, "wording": {"planted-0003"}}

    def report(*issues: Issue) -> ValidationReport:
        return ValidationReport(dataset="d", num_rows={"train": 3}, issues=issues, checks=(), skipped={})

    def overlap(example: str) -> Issue:
        message = msg("{shared} of the {total} groups of {split} also stand in {others}, e.g. {examples}.",
            shared=1, total=3, split="test", others="train", examples=example)  # fmt: skip
        return Issue(code="patient-overlap", severity="error", message=message)

    def line(*issues: Issue) -> dict[str, float]:
        return {line.code: line.precision for line in validation.compare(report(*issues), planted) if line.found}

    assert line(overlap("p3")) == {"patient-overlap": 1.0}
    assert line(overlap("p1")) == {"patient-overlap": 0.0}
    assert validation.false_alarms(report(overlap("p1")), planted) == {"patient-overlap": 1}
    empty = Issue(code="answer-empty", severity="error", message=msg("The answer is empty."), sample="clean-0001")
    assert validation.false_alarms(report(empty, overlap("p3")), planted) == {"answer-empty": 1}


def test_a_missed_fault_is_told() -> None:
    validation = benchmark("validation")
    assert validation.missed([validation.Line("box-area", 4, 3, 3), validation.Line("wording", 4, 5, 4)]) == ["box-area"]


def test_docs_list_every_code_of_the_source() -> None:
    page = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z*-]+)` \| [^|]+ \| (.+) \|$", page, re.MULTILINE))
    assert rows == {code: text.render("en") for code, text in MEANINGS.items()}


def test_every_code_of_the_source_has_a_meaning() -> None:
    """Codes are literals: the first argument of ``findings.add``, ``Found``, ``RowError``, ``_add`` and ``found``."""
    folder = ROOT / "src" / "medtune" / "data"
    files = [*(folder / "checks").glob("*.py"), folder / "validate.py", folder / "dataset.py"]
    call = re.compile(r"(?:\.add|Found|RowError|_add|_report|found|_tell)\(\s*(?:\w+,\s*)?f?\"([a-z]+(?:-[a-z]+)+)\"")
    codes = {code for file in files for code in call.findall(file.read_text(encoding="utf-8"))}
    assert len(codes) > 30
    assert {code for code in codes if meaning_of(code) is None} == set()
