"""MedTrinity-25M: its forms, its join, its names, its captions, its volumes. All files are synthetic."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

import source_files
from medtune.data.sources.medtrinity import MedTrinity
from medtune.data.sources.medtrinity.caption import read_caption
from medtune.data.sources.medtrinity.caption_index import CaptionIndex
from medtune.data.sources.medtrinity.licences import licence_of
from medtune.data.sources.medtrinity.names import PATTERNS, has_patients, read_name
from medtune.data.sources.medtrinity.volumes import SIDE, Volumes, join_neighbours
from medtune.errors import DataError
from medtune.tasks.reading.position import read_position
from medtune.types import PartedSource, Record, RemarkingSource

BHX = "x_CQ500-CT-22_CQ500CT22 CQ500CT22_CT PLAIN THIN_CT000015__0_135_228_61_55.jpg"
LESION = "x_001087_10_01_184__98.3207_236.573_17.3433_16.837.jpg"
ROWS = [(BHX, "bhx"), (LESION, "deeplesion"), ("slide.png", "pmc_oa"), ("seg_train_558_a_2-right lung.nii-105.jpg", "ct_rate")]


def joined(tmp_path: Path, rows: list[tuple[str, str]] = ROWS, **options: Any) -> MedTrinity:
    folder = source_files.write_medtrinity_archives(tmp_path / "set", rows)
    return MedTrinity(path=folder, index=tmp_path / "index", **options)


def by_id(source: MedTrinity) -> dict[str, Record]:
    return {record.id: record for record in source.samples()}


# ----------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("source", "name", "patient", "series", "number", "box"),
    [
        ("ct_rate", "seg_train_558_a_2-right lung.nii-105.jpg", "ct_rate/train_558", "ct_rate/train_558_a_2", 105, None),
        (
            "brats24",
            "BraTS-GoAT-01507_0000_y_output-slice119.jpg",
            "brats24/BraTS-GoAT-01507",
            "brats24/BraTS-GoAT-01507_0000",
            119,
            None,
        ),
        ("bhx", BHX, "bhx/CQ500-CT-22", "bhx/CQ500-CT-22_CQ500CT22 CQ500CT22_CT PLAIN THIN", 15, (135, 228, 196, 283)),
        ("deeplesion", LESION, "deeplesion/001087", "deeplesion/001087_10_01", 184, (98.3207, 236.573, 115.664, 253.41)),
        ("MAMA-MIA", "ISPY1_1001_0001.nii_45.png", "mama-mia/ISPY1_1001", "mama-mia/ISPY1_1001_0001", 45, None),
    ],
)
def test_names_that_were_seen(source: str, name: str, patient: str, series: str, number: int, box: Any) -> None:
    named = read_name(source, name)
    assert named is not None
    assert (named.patient, named.series, named.slice) == (patient, series, number)
    assert named.box == (None if box is None else pytest.approx(box, abs=1e-3))


def test_every_pattern_has_an_example_above_and_says_what_is_inferred() -> None:
    assert len(PATTERNS) == 5
    assert all(entry.inferred and entry.origin for entry in PATTERNS)


def test_a_patient_under_two_labels_is_one() -> None:
    name = "BraTS-GoAT-01507_0000_y_output-slice119.jpg"
    assert {getattr(read_name(source, name), "patient", None) for source in ("brats", "brats24", "brats_24")} == {
        "brats24/BraTS-GoAT-01507"
    }


@pytest.mark.parametrize(("source", "name"), [("pmc_oa", LESION), ("bhx", LESION), ("deeplesion", "a.jpg"), ("nobody", "a.jpg")])
def test_nothing_is_read_where_no_pattern_fits(source: str, name: str) -> None:
    assert read_name(source, name) is None


def test_sources_with_patients() -> None:
    assert has_patients(["bhx", "CT_RATE"])
    assert not has_patients(["bhx", "pmc_oa"])
    assert not has_patients([])


def test_an_unknown_licence_is_unknown() -> None:
    assert licence_of("bhx") == "unknown"
    assert licence_of("NCT-CRC-HE-100K").startswith("CC-BY-4.0 (not verified")


# -------------------------------------------------------------------------------------------------------------- captions


def test_a_caption_with_all_its_blocks() -> None:
    parts = read_caption(source_files.CAPTION)
    assert (parts.modality, parts.contrast, parts.organ) == ("CT", "without", "brain")
    assert (parts.horizontal, parts.vertical, parts.area_percent) == ("center", "upper", 4.1)
    assert parts.finding == "shows a made-up density."
    assert parts.relation == "It may press on adjacent tissue."
    assert parts.unread == ()


@pytest.mark.parametrize(
    ("whole", "modality", "contrast", "organ"),
    [
        ("A contrast-enhanced CT of the abdomen.", "CT", "with", "abdomen"),
        ("A CT scan with intravenous contrast, of the liver.", "CT", "with", "liver"),
        ("An MRI of the brain without contrast.", "MR", "without", "brain"),
        ("A PET/CT of the chest.", None, None, "chest"),
        ("An X-ray of a hand and a foot.", "DX", None, "hand"),
        ("A picture of lungs, heart and liver.", None, None, None),
        ("A histopathology slide with nuclei.", "SM", None, None),
    ],
)
def test_the_first_block(whole: str, modality: str | None, contrast: str | None, organ: str | None) -> None:
    parts = read_caption(whole + " The region of interest, located left, is dark.")
    assert (parts.modality, parts.contrast, parts.organ) == (modality, contrast, organ)
    assert ("modality" in parts.unread, "organ" in parts.unread) == (modality is None, organ is None)


@pytest.mark.parametrize(
    ("where", "horizontal", "vertical"),
    [
        ("centrally and in the middle of the image", "center", "middle"),
        ("centrally and in the lower-middle area of the brain", "center", "lower"),
        ("in the left-center and upper part of the image", "left", "upper"),
        ("on the right side and in the bottom third of the image", "right", "lower"),
        ("in the left frontal lobe", None, None),
        ("on the left side of the brain", None, None),
        ("in the left or right part", None, None),
        ("nowhere in particular", None, None),
    ],
)
def test_positions_are_of_the_picture_or_absent(where: str, horizontal: str | None, vertical: str | None) -> None:
    sentence = f"The region of interest, located {where}, occupies 2% of the image."
    parts = read_caption("A CT of the brain. " + sentence)
    assert (parts.horizontal, parts.vertical) == (horizontal, vertical)
    assert ("position" in parts.unread) == (horizontal is None and vertical is None)
    # What metrics read from the same words must not say otherwise.
    read = read_position(sentence)
    assert horizontal in (None, read.horizontal)
    assert vertical in (None, read.vertical)


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ("occupies approximately 4.1% of the image area", 4.1),
        ("covers 12 % of the picture", 12.0),
        ("covers 0% of the image", None),
        ("covers 101% of the image", None),
        ("covers 3% of the image or 5% of the area", None),
        ("is 50% denser", None),
    ],
)
def test_the_share_of_the_area(words: str, share: float | None) -> None:
    parts = read_caption(f"A CT of the brain. The region of interest, located left, {words} and looks very dark.")
    assert parts.area_percent == share
    assert ("area" in parts.unread) == (share is None)


def test_a_caption_of_another_kind_is_not_guessed_at() -> None:
    parts = read_caption("An X-ray of the chest. It may affect the left lung, 5% of the image.")
    assert parts.unread == ("region",)
    assert parts.finding is parts.relation is parts.area_percent is parts.horizontal is None


def test_a_last_sentence_that_relates_nothing_belongs_to_the_finding() -> None:
    parts = read_caption("A CT of the brain. The region of interest, located left, is dark. It has a sharp border.")
    assert parts.relation is None
    assert parts.finding is not None
    assert parts.finding.endswith("It has a sharp border.")


@pytest.mark.parametrize(
    "caption", ["", " ", ".", "The region of interest" * 2000, "located " * 20_000, "1" * 50_000 + "% of the image"]
)
def test_odd_captions_take_no_time(caption: str) -> None:
    assert read_caption(caption).unread


def test_what_a_caption_says_stands_in_the_metadata(tmp_path: Path) -> None:
    metadata = by_id(joined(tmp_path))["slide.png"].metadata
    assert metadata["area_percent"] == 4.1
    assert "source_notes" not in metadata
    demo = next(iter(MedTrinity(path=source_files.write_medtrinity(tmp_path / "demo.parquet")).samples())).metadata
    assert demo["source_notes"] == ["caption-unread-organ", "caption-unread-finding", "caption-unread-relation"]


# --------------------------------------------------------------------------------------------------------------- archives


def test_archives_are_joined_with_their_captions(tmp_path: Path) -> None:
    source = joined(tmp_path)
    assert isinstance(source, PartedSource)
    assert isinstance(source, RemarkingSource)
    records = by_id(source)
    assert set(records) == {name for name, _ in ROWS}
    assert not any(record.fault for record in records.values())
    bhx = records[BHX]
    assert (bhx.group, bhx.target, bhx.pictures[0].data) == ("bhx/CQ500-CT-22", source_files.CAPTION, source_files.jpeg(0))
    assert bhx.metadata["patient"] == "bhx/CQ500-CT-22"
    assert (bhx.metadata["slice"], bhx.metadata["source_set"], bhx.metadata["licence"]) == (15, "bhx", "unknown")
    assert "box" not in bhx.metadata
    assert records["slide.png"].group == "pmc_oa/slide.png"
    assert source.card.group_kind == "image"
    assert [record for part in source.parts() for record in source.samples_of(part)] == list(source.samples())


def test_captions_without_a_picture_are_counted_once_all_was_read(tmp_path: Path) -> None:
    source = joined(tmp_path)
    next(iter(source.samples()))
    assert [str(remark) for remark in source.remarks()] == [
        "How many captions have no picture is not known: not every archive was read to its end."
    ]
    list(source.samples())
    assert [str(remark) for remark in source.remarks()] == ["1 of 5 captions have no picture in the archives."]


def test_members_without_a_caption_and_other_members_are_faults(tmp_path: Path) -> None:
    source = joined(tmp_path)
    more = {"a/unknown.jpg": source_files.jpeg(1), "a/notes.txt": b"x", "../out.jpg": b"x", "a/slide.png": source_files.png(1)}
    source_files.write_tar(tmp_path / "set" / "25M_accessible" / "0002.tar", more)
    faults = Counter(record.fault.reason for record in source.samples() if record.fault)
    assert faults == {"caption-missing": 1, "not-a-picture": 1, "archive-member": 1}


def test_a_name_with_two_captions_is_not_guessed_at(tmp_path: Path) -> None:
    source = joined(tmp_path)
    rows = [{"file_name": "slide.png", "caption": "Another.", "source": "quilt_1m"}]
    source_files.write_parquet(tmp_path / "set" / "25M_full" / "0009.parquet", rows)
    records = by_id(source)
    fault = records["slide.png"].fault
    assert fault is not None
    assert fault.reason == "caption-ambiguous"
    assert records[LESION].fault is None


def test_sources_are_allowed_and_denied(tmp_path: Path) -> None:
    source = joined(tmp_path, allow_sources=("BHX", "deeplesion"))
    assert set(by_id(source)) == {BHX, LESION}
    assert source.card.group_kind == "patient"
    assert "3 captions are of sources that the recipe leaves out: ct_rate, padchest, pmc_oa." in map(str, source.remarks())
    denied = MedTrinity(path=source.path, index=source.index, deny_sources=("bhx", "ct_rate"))
    assert set(by_id(denied)) == {LESION, "slide.png"}


def test_where_all_patients_are_known_a_strange_name_is_a_fault(tmp_path: Path) -> None:
    source = joined(tmp_path, [*ROWS, ("strange.jpg", "bhx")], allow_sources=("bhx",))
    fault = by_id(source)["strange.jpg"].fault
    assert fault is not None
    assert fault.reason == "file-name-unknown"


def test_a_source_that_no_caption_names_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="deeplesions") as caught:
        list(joined(tmp_path, allow_sources=("deeplesions",)).samples())
    assert "deeplesion" in str(caught.value.remedy)
    with pytest.raises(ValidationError, match="both name bhx"):
        MedTrinity(path=tmp_path, allow_sources=("bhx",), deny_sources=("BHX",))


def test_boxes_from_names_when_asked(tmp_path: Path) -> None:
    assert by_id(joined(tmp_path, boxes_from_names=True))[BHX].metadata["box"] == [135.0, 228.0, 196.0, 283.0]


def test_the_forms_are_told_apart(tmp_path: Path) -> None:
    source = joined(tmp_path)
    accessible, full = tmp_path / "set" / "25M_accessible", tmp_path / "set" / "25M_full"
    assert len(by_id(MedTrinity(path=accessible, captions=full, index=tmp_path / "index"))) == 4
    for options, says in (
        ({"path": accessible, "index": tmp_path / "index"}, "no captions"),
        ({"path": full}, "captions without pictures"),
        ({"path": source.path}, "a folder must be named"),
        ({"path": source.path, "index": tmp_path / "i", "volume_heuristic": "uuid-time"}, "for the demo shards"),
    ):
        with pytest.raises(DataError, match=says):
            MedTrinity(**options).parts()  # type: ignore[arg-type]
    source_files.write_medtrinity(source.path / "demo.parquet")
    with pytest.raises(DataError, match="lie here together"):
        source.parts()
    with pytest.raises(DataError, match="no source can be allowed"):
        MedTrinity(path=source.path / "demo.parquet", allow_sources=("bhx",)).parts()
    source_files.write_parquet(tmp_path / "other.parquet", [{"words": "x"}])
    with pytest.raises(DataError, match="it has words"):
        MedTrinity(path=tmp_path / "other.parquet").parts()


# ------------------------------------------------------------------------------------------------------------------ index


def test_the_index_finds_every_caption_and_no_other(tmp_path: Path) -> None:
    names = [f"picture-{number}.jpg" for number in range(3000)]
    random.Random(0).shuffle(names)
    rows = [{"file_name": f"some/folder/{name}", "caption": f"of {name}", "source": name[-5]} for name in names]
    files = [source_files.write_parquet(tmp_path / f"{n}.parquet", rows[n::2]) for n in range(2)]
    index = CaptionIndex.of(files, tmp_path / "index")
    assert index.num_captions == 3000
    assert sum(index.sources.values()) == 3000
    found = [index.find(name) for name in names]
    assert [row.caption for (row,) in found] == [f"of {name}" for name in names]
    assert len({row.position for (row,) in found}) == 3000
    assert index.find("picture-3000.jpg") == []


def test_the_index_is_built_once_and_anew_when_captions_change(tmp_path: Path) -> None:
    file = source_files.write_parquet(tmp_path / "a.parquet", [{"file_name": "a.jpg", "caption": "x", "source": "s"}])
    CaptionIndex.of([file], tmp_path / "index")
    built = (tmp_path / "index" / "texts.bin").stat().st_ino
    CaptionIndex.of([file], tmp_path / "index")
    assert (tmp_path / "index" / "texts.bin").stat().st_ino == built
    source_files.write_parquet(file, [{"file_name": "b.jpg", "caption": "longer", "source": "s"}] * 2)
    index = CaptionIndex.of([file], tmp_path / "index")
    assert (index.find("a.jpg"), len(index.find("b.jpg"))) == ([], 2)


def test_the_index_takes_no_folder_of_somebody_else(tmp_path: Path) -> None:
    file = source_files.write_parquet(tmp_path / "a.parquet", [{"file_name": "a.jpg", "caption": "x", "source": "s"}])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="not an index"):
        CaptionIndex.of([file], tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_names_of_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtune.data.sources.medtrinity.caption_index._hash", lambda _: 7)
    rows = [{"file_name": f"{number}.jpg", "caption": f"of {number}", "source": "s"} for number in range(5)]
    index = CaptionIndex.of([source_files.write_parquet(tmp_path / "a.parquet", rows)], tmp_path / "index")
    assert [[row.caption for row in index.find(f"{number}.jpg")] for number in range(6)] == [*([f"of {n}"] for n in range(5)), []]


def test_processes_that_want_an_index_at_once_get_one(tmp_path: Path) -> None:
    rows = [{"file_name": f"{number}.jpg", "caption": f"of {number}", "source": "s"} for number in range(20_000)]
    file = source_files.write_parquet(tmp_path / "a.parquet", rows)
    program = (
        "import sys; from pathlib import Path; from medtune.data.sources.medtrinity.caption_index import CaptionIndex;"
        "index = CaptionIndex.of([Path(sys.argv[1])], Path(sys.argv[2]));"
        "print((index.folder / 'texts.bin').stat().st_ino, index.find('19999.jpg')[0].caption)"
    )
    command = [sys.executable, "-c", program, str(file), str(tmp_path / "index")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=300)[0] for process in started}
    assert len(said) == 1
    assert said.pop().endswith("of 19999\n")


def test_an_index_of_nothing(tmp_path: Path) -> None:
    file = source_files.write_parquet(tmp_path / "a.parquet", [{"file_name": "a.jpg", "caption": "x", "source": "s"}])
    assert CaptionIndex.of([], tmp_path / "index").find("a.jpg") == []
    assert CaptionIndex.of([file], tmp_path / "index").num_without_picture([]) == 1


# ---------------------------------------------------------------------------------------------------------------- volumes


def volume_shards(folder: Path) -> list[list[str]]:
    """Three volumes of five slices each in one stretch of time, the rows shuffled over two shards. Returns the ids by volume."""
    generator = np.random.default_rng(0)
    rows, volumes, tick = [], [], 0
    for volume in range(3):
        shape = generator.integers(0, 200, (SIDE, SIDE)).astype(np.uint8)
        ids = []
        for number in range(5):
            tick += 20_000_000 if volume == 2 and number == 3 else 300_000
            identity = str(uuid.UUID(fields=((0x1E0000000 + tick) & 0xFFFFFFFF, 0x11EE, 0x1000 | 0x1EE, 0x80, 0, 5)))
            picture = Image.fromarray(shape + np.uint8(5 * number)).resize((128, 128), 0).convert("RGB")
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "id": identity, "caption": "x"})
            ids.append(identity)
        volumes.append(ids)
    random.Random(1).shuffle(rows)
    rows.insert(4, {"image": {"bytes": b"not a picture", "path": None}, "id": str(uuid.uuid1()), "caption": "x"})
    rows.append({"image": rows[0]["image"], "id": str(uuid.uuid4()), "caption": "x"})
    source_files.write_parquet(folder / "train-0.parquet", rows[:8])
    source_files.write_parquet(folder / "train-1.parquet", rows[8:])
    return volumes


def test_volumes_by_time_and_likeness(tmp_path: Path) -> None:
    volumes = volume_shards(tmp_path / "demo")
    plain = MedTrinity(path=tmp_path / "demo", volume_heuristic="uuid-time")
    kept = MedTrinity(path=tmp_path / "demo", volume_heuristic="uuid-time", index=tmp_path / "index")
    assert plain.card.group_kind == "volume"
    assert any("heuristic uuid-time" in note for note in plain.card.notes)
    for source in (plain, kept, kept):
        groups: dict[str, set[str]] = {}
        for record in source.samples():
            groups.setdefault(record.group, set()).add(record.id)
        # The last volume is cut where two seconds passed; what has no time or no picture stands alone.
        expected = [*volumes[:2], volumes[2][:3], volumes[2][3:]]
        assert {frozenset(ids) for ids in expected} <= {frozenset(ids) for ids in groups.values()}
        assert sorted(map(len, groups.values())) == [1, 1, 2, 3, 5, 5]
    assert len(list((tmp_path / "index").glob("volumes-*.npz"))) == 1


def test_without_the_heuristic_every_picture_stands_alone(tmp_path: Path) -> None:
    volume_shards(tmp_path / "demo")
    records = list(MedTrinity(path=tmp_path / "demo").samples())
    assert len({record.group for record in records}) == len(records) == 17


def test_a_decoder_that_dies_costs_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = volume_shards(tmp_path / "demo")
    monkeypatch.setattr("medtune.data.sources.medtrinity.volumes._THUMBNAILS", f"{__name__}:dying_thumbnails")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("MEDTUNE_TEST_DIES_AT", volumes[0][2])
    files = sorted((tmp_path / "demo").glob("*.parquet"))
    found = Volumes.of(files, None, correlation=0.9, seconds=1.0)
    assert found.find(volumes[0][2]) is None
    assert {found.find(identity) for identity in volumes[1]} == {volumes[1][0]}


def dying_thumbnails(file: str, start: int) -> Any:
    """Runs in the child process."""
    import os

    from medtune.data.sources.medtrinity.volumes import thumbnails

    for row in thumbnails(file, start):
        yield row
        if len(row) == 2 and row[1] == os.environ["MEDTUNE_TEST_DIES_AT"]:
            os._exit(1)


def test_neighbours() -> None:
    rng = np.random.default_rng(0)
    first, other = rng.integers(0, 256, (2, 64), dtype=np.uint8)
    pictures = np.stack([first, first, other, other, np.full(64, 7, np.uint8), np.full(64, 7, np.uint8)])
    assert join_neighbours(pictures, np.arange(6.0), 0.9, 1.0).tolist() == [True, False, True, False, False]
    assert join_neighbours(pictures, np.array([0, 5, 6, 7, 8, 9.0]), 0.9, 1.0).tolist() == [False, False, True, False, False]
    assert join_neighbours(pictures[:1], np.zeros(1), 0.9, 1.0).tolist() == []
    assert join_neighbours(pictures[:0], np.zeros(0), 0.9, 1.0).tolist() == []


def test_neighbours_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = np.repeat(np.random.default_rng(0).integers(0, 256, (7, 64), dtype=np.uint8), 3, axis=0)
    whole = join_neighbours(pictures, np.zeros(21), 0.9, 1.0).tolist()
    monkeypatch.setattr("medtune.data.sources.medtrinity.volumes._PAIRS", 4)
    assert join_neighbours(pictures, np.zeros(21), 0.9, 1.0).tolist() == whole
    assert sum(whole) == 14
