"""Tables of one's own: encodings, delimiters, columns, pictures, pseudonyms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from pydantic import ValidationError

import source_files
from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset
from medtune.data.prepare import prepare
from medtune.data.sources.delimited import read_delimited
from medtune.data.sources.rows import metadata_value
from medtune.data.sources.table import Csv, Table
from medtune.errors import DataError
from medtune.imaging.read import open_picture
from medtune.types import PartedSource


def table(path: Path, **options: Any) -> Table:
    return Table(**{"path": path, "already_deidentified": True, **options})


def write(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.write_bytes(text.encode(encoding))
    return file


def test_columns_are_found_by_their_usual_names(tmp_path: Path) -> None:
    source = table(source_files.write_table(tmp_path))
    first, second, third = source.samples()
    assert (first.question, first.target, first.group, first.task) == ("这是什么？", "未见异常", "1001", "open-vqa")
    assert first.pictures[0].path == tmp_path / "0.png"
    assert first.group == second.group != third.group
    assert source.card.group_kind == "patient"
    assert isinstance(source, PartedSource)


def test_groups_and_ids_are_pseudonyms_unless_deidentified(tmp_path: Path) -> None:
    file = source_files.write_table(tmp_path / "data")
    records = list(Csv(path=file, key_file=tmp_path / "key", id="病历号").samples())
    shown = repr([(record.id, record.group, record.metadata, [picture.name for picture in record.pictures]) for record in records])
    assert "1001" not in shown
    assert records[0].group == records[1].group != records[2].group
    assert list(Csv(path=file, key_file=tmp_path / "key", id="病历号").samples()) == records
    other = list(Csv(path=file, key_file=tmp_path / "other").samples())
    assert other[0].group != records[0].group
    with pytest.raises(DataError, match="key lies inside"):
        list(Csv(path=file, key_file=tmp_path / "data" / "key").samples())


def test_what_is_wrong_with_a_picture_is_told_by_its_row_and_not_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    source_files.write_table(folder)
    (folder / "mueller-bernd.png").write_bytes(b"no picture")
    rows = "image,answer,patient_id\n0.png,x,1001\nmueller-anna.png,y,1002\nmueller-bernd.png,z,1003\n"
    file = write(folder / "a.csv", rows)
    options = {"path": str(file), "key_file": str(tmp_path / "key")}
    prepare(DataSettings.model_validate({"sources": [{"source": "csv", "options": options}]}), name="t", folder=tmp_path / "out")
    assert [(entry.reason, entry.file) for entry in Dataset.open(tmp_path / "out").left_out()] == [
        ("unreadable-image", f"{file}:2"),
        ("unreadable-image", f"{file}:3"),
    ]
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or b"mueller" not in path.read_bytes(), path


def test_without_a_group_column_the_picture_is_the_group(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "image,answer\nmueller-anna.png,x\nmueller-anna.png,y\nb.png,z\n")
    source = Csv(path=file, key_file=tmp_path.parent / f"{tmp_path.name}.key")
    groups = [record.group for record in source.samples()]
    assert groups[0] == groups[1] != groups[2]
    assert "anna" not in "".join(groups)
    assert source.card.group_kind == "image"
    assert source.card.notes


@pytest.mark.parametrize(("column", "kind"), [("study", "study"), ("Volume", "volume"), ("Patient ID", "patient")])
def test_the_kind_of_group_follows_the_column(tmp_path: Path, column: str, kind: str) -> None:
    assert table(write(tmp_path / "a.csv", f"{column},answer\n1,x\n")).card.group_kind == kind
    assert table(write(tmp_path / "a.csv", f"{column},answer\n1,x\n"), group_kind="study").card.group_kind == "study"


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiter_and_byte_order_mark_are_found(tmp_path: Path, delimiter: str, encoding: str) -> None:
    file = source_files.write_table(tmp_path, encoding=encoding, delimiter=delimiter)
    assert [record.target for record in table(file).samples()] == ["未见异常", "左侧出血", "右侧占位"]


def test_gb18030_is_named_and_read_when_asked_for(tmp_path: Path) -> None:
    file = source_files.write_table(tmp_path, encoding="gb18030")
    with pytest.raises(DataError) as caught:
        list(table(file).samples())
    assert "gb18030" in caught.value.render("en")
    assert caught.value.key == "data.sources.options.encoding"
    assert next(iter(table(file, encoding="gb18030").samples())).target == "未见异常"
    with pytest.raises(ValidationError, match="no encoding"):
        table(file, encoding="utf-9")


def test_utf16_without_its_mark_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(read_delimited(write(tmp_path / "a.csv", "图,a\n", "utf-16-le")))
    assert "UTF-16" in caught.value.render("en")


def test_rows_of_another_length_are_faults_and_the_rest_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 'question,answer\na,"b, b"\na,b,c\na\n\nq,"two\nlines"\n')
    records = list(table(file).samples())
    assert [record.fault.reason if record.fault else record.target for record in records] == [
        "b, b",
        "field-count",
        "field-count",
        "two\nlines",
    ]
    assert str(records[1].fault and records[1].fault.file).endswith("a.csv:2")


@pytest.mark.parametrize("text", ["", "a,a\n1,2\n", 'question,answer\na,"b\n', 'question,answer\na,"b"c\n'])
def test_what_is_no_table_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError):
        list(table(write(tmp_path / "a.csv", text)).samples())


def test_a_text_of_a_million_characters_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", f"question,answer\na,{'x' * 1_000_000}\nb,c\n")
    assert [len(str(row.values["answer"])) for row in read_delimited(file)] == [1_000_000, 1]


def test_an_open_quote_is_told_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", 'question,answer\na,b\nc,"d\n')
    with pytest.raises(DataError, match="not valid CSV, in line 3 or before") as caught:
        list(read_delimited(file))
    assert (caught.value.file, "close every quote" in str(caught.value.remedy)) == (str(file), True)


def test_an_option_that_names_no_column_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "question,answer,patient\na,b,c\n")
    with pytest.raises(DataError) as caught:
        list(table(file, group="patiemt").samples())
    assert caught.value.key == "data.sources.options.group"
    assert "Did you mean patient?" in caught.value.render("en")
    with pytest.raises(DataError, match=r"options\.answer"):
        list(table(write(tmp_path / "b.csv", "a,b\n1,2\n")).samples())
    with pytest.raises(DataError, match=r"options\.metadata\.organ"):
        list(table(file, metadata={"organ": "zzz"}).samples())


def test_several_pictures_metadata_split_and_task(tmp_path: Path) -> None:
    text = "image,report,Subset,m,t\na.png; b.png ,x,Training,CT,caption\n,y,val,,\nc.png,z,elsewhere,,\n"
    first, second, third = table(write(tmp_path / "a.csv", text), metadata={"modality": "m"}, task_column="t").samples()
    assert [picture.path for picture in first.pictures] == [tmp_path / "a.png", tmp_path / "b.png"]
    assert (first.pictures[0].modality, first.metadata, first.split, first.task) == ("CT", {"modality": "CT"}, "train", "caption")
    assert second.fault is not None
    assert second.fault.reason == "picture-missing"
    assert (third.split, third.task, third.metadata) == (None, "report", {})


def test_windows_paths(tmp_path: Path) -> None:
    (record,) = table(write(tmp_path / "a.csv", "image,report\nfolder\\a.png,x\n")).samples()
    assert record.pictures[0].path == tmp_path / "folder" / "a.png"


def test_tables_of_one_name_in_folders_called_after_patients(tmp_path: Path) -> None:
    for name in ("mueller-anna", "schmidt-paul"):
        (tmp_path / "data" / name).mkdir(parents=True)
        write(tmp_path / "data" / name / "reports.csv", "image,report\na.png,x\n")
    records = list(Csv(path=tmp_path / "data", key_file=tmp_path / "key").samples())
    assert len({record.id for record in records}) == len({record.group for record in records}) == 2
    assert "anna" not in "".join(record.id + record.group for record in records)
    kept = list(table(tmp_path / "data").samples())
    assert [record.id for record in kept] == ["mueller-anna/reports-1", "schmidt-paul/reports-1"]
    assert [record.id for record in table(tmp_path / "data" / "*" / "reports.csv").samples()] == [record.id for record in kept]


def test_empty_cells(tmp_path: Path) -> None:
    text = "patient,question,answer\n,a,b\np,,b\np,a,\n"
    records = list(table(write(tmp_path / "a.csv", text)).samples())
    assert [record.fault.reason if record.fault else "" for record in records] == ["group-missing", "question-empty", ""]


def test_dicom_files_are_pictures(tmp_path: Path) -> None:
    dicom = Path(str(pydicom.data.get_testdata_file("CT_small.dcm", download=False)))
    (tmp_path / "scan.dcm").write_bytes(dicom.read_bytes())
    (record,) = table(write(tmp_path / "a.csv", "dicom,report\nscan.dcm,Made up.\n")).samples()
    assert open_picture(record.pictures[0].path or Path(), name="scan").size == (128, 128)


def test_parquet_in_parts_and_other_kinds(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": source_files.png(n), "path": None}, "caption": f"c{n}", "id": n} for n in range(5)]
    source_files.write_parquet(tmp_path / "train.parquet", rows)
    source_files.write_json(tmp_path / "test.json", [{"image": "a.png", "caption": ["no text"]}])
    source = table(tmp_path, id="id")
    with pytest.raises(DataError, match=r"options\.id"):
        list(source.samples())
    records = list(table(tmp_path).samples())
    assert [record.split for record in records] == [None, *["train"] * 5]
    assert records[0].fault is not None
    assert [record.id for record in records[1:]] == [f"train-{n}" for n in range(1, 6)]
    parts = table(tmp_path).parts()
    assert [record for part in parts for record in table(tmp_path).samples_of(part)] == records


def test_csv_reads_no_other_kind_from_a_folder(tmp_path: Path) -> None:
    source_files.write_json(tmp_path / "x.json", [])
    write(tmp_path / "notes.txt", "not a table")
    with pytest.raises(DataError, match=r"\.tsv"):
        list(Csv(path=tmp_path).samples())
    assert len(list(table(write(tmp_path / "t.txt", "answer\tquestion\na\tb\n")).samples())) == 1


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_boxes_areas_and_normals_are_no_texts(tmp_path: Path, name: str) -> None:
    (tmp_path / "0.png").write_bytes(source_files.png())
    typed = {"image": "0.png", "answer": "A spot.", "where": [1, 2.5, 8, 9], "share": 4.1, "sound": False}
    if name == "a.csv":
        write(tmp_path / name, 'image,answer,where,share,sound\n0.png,A spot.,"[1, 2.5, 8, 9]",4.1 %,False\n')
    elif name == "a.jsonl":
        write(tmp_path / name, json.dumps(typed) + "\n")
    else:
        source_files.write_parquet(tmp_path / name, [{**typed, "where": [1.0, 2.5, 8.0, 9.0]}])
    columns = {"box": "where", "area_percent": "share", "normal": "sound"}
    (record,) = table(tmp_path / name, metadata=columns).samples()
    assert record.metadata == {"box": [1.0, 2.5, 8.0, 9.0], "area_percent": 4.1, "normal": False}


@pytest.mark.parametrize("text", ["12 30 60 90", "12;30;60;90", "(12, 30, 60, 90)", "[12,30,60,90]"])
def test_a_box_written_in_other_ways(text: str) -> None:
    assert metadata_value("box", text) == [12.0, 30.0, 60.0, 90.0]


@pytest.mark.parametrize("text", ["12 30 60", "left", "[1, 2, 3, nan]", ""])
def test_what_is_no_box_stays_text(text: str) -> None:
    assert metadata_value("box", text) == text
