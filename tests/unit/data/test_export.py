"""A data set in the forms of other tools: complete, deterministic, readable again."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset
from medtune.data.export.export import EXPORT_FORMATS, ExportFormat, export_dataset
from medtune.data.prepare import prepare
from medtune.data.sources.llamafactory import LlamaFactory
from medtune.data.sources.webdataset import WebDataset
from medtune.errors import DataError
from medtune.types import Record, Sample


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Text rows before rows with pictures, in three splits."""
    folder = tmp_path_factory.mktemp("mixed")
    text = [{"instruction": f"What is {n} plus {n}?", "input": "", "output": f"It is {2 * n}。"} for n in range(30)]
    (folder / "text.json").write_text(json.dumps(text))
    settings = DataSettings.model_validate(
        {
            "sources": [
                {"source": "alpaca", "options": {"path": str(folder / "text.json"), "licence": "CC0-1.0"}},
                {"source": "phantom", "options": {"num_patients": 12, "image_size": 48, "slices_per_patient": 1}},
            ],
        }
    )
    prepare(settings, name="mixed", folder=folder / "mixed")
    return Dataset.open(folder / "mixed")


def samples(dataset: Dataset) -> dict[str, Sample]:
    return {sample.id: sample for split in dataset.splits for sample in dataset.rows(split)}


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder with the sha256 of its bytes."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("to", EXPORT_FORMATS)
def test_the_same_rows_give_the_same_bytes(dataset: Dataset, to: ExportFormat, tmp_path: Path) -> None:
    exported = export_dataset(dataset, tmp_path / "first", to, max_shard_bytes=60_000)
    export_dataset(dataset, tmp_path / "second", to, max_shard_bytes=60_000)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    assert exported.num_rows == {split: dataset.manifest.num_samples[split] for split in dataset.splits}
    assert "README.md" in contents(tmp_path / "first")


@pytest.mark.parametrize("to", EXPORT_FORMATS)
def test_whole_or_not_at_all(dataset: Dataset, to: ExportFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "note").touch()
    with pytest.raises(DataError, match="exists already"):
        export_dataset(dataset, tmp_path / "used", to)
    monkeypatch.setattr(Dataset, "picture", lambda *_: b"another picture")
    with pytest.raises(DataError, match="sha256") as caught:
        export_dataset(dataset, tmp_path / "new", to)
    assert caught.value.sample
    assert sorted(path.name for path in tmp_path.iterdir()) == ["used"]


def read_back(source: LlamaFactory, found: dict[str, Record]) -> None:
    for record in source.samples():
        assert record.fault is None
        found[record.id] = record


def assert_same(dataset: Dataset, found: dict[str, Record]) -> None:
    wanted = samples(dataset)
    assert found.keys() == wanted.keys()
    for name, record in found.items():
        sample = wanted[name]
        assert record.messages == sample.messages
        assert record.target == sample.target
        assert record.group == sample.group
        pictures = [picture.data or (picture.path or Path()).read_bytes() for picture in record.pictures]
        assert [digest(picture) for picture in pictures] == [ref.sha256 for ref in sample.images]


def test_llamafactory_is_read_again(dataset: Dataset, tmp_path: Path) -> None:
    export_dataset(dataset, tmp_path / "out", "llamafactory")
    entries = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert list(entries) == [f"mixed_{split}" for split in dataset.splits]
    found: dict[str, Record] = {}
    for entry in entries:
        read_back(LlamaFactory(path=tmp_path / "out", dataset=entry, group_column="group"), found)
    assert_same(dataset, found)


def test_llamafactory_rows_with_pictures_stand_first(dataset: Dataset, tmp_path: Path) -> None:
    """Else Hugging Face's reader takes 10 MiB of empty lists for a column of null."""
    with_pictures = [bool(sample.images) for sample in dataset.rows("train")]
    assert with_pictures[0] is False
    export_dataset(dataset, tmp_path / "out", "llamafactory")
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert [bool(row["images"]) for row in rows] == sorted(with_pictures, reverse=True)
    inside = [row["id"] for row in rows if not row["images"]]
    assert inside == [sample.id for sample in dataset.rows("train") if not sample.images]


def test_parquet_is_read_again(dataset: Dataset, tmp_path: Path) -> None:
    export_dataset(dataset, tmp_path / "out", "parquet", max_shard_bytes=20_000)
    files = sorted((tmp_path / "out" / "data").iterdir())
    shards = [file for file in files if file.name.startswith("train-")]
    assert len(shards) > 2
    assert [file.name for file in shards] == [f"train-{index:05d}-of-{len(shards):05d}.parquet" for index in range(len(shards))]
    columns = {"messages": "messages", "images": "images"}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
    entries = {
        file.stem: {"file_name": f"data/{file.name}", "formatting": "sharegpt", "columns": columns, "tags": tags} for file in files
    }
    (tmp_path / "out" / "dataset_info.json").write_text(json.dumps(entries))
    found: dict[str, Record] = {}
    for entry in entries:
        read_back(LlamaFactory(path=tmp_path / "out", dataset=entry, group_column="group"), found)
    assert_same(dataset, found)


