from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from medtune.evaluation import claim_2024, overlaps, tripod_llm
from medtune.evaluation.checklists import render_checklist
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.evaluation.known import Known, facts, known_of
from medtune.evaluation.markdown import plain
from medtune.evaluation.model_card import front_matter, render_model_card
from medtune.evaluation.report_files import write_report_files
from toy_evaluation import Guessing, Looking, make_dataset

pytestmark = pytest.mark.usefixtures("toys")

RECIPE = {
    "model": {"base": "someone/some-model", "revision": None},
    "adapter": {"kind": "lora", "rank": 16},
    "train": {"max_steps": 3},
}


@pytest.fixture
def known(tmp_path: Path) -> Known:
    dataset = make_dataset(tmp_path / "data", num_groups=31)
    folder = tmp_path / "run"
    generators = {"base": ("base", Guessing()), "tuned": ("tuned", Looking())}
    settings = EvaluationSettings(num_resamples=100)
    report = evaluate(dataset, generators=generators, settings=settings, folder=folder)  # type: ignore[arg-type]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return known_of(report, folder, dataset)


def test_claim_has_44_items_and_tripod_llm_the_49_that_its_table_prints() -> None:
    assert [item.number for item in claim_2024.ITEMS] == [str(number) for number in range(1, 45)]
    letters = {3: "ab", 5: "abcde", 6: "abcde", 7: "abcde", 8: "abc", 9: "ab", 14: "abcdef", 16: "abcd", 19: "abcdefg"}
    numbers = [f"{number}{letter}" for number in range(1, 20) for letter in (letters.get(number) or ("",))]
    assert [item.number for item in tripod_llm.ITEMS] == numbers
    assert len(numbers) == 49


def test_every_subject_of_an_item_is_one_that_medtune_can_speak_of(known: Known) -> None:
    can = {*facts(known), "abstention", "subgroups", "selection", "compute", "readers"}
    for item in (*claim_2024.ITEMS, *tripod_llm.ITEMS):
        assert set(item.subjects) <= can, item


@pytest.mark.parametrize("module", [claim_2024, tripod_llm])
def test_what_is_known_is_filled_in_and_the_rest_is_blank(module: object, known: Known) -> None:
    items = module.ITEMS  # type: ignore[attr-defined]
    text = render_checklist(module.TITLE, module.SOURCE, items, known, "en")  # type: ignore[attr-defined]
    assert text.count("- [ ] **") == len(items)
    assert "[x]" not in text
    blank = text.count("(blank: medtune does not know this) ________")
    filled = re.search(r"known for (\d+) of (\d+) items", text)
    assert filled is not None
    assert int(filled[1]) + blank == int(filled[2]) == len(items)
    assert 0 < blank < len(items)
    assert known.report.dataset_hash in text
    assert "group=" not in text


def test_claim_s_partitions_and_ethics(known: Known) -> None:
    text = render_checklist(claim_2024.TITLE, claim_2024.SOURCE, claim_2024.ITEMS, known, "en")
    items = dict(re.findall(r"- \[ \] \*\*(\d+)\*\*[^\n]*\n((?:  - [^\n]*\n)+)", text))
    assert "whole groups, drawn by a hash (seed=0)" in items["19"]
    assert "test split 62" in items["19"]
    assert "patients" in items["20"]
    assert "someone/some-model" in items["22"]
    assert "100 resamples" in items["29"]
    for unknown in ("11", "13", "14", "33", "34", "44"):
        assert items[unknown].strip() == "- (blank: medtune does not know this) ________"


def test_splits_that_overlap_are_not_called_disjoint(known: Known) -> None:
    told = "Splits share no group"
    assert [text.template.startswith(told) for text in facts(known)["disjoint"]] == [True]
    shared = overlaps.shared_groups(3, 31)
    leaking = replace(known, report=known.report.model_copy(update={"alerts": (shared,)}))
    assert facts(leaking)["disjoint"] == [shared]
    item = (
        render_checklist(claim_2024.TITLE, claim_2024.SOURCE, claim_2024.ITEMS, leaking, "en").split("**20**")[1].split("**21**")[0]
    )
    assert told not in item
    assert "3 of the 31 evaluated groups are also in the training split" in item


def test_less_is_known_without_data_set_and_run(known: Known) -> None:
    bare = Known(known.report, None, None, {})
    assert "split" in facts(known)
    assert not {"split", "sizes", "model", "training"} & set(facts(bare))
    assert render_model_card(bare, "en").startswith("---\n")


def test_the_card_s_front_matter_invents_nothing(known: Known) -> None:
    head = front_matter(known)
    assert head == {
        "base_model": "someone/some-model",
        "library_name": "peft",
        "pipeline_tag": "image-text-to-text",
        "tags": ["medtune", "medical"],
    }
    card = render_model_card(known, "en")
    assert yaml.safe_load(card.split("---")[1]) == head
    local = Known(known.report, None, None, {"model": {"base": "/models/mine"}, "adapter": {"kind": "full"}})
    assert set(front_matter(local)) == {"pipeline_tag", "tags"}
    assert "/models/mine" not in json.dumps(front_matter(local))


def test_the_card_has_the_numbers_of_the_report(known: Known) -> None:
    card = render_model_card(known, "en")
    tuned = next(entry for entry in known.report.conditions if entry.label == "tuned")
    accuracy = next(entry for entry in tuned.measurements if entry.metric == "closed/accuracy" and entry.task is None)
    assert accuracy.value == 1
    row = next(line for line in card.splitlines() if line.startswith("| Accuracy"))
    assert f"| 1.000 ({accuracy.low:.3f} … {accuracy.high:.3f}) |" in row
    assert row.endswith("| 62 |")
    assert "better" in row
    assert "For research only" in card
    assert "Licence: ________" in card


def test_names_of_others_cannot_break_the_markdown(known: Known) -> None:
    hostile = Known(known.report.model_copy(update={"run": "a|b<script>\n# c"}), None, None, {})
    card = render_model_card(hostile, "en")
    assert "<script>" not in card
    assert "\n# c" not in card
    assert plain("a\n[b](c)") == "a \\[b\\](c)"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_all_files_are_written_in_the_language(known: Known, tmp_path: Path, language: str) -> None:
    folder = tmp_path / "run"
    write_report_files(known.report, folder, None, language)  # type: ignore[arg-type]
    for name in ("report.md", "claim_2024.md", "tripod_llm.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert ("的" in text) == (language == "zh")
    assert (folder / "report.html").is_file()
