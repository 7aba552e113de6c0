"""What each source does with its own oddities."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import source_files
from medtune.data.sources.alpaca import Alpaca
from medtune.data.sources.llamafactory import LlamaFactory
from medtune.data.sources.medtrinity import QUESTIONS, MedTrinity
from medtune.data.sources.medtrinity_brain import TASKS, MedTrinityBrain
from medtune.data.sources.rows import data_files, read_rows, split_of
from medtune.data.sources.vqa_rad import VqaRad
from medtune.errors import DataError
from medtune.types import Record

# ---------------------------------------------------------------------------------------------------------------- VQA-RAD


def test_vqa_rad_maps_a_record(tmp_path: Path) -> None:
    folder = source_files.write_vqa_rad(tmp_path / "rad", changes={1: {"qid_linked_id": "2"}})
    record = next(iter(VqaRad(path=folder).samples()))
    assert (record.id, record.task, record.target, record.group, record.split) == ("1", "closed-vqa", "Yes", "synpic0.jpg", None)
    assert record.metadata == {
        "answer_type": "closed",
        "image": "synpic0.jpg",
        "language": "en",
        "linked_id": "2",
        "organ": "HEAD",
        "phrase_type": "freeform",
        "question_type": "PRES",
    }


def test_vqa_rad_official_split(tmp_path: Path) -> None:
    folder = source_files.write_vqa_rad(tmp_path / "rad")
    assert Counter(record.split for record in VqaRad(path=folder, split="official").samples()) == {"train": 12, "test": 3}


def test_vqa_rad_notes_what_it_puts_right(tmp_path: Path) -> None:
    changes: dict[int, dict[str, Any]] = {
        1: {"answer": 4, "answer_type": "OPEN"},
        2: {"answer_type": "CLOSED "},
        11: {"answer": " yes"},
        12: {"question": "Is it? "},
    }
    folder = source_files.write_vqa_rad(tmp_path / "rad", changes=changes)
    records = {record.id: record for record in VqaRad(path=folder).samples()}
    assert (records["1"].target, records["1"].metadata["source_notes"]) == ("4", ["answer-not-text"])
    assert (records["2"].task, records["2"].metadata["source_notes"]) == ("closed-vqa", ["answer-type-blanks"])
    assert (records["11"].target, records["11"].metadata["source_notes"]) == ("yes", ["answer-blanks"])
    assert (records["12"].question, records["12"].metadata["source_notes"]) == ("Is it?", ["question-blanks"])
    assert "source_notes" not in records["21"].metadata


def test_vqa_rad_incomplete_record(tmp_path: Path) -> None:
    folder = source_files.write_vqa_rad(tmp_path / "rad", changes={1: {"question": None}})
    first = next(iter(VqaRad(path=folder).samples()))
    assert first.id == "1"
    assert first.fault is not None
    assert first.fault.reason == "key-missing"
    assert str(first.fault.file).endswith("trainset.json:1")


def test_vqa_rad_as_published(shared: Path) -> None:
    records = list(VqaRad(path=shared / "data" / "vqa-rad", split="official").samples())
    assert Counter(record.split for record in records) == {"train": 3064, "test": 451}
    notes = Counter(note for record in records for note in record.metadata.get("source_notes", []))  # type: ignore[union-attr]
    assert notes["answer-not-text"] == 10
    assert notes["answer-type-blanks"] == 2
    assert sum(record.task == "closed-vqa" for record in records if record.split == "test") == 272
    pictures = {split: {record.group for record in records if record.split == split} for split in ("train", "test")}
    assert len(pictures["test"]) == len(pictures["test"] & pictures["train"]) == 203


# ------------------------------------------------------------------------------------------------------------- MedTrinity


@pytest.mark.parametrize(
    ("options", "asked"), [({}, QUESTIONS["en"]), ({"language": "zh"}, QUESTIONS["zh"]), ({"question": "What?"}, "What?")]
)
def test_medtrinity_asks_one_question(tmp_path: Path, options: dict[str, str], asked: str) -> None:
    file = source_files.write_medtrinity(tmp_path / "train-00000-of-00010.parquet")
    records = list(MedTrinity(path=file, **options).samples())  # type: ignore[arg-type]
    assert len(records) == 3
    assert records[0].messages[0].content == "<image>" + asked
    assert records[0].messages[1].content == records[0].target
    assert records[0].split == "train"


def test_medtrinity_leaves_the_words_to_the_task(tmp_path: Path) -> None:
    file = source_files.write_medtrinity(tmp_path / "a.parquet")
    assert next(iter(MedTrinity(path=file, question="").samples())).messages == ()


def test_medtrinity_wrong_part(tmp_path: Path) -> None:
    file = source_files.write_parquet(tmp_path / "full.parquet", [{"file_name": "a.jpg", "caption": "x", "source": "bhx"}])
    with pytest.raises(DataError, match="captions without pictures") as caught:
        MedTrinity(path=file).parts()
    assert "25M_demo" in str(caught.value.remedy)


# ------------------------------------------------------------------------------------------------------------ six tasks


def brain(tmp_path: Path, **changes: str) -> dict[str, Record]:
    file = source_files.write_parquet(
        tmp_path / "train-0.parquet", source_files.brain_rows("u1", changes={f"<{name}>": text for name, text in changes.items()})
    )
    return {record.id.split("/")[1]: record for record in MedTrinityBrain(path=file).samples()}


def test_brain_has_six_tasks_of_one_picture(tmp_path: Path) -> None:
    records = brain(tmp_path)
    assert set(records) == set(TASKS.values())
    assert {record.group for record in records.values()} == {"u1"}
    assert {record.split for record in records.values()} == {"train"}
    assert not any("<" in record.target for record in records.values())


def test_brain_region_and_observation(tmp_path: Path) -> None:
    assert brain(tmp_path)["region"].target == (
        "Region features: A dense region, 4.1% of the area.\n\nClinical observation: It suggests a made-up bleed."
    )
    (tmp_path / "b").mkdir()
    assert brain(tmp_path / "b", REGION_OF_INTEREST="Only a region.")["region"].target == "Only a region."


def test_brain_json_record_is_json(tmp_path: Path) -> None:
    assert json.loads(brain(tmp_path)["json-record"].target)["observation"] == "it's dense"


@pytest.mark.parametrize(
    "payload", ["{'caption': ", "0", "[]", "{}", "__import__('os').getcwd()", "{'a': b'x'}", "{1: 2}", "(" * 5000, "{'a': 1e999}"]
)
def test_brain_json_record_that_does_not_parse_never_becomes_an_answer(tmp_path: Path, payload: str) -> None:
    record = brain(tmp_path, JSON_RECORD=payload)["json-record"]
    assert record.fault is not None
    assert record.fault.reason == "record-unparsed"
    assert record.target == ""


def test_brain_box_is_decoded_twice(tmp_path: Path) -> None:
    record = brain(tmp_path)["detection"]
    assert record.metadata["box"] == [10.5, 20.25, 30.5, 40.75]
    assert record.metadata["provenance"] == "pseudo-label"
    assert "source_notes" not in record.metadata


def test_brain_location_tokens_that_are_not_the_box(tmp_path: Path) -> None:
    payload = json.dumps({"bloc": "<loc_1><loc_2><loc_3><loc_4>", "bbox": "[10.5, 20.25, 30.5, 40.75]"})
    assert brain(tmp_path, DETECT_REGION_LOC=payload)["detection"].metadata["source_notes"] == ["location-tokens-differ"]


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "no json",
        "{}",
        '{"bbox": "[1, 2, 3]"}',
        '{"bbox": "[30, 2, 3, 4]"}',
        '{"bbox": "[NaN, 0, 1, 1]"}',
        '{"bbox": null}',
        "[1]",
    ],
)
def test_brain_box_that_does_not_parse(tmp_path: Path, payload: str) -> None:
    record = brain(tmp_path, DETECT_REGION_LOC=payload)["detection"]
    assert record.fault is not None
    assert record.fault.reason == "box-unparsed"


def test_brain_tag_of_another_task_and_unknown_tag(tmp_path: Path) -> None:
    rows = source_files.brain_rows("u1")[:2]
    rows[0]["text"], rows[1]["question"] = "<JSON_RECORD>{}", "<NO_SUCH>"
    records = list(MedTrinityBrain(path=source_files.write_parquet(tmp_path / "a.parquet", rows)).samples())
    assert [record.fault.reason for record in records if record.fault] == ["tag-mismatch", "unknown-task"]


# ----------------------------------------------------------------------------------------------------------------- Alpaca


def test_alpaca(tmp_path: Path) -> None:
    plain, with_system, with_history = Alpaca(path=source_files.write_alpaca(tmp_path / "qa.json")).samples()
    assert (plain.question, plain.messages, plain.task) == ("What is a made-up disease?", (), "text-qa")
    assert [m.content for m in with_system.messages] == ["You are a translator.", "Translate.\nheart", "心脏"]
    assert [m.content for m in with_history.messages] == ["Who?", "Nobody.", "Where?", "Nowhere.", "And then?", "Nothing."]


def test_alpaca_same_question_same_group(tmp_path: Path) -> None:
    rows = [{"instruction": "A?", "output": "1"}, {"instruction": "A?", "output": "2"}, {"instruction": "B?", "output": "3"}]
    file = source_files.write_json(tmp_path / "qa.json", rows)
    groups = [record.group for record in Alpaca(path=file).samples()]
    assert groups[0] == groups[1] != groups[2]


def test_alpaca_faults(tmp_path: Path) -> None:
    (tmp_path / "qa.jsonl").write_text(
        '{"instruction": "A?", "output": "1"}\n{"instr\n{"output": "1"}\n[1]\n{"instruction": "A?", "history": [["x"]]}\n'
    )
    reasons = [record.fault.reason if record.fault else None for record in Alpaca(path=tmp_path / "qa.jsonl").samples()]
    assert reasons == [None, "not-json", "question-empty", "not-an-object", "history"]


# ----------------------------------------------------------------------------------------------------------- LLaMA-Factory


@pytest.fixture
def info(tmp_path: Path) -> Path:
    return source_files.write_llamafactory(tmp_path / "data")


@pytest.mark.parametrize("dataset", ["gpt", "roles", "alpaca", "openai", "parquet", "arrow-stream", "arrow-file"])
def test_llamafactory_layouts_say_the_same(info: Path, dataset: str) -> None:
    record = next(iter(LlamaFactory(path=info, dataset=dataset).samples()))
    assert record.fault is None
    turns = [message for message in record.messages if message.role != "system"]
    assert [(message.role, message.content) for message in turns] == [("user", "<image>What is it?"), ("assistant", "Made up.")]
    assert len(record.pictures) == 1
    if record.pictures[0].path is not None:
        assert record.pictures[0].path.is_file()


def test_llamafactory_system_column_and_csv(info: Path) -> None:
    assert next(iter(LlamaFactory(path=info, dataset="gpt").samples())).messages[0].content == "Be brief."
    record = next(iter(LlamaFactory(path=info, dataset="csv").samples()))
    assert (record.question, record.target, record.pictures) == ("Who, me?", "Yes.", ())


def test_llamafactory_columns_left_out_are_not_there(info: Path) -> None:
    entries = json.loads((info / "dataset_info.json").read_text())
    del entries["gpt"]["columns"]["images"], entries["gpt"]["columns"]["system"]
    source_files.write_json(info / "dataset_info.json", entries)
    record = next(iter(LlamaFactory(path=info, dataset="gpt").samples()))
    assert record.pictures == ()
    assert [message.role for message in record.messages] == ["user", "assistant"]


def test_llamafactory_media_dir_unless_only_the_plain_path_is_a_file(
    info: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = LlamaFactory(path=info, dataset="roles", media_dir=tmp_path / "elsewhere")
    assert next(iter(source.samples())).pictures[0].path == tmp_path / "elsewhere" / "pictures" / "0.png"
    monkeypatch.chdir(info)
    assert next(iter(source.samples())).pictures[0].path == Path("pictures/0.png")


def test_openai_parts_bring_their_pictures_where_no_column_does(info: Path) -> None:
    inline = "data:image/png;base64," + base64.b64encode(source_files.png(5)).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": inline}},
        {"type": "image", "image": "pictures/1.png"},
        {"type": "text", "text": "Compare."},
    ]
    rows = [{"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Alike."}]}]
    rows.append(
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": "https://x.org/a.png"}, *parts[2:]]},
                rows[0]["messages"][1],
            ]
        }
    )
    source_files.write_json(info / "openai.json", rows)
    first, second = LlamaFactory(path=info, dataset="openai").samples()
    assert first.pictures[0].data == source_files.png(5)
    assert first.pictures[0].name == "openai-1#0", "not a megabyte of base64"
    assert first.pictures[1].path == info / "pictures" / "1.png"
    assert first.messages[0].content == "<image><image>Compare."
    assert second.fault is not None
    assert (second.fault.reason, "https://x.org/a.png" in str(second.fault.message)) == ("picture-missing", True)


def test_llamafactory_group_column(info: Path) -> None:
    source = LlamaFactory(path=info, dataset="roles", group_column="patient")
    assert [record.group for record in source.samples()] == ["p0", "p1"]
    assert source.card.group_kind == "patient"
    assert {
        record.fault.reason for record in LlamaFactory(path=info, dataset="roles", group_column="nobody").samples() if record.fault
    } == {"group-missing"}


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("rolls", "Did you mean roles"),
        ("ranked", "preference"),
        ("remote", "hf_hub_url"),
        ("tagless", "content_tag"),
        ("zzz", "There is no entry"),
    ],
)
def test_llamafactory_wrong_entries(info: Path, dataset: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        list(LlamaFactory(path=info, dataset=dataset).samples())
    assert str(caught.value.file).endswith("dataset_info.json")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (["gpt", "human"], "role-order"),
        (["human"], "role-order"),
        (["human", "gpt", "human"], "role-order"),
        (["human", "function_call", "observation", "gpt"], "tool-turns"),
        (["human", "robot"], "unknown-role"),
        ([], "messages-missing"),
    ],
)
def test_llamafactory_turns_at_fault(info: Path, turns: list[str], reason: str) -> None:
    source_files.write_json(info / "gpt.json", [{"conversations": [{"from": name, "value": "x"} for name in turns]}])
    fault = next(iter(LlamaFactory(path=info, dataset="gpt").samples())).fault
    assert fault is not None
    assert fault.reason == reason
    assert str(fault.file).endswith("gpt.json:1")


def test_llamafactory_several_pictures_and_num_samples(info: Path) -> None:
    row = {
        "conversations": [{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": 3}],
        "images": ["pictures/0.png", "pictures/1.png"],
    }
    source_files.write_json(info / "gpt.json", [row, row, row])
    entries = json.loads((info / "dataset_info.json").read_text())
    entries["gpt"]["num_samples"] = 2
    source_files.write_json(info / "dataset_info.json", entries)
    records = list(LlamaFactory(path=info, dataset="gpt").samples())
    assert len(records) == 2
    assert len(records[0].pictures) == 2
    assert (records[0].target, records[0].metadata["source_notes"]) == ("3", ["answer-not-text"])


# ------------------------------------------------------------------------------------------------------------------- files


def test_data_files(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in data_files(tmp_path, (".parquet",))] == ["a.parquet", "b.parquet"]
    assert [file.name for file in data_files(tmp_path / "b*.parquet", (".parquet",))] == ["b.parquet"]
    with pytest.raises(DataError, match="No data file"):
        data_files(tmp_path / "nobody", (".parquet",))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00010.parquet", "train"),
        ("val.json", "validation"),
        ("validation-0.parquet", "validation"),
        ("dev.json", "validation"),
        ("TEST_1.json", "test"),
        ("testimony.json", None),
        ("training.json", None),
        ("data.json", None),
    ],
)
def test_split_of_a_file_name(name: str, split: str | None) -> None:
    assert split_of(Path("train") / name) == split


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", b'[{"a": 1}', "not valid JSON"),
        ("a.json", b'{"a": 1}', "list of records"),
        ("a.json", b"\xff\xfe", "UTF-8"),
        ("a.jsonl", b"\xff\xfe\n", "UTF-8"),
        ("a.parquet", b"PAR1 not really", "damaged"),
        ("a.arrow", b"ARROW1 not really", "damaged"),
        ("a.arrow", b"xxxxxxxxxxxxx", "damaged"),
        ("a.csv", b'a,b\n"1,2\n', "not valid CSV"),
        ("a.txt", b"x", "not read"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        list(read_rows(tmp_path / name))
    assert caught.value.file == str(tmp_path / name)
    assert caught.value.remedy is not None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        list(read_rows(tmp_path / "a.json"))


def test_a_parquet_file_is_read_by_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtune.data.sources.columnar._BATCH_ROWS", 4)
    file = source_files.write_parquet(tmp_path / "a.parquet", [{"n": n} for n in range(10)])
    assert [(row.number, row.values["n"]) for row in read_rows(file)] == [(n + 1, n) for n in range(10)]
