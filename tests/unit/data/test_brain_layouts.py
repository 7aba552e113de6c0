"""The layouts of the brain sets, and the convention of their location tokens. All rows are made up."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

import source_files
from medtune.data.sources.brain_payloads import json_record
from medtune.data.sources.medtrinity_brain import TASKS, MedTrinityBrain
from medtune.data.sources.rows import RecordFault
from medtune.types import Record, RemarkingSource

SIZE = 512
BOXES = [(40.25, 60.5, 200.75, 180.0), (300.0, 310.5, 480.25, 505.5), (10.0, 20.0, 500.5, 90.25)]


def detections(file: Path, tokens: list[tuple[int, ...]], *, with_box: list[bool] | None = None) -> dict[str, Record]:
    rows: list[dict[str, Any]] = []
    for number, (box, location) in enumerate(zip(BOXES, tokens, strict=True)):
        payload = {"bloc": "".join(f"<loc_{token}>" for token in location)}
        if with_box is None or with_box[number]:
            payload["bbox"] = json.dumps(box)
        image = {"bytes": source_files.jpeg(number, (SIZE, SIZE)), "path": None}
        text = "<DETECT_REGION_LOC>" + json.dumps(payload)
        rows.append({"image": image, "id": f"u{number}", "text": text, "question": "<DETECT_REGION_LOC>", "notes": ""})
    source_files.write_parquet(file, rows)
    return {record.id: record for record in MedTrinityBrain(path=file).samples()}


def pixels(box: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(-(-edge // 1)) for edge in box)


def bins(box: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(min(int(edge / SIZE * 1000), 999) for edge in box)


@pytest.mark.parametrize(("write", "kind"), [(pixels, "pixels"), (bins, "0-1000")])
def test_the_convention_is_measured(tmp_path: Path, write: Any, kind: str) -> None:
    records = detections(tmp_path / "train.parquet", [write(box) for box in BOXES])
    assert not any("source_notes" in record.metadata for record in records.values())
    source = MedTrinityBrain(path=tmp_path)
    assert isinstance(source, RemarkingSource)
    (remark,) = source.remarks()
    assert f"{kind}, xyxy" in str(remark)
    assert "100.0 % of 3 boxes" in str(remark)


@pytest.mark.parametrize("write", [pixels, bins])
def test_a_row_that_differs_is_noted_and_keeps_its_box(tmp_path: Path, write: Any) -> None:
    wrong = [write(BOXES[0]), write(BOXES[1]), write((100.0, 200.0, 300.0, 400.0))]
    records = detections(tmp_path / "train.parquet", wrong)
    assert records["u2/detection"].metadata["box"] == list(BOXES[2])
    assert [record.metadata.get("source_notes") for record in records.values()] == [None, None, ["location-tokens-differ"]]


@pytest.mark.parametrize("write", [pixels, bins])
def test_tokens_stand_in_for_a_missing_box(tmp_path: Path, write: Any) -> None:
    records = detections(tmp_path / "train.parquet", [write(box) for box in BOXES], with_box=[True, True, False])
    last = records["u2/detection"].metadata
    assert last["box"] == pytest.approx(BOXES[2], abs=1.0)
    assert (last["source_notes"], last["provenance"]) == (["box-from-location-tokens"], "pseudo-label")


def test_nothing_is_guessed_from_tokens_alone(tmp_path: Path) -> None:
    records = detections(tmp_path / "a.parquet", [(1, 2, 30, 40)] * 3, with_box=[False] * 3)
    assert {record.fault.reason for record in records.values() if record.fault} == {"box-unparsed"}
    assert len(records) == 3
    assert "could not be measured" in str(MedTrinityBrain(path=tmp_path).remarks()[0])


def test_a_changed_file_is_measured_anew(tmp_path: Path) -> None:
    detections(tmp_path / "a.parquet", [pixels(box) for box in BOXES])
    assert "pixels" in str(MedTrinityBrain(path=tmp_path).remarks()[0])
    detections(tmp_path / "a.parquet", [bins(box) for box in BOXES])
    assert "0-1000" in str(MedTrinityBrain(path=tmp_path).remarks()[0])


def test_a_shard_without_boxes_says_so(tmp_path: Path) -> None:
    source_files.write_parquet(tmp_path / "a.parquet", source_files.brain_rows("u1")[:2])
    assert "no location tokens" in str(MedTrinityBrain(path=tmp_path).remarks()[0])


def test_without_a_question_column_the_tag_says_the_task(tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("image", "id", "text")} for row in source_files.brain_rows("u1")]
    rows.append({**rows[0], "id": "u2", "text": "A made-up slice without a tag."})
    records = list(MedTrinityBrain(path=source_files.write_parquet(tmp_path / "a.parquet", rows)).samples())
    assert [record.task for record in records] == [*TASKS.values(), "caption"]
    assert not any(record.fault for record in records)


def test_one_row_a_picture_with_a_column_for_each_task(tmp_path: Path) -> None:
    long = source_files.brain_rows("u1")
    columns = {row["question"][1:-1].lower(): row["text"].removeprefix(row["question"]) for row in long}
    wide = {"image": long[0]["image"], "id": "u1", **columns}
    first = list(MedTrinityBrain(path=source_files.write_parquet(tmp_path / "long.parquet", long)).samples())
    second = list(MedTrinityBrain(path=source_files.write_parquet(tmp_path / "wide.parquet", [wide])).samples())
    assert [(r.id, r.task, r.target, r.metadata) for r in second] == [(r.id, r.task, r.target, r.metadata) for r in first]


def test_other_columns_are_a_fault(tmp_path: Path) -> None:
    (record,) = MedTrinityBrain(path=source_files.write_parquet(tmp_path / "a.parquet", [{"id": "u1", "words": "x"}])).samples()
    assert record.fault is not None
    assert record.fault.reason == "unknown-task"


@pytest.mark.parametrize(
    "payload",
    [
        "{'a': " + "[" * 150 + "]" * 150 + "}",
        "{'a': " + "-" * 60_000 + "1}",
        "{'a': " + "- " * 30_000 + "1}",
        "{'a': '" + "x" * 70_000 + "'}",
        "{'a': " + "1+" * 10_000 + "1j}",
        "{'a': " + "9" * 5_000 + "}",
    ],
)
def test_a_hostile_dict_is_refused(payload: str) -> None:
    with pytest.raises(RecordFault) as caught:
        json_record(payload)
    assert caught.value.fault.reason == "record-unparsed"


def test_a_dict_in_a_dict_is_read() -> None:
    assert json.loads(json_record("{'a': {'b': [1, -2.5, None, True]}, 'c': \"it's\"}")) == {
        "a": {"b": [1, -2.5, None, True]},
        "c": "it's",
    }


def test_slices_of_a_volume_stay_together(tmp_path: Path) -> None:
    """Six rows a picture; ids are UUIDs that tell when they were made, pictures of one volume look alike."""
    rows: list[dict[str, Any]] = []
    expected: dict[str, int] = {}
    for number in range(6):
        identity = str(uuid.UUID(fields=(0xE0000000 + 300_000 * number, 0x11EE, 0x11EE, 0x80, 0, 5)))
        expected[identity] = number // 3
        rows += source_files.brain_rows(identity, seed=number // 3)
    source_files.write_parquet(tmp_path / "train-0.parquet", rows[:24])
    source_files.write_parquet(tmp_path / "test-0.parquet", [*rows[24:], *source_files.brain_rows("no-uuid", seed=0)])
    source = MedTrinityBrain(path=tmp_path, volume_heuristic="uuid-time")
    assert source.card.group_kind == "volume"
    groups: dict[str, set[str]] = {}
    for record in source.samples():
        groups.setdefault(record.group, set()).add(record.id.partition("/")[0])
        assert record.metadata.get("volume") == (None if record.group == "no-uuid" else record.group)
    volumes = [{identity for identity, volume in expected.items() if volume == number} for number in range(2)]
    assert sorted(groups.values(), key=sorted) == sorted([{"no-uuid"}, *volumes], key=sorted)
    alone = {record.group for record in MedTrinityBrain(path=tmp_path).samples()}
    assert alone == {*expected, "no-uuid"}
