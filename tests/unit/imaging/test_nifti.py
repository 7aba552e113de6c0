"""Slices of NIfTI volumes: orientation, greys, shape, and files that are not what they say. The volumes are synthetic."""

from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform

from medtune.errors import UnreadableImageError
from medtune.imaging.config import Limits
from medtune.imaging.nifti import is_nifti, mask_areas, middle_slice, open_nifti, read_nifti_header, read_volume
from medtune.imaging.nifti_header import HEAD_BYTES
from medtune.types import Axis, View

RIGHT, FRONT, HEAD = 250, 200, 150
SHAPE = (11, 13, 17)
ORIENTATIONS = ["".join(letters) for axes in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*axes)]
FULL = ((128.0, 256.0),)
"""A window that shows 0 to 255 as they are: PS3.3's ramp runs from c - 0.5 - (w - 1)/2 to c - 0.5 + (w - 1)/2."""


def marked() -> np.ndarray:
    """Canonical (R, A, S): a mark in the patient's right half, one in front, one at the head, and unique values behind them."""
    volume = np.random.default_rng(0).integers(1, 100, SHAPE).astype(np.int16)
    volume[9, 6, 8], volume[5, 11, 8], volume[5, 6, 15] = RIGHT, FRONT, HEAD
    return volume


def stored_as(canonical: np.ndarray, codes: str, spacing: tuple[float, float, float] = (1, 1, 1)) -> nibabel.Nifti1Image:
    """The volume with its axes stored as ``codes`` say."""
    image = nibabel.Nifti1Image(canonical, np.diag([*spacing, 1]))
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    assert "".join(nibabel.aff2axcodes(turned.affine)) == codes
    return turned


def write(folder: Path, image: Any, name: str = "volume.nii.gz") -> Path:
    path = folder / name
    nibabel.save(image, path)
    return path


def shown(path: Path | bytes, **view: Any) -> np.ndarray:
    picture = open_nifti(path, view=View(**{"windows": FULL, **view}))
    assert picture.mode == "RGB"
    return np.asarray(picture)


def patched(path: Path, offset: int, layout: str, *values: Any) -> bytes:
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, offset, *values)
    return bytes(data)


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_is_shown_alike(tmp_path: Path, codes: str) -> None:
    volume = marked()
    path = write(tmp_path, stored_as(volume, codes), "v.nii")
    header = read_volume(path)
    assert header.codes == codes
    axial, coronal, sagittal = (shown(path, axis=axis, index=index)[..., 0] for axis, index in AT_THE_CENTRE)
    assert [header.num_slices(axis) for axis in ("sagittal", "coronal", "axial")] == list(SHAPE)
    # Radiological convention: right of the patient on the left, front up; head up; on sagittal pictures the face to the left.
    assert (axial.shape, coronal.shape, sagittal.shape) == ((13, 11), (17, 11), (17, 13))
    assert axial[6, 1] == RIGHT
    assert axial[1, 5] == FRONT
    assert coronal[8, 1] == RIGHT
    assert coronal[1, 5] == HEAD
    assert sagittal[8, 1] == FRONT
    assert sagittal[1, 6] == HEAD
    # And voxel by voxel, against a plain loop over the canonical volume.
    for (axis, index), picture in zip(AT_THE_CENTRE, (axial, coronal, sagittal), strict=True):
        for row, column in np.ndindex(picture.shape):
            place = {
                "axial": (10 - column, 12 - row, index),
                "coronal": (10 - column, index, 16 - row),
                "sagittal": (index, 12 - column, 16 - row),
            }[axis]
            assert picture[row, column] == volume[place]


AT_THE_CENTRE: tuple[tuple[Axis, int], ...] = (("axial", 8), ("coronal", 6), ("sagittal", 5))


