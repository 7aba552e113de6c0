"""Records become a folder: whole, reproducible, group-disjoint, with a reason for each record left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import source_files
from medtune.data.config import DataSettings, Fractions
from medtune.data.dataset import Dataset, file_sha256
from medtune.data.prepare import prepare, settings_hash
from medtune.data.sources.llamafactory import LlamaFactory
from medtune.data.split import SPLITS, draw
from medtune.errors import DataError, PluginError, RecipeError
from medtune.types import Event


def settings(source: str, path: Path, *, options: dict[str, Any] | None = None, **more: Any) -> DataSettings:
    return DataSettings.model_validate({"sources": [{"source": source, "options": {"path": str(path), **(options or {})}}], **more})


def rows(dataset: Dataset) -> list[Any]:
    return [row for split in SPLITS for row in dataset.rows(split)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def conversations(folder: Path, *items: dict[str, Any]) -> DataSettings:
    """Settings for hand-written ShareGPT rows; pictures 0.png (64 x 48) and 1.png stand beside them."""
    source_files.write_llamafactory(folder)
    source_files.write_json(folder / "gpt.json", items)
    return settings(
        "llamafactory", folder, options={"dataset": "gpt"}, split={"fractions": {"train": 1, "validation": 0, "test": 0}}
    )


def turns(*texts: str, images: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    said = [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]
    return {"conversations": said, "images": list(images), **more}


@pytest.fixture
def rad(tmp_path: Path) -> Path:
    return source_files.write_vqa_rad(tmp_path / "rad", num_images=40)


def test_the_folder(rad: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    manifest = prepare(settings("vqa-rad", rad), name="try", folder=tmp_path / "out", listener=events.append)
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.manifest == manifest
    assert sum(manifest.num_samples.values()) == len(rows(dataset)) == 100
    assert manifest.num_samples == {split: dataset.num_rows(split) for split in SPLITS}
    assert manifest.num_images == 40
    assert manifest.group_kind == "image"
    assert manifest.sources[0].options == {"path": "rad"}
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {
        "manifest.json",
        "dataset_info.json",
        "images.jsonl",
        "left_out.jsonl",
        "groups.csv",
        "README.md",
        "README.zh-CN.md",
        "train.jsonl",
        "validation.jsonl",
        "test.jsonl",
        "images",
    }
    row = next(dataset.rows("train"))
    assert row.target == row.messages[-1].content
    image = row.images[0]
    assert image.path == f"images/{image.sha256[:2]}/{image.sha256[:16]}.jpg"
    assert file_sha256(dataset.image_path(image)) == image.sha256
    assert (image.width, image.height) == (64, 48)
    assert events[-1].kind == "finished"


def test_rows_hold_metadata_as_text(rad: Path, tmp_path: Path) -> None:
    prepare(settings("vqa-rad", rad), name="try", folder=tmp_path / "out")
    row = json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])
    assert list(row) == ["id", "messages", "images", "task", "target", "group", "source", "metadata"]
    assert json.loads(row["metadata"])["organ"] == "HEAD"


def test_pictures_are_copied_unchanged_and_stored_once(rad: Path, tmp_path: Path) -> None:
    prepare(settings("vqa-rad", rad), name="try", folder=tmp_path / "out")
    stored = {file.read_bytes() for file in (tmp_path / "out" / "images").rglob("*.*")}
    assert stored == {file.read_bytes() for file in (rad / "images").iterdir()}


def test_same_input_same_bytes(rad: Path, tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 7)):
        prepare(
            settings("vqa-rad", rad, num_workers=workers, transforms=[{"transform": "clahe"}]), name="try", folder=tmp_path / name
        )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_groups_are_never_cut_and_keep_their_place(rad: Path, tmp_path: Path) -> None:
    def places(name: str, **more: Any) -> dict[str, str]:
        prepare(settings("vqa-rad", rad, **more), name="try", folder=tmp_path / name)
        dataset = Dataset.open(tmp_path / name)
        found: dict[str, str] = {}
        for split in SPLITS:
            for row in dataset.rows(split):
                assert found.setdefault(row.group, split) == split
        return found

    before, filled = places("before", split={"fill_strata": False}), places("filled")
    assert set(before.values()) == set(SPLITS)
    assert {group for group in before if before[group] != filled[group]} == {"synpic8.jpg"}, "one stratum had no validation rows"
    for file in ("trainset.json", "testset.json"):
        content = json.loads((rad / file).read_text())
        content += [{**row, "qid": row["qid"] + 10_000, "image_name": f"new{row['image_name']}"} for row in content]
        source_files.write_json(rad / file, content)
    for file in list((rad / "images").iterdir()):
        (rad / "images" / f"new{file.name}").write_bytes(file.read_bytes())
    after = places("after", split={"fill_strata": False})
    assert len(after) == 80
    assert {group: after[group] for group in before} == before
    assert places("other", split={"fill_strata": False, "seed": 1}) != after
    # A group that was moved keeps its place by the list of the earlier data set, whatever the seed.
    kept = places("kept", split={"assigned": str(tmp_path / "filled" / "groups.csv"), "seed": 1})
    assert {group: kept[group] for group in filled} == filled


def test_draw_follows_the_fractions() -> None:
    fractions = Fractions(train=0.7, validation=0.2, test=0.1)
    counts = {split: sum(draw(f"g{n}", fractions, 0) == split for n in range(20_000)) / 20_000 for split in SPLITS}
    assert counts == pytest.approx({"train": 0.7, "validation": 0.2, "test": 0.1}, abs=0.01)
    only = Fractions(train=0.9, validation=0.1, test=0.0)
    assert {draw(f"g{n}", only, 0) for n in range(1000)} == {"train", "validation"}


def test_official_split(rad: Path, tmp_path: Path) -> None:
    official = settings("vqa-rad", rad, options={"split": "official"}, split={"kind": "official"})
    prepare(official, name="try", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert {row.id for row in dataset.rows("test")} == {str(10 * n + 3) for n in range(0, 40, 2)}
    train, validation = ({row.group for row in dataset.rows(split)} for split in ("train", "validation"))
    assert validation
    assert not train & validation
    assert len(train | validation) == 40
    assert dataset.manifest.num_samples == {split: dataset.num_rows(split) for split in SPLITS}
    assert dataset.manifest.num_groups == {"train": len(train), "validation": len(validation), "test": 20}
    assert dataset.changed_files() == []


def test_official_split_without_one(rad: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="assigns no split") as caught:
        prepare(settings("vqa-rad", rad, split={"kind": "official"}), name="try", folder=tmp_path / "out")
    assert caught.value.key == "data.sources.0"
    assert not (tmp_path / "out").exists()


def test_a_split_that_is_not_used_is_told(rad: Path, tmp_path: Path) -> None:
    manifest = prepare(settings("vqa-rad", rad, options={"split": "official"}), name="try", folder=tmp_path / "out")
    assert any("100 records bring a split of their own" in str(warning) for warning in manifest.warnings)


def test_the_folder_is_a_llamafactory_data_set(rad: Path, tmp_path: Path) -> None:
    prepare(settings("vqa-rad", rad), name="try", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    for split in SPLITS:
        records = list(LlamaFactory(path=tmp_path / "out", dataset=f"try_{split}").samples())
        assert [record.messages for record in records] == [row.messages for row in dataset.rows(split)]
        assert [record.pictures[0].path for record in records] == [
            (tmp_path / "out").absolute() / row.images[0].path for row in dataset.rows(split)
        ]


def test_the_rows_load_into_arrow(rad: Path, tmp_path: Path) -> None:
    import pyarrow.json

    prepare(settings("vqa-rad", rad), name="try", folder=tmp_path / "out")
    table = pyarrow.json.read_json(tmp_path / "out" / "train.jsonl", read_options=pyarrow.json.ReadOptions(block_size=2000))
    assert table.num_rows == Dataset.open(tmp_path / "out").num_rows("train")


def test_text_only(tmp_path: Path) -> None:
    file = source_files.write_alpaca(tmp_path / "qa.json")
    manifest = prepare(settings("alpaca", file), name="qa", folder=tmp_path / "out")
    assert manifest.num_images == 0
    assert manifest.group_kind == "row"
    assert len(rows(Dataset.open(tmp_path / "out"))) == 3


def test_six_tasks_with_letterbox(tmp_path: Path) -> None:
    folder = source_files.write_brain(tmp_path / "brain")
    chosen = settings(
        "medtrinity-brain", folder, transforms=[{"transform": "letterbox", "options": {"size": 256}}], split={"kind": "official"}
    )
    manifest = prepare(chosen, name="six", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert manifest.tasks == dict.fromkeys(
        ("caption", "caption-details", "detection", "json-record", "region", "region-description"), 6
    )
    assert manifest.transforms[0].parameters == {"size": 256, "fill": 0}
    row = next(row for row in dataset.rows("train") if row.task == "detection")
    assert (row.images[0].width, row.images[0].height) == (256, 256)
    assert row.images[0].transforms == manifest.transforms
    assert row.metadata["box"] == [5.25, 10.125, 15.25, 20.375]
    # 0-1000 of the stored picture: 5.25 / 256 * 1000 = 20.5, 10.125 / 256 * 1000 = 39.55, ...
    assert json.loads(row.target)["bbox_2d"] == pytest.approx([20.5, 39.55, 59.57, 79.59], abs=0.6)
    assert "width" not in row.metadata
    # The source's pictures are square: nothing was added to them.
    assert "extent" not in row.metadata


@pytest.mark.parametrize(
    ("transform", "extent"),
    [
        ({"transform": "letterbox", "options": {"size": 256}}, [0, 32, 256, 224]),
        ({"transform": "limit-pixels", "options": {"max_pixels": 768}}, None),
        ({"transform": "clahe"}, None),
        (None, None),
    ],
)
def test_where_the_source_picture_lies_is_told_when_it_is_not_all(
    tmp_path: Path, transform: dict[str, Any] | None, extent: list[int] | None
) -> None:
    """Metrics compare words, which are about the source picture, with boxes, which are of the stored one."""
    chosen = conversations(tmp_path / "data", turns("<image>?", "Yes.", images=("pictures/0.png",)))
    transforms = [] if transform is None else [transform]
    prepare(DataSettings.model_validate({**chosen.model_dump(), "transforms": transforms}), name="x", folder=tmp_path / "out")
    assert next(Dataset.open(tmp_path / "out").rows("train")).metadata.get("extent") == extent


def test_a_transform_is_really_applied_to_what_is_stored(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    chosen = conversations(folder, turns("<image>?", "Yes.", images=("pictures/0.png",)))
    limit = {"transform": "limit-pixels", "options": {"max_pixels": 768}}
    prepare(DataSettings.model_validate({**chosen.model_dump(), "transforms": [limit]}), name="x", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    ref = next(dataset.rows("train")).images[0]
    with Image.open(dataset.image_path(ref)) as image:
        assert image.size == (ref.width, ref.height) == (32, 24)


@pytest.mark.parametrize("kind", ["turned", "deep"])
def test_pictures_that_other_readers_would_show_otherwise_become_png(tmp_path: Path, kind: str) -> None:
    chosen = conversations(tmp_path / "data", turns("<image>?", "Yes.", images=("pictures/odd",)))
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        data = source_files.encoded(source_files.picture(), "JPEG", exif=exif)
    else:
        data = source_files.encoded(Image.fromarray(np.linspace(0, 4095, 3072).reshape(64, 48).astype(np.uint16)), "PNG")
    (tmp_path / "data" / "pictures" / "odd").write_bytes(data)
    prepare(chosen, name="x", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    ref = next(dataset.rows("train")).images[0]
    assert [record.name for record in ref.transforms] == ["exif-turn" if kind == "turned" else "scale-grey"]
    with Image.open(dataset.image_path(ref)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB" if kind == "turned" else "L", (48, 64))
        assert not image.getexif()


def test_what_is_left_out_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    chosen = conversations(
        folder,
        turns("<image>?", "Yes.", images=("pictures/0.png",), id="good"),
        turns("<image>?", "Yes.", images=("pictures/nobody.png",), id="missing"),
        turns("<image>?", "Yes.", images=("pictures/cut.jpg",), id="cut"),
        turns("?", "Yes.", images=("pictures/0.png",), id="no-mark"),
        turns("<image><image>?", "Yes.", images=("pictures/0.png",), id="two-marks"),
        turns("<image>?", "  ", images=("pictures/0.png",), id="empty"),
        turns("<image>?", "Yes.", images=("pictures/0.png",), id="good"),
        turns("<image>?", images=("pictures/0.png",), id="roles"),
    )
    (folder / "pictures" / "cut.jpg").write_bytes(source_files.jpeg(3, (200, 200))[:4000])
    manifest = prepare(chosen, name="x", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert [row.id for row in rows(dataset)] == ["good"]
    found = {(entry.id, entry.reason) for entry in dataset.left_out()}
    assert found == {
        ("missing", "unreadable-image"),
        ("cut", "unreadable-image"),
        ("no-mark", "image-marks"),
        ("two-marks", "image-marks"),
        ("empty", "answer-empty"),
        ("good", "duplicate-id"),
        ("roles", "role-order"),
    }
    assert all(entry.message and entry.remedy for entry in dataset.left_out())
    assert all(entry.file for entry in dataset.left_out()), "each says where the record is"
    assert next(entry for entry in dataset.left_out() if entry.id == "cut").file == str(folder / "pictures" / "cut.jpg")
    assert manifest.sources[0].left_out == {
        "answer-empty": 1,
        "duplicate-id": 1,
        "image-marks": 2,
        "role-order": 1,
        "unreadable-image": 2,
    }
    assert any("7 records were left out" in str(warning) for warning in manifest.warnings)


def test_when_nothing_is_left_the_first_fault_is_told_and_no_folder_stays(tmp_path: Path) -> None:
    chosen = conversations(tmp_path / "data", turns("<image>?", "Yes.", images=("pictures/nobody.png",), id="s1"))
    with pytest.raises(DataError, match="missing") as caught:
        prepare(chosen, name="x", folder=tmp_path / "out")
    assert caught.value.sample == "s1"
    assert caught.value.file == str(tmp_path / "data" / "pictures" / "nobody.png"), "where it was looked for"
    assert caught.value.key == "data.sources.0"
    assert caught.value.remedy is not None
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_box_outside_its_picture(tmp_path: Path) -> None:
    rows_ = source_files.brain_rows("u1", changes={"<DETECT_REGION_LOC>": '{"bbox": "[10, 20, 30, 600]"}'})
    file = source_files.write_parquet(tmp_path / "a.parquet", rows_)
    prepare(settings("medtrinity-brain", file), name="x", folder=tmp_path / "out")
    assert [entry.reason for entry in Dataset.open(tmp_path / "out").left_out()] == ["box-outside"]


def test_a_data_set_of_the_same_settings_is_used_again(rad: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first = prepare(settings("vqa-rad", rad), name="try", folder=folder)
    stamp = (folder / "train.jsonl").stat().st_mtime_ns
    assert prepare(settings("vqa-rad", rad, num_workers=2), name="try", folder=folder) == first
    assert (folder / "train.jsonl").stat().st_mtime_ns == stamp


def test_other_settings_need_overwrite(rad: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    prepare(settings("vqa-rad", rad), name="try", folder=folder)
    other = settings("vqa-rad", rad, split={"seed": 5})
    with pytest.raises(DataError, match="other settings"):
        prepare(other, name="try", folder=folder)
    assert prepare(other, name="try", folder=folder, overwrite=True).split["seed"] == 5
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_changed_data_set_is_not_used_again(rad: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    prepare(settings("vqa-rad", rad), name="try", folder=folder)
    (folder / "train.jsonl").write_text("")
    with pytest.raises(DataError, match="changed since"):
        prepare(settings("vqa-rad", rad), name="try", folder=folder)


def test_a_folder_that_is_not_a_data_set_is_never_replaced(rad: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not a data set"):
        prepare(settings("vqa-rad", rad), name="try", folder=tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_several_sources(rad: Path, tmp_path: Path) -> None:
    qa = source_files.write_alpaca(tmp_path / "qa.json")
    sources = [
        {"source": "vqa-rad", "options": {"path": str(rad)}, "max_samples": 5},
        {"source": "alpaca", "options": {"path": str(qa)}, "task": "conversation"},
        {"source": "alpaca", "options": {"path": str(qa)}},
    ]
    manifest = prepare(DataSettings.model_validate({"sources": sources}), name="mix", folder=tmp_path / "out")
    found = {row.id: row for row in rows(Dataset.open(tmp_path / "out"))}
    assert len(found) == 11
    assert {row.source for row in found.values()} == {"vqa-rad", "alpaca", "alpaca#2"}
    assert found["alpaca/qa-1"].task == "conversation"
    assert found["alpaca#2/qa-1"].task == "text-qa"
    assert found["vqa-rad/1"].images
    assert manifest.group_kind == "row"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sources": [{"source": "vqa-rat", "options": {}}]}, "Did you mean vqa-rad"),
        ({"sources": [{"source": "vqa-rad", "options": {"pathh": "x"}}]}, "Did you mean path"),
        ({"sources": [{"source": "vqa-rad"}]}, "data.sources.0.options.path: This setting is needed"),
        ({"transforms": [{"transform": "letterbox", "options": {"size": -1}}]}, "data.transforms.0.options.size"),
        ({"task_options": {"closed-vqa": {"no_such": 1}}}, "no_such"),
    ],
)
def test_wrong_names_and_options(rad: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    chosen = DataSettings.model_validate({**settings("vqa-rad", rad).model_dump(mode="json"), **change})
    with pytest.raises((RecipeError, PluginError), match=says):
        prepare(chosen, name="x", folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_without_its_data_is_named_by_its_number(rad: Path, tmp_path: Path) -> None:
    chosen = settings("vqa-rad", rad).model_dump(mode="json")
    dicom = {"path": str(tmp_path / "nowhere"), "texts": {"path": "texts.csv"}, "key_file": str(tmp_path / "key")}
    chosen["sources"].append({"source": "dicom", "options": dicom})
    with pytest.raises(DataError) as caught:
        prepare(DataSettings.model_validate(chosen), name="x", folder=tmp_path / "out")
    assert caught.value.key == "data.sources.1.options.path"


def test_task_options_change_the_words(rad: Path, tmp_path: Path) -> None:
    chosen = settings("vqa-rad", rad, task_options={"closed-vqa": {"instruction": "{question} Yes or no?"}})
    prepare(chosen, name="x", folder=tmp_path / "out")
    row = next(row for row in rows(Dataset.open(tmp_path / "out")) if row.id == "1")
    assert row.messages[0].content == "<image>Is thing 1 there? Yes or no?"


def test_settings_hash_leaves_out_what_does_not_change_the_data(rad: Path) -> None:
    chosen = settings("vqa-rad", rad)
    assert settings_hash(chosen) == settings_hash(chosen.model_copy(update={"folder": Path("x"), "num_workers": 9}))
    assert settings_hash(chosen) != settings_hash(settings("vqa-rad", rad, split={"seed": 1}))


def test_reading_settings_imports_nothing_heavy() -> None:
    code = "import sys, medtune.data.config; print([m for m in ('numpy', 'PIL', 'pyarrow', 'cv2', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_sequence_reads_rows_by_number(rad: Path, tmp_path: Path) -> None:
    prepare(settings("vqa-rad", rad), name="try", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    sequence = dataset.sequence("train")
    assert list(sequence) == list(dataset.rows("train"))
    assert sequence[-1] == sequence[len(sequence) - 1]
    assert sequence[1:3] == [sequence[1], sequence[2]]
    with pytest.raises(IndexError):
        sequence[len(sequence)]


def test_text_with_unusual_line_ends_survives(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\r\nfour"
    prepare(conversations(tmp_path / "data", turns("?", text)), name="x", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert [row.target for row in dataset.rows("train")] == [text]
    assert dataset.sequence("train")[0].target == text


@pytest.mark.parametrize(
    ("content", "says"), [(None, "not a data set folder"), ("{", "cannot be read"), ('{"name": 1}', "cannot be read")]
)
def test_open_what_is_not_a_data_set(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=says):
        Dataset.open(tmp_path)
