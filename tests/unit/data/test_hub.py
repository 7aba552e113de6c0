"""Data files read from a hub: a server on this machine stands in for Hugging Face, a module for ModelScope."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import source_files
from fake_hub import OLD, REPO, FakeHub, fake_hub
from medtune.data.sources.chats import OpenAiChat
from medtune.data.sources.hub import HubAddress, hub_address, revision_of
from medtune.data.sources.medtrinity_brain import MedTrinityBrain
from medtune.data.sources.rows import data_files, parts_of, read_rows
from medtune.data.sources.table import Table
from medtune.data.sources.webdataset import WebDataset
from medtune.errors import DataError, MissingDependencyError

NEW = "f" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    shards = {
        f"data/train-0000{n}-of-00002.parquet": source_files.write_medtrinity(
            tmp_path / f"{n}.parquet", num_rows=3 + n
        ).read_bytes()
        for n in range(2)
    }
    table = source_files.write_table(tmp_path / "table")
    files = {
        **shards,
        "README.md": b"made up",
        "table/reports.csv": table.read_bytes(),
        **{f"table/{n}.png": source_files.png(n) for n in range(3)},
        "chats.jsonl": source_files.write_openai(tmp_path / "chats").read_bytes().splitlines()[1] + b"\n",
        "shards/a-000000.tar": source_files.write_shard(tmp_path / "a-000000.tar").read_bytes(),
    }
    old = {"data/train-00000-of-00002.parquet": shards["data/train-00000-of-00002.parquet"]}
    with fake_hub({NEW: files, OLD: old}, {"main": NEW, "refs/pr/1": OLD}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield running


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://a/b", HubAddress("hf", "a/b")),
        ("hf:/a/b/", HubAddress("hf", "a/b")),
        ("hf://datasets/a/b@v1/data/x.parquet", HubAddress("hf", "a/b", "v1", "data/x.parquet")),
        ("hf://a/b/data@v1", HubAddress("hf", "a/b", "v1", "data")),
        ("hf://a/b@refs%2Fpr%2F1/data", HubAddress("hf", "a/b", "refs/pr/1", "data")),
        ("hf://a/b@v1/x@2.parquet", HubAddress("hf", "a/b", "v1", "x@2.parquet")),
        ("modelscope://a/b", HubAddress("modelscope", "a/b")),
        ("hf/a/b", None),
        ("/data/hf:/a/b", None),
        ("hf://a", None),
        ("http://a/b", None),
    ],
)
def test_addresses(text: str, expected: HubAddress | None) -> None:
    assert hub_address(text) == hub_address(Path(text)) == expected


def test_any_source_reads_its_files_from_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    folder = source_files.write_brain(tmp_path / "brain", num_images=1)
    hub.commits[NEW] = {f"brain/{file.name}": file.read_bytes() for file in folder.iterdir()}
    records = list(MedTrinityBrain(path=Path(f"hf://{REPO}/brain")).samples())
    assert records == [
        dataclasses.replace(record, place=record.place.replace(str(folder), f"hf:/{REPO}@{NEW}/brain"))
        for record in MedTrinityBrain(path=folder).samples()
    ]
    assert hub.requests["revision main"] == 1


def test_commit_is_pinned_and_a_branch_that_moves_does_not_matter(hub: FakeHub) -> None:
    files = data_files(Path(f"hf://{REPO}/data"), (".parquet",))
    hub.branches["main"] = OLD
    assert all(f"@{NEW}/" in str(file) for file in files)
    assert sum(1 for file in files for _ in read_rows(file)) == 7
    assert data_files(Path(f"hf://{REPO}/data"), (".parquet",)) == files


@pytest.mark.usefixtures("hub")
def test_revision_is_named_on_the_card() -> None:
    table = Table(path=Path(f"hf://{REPO}@refs%2Fpr%2F1/data"), answer="caption")
    assert (table.card.revision, len(list(table.samples()))) == (OLD, 3)
    assert revision_of(Path(f"hf://{REPO}@{NEW}")) == NEW
    assert revision_of(Path("here.csv")) == ""


@pytest.mark.usefixtures("hub")
def test_parts_are_row_groups_and_give_what_the_whole_gives() -> None:
    source = Table(path=Path(f"hf://{REPO}/data/*.parquet"), answer="caption", group="id")
    parts = source.parts()
    assert len(parts) == 2
    assert [record for part in parts for record in source.samples_of(part)] == list(source.samples())
    assert [part.stop for part in parts_of(data_files(source.path, ()), rows_per_part=1)] == [3, 4]


def test_only_ranges_are_fetched(hub: FakeHub, tmp_path: Path) -> None:
    rows = [{"number": number, "bytes": random.Random(number).randbytes(500_000)} for number in range(20)]
    hub.commits[NEW]["data/big.parquet"] = source_files.write_parquet(tmp_path / "big.parquet", rows).read_bytes()
    file = Path(f"hf://{REPO}@{NEW}/data/big.parquet")
    assert [row.values["number"] for row in read_rows(file, columns=["number"])] == list(range(20))
    assert 0 < hub.sent < 4 * 2**20 < len(hub.commits[NEW]["data/big.parquet"])


def test_a_busy_hub_is_asked_again(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.busy = 2
    assert len(list(read_rows(Path(f"hf://{REPO}@{NEW}/data/train-00000-of-00002.parquet")))) == 3


@pytest.mark.usefixtures("hub")
def test_csv_with_pictures_beside_it_jsonl_and_shards() -> None:
    records = list(Table(path=Path(f"hf://{REPO}/table/reports.csv")).samples())
    assert [record.group for record in records] == ["1001", "1001", "1002"]  # public: kept as they are
    assert records[2].pictures[0].data == source_files.png(2)
    (chat,) = OpenAiChat(path=Path(f"hf://{REPO}/chats.jsonl")).samples()
    assert chat.fault is None
    shard = list(WebDataset(path=Path(f"hf://{REPO}/shards/a-{{000000..000000}}.tar")).samples())
    assert [record.target for record in shard] == ["Made up 0.", "Made up 1."]


def told(path: str) -> str:
    with pytest.raises(DataError) as caught:
        list(Table(path=Path(path), answer="caption").samples())
    return caught.value.render("en")


@pytest.mark.usefixtures("hub")
def test_what_is_not_there_is_told() -> None:
    assert "no revision v9" in told(f"hf://{REPO}@v9/data")
    assert "There is no data set nobody/nothing" in told("hf://nobody/nothing")
    assert "no such data file" in told(f"hf://{REPO}/nowhere")
    assert f"/datasets/{REPO}/tree/{NEW}" in told(f"hf://{REPO}/nowhere")


def test_a_gated_data_set_names_the_page(hub: FakeHub) -> None:
    hub.refuse = (403, "GatedRepo")
    text = told(f"hf://{REPO}@{NEW}/data")
    assert f"Accept them at {hub.endpoint}/datasets/{REPO}" in text


def test_offline_is_told_before_anything_is_asked(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert f"hf download --repo-type dataset {REPO}" in told(f"hf://{REPO}@{NEW}/data")
    assert not hub.requests


@pytest.mark.usefixtures("hub")
def test_no_hub_at_this_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "HF_ENDPOINT" in told(f"hf://{REPO}/data")


def test_modelscope_through_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source_files.write_medtrinity(tmp_path / "train.parquet")
    asked: list[Any] = []

    class HubApi:
        def get_dataset_files(self, repo_id: str, revision: str, recursive: bool, page_number: int, page_size: int) -> Any:
            asked.append((repo_id, revision, recursive, page_number))
            names = ["data", *(f"data/{n}.txt" for n in range(page_size)), "data/train.parquet"]
            entries = [{"Path": name, "Type": "tree" if name == "data" else "blob"} for name in names]
            return entries[(page_number - 1) * page_size : page_number * page_size]

    def dataset_file_download(dataset_id: str, file_path: str, revision: str) -> str:
        asked.append((dataset_id, file_path, revision))
        return str(tmp_path / "train.parquet")

    api, download, package = (types.ModuleType(f"modelscope{name}") for name in (".hub.api", ".hub.file_download", ""))
    hub = types.ModuleType("modelscope.hub")
    api.HubApi, download.dataset_file_download = HubApi, dataset_file_download  # type: ignore[attr-defined]
    package.hub, hub.api, hub.file_download = hub, api, download  # type: ignore[attr-defined]
    for module in (package, hub, api, download):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    source = Table(path=Path("modelscope://a/b@v2"), answer="caption")
    assert len(list(source.samples())) == 3
    assert asked == [
        ("a/b", "v2", True, 1),
        ("a/b", "v2", True, 2),
        ("a/b", "data/train.parquet", "v2"),
        ("a/b", "data/train.parquet", "v2"),
    ]


def test_modelscope_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(MissingDependencyError, match="modelscope"):
        list(Table(path=Path("modelscope://a/b")).samples())


@pytest.mark.usefixtures("hub")
def test_an_address_in_a_recipe_survives_json() -> None:
    options = json.loads(Table(path=Path(f"hf://{REPO}/data"), answer="caption").model_dump_json())
    assert len(list(Table(**options).samples())) == 7