def test_slices_are_numbered_towards_right_front_and_head(tmp_path: Path) -> None:
    volume = marked()
    path = write(tmp_path, stored_as(volume, "LPI"))
    for axis, index, mark in (("sagittal", 9, RIGHT), ("coronal", 11, FRONT), ("axial", 15, HEAD)):
        found = [place for place in range(17) if place < volume.shape[("sagittal", "coronal", "axial").index(axis)]]
        bright = [place for place in found if (shown(path, axis=axis, index=place)[..., 0] == mark).any()]
        assert bright == [index]


def test_an_oblique_volume_is_read_along_its_nearest_axes(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0, 0], [np.sin(angle), np.cos(angle), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    path = write(tmp_path, nibabel.Nifti1Image(marked(), turn))
    assert read_volume(path).codes == "RAS"
    assert shown(path, index=8)[6, 1, 0] == RIGHT


def test_the_sform_goes_before_the_qform_and_both_are_named(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(marked(), None)
    image.header.set_sform(np.diag([-1, 1, 1, 1]), code=0)
    image.header.set_qform(np.diag([-1, 1, 1, 1]), code=1)
    path = write(tmp_path, nibabel.Nifti1Image(marked(), None, image.header), "q.nii")
    assert (read_volume(path).orientation_from, read_volume(path).codes) == ("qform", "LAS")
    image.set_sform(np.diag([1, 1, 1, 1]), code=2)
    image.set_qform(np.diag([-1, 1, 1, 1]), code=1)
    both = read_volume(write(tmp_path, image, "both.nii"))
    assert (both.orientation_from, both.codes, both.contradicts) == ("sform", "RAS", True)
    image.set_qform(np.diag([1, 1, 1, 1]), code=1)
    assert not read_volume(write(tmp_path, image, "same.nii")).contradicts


def test_a_volume_that_states_no_orientation_says_so(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(marked(), None)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    path = write(tmp_path, image, "none.nii")
    assert (read_volume(path).orientation_from, read_volume(path).codes) == ("none", "LAS")
    assert read_nifti_header(path).reading[0].parameters["orientation_from"] == "none"


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_stored_numbers_become_values_by_slope_and_intercept(tmp_path: Path, dtype: type, order: str) -> None:
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.dtype(dtype).newbyteorder(order))
    image = nibabel.Nifti1Image(values, np.eye(4), nibabel.Nifti1Header(endianness=order), dtype=dtype)
    path = write(tmp_path, image, "v.nii")
    scaled = tmp_path / "scaled.nii"
    scaled.write_bytes(patched(path, 112, f"{order}2f", 2.0, -10.0))
    window = ((20.0, 61.0),)
    raw = shown(path, index=1, windows=window)[..., 0]
    twice = shown(scaled, index=1, windows=window)[..., 0]
    for row, column in np.ndindex(raw.shape):
        value = int(values[1 - column, 2 - row, 1])
        assert raw[row, column] == round(np.clip((value - 19.5) / 60 + 0.5, 0, 1) * 255)
        assert twice[row, column] == round(np.clip((2 * value - 10 - 19.5) / 60 + 0.5, 0, 1) * 255)


def test_a_slope_of_zero_is_no_slope(tmp_path: Path) -> None:
    path = write(tmp_path, stored_as(marked(), "RAS"), "v.nii")
    assert np.array_equal(shown(patched(path, 112, "<2f", 0.0, 50.0), index=8), shown(path, index=8))


def test_three_windows_are_red_green_and_blue(tmp_path: Path) -> None:
    path = write(tmp_path, stored_as(marked(), "RAS"))
    windows = ((128.0, 256.0), (200.0, 60.0), (50.0, 1.0))
    colour = shown(path, index=8, windows=windows)
    for channel, window in enumerate(windows):
        assert np.array_equal(colour[..., channel], shown(path, index=8, windows=(window,))[..., 0])
    header = read_nifti_header(path, view=View(index=8, windows=windows))
    assert header.mode == "RGB"
    assert header.reading[1].model_dump() == {
        "name": "window",
        "parameters": {"windows": [[128.0, 256.0], [200.0, 60.0], [50.0, 1.0]], "function": "LINEAR", "origin": "view"},
    }


def test_without_a_window_all_slices_have_the_same_greys(tmp_path: Path) -> None:
    volume = np.zeros((20, 20, 30), np.float32)
    volume[5:15, 5:15] = np.linspace(100, 300, 30)
    volume[0, 0, 0], volume[1, 1, 1] = np.nan, np.inf
    path = write(tmp_path, stored_as(volume, "RAS"))
    record = read_nifti_header(path, view=View(index=3)).reading[1]
    assert record.name == "grey-range"
    assert record.parameters["origin"] == "volume"
    assert record.parameters["low"] == 0
    assert 250 < record.parameters["high"] < 300  # type: ignore[operator]
    middles = [int(shown(path, index=index, windows=())[10, 10, 0]) for index in (3, 15, 25)]
    assert middles == [round(255 * volume[10, 10, index] / record.parameters["high"]) for index in (3, 15, 25)]  # type: ignore[operator]
    assert shown(path, index=0, windows=())[19, 19].tolist() == [0, 0, 0]


def test_the_range_of_the_header_goes_before_a_measured_one(tmp_path: Path) -> None:
    image = stored_as(marked(), "RAS")
    image.header["cal_min"], image.header["cal_max"] = 0, 510
    path = write(tmp_path, image)
    assert shown(path, index=8, windows=())[6, 1, 0] == RIGHT / 2
    assert read_nifti_header(path).reading[1].parameters == {"origin": "file", "low": 0.0, "high": 510.0}


def test_a_segmentation_and_a_constant_have_a_range(tmp_path: Path) -> None:
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[20, 20, 18:24] = 3
    assert shown(write(tmp_path, stored_as(mask, "RAS")), index=20, windows=()).max() == 255
    assert shown(write(tmp_path, stored_as(mask * 0 + 7, "RAS"), "c.nii"), index=20, windows=()).max() == 0
    assert mask_areas(tmp_path / "volume.nii.gz", "axial")[17:25] == [0, 1, 1, 1, 1, 1, 1, 0]
    assert mask_areas(tmp_path / "volume.nii.gz", "sagittal").index(6) == 20


def test_a_fourth_dimension_is_chosen_by_the_view(tmp_path: Path) -> None:
    volumes = np.stack([np.full((4, 5, 6), value, np.uint8) for value in (10, 20, 30)], axis=-1)
    path = write(tmp_path, nibabel.Nifti1Image(volumes, np.eye(4)))
    assert read_volume(path).num_volumes == 3
    assert [int(shown(path, index=2, volume=number)[0, 0, 0]) for number in range(3)] == [10, 20, 30]
    with pytest.raises(UnreadableImageError, match="3 volumes; there is no volume 3"):
        open_nifti(path, view=View(volume=3))
    with pytest.raises(UnreadableImageError, match="6 axial slices; there is no slice 6"):
        read_nifti_header(path, view=View(index=6))


def test_colour_is_shown_as_it_is(tmp_path: Path) -> None:
    colour = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["R"][3, 4, 2], colour["B"][0, 0, 2] = 200, 90
    path = write(tmp_path, nibabel.Nifti1Image(colour, np.eye(4)))
    picture = shown(path, index=2)
    assert picture[0, 0].tolist() == [200, 0, 0]
    assert picture[4, 3].tolist() == [0, 0, 90]
    assert [step.name for step in read_nifti_header(path).reading] == ["volume-slice"]


def test_thick_slices_keep_the_proportions(tmp_path: Path) -> None:
    path = write(tmp_path, stored_as(marked(), "PIR", (0.5, 0.5, 2.5)))
    header = read_nifti_header(path, view=View(axis="coronal", index=6))
    assert (header.width, header.height) == open_nifti(path, view=View(axis="coronal", index=6)).size == (11, 85)
    assert header.reading[-1].model_dump() == {
        "name": "square-pixels",
        "parameters": {"column_spacing": 0.5, "row_spacing": 2.5},
    }
    assert [step.name for step in read_nifti_header(path).reading] == ["volume-slice", "grey-range"]


def test_nifti_2(tmp_path: Path) -> None:
    image = nibabel.Nifti2Image(marked(), np.eye(4))
    path = write(tmp_path, image)
    assert is_nifti(path.read_bytes()[:HEAD_BYTES])
    assert shown(path, index=8)[6, 1, 0] == RIGHT


def test_what_is_and_what_is_not_nifti(tmp_path: Path) -> None:
    packed, plain = (write(tmp_path, stored_as(marked(), "RAS"), name).read_bytes() for name in ("v.nii.gz", "v.nii"))
    assert is_nifti(packed[:HEAD_BYTES])
    assert is_nifti(plain[:HEAD_BYTES])
    assert not is_nifti(gzip.compress(b"PK" * 500)[:HEAD_BYTES])
    for other in (b"", b"\x1f\x8b", b"\x89PNG\r\n\x1a\n" + bytes(400), bytes(400)):
        assert not is_nifti(other)
    with pytest.raises(UnreadableImageError, match="not a NIfTI file"):
        read_volume(bytes(400))
    with pytest.raises(UnreadableImageError, match="missing"):
        read_volume(tmp_path / "absent.nii")


def test_bytes_are_read_like_files(tmp_path: Path) -> None:
    for name in ("v.nii", "v.nii.gz"):
        path = write(tmp_path, stored_as(marked(), "ASL"), name)
        assert np.array_equal(shown(path.read_bytes(), index=8), shown(path, index=8))


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path, stored_as(marked(), "RAS"))
    assert shown(path, index=8)[6, 1, 0] == RIGHT
    write(tmp_path, stored_as(np.full(SHAPE, 42, np.int16), "RAS"))
    assert shown(path, index=8)[6, 1, 0] == 42


@pytest.mark.parametrize(
    ("offset", "layout", "value", "words"),
    [
        (40, "<8h", (3, 0, 13, 17, 1, 1, 1, 1), "impossible dimensions"),
        (40, "<8h", (3, -5, 13, 17, 1, 1, 1, 1), "impossible dimensions"),
        (40, "<8h", (5, 11, 13, 1, 1, 17, 1, 1), "more than four dimensions"),
        (40, "<8h", (3, 11, 13, 18, 1, 1, 1, 1), "cut short"),
        (40, "<8h", (3, 30000, 30000, 30000, 1, 1, 1, 1), "bytes without compression"),
        (40, "<8h", (4, 1, 1, 1, 30000, 1, 1, 1), "cut short"),
        (70, "<h", (32,), "complex64 are no grey values"),
        (70, "<h", (1536,), "no grey values|not known"),
        (70, "<h", (7777,), "data type 7777 is not known"),
        (108, "<f", (float("nan"),), "damaged"),
        (108, "<f", (0.0,), "vox_offset 0"),
        (280, "<4f", (0.0, 0.0, 0.0, 0.0), "orientation that is none"),
        (280, "<4f", (float("inf"), 0.0, 0.0, 0.0), "orientation that is none"),
        (344, "4s", (b"ni1\0",), "NIfTI pair"),
    ],
)
def test_headers_that_lie(tmp_path: Path, offset: int, layout: str, value: tuple[Any, ...], words: str) -> None:
    path = write(tmp_path, stored_as(marked(), "RAS"), "v.nii")
    broken = patched(path, offset, layout, *value)
    for data in (broken, gzip.compress(broken)):
        with pytest.raises(UnreadableImageError, match=words) as caught:
            open_nifti(data, name="scan")
        assert caught.value.file == "scan"


def test_cut_or_damaged_compression(tmp_path: Path) -> None:
    data = write(tmp_path, stored_as(marked(), "RAS")).read_bytes()
    with pytest.raises(UnreadableImageError, match="cut short"):
        open_nifti(data[: len(data) // 2])
    broken = bytearray(data)
    broken[-6] ^= 0xFF  # in the checksum
    with pytest.raises(UnreadableImageError, match="damaged"):
        open_nifti(bytes(broken))


def test_a_bomb_is_refused_before_it_expands(tmp_path: Path) -> None:
    header = bytearray(write(tmp_path, stored_as(marked(), "RAS"), "v.nii").read_bytes()[:352])
    struct.pack_into("<8h", header, 40, 3, 1000, 1000, 1500, 1, 1, 1, 1)  # 3,000,000,000 bytes
    path, surplus = tmp_path / "bomb.nii.gz", tmp_path / "surplus.nii.gz"
    path.write_bytes(gzip.compress(bytes(header) + bytes(64 << 20)))
    # A small volume, and then megabytes that belong to nothing.
    struct.pack_into("<8h", header, 40, 3, 10, 10, 10, 1, 1, 1, 1)
    surplus.write_bytes(gzip.compress(bytes(header) + bytes(64 << 20)))
    tracemalloc.start()
    with pytest.raises(UnreadableImageError, match="3000000352 bytes without compression; the limit is 2147483648"):
        open_nifti(path)
    # Allowed by the limit, but more than deflate could ever have packed into this file.
    with pytest.raises(UnreadableImageError, match="cut short"):
        open_nifti(path, limits=Limits(max_volume_bytes=1 << 32))
    with pytest.raises(UnreadableImageError, match="far beyond"):
        open_nifti(surplus)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_without_a_view_the_middle_slice_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path, stored_as(marked(), "PSR"))
    assert np.array_equal(np.asarray(open_nifti(path)), shown(path, index=8, windows=()))
    assert read_nifti_header(path).reading[0].parameters["slice"] == 8
    assert middle_slice(path, FULL) == View(index=8, windows=FULL)


def test_limits(tmp_path: Path) -> None:
    path = write(tmp_path, stored_as(marked(), "RAS"))
    for limits, words in (
        (Limits(max_pixels=100), "143|13 pixels"),
        (Limits(max_ratio=1.1), "aspect ratio"),
        (Limits(max_frames=16), "17 slices"),
        (Limits(max_bytes=100), "limit is 100"),
        (Limits(max_volume_bytes=1000), "limit is 1000"),
    ):
        with pytest.raises(UnreadableImageError, match=words):
            read_nifti_header(path, limits=limits)


def test_damaged_headers_are_never_a_crash(tmp_path: Path) -> None:
    data = write(tmp_path, stored_as(marked(), "RAS"), "v.nii").read_bytes()
    draw = np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        broken = bytearray(data)
        for place in draw.integers(0, 352, draw.integers(1, 8)):
            broken[place] = draw.integers(0, 256)
        try:
            open_nifti(bytes(broken), view=View(index=int(draw.integers(0, 12))))
        except UnreadableImageError:
            refused += 1
    assert 50 < refused < 400


def test_against_nibabel_as_closest_canonical(tmp_path: Path) -> None:
    """The same voxels as nibabel's own turn of the whole volume."""
    for codes in ("PSR", "ILA", "LAS"):
        path = write(tmp_path, stored_as(marked(), codes), f"{codes}.nii")
        canonical = np.asanyarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
        assert np.array_equal(shown(path, index=4)[..., 0], canonical[::-1, ::-1, 4].T)


def test_left_is_left_on_an_atlas() -> None:
    """Debian's AAL atlas: label 1 is the left precentral gyrus, 2 the right one."""
    atlas = Path("/usr/share/mricron/templates/aal.nii.gz")
    if not atlas.exists():
        pytest.skip("Debian's mricron-data is not installed")
    window = ((1.0, 1.0),)
    stored = nibabel.load(atlas)
    areas = [int((np.asanyarray(stored.dataobj[..., place]) == 1).sum()) for place in range(stored.shape[2])]
    index = int(np.argmax(areas))
    at_least_one = shown(atlas, index=index, windows=window)[..., 0] > 0
    at_least_two = shown(atlas, index=index, windows=((2.0, 1.0),))[..., 0] > 0
    columns = np.nonzero(at_least_one & ~at_least_two)[1]
    assert columns.size == max(areas)
    assert columns.min() > at_least_one.shape[1] / 2
