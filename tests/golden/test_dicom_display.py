"""Greys and colours of DICOM frames, worked by hand from the standard's formulas (PS3.3, C.7.6.3.1.2, C.11.1, C.11.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_files import ENHANCED_CT, SECONDARY_CAPTURE, write_dicom
from medtune.imaging.read import open_picture, read_header
from medtune.types import View

BRAIN = View(windows=((40.0, 80.0),))


def shown(file: Path, view: View | None = None) -> list[Any]:
    """The pixels, row after row: a number where all three channels are the same."""
    pixels = np.asarray(open_picture(file, view=view)).reshape(-1, 3)
    return [int(r) if r == g == b else (int(r), int(g), int(b)) for r, g, b in pixels]


def grey(file: Path, values: list[int], dtype: Any = np.uint16, **changes: Any) -> Path:
    return write_dicom(file, np.array([values], dtype), **changes)


def steps(file: Path, view: View | None = None) -> dict[str, Any]:
    return {record.name: record.parameters for record in read_header(file, view=view).reading}


def table(first: int, entries: list[int], bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


def test_the_slope_and_intercept_come_before_the_window(tmp_path: Path) -> None:
    # Hounsfield units 2 x 512 - 1024 = 0, 40, 78 and 80; (40 - 39.5) / 79 + 0.5 of 255 is 129.1; (78 - 39.5) / 79 + 0.5: 251.8.
    file = grey(tmp_path / "ct", [512, 532, 551, 552], RescaleSlope=2, RescaleIntercept=-1024)
    assert shown(file, BRAIN) == [0, 129, 252, 255]
    assert steps(file, BRAIN) == {
        "modality-lut": {"slope": 2.0, "intercept": -1024.0},
        "window": {"windows": [[40.0, 80.0]], "function": "LINEAR", "origin": "view"},
    }


def test_three_windows_are_red_green_and_blue(tmp_path: Path) -> None:
    file = grey(tmp_path / "ct", [1064], RescaleSlope=1, RescaleIntercept=-1024)
    # 40 HU: 129.1 of (40, 80); (40 - 99.5) / 199 + 0.5 = 0.201 of (100, 200); above (0, 10).
    assert shown(file, View(windows=((40, 80), (100, 200), (0, 10)))) == [(129, 51, 255)]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", [0, 129, 194, 255]),  # from 0 to 79; (60 - 39.5) / 79 + 0.5 = 0.7595
        ("LINEAR_EXACT", [0, 128, 191, 255]),  # from 0 to 80; 0.5 and 0.75 of 255
        ("SIGMOID", [30, 128, 186, 225]),  # 1 / (1 + e^2), 1/2, 1 / (1 + e^-1), 1 / (1 + e^-2)
    ],
)
def test_the_files_own_window_and_its_function(tmp_path: Path, function: str, expected: list[int]) -> None:
    file = grey(tmp_path / "ct", [0, 40, 60, 80], WindowCenter=[40, 400], WindowWidth=[80, 2000], VOILUTFunction=function)
    assert shown(file) == expected
    assert steps(file)["window"]["origin"] == "file"


def test_a_window_of_the_view_is_linear_whatever_the_file_says(tmp_path: Path) -> None:
    file = grey(tmp_path / "ct", [0, 40, 60, 80], WindowCenter=0, WindowWidth=1000, VOILUTFunction="SIGMOID")
    assert shown(file, BRAIN) == [0, 129, 194, 255]


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 40, "WindowWidth": 0}, {"WindowCenter": "", "WindowWidth": 80}])
def test_without_a_sound_window_all_values_are_shown(tmp_path: Path, window: dict[str, Any]) -> None:
    file = grey(tmp_path / "ct", [100, 180, 300], **window)
    assert shown(file) == [0, 102, 255]  # 80 / 200 of 255
    assert steps(file) == {"full-range": {}}


def test_monochrome1_is_inverted_at_the_end(tmp_path: Path) -> None:
    file = grey(tmp_path / "cr", [0, 40, 79], PhotometricInterpretation="MONOCHROME1")
    assert shown(file, BRAIN) == [255, 126, 0]
    assert list(steps(file, BRAIN)) == ["window", "invert"]


def test_padding_is_black_and_takes_no_part(tmp_path: Path) -> None:
    values = [-2000, 100, 180, 300]
    file = grey(tmp_path / "ct", values, np.int16, PixelPaddingValue=-2000)
    assert shown(file) == [0, 0, 102, 255]
    inverted = grey(tmp_path / "cr", values, np.int16, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    assert shown(inverted) == [0, 255, 153, 0]
    between = grey(tmp_path / "range", [10, 15, 20, 100, 200], PixelPaddingValue=20, PixelPaddingRangeLimit=10)
    assert shown(between) == [0, 0, 0, 0, 255]


def test_padding_written_with_other_bits_is_still_found(tmp_path: Path) -> None:
    # -2000 of 12 bits is stored as 2096, and stands in such files as the 16-bit number 63536.
    file = grey(tmp_path / "ct", [2096, 100, 300], BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    assert shown(file) == [0, 0, 255]
    assert steps(file)["padding-black"] == {"from": 2096.0, "to": 2096.0}


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ({"PixelPaddingValue": -32768}, [0, 85, 170, 255]),  # its lowest 12 bits are 0: water would be black
        ({"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": -1000}, [0, 0, 128, 255]),  # up to -1000
        ({"PixelPaddingValue": 0x800 + 1048}, [0, 0, 128, 255]),  # -1000 of 12 bits, written without its sign
        ({"PixelPaddingValue": -1000}, [0, 0, 128, 255]),
    ],
)
def test_padding_that_does_not_fit_the_stored_bits_is_no_pixel(
    tmp_path: Path, padding: dict[str, int], expected: list[int]
) -> None:
    values = [-1000, 0, 1000, 2000]
    file = grey(tmp_path / "ct", values, np.int16, BitsStored=12, HighBit=11, **padding)
    assert shown(file) == expected


def test_bits_above_bits_stored_are_no_pixels(tmp_path: Path) -> None:
    # 0xF000 is an overlay in bits 12 to 15 (retired, seen in old archives).
    assert shown(grey(tmp_path / "ct", [0xF000, 0xF028, 0x004F], BitsStored=12, HighBit=11), BRAIN) == [0, 129, 255]


@pytest.mark.parametrize(
    ("values", "dtype", "high"),
    [
        ([0, 40 << 4, 300 << 4], np.uint16, 15),
        ([0xC003, 40 << 2, 300 << 2], np.uint16, 13),  # overlays in the bits above and below
        ([0, 40 << 4, 300 << 4], np.int16, 15),
    ],
)
def test_stored_bits_may_lie_higher(tmp_path: Path, values: list[int], dtype: Any, high: int) -> None:
    file = grey(tmp_path / "old", values, dtype, BitsStored=12, HighBit=high)
    assert shown(file, View(windows=((150.5, 301),))) == [0, 34, 255]  # from 0 to 300; 40 / 300 of 255


def test_the_sign_of_stored_bits_that_lie_higher(tmp_path: Path) -> None:
    file = grey(tmp_path / "old", [-150 << 4, 0, 150 << 4], np.int16, BitsStored=12, HighBit=15)
    assert shown(file, View(windows=((0.5, 301),))) == [0, 128, 255]


def test_a_modality_table_replaces_slope_and_intercept(tmp_path: Path) -> None:
    file = grey(tmp_path / "cr", [9, 10, 11, 12, 99], ModalityLUTSequence=[table(10, [0, 40, 79], 16)])
    assert shown(file, BRAIN) == [0, 0, 129, 255, 255]
    assert steps(file, BRAIN)["modality-lut"] == {"entries": 3}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_voi_table_in_other_encodings(tmp_path: Path, syntax: str) -> None:
    file = write_dicom(
        tmp_path / "mg",
        np.array([[9, 10, 11, 12, 99]], ">u2" if syntax == ExplicitVRBigEndian else "<u2"),
        syntax=syntax,
        VOILUTSequence=[table(10, [0, 512, 1023], 10)],
    )
    assert shown(file) == [0, 0, 128, 255, 255]  # 512 / 1023 of 255 = 127.6
    assert list(steps(file)) == ["voi-lut"]


def test_a_voi_table_that_begins_below_zero(tmp_path: Path) -> None:
    changes = {"RescaleSlope": 1, "RescaleIntercept": -1024, "VOILUTSequence": [table(0, [0, 100, 255], 8)]}
    changes["VOILUTSequence"][0]["LUTDescriptor"].value = [3, 2**16 - 1, 8]  # -1 as an unsigned number
    assert shown(grey(tmp_path / "ct", [1022, 1023, 1024, 1025, 2000], **changes)) == [0, 0, 100, 255, 255]


def test_palette_colours(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in (("Red", [0, 0x8000, 0xFF00]), ("Green", [0x1000, 0, 0]), ("Blue", [0, 0, 0x0100])):
        changes[f"{name}PaletteColorLookupTableDescriptor"] = [3, 5, 16]
        changes[f"{name}PaletteColorLookupTableData"] = np.array(entries, "<u2").tobytes()
    file = grey(tmp_path / "us", [0, 5, 6, 7, 200], np.uint8, **changes)
    assert shown(file) == [(0, 16, 0), (0, 16, 0), (128, 0, 0), (255, 0, 1), (255, 0, 1)]


def test_an_eight_bit_palette_for_sixteen_bit_values(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        changes[f"{name}PaletteColorLookupTableDescriptor"] = [4, 300, 8]
        changes[f"{name}PaletteColorLookupTableData"] = bytes([7, 8, 9, 10])
    assert shown(grey(tmp_path / "us", [300, 302, 1000], **changes)) == [7, 9, 10]


def test_ybr_full_422(tmp_path: Path) -> None:
    # Two pixels share Cb = 128 and Cr = 178: R = Y + 1.402 x 50, G = Y - 0.714136 x 50, B = Y.
    file = write_dicom(
        tmp_path / "us",
        np.zeros((1, 2, 3), np.uint8),
        sop_class=SECONDARY_CAPTURE,
        PhotometricInterpretation="YBR_FULL_422",
        PixelData=bytes([100, 50, 128, 178]),
    )
    assert shown(file) == [(170, 64, 100), (120, 14, 50)]


def test_rgb_called_ybr_full_422_is_told_by_its_length(tmp_path: Path) -> None:
    file = write_dicom(
        tmp_path / "us", np.array([[[100, 128, 178], [50, 128, 178]]], np.uint8), PhotometricInterpretation="YBR_FULL_422"
    )
    assert shown(file) == [(170, 64, 100), (120, 14, 50)]


def test_planes_after_one_another(tmp_path: Path) -> None:
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    file = write_dicom(tmp_path / "sc", pixels, PlanarConfiguration=1, PixelData=bytes([1, 4, 2, 5, 3, 6]))
    assert shown(file) == [(1, 2, 3), (4, 5, 6)]


def test_sixteen_bit_colours_keep_their_range(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "sc", np.array([[[0, 32768, 65535]]], np.uint16))
    assert shown(file) == [(0, 128, 255)]


def test_each_frame_of_an_enhanced_file_has_its_own_values_and_window(tmp_path: Path) -> None:
    groups = []
    for intercept, center in ((0, 40), (-100, 140)):
        group, values, voi = Dataset(), Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept = 1, intercept
        voi.WindowCenter, voi.WindowWidth = center, 80
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [values], [voi]
        groups.append(group)
    file = write_dicom(
        tmp_path / "ct",
        np.array([[[40, 60]], [[240, 260]]], np.uint16),
        sop_class=ENHANCED_CT,
        PerFrameFunctionalGroupsSequence=groups,
        RescaleIntercept=5000,  # of no frame
        RescaleSlope=1,
    )
    assert shown(file, View(index=0)) == [129, 194]
    assert shown(file, View(index=1)) == [129, 194]
    assert shown(file, View(index=1, windows=((160, 80),))) == [65, 129]  # 140 and 160 HU
    assert steps(file, View(index=1))["modality-lut"] == {"slope": 1.0, "intercept": -100.0}
    assert steps(file, View(index=1))["frame"] == {"index": 1, "frames": 2}


def test_shared_groups_hold_for_every_frame(tmp_path: Path) -> None:
    group, values = Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept = 1, -1024
    group.PixelValueTransformationSequence = [values]
    file = write_dicom(
        tmp_path / "ct", np.full((2, 1, 1), 1064, np.uint16), sop_class=ENHANCED_CT, SharedFunctionalGroupsSequence=[group]
    )
    assert shown(file, View(index=1, windows=BRAIN.windows)) == [129]


def test_floating_point_pixels(tmp_path: Path) -> None:
    file = write_dicom(
        tmp_path / "map",
        np.zeros((1, 3), np.uint16),
        PixelData=None,
        BitsAllocated=32,
        BitsStored=None,
        HighBit=None,
        PixelRepresentation=None,
        FloatPixelData=np.array([0.0, 39.5, 79.0], np.float32).tobytes(),
    )
    assert shown(file, BRAIN) == [0, 128, 255]