def test_parquet_opens_as_hugging_face_data_set(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets: Any = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    export_dataset(dataset, tmp_path / "out", "parquet", max_shard_bytes=20_000)
    table = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    wanted = list(dataset.rows("train"))
    assert table["id"][:] == [sample.id for sample in wanted]
    assert isinstance(table.features["images"].feature, datasets.Image)
    index = next(index for index, sample in enumerate(wanted) if sample.images)
    row = table[index]
    assert row["messages"] == [message.model_dump() for message in wanted[index].messages]
    assert isinstance(row["images"][0], Image.Image)
    assert row["images"][0].size == (48, 48)
    assert json.loads(row["metadata"]) == wanted[index].metadata


def test_row_groups_are_small(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtune.data.export.parquet._GROUP_BYTES", 8_000)
    export_dataset(dataset, tmp_path / "out", "parquet")
    (file,) = (tmp_path / "out" / "data").glob("train-*")
    metadata = pq.ParquetFile(file).metadata
    assert metadata.num_row_groups > 3
    assert metadata.num_rows == dataset.manifest.num_samples["train"]


def test_webdataset_shards(dataset: Dataset, tmp_path: Path) -> None:
    export_dataset(dataset, tmp_path / "out", "webdataset", max_shard_bytes=50_000)
    shards = sorted((tmp_path / "out").glob("train-*.tar"))
    assert len(shards) > 2
    assert [shard.name for shard in shards] == [f"train-{index:06d}.tar" for index in range(len(shards))]
    assert all(shard.stat().st_size <= 50_000 for shard in shards)
    wanted = list(dataset.rows("train"))
    found = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            members = {member.name: member for member in tar}
            assert all((member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644) for member in members.values())
            for name in members:
                if not name.endswith(".json"):
                    continue
                row = json.loads((tar.extractfile(name) or BytesIO()).read())
                sample = wanted[int(name.removesuffix(".json"))]
                assert (row["id"], row["target"], json.loads(row["metadata"])) == (sample.id, sample.target, sample.metadata)
                pictures = [(tar.extractfile(picture) or BytesIO()).read() for picture in row["images"]]
                assert [digest(picture) for picture in pictures] == [ref.sha256 for ref in sample.images]
                assert all(picture.split(".")[0] == name.split(".")[0] for picture in row["images"])
                found.append(row["id"])
    assert found == [sample.id for sample in wanted]


def test_webdataset_is_read_again(dataset: Dataset, tmp_path: Path) -> None:
    """Rows with and without pictures."""
    export_dataset(dataset, tmp_path / "out", "webdataset", max_shard_bytes=50_000)
    found: Counter[int] = Counter()
    for split in dataset.splits:
        records = WebDataset(path=tmp_path / "out" / f"{split}-*.tar", group_key="group").samples()
        for sample, record in zip(dataset.rows(split), records, strict=True):
            assert record.fault is None
            assert (record.messages, record.target, record.group) == (sample.messages, sample.target, sample.group)
            assert (record.task, record.split) == (sample.task, split)
            assert [digest(picture.data or b"") for picture in record.pictures] == [ref.sha256 for ref in sample.images]
            found[len(sample.images)] += 1
    assert found[0] > 3
    assert found[1] > 10


def test_pictures_may_lie_in_shards(dataset: Dataset, tmp_path: Path) -> None:
    """A data set whose pictures have no files of their own becomes one whose pictures have."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    places: dict[str, dict[str, Any]] = {}
    with (folder / "pictures.bin").open("wb") as shard:
        for path in sorted(dataset.images):
            content = (dataset.folder / path).read_bytes()
            places[path] = {"file": "pictures.bin", "offset": shard.tell(), "num_bytes": len(content)}
            shard.write(content)
    for file in dataset.folder.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    lines = [json.loads(line) for line in (dataset.folder / "images.jsonl").read_text().splitlines()]
    (folder / "images.jsonl").write_text("".join(json.dumps({**line, "shard": places[line["path"]]}) + "\n" for line in lines))
    export_dataset(Dataset.open(folder), tmp_path / "out", "llamafactory")
    export_dataset(dataset, tmp_path / "same", "llamafactory")
    assert contents(tmp_path / "out") == contents(tmp_path / "same")
