"""WebDataset shards, and files of conversations without a dataset_info.json."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

import source_files
from medtune.data.sources.archives import ArchiveError, ArchiveLimits
from medtune.data.sources.chats import OpenAiChat, ShareGpt
from medtune.data.sources.webdataset import WebDataset, shard_files
from medtune.errors import DataError
from medtune.types import PartedSource, Record

JPEG = source_files.jpeg(0)


def shard(path: Path, *members: tuple[str, bytes | dict[str, Any]]) -> Path:
    return source_files.write_shard(
        path, [(name, data if isinstance(data, bytes) else json.dumps(data).encode()) for name, data in members]
    )


def told(records: list[Record]) -> list[str]:
    return [record.fault.reason if record.fault else record.target for record in records]


def test_samples_of_shards_in_every_packing(tmp_path: Path) -> None:
    plain = source_files.write_shard(tmp_path / "in" / "a-0.tar").read_bytes()
    expected = list(WebDataset(path=tmp_path / "in", group_key="patient").samples())
    assert [(record.id, record.question, record.target, record.group) for record in expected] == [
        ("a-0/000000", "What is it?", "Made up 0.", "p0"),
        ("a-0/000001", "What is it?", "Made up 1.", "p1"),
    ]
    for suffix, data in ((".tar.gz", gzip.compress(plain)), (".tar.zst", zstandard.compress(plain))):
        (tmp_path / f"a-0{suffix}").write_bytes(data)
        found = list(WebDataset(path=tmp_path / f"a-0{suffix}", group_key="patient").samples())
        assert [(record.id, record.pictures) for record in found] == [(record.id, record.pictures) for record in expected]


def test_ranges_name_every_shard(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        source_files.write_shard(tmp_path / f"train-{number:06d}.tar", first=10 * number)
    pattern = tmp_path / "train-{000008..000010}.tar"
    assert [file.name for file in shard_files(pattern)] == [f"train-{number:06d}.tar" for number in (8, 9, 10)]
    source = WebDataset(path=pattern)
    assert isinstance(source, PartedSource)
    assert [record for part in source.parts() for record in source.samples_of(part)] == list(source.samples())
    assert {record.split for record in source.samples()} == {"train"}
    (tmp_path / "train-000009.tar").unlink()
    with pytest.raises(DataError):
        source.parts()
    with pytest.raises(DataError, match="names no shards"):
        WebDataset(path=tmp_path / "{000009..000001}.tar").parts()


def test_keys_of_a_sample(tmp_path: Path) -> None:
    file = shard(
        tmp_path / "s.tar",
        ("dir.v1/one.left.png", source_files.png(1)),
        ("dir.v1/one.right.PNG", source_files.png(2)),
        ("dir.v1/one.txt", b"ein Text "),
        ("dir.v1/one.seg.npy", b"passed over"),
        ("two.jpg", JPEG),
        ("two.cls", b"1\n"),
        ("three.jpg", JPEG),
        ("three.json", {"messages": [{"role": "user", "content": "<image>a?"}, {"role": "assistant", "content": "b"}], "age": 5}),
        ("._three.jpg", b"of a file system"),
    )
    one, two, three = WebDataset(path=file, classes=("normal", "bleed"), metadata_keys=("age",)).samples()
    assert [picture.name for picture in one.pictures] == ["s/dir.v1/one.left.png", "s/dir.v1/one.right.png"]
    assert (one.id, one.target, one.task, one.question) == ("s/dir.v1/one", "ein Text", "caption", "")
    assert two.target == "bleed"
    assert (three.task, three.target, len(three.messages), three.metadata) == ("conversation", "b", 2, {"age": 5})


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.json", {"answer": "x"})], "picture-missing"),
        ([("a.jpg", JPEG)], "answer-missing"),
        ([("a.jpg", JPEG), ("a.json", {"answer": ""})], "answer-missing"),
        ([("a.jpg", JPEG), ("a.json", b"{")], "not-json"),
        ([("a.jpg", JPEG), ("a.json", b"[" * 100_000)], "not-json"),
        ([("a.jpg", JPEG), ("a.json", b"[1]")], "not-an-object"),
        ([("a.jpg", JPEG), ("a.txt", b"\xff\xfe\xfd")], "not-text"),
        ([("a.jpg", JPEG), ("a.jpg", JPEG)], "sample-ambiguous"),
        ([("a.jpg", JPEG), ("a.cls", b"7")], "class-unknown"),
        ([("a.jpg", JPEG), ("a.json", {"messages": [{"role": "user", "content": "x"}]})], "role-order"),
    ],
)
def test_incomplete_samples_are_faults_and_the_next_is_read(tmp_path: Path, members: list[Any], reason: str) -> None:
    file = shard(tmp_path / "s.tar", *members, ("z.jpg", JPEG), ("z.txt", b"sound"))
    records = list(WebDataset(path=file, classes=("normal",)).samples())
    assert told(records) == [reason, "sound"]
    assert records[0].fault is not None
    assert str(records[0].fault.file).endswith("s.tar:a")


def test_scattered_samples_groups_and_hostile_members(tmp_path: Path) -> None:
    file = shard(tmp_path / "s.tar", ("a.jpg", JPEG), ("a.txt", b"1"), ("b.jpg", JPEG), ("b.txt", b"2"), ("a.cls", b"1"))
    assert told(list(WebDataset(path=file).samples())) == ["1", "2", "sample-scattered"]
    assert told(list(WebDataset(path=file, group_key="patient").samples()))[0] == "group-missing"
    file = shard(tmp_path / "h.tar", ("../a.jpg", JPEG), ("../a.txt", b"1"), ("b.jpg", JPEG), ("b.txt", b"2"))
    assert told(list(WebDataset(path=file).samples())) == ["archive-member", "archive-member", "2"]


def test_a_shard_cut_short_or_too_large_is_an_error(tmp_path: Path) -> None:
    file = source_files.write_shard(tmp_path / "s.tar")
    with pytest.raises(ArchiveError, match="more than 100"):
        list(WebDataset(path=file, limits=ArchiveLimits(max_total_bytes=100)).samples())
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ArchiveError, match=r"s\.tar"):
        list(WebDataset(path=file).samples())


# ------------------------------------------------------------------------------------------------------------------ chats


def test_llava_form(tmp_path: Path) -> None:
    file = source_files.write_sharegpt(tmp_path)
    first, second = ShareGpt(path=file).samples()
    assert (first.id, first.target, first.group) == ("row-0", "Made up 0.", "pictures/0.png")
    assert first.pictures[0].path == tmp_path / "pictures" / "0.png"
    assert [message.role for message in first.messages] == ["user", "assistant"]
    assert first.group != second.group
    moved = next(iter(ShareGpt(path=file, media_dir=tmp_path / "elsewhere").samples()))
    assert moved.pictures[0].path == tmp_path / "elsewhere" / "pictures" / "0.png"


def test_openai_form(tmp_path: Path) -> None:
    first, second = OpenAiChat(path=source_files.write_openai(tmp_path)).samples()
    assert [message.content for message in first.messages] == ["Be brief.", "What is it? <image>", "Made up."]
    assert first.pictures[0].path == tmp_path / "0.png"
    assert second.pictures[0].data == source_files.png(1)


def test_keys_and_roles_are_told_from_each_row(tmp_path: Path) -> None:
    turns = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    other = {"from": "user", "value": "a"}, {"from": "assistant", "value": "c"}
    tool = {"from": "human", "value": "a"}, {"from": "function_call", "value": "b"}
    rows = [
        {"conversations": turns, "system": "Be kind.", "patient": "p"},
        {"messages": other, "patient": "p"},
        {"conversations": tool, "patient": "p"},
        {"messages": turns, "videos": ["v.mp4"], "patient": "p"},
        {"text": "no turns", "patient": "p"},
        {"messages": turns},
    ]
    file = source_files.write_json(tmp_path / "train.json", rows)
    records = list(ShareGpt(path=file, group_column="patient").samples())
    assert told(records) == ["b", "c", "tool-turns", "videos-unsupported", "messages-missing", "group-missing"]
    assert records[0].messages[0].content == "Be kind."
    assert records[0].split == "train"
    assert ShareGpt(path=file, group_column="patient").card.group_kind == "patient"


def test_pictures_on_other_machines_are_not_fetched(tmp_path: Path) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert told(list(OpenAiChat(path=tmp_path / "a.jsonl").samples())) == ["picture-missing"]


def test_a_conversation_may_do_without_a_picture(tmp_path: Path) -> None:
    def chat(words: str, **more: Any) -> bytes:
        turns = [{"role": "user", "content": words}, {"role": "assistant", "content": "Made up."}]
        return json.dumps({"messages": turns, **more}).encode()

    members = [
        ("0.json", chat("What is it?")),
        ("1.json", chat("What is it?", images=[])),
        ("2.json", chat("And this?")),
        ("3.json", chat("<image>What is it?")),
        ("4.json", chat("What is it?", images=["4.jpg"])),
        ("5.json", json.dumps({"question": "What is it?", "answer": "Made up."}).encode()),
    ]
    records = list(WebDataset(path=source_files.write_shard(tmp_path / "a.tar", members)).samples())
    assert [record.fault.reason if record.fault else None for record in records] == [None] * 3 + ["picture-missing"] * 3
    assert records[0].group == records[1].group != records[2].group, "one question, one group"
    assert all(record.group for record in records[:3])
