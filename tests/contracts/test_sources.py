"""What every registered dataset source keeps. Files are synthetic, in the layout of the data set."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import dicom_files
import source_files
from medtune import plugins
from medtune.imaging.read import open_picture
from medtune.types import DatasetSource, PartedSource, Record

OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "phantom": lambda _: {"num_patients": 3},
    "phantom-general": lambda _: {"num_pictures": 3},
    "vqa-rad": lambda folder: {"path": str(source_files.write_vqa_rad(folder / "rad"))},
    "slake": lambda folder: {"path": str(source_files.write_slake(folder / "slake")), "language": "both"},
    "path-vqa": lambda folder: {"path": str(source_files.write_bare_questions(folder / "path"))},
    "medtrinity": lambda folder: {"path": str(source_files.write_medtrinity(folder / "train-00000-of-00010.parquet"))},
    "medtrinity-brain": lambda folder: {"path": str(source_files.write_brain(folder / "brain"))},
    "dicom": lambda folder: dicom_files.write_dicom_folder(folder / "dicom"),
    "nifti": lambda folder: source_files.write_nifti(folder / "bids"),
    "alpaca": lambda folder: {"path": str(source_files.write_alpaca(folder / "qa.json"))},
    "llamafactory": lambda folder: {"path": str(source_files.write_llamafactory(folder / "data")), "dataset": "roles"},
    "sharegpt": lambda folder: {"path": str(source_files.write_sharegpt(folder / "chats"))},
    "openai": lambda folder: {"path": str(source_files.write_openai(folder / "chats"))},
    "table": lambda folder: {
        "path": str(source_files.write_medtrinity(folder / "train.parquet")),
        "group": "id",
        "already_deidentified": True,
    },
    "csv": lambda folder: {"path": str(source_files.write_table(folder / "table")), "key_file": str(folder / "key")},
    "webdataset": lambda folder: {"path": str(source_files.write_shard(folder / "shards" / "a-000000.tar").parent)},
    "iu-xray": lambda folder: {"path": str(source_files.write_iu_r2gen(folder / "iu"))},
    "mimic-cxr-jpg": lambda folder: {"path": str(source_files.write_mimic(folder / "mimic")), "views": "frontal"},
}
NAMES = plugins.names("source")


@pytest.fixture(params=NAMES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return plugins.resolve("source", request.param)(**OPTIONS[request.param](tmp_path))


def head(source: Any) -> list[Record]:
    return list(itertools.islice(source.samples(), 60))


def test_every_registered_source_has_options_here() -> None:
    assert set(NAMES) == set(OPTIONS)


def test_follows_the_protocol_and_says_what_it_is(source: Any) -> None:
    assert isinstance(source, DatasetSource)
    assert source.card.name in NAMES
    assert source.card.title
    assert source.card.licence


def test_records_are_whole(source: Any) -> None:
    records = head(source)
    assert len(records) >= 2
    for record in records:
        assert isinstance(record, Record)
        assert record.fault is None
        assert record.id
        assert record.group
        assert record.task in plugins.names("task")
        assert record.target or record.metadata.get("box"), record.id
        json.dumps(dict(record.metadata), allow_nan=False)
        for picture in record.pictures:
            assert open_picture(picture.path or picture.data or b"", name=picture.name).mode == "RGB"


def test_ids_are_unique_and_the_order_is_stable(source: Any) -> None:
    first, second = head(source), head(source)
    assert first == second
    assert len({record.id for record in first}) == len(first)


def test_records_of_one_picture_share_a_group(source: Any) -> None:
    groups: dict[bytes, str] = {}
    for record in head(source):
        for picture in record.pictures:
            data = picture.data if picture.data is not None else (picture.path or Path()).read_bytes()
            assert groups.setdefault(data, record.group) == record.group


def test_is_lazy(source: Any) -> None:
    assert next(iter(source.samples())) == head(source)[0]


def test_parts_are_the_whole(source: Any) -> None:
    if not isinstance(source, PartedSource):
        pytest.skip("the source is read as a whole")
    assert [record for part in source.parts() for record in source.samples_of(part)] == list(source.samples())


def test_boxes_lie_in_their_picture(source: Any) -> None:
    for record in head(source):
        if record.metadata.get("box") is not None:
            picture = record.pictures[0]
            width, height = open_picture(picture.path or picture.data or b"", name="p").size
            x1, y1, x2, y2 = record.metadata["box"]
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height


def test_unknown_options_are_refused(source: Any) -> None:
    with pytest.raises((ValidationError, TypeError)):
        type(source)(**source.model_dump(), no_such_option=1)
