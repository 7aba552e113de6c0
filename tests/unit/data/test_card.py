"""The data set card says what the manifest knows, in two languages, the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medtune.data.card import write_card
from medtune.language import msg
from medtune.types import Manifest, SourceCard, SourceRecord, TransformRecord


def manifest(**changes: Any) -> Manifest:
    rad = SourceCard(
        name="vqa-rad",
        title="VQA-RAD",
        licence="CC0-1.0",
        citation="Lau et al. 2018,\n# doi:10.1038/sdata.2018.251",
        url="https://osf.io/89kps/",
        group_kind="image",
        notes=("There are no patient ids: the pictures are teaching cases, and the picture is the smallest unit known.",),
    )
    mine = SourceCard(name="alpaca", title="My | questions", licence="CC-BY-4.0", citation="", group_kind="row")
    fields: dict[str, Any] = {
        "name": "two",
        "medtune_version": "0.0.1",
        "sources": (
            SourceRecord(
                card=rad, options={"path": "secret-folder", "revision": "abc123"}, num_samples=1200, left_out={"answer-empty": 3}
            ),
            SourceRecord(card=mine, options={"key_file": "keys.txt"}, num_samples=40),
        ),
        "split": {"kind": "group-hash", "seed": 7, "fractions": {"train": 0.8, "validation": 0.1, "test": 0.1}},
        "transforms": (TransformRecord(name="letterbox", parameters={"size": 448, "fill": 0}),),
        "num_samples": {"train": 1000, "validation": 140, "test": 100},
        "num_groups": {"train": 200, "validation": 30, "test": 20},
        "num_images": 250,
        "tasks": {"closed-vqa": 1100, "text-qa": 40, "mine": 100},
        "group_kind": "row",
        "synthetic": False,
        "local_only": False,
        "files": {"train.jsonl": "0" * 64},
        "warnings": (msg("{count} records were left out; left_out.jsonl says why.", count=3),),
    }
    return Manifest(**{**fields, **changes})


def card(folder: Path, *arguments: Any, **options: Any) -> tuple[dict[str, Any], str, str]:
    """(head, English body, Chinese body)."""
    write_card(folder, *arguments, **options)
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body, (folder / "README.zh-CN.md").read_text(encoding="utf-8")


def test_the_head_is_that_of_the_hub(tmp_path: Path) -> None:
    strata = {"language": {"zh": {"train": 40}, "en": {"train": 960, "test": 100}}}
    head, _, _ = card(tmp_path, manifest(), strata=strata)
    assert head == {
        "pretty_name": "two",
        "license": ["cc-by-4.0", "cc0-1.0"],
        "language": ["en", "zh"],
        "task_categories": ["question-answering", "visual-question-answering"],
        "size_categories": ["1K<n<10K"],
        "tags": ["medical", "radiology", "medtune"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{split}.jsonl"} for split in ("train", "validation", "test")],
            }
        ],
    }


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        (("CC-BY-4.0",), "cc-by-4.0"),
        (("not stated",), "unknown"),
        (("CC-BY-4.0", "not stated"), "other"),
        (("PhysioNet Credentialed Health Data License 1.5.0",), "other"),
    ],
)
def test_licences_in_the_hubs_terms(licences: tuple[str, ...], said: str, tmp_path: Path) -> None:
    first = manifest().sources[0]
    sources = tuple(first.model_copy(update={"card": first.card.model_copy(update={"licence": licence})}) for licence in licences)
    assert card(tmp_path, manifest(sources=sources))[0]["license"] == said


def test_what_a_reader_must_know(tmp_path: Path) -> None:
    strata = {"modality": {"CT": {"train": 600, "test": 60}, "DX": {"train": 400, "validation": 140, "test": 40}}}
    _, english, chinese = card(tmp_path, manifest(), strata=strata)
    for text in (
        "For research only. Not a medical device.",
        "No patient ids: a group is a row.",
        "| train | 1000 | 200 |",
        "| closed-vqa | 1100 |",
        "| CT | 600 | 0 | 60 |",
        "- licence: CC0-1.0",
        "- citation: Lau et al. 2018, # doi:10.1038/sdata.2018.251",
        "revision `abc123`",
        "(seed 7)",
        "| vqa-rad | answer-empty | 3 |",
        "the pictures are teaching cases",
        "| letterbox | fill=0, size=448 |",
        "dataset: two_train",
    ):
        assert text in english
    for text in ("仅供研究使用", "没有患者标识", "| train | 1000 | 200 |", "许可: CC0-1.0"):
        assert text in chinese
    assert "secret-folder" not in english + chinese
    assert "keys.txt" not in english + chinese
    assert "synthetic" not in english
    assert "Local only" not in english


def test_how_rows_came_into_their_split(tmp_path: Path) -> None:
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    _, english, _ = card(tmp_path, manifest(split={"kind": "official", "seed": 7, "fractions": shares}))
    assert "As the sources publish it." in english
    assert "they are 0.1 of the training groups" in english
    assert "train 0.8" not in english, "the shares decide nothing else"
    _, english, _ = card(tmp_path, manifest(split={"kind": "group-hash", "assigned": "list.csv", "fractions": shares}))
    assert "Groups that a list of the user names went where it says." in english


def test_synthetic_and_local_data_say_so(tmp_path: Path) -> None:
    head, english, chinese = card(tmp_path, manifest(synthetic=True, local_only=True, group_kind="patient"))
    assert "synthetic" in head["tags"]
    assert "The data are synthetic" in english
    assert "Local only" in english
    assert "仅限本机" in chinese
    assert "the rows of one patient are one group" in english


def test_the_same_manifest_gives_the_same_bytes_whatever_the_readers_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, language in ((first, "en"), (second, "zh")):
        folder.mkdir()
        monkeypatch.setenv("MEDTUNE_LANG", language)
        write_card(folder, manifest())
    for name in ("README.md", "README.zh-CN.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(("layout", "pattern"), [("parquet", "data/test-*.parquet"), ("webdataset", "test-*.tar")])
def test_an_export_says_how_it_is_read(layout: Any, pattern: str, tmp_path: Path) -> None:
    head, english, _ = card(tmp_path, manifest(), layout=layout)
    assert head["configs"][0]["data_files"][-1] == {"split": "test", "path": pattern}
    assert "load_dataset" in english
    assert "LLaMA-Factory" not in english
