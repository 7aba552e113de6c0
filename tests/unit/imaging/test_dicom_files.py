"""DICOM files through open_picture and read_header: every file is a picture or an error that names it and quotes nothing."""

from __future__ import annotations

import struct
import traceback
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from dicom_files import dicom_dataset, write_dicom
from medtune.errors import UnreadableImageError
from medtune.imaging import dicom_file
from medtune.imaging.codestream import stated_size
from medtune.imaging.config import Limits
from medtune.imaging.quiet import quiet
from medtune.imaging.read import open_picture, read_header
from medtune.types import View

BUNDLED = Path(pydicom.data.__file__).parent / "test_files"
NAME = "Canary^Planted"


def refused(picture: Path | bytes, **options: Any) -> UnreadableImageError:
    with pytest.raises(UnreadableImageError) as caught:
        open_picture(picture, **options)
    assert NAME[:6].lower() not in "".join(traceback.format_exception(caught.value)).lower()
    assert caught.value.remedy is not None
    return caught.value


def saved(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    with quiet():
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_every_bundled_file_is_a_picture_or_an_error_that_names_it() -> None:
    good, bad = 0, []
    for file in sorted(BUNDLED.rglob("*")):
        if not file.is_file() or not dicom_file.is_dicom(file.read_bytes()[:132]):
            continue
        try:
            header = read_header(file)
            picture = open_picture(file)
        except UnreadableImageError as error:
            bad.append((str(file), error))
            continue
        assert picture.mode == "RGB"
        assert picture.size == (header.width, header.height)
        good += 1
    assert all(error.file == file and error.remedy is not None for file, error in bad)
    # Of pydicom 3.0.2, with python-gdcm or without: no file of it is JPEG Lossless. The others hold no pixels (plans, reports,
    # directories), or are broken on purpose, or are JPEG of 12 bits, for which only a decoder under the GPL exists.
    assert good >= 88
    assert len(bad) > 20


def test_colours_of_the_bundled_stripes() -> None:
    # All of them show the same ten stripes; the first is pure red, the last white.
    for name in (
        "SC_rgb_rle_32bit",
        "SC_rgb_gdcm_KY",
        "SC_rgb_jls_lossy_sample",
        "SC_ybr_full_422_uncompressed",
        "SC_rgb_dcmtk_+eb+cr",
    ):
        stripes = np.asarray(open_picture(BUNDLED / f"{name}.dcm")).astype(int)
        assert np.abs(stripes[5, 50] - (255, 0, 0)).max() <= 3, name
        assert np.abs(stripes[-5, 50] - (255, 255, 255)).max() <= 3, name


def test_frames_of_an_ultrasound_film_are_decoded_one_at_a_time() -> None:
    film = BUNDLED / "examples_ybr_color.dcm"
    pictures = [np.asarray(open_picture(film, view=View(index=index))) for index in (0, 29)]
    assert not np.array_equal(*pictures)
    everything = pydicom.pixels.pixel_array(film)  # RGB, all thirty
    assert np.array_equal(pictures[1], everything[29])
    assert read_header(film, view=View(index=29)).reading[0].parameters == {"index": 29, "frames": 30}
    error = refused(film, view=View(index=30))
    assert "30 frames" in str(error)


def test_bytes_are_read_as_files_are() -> None:
    file = BUNDLED / "CT_small.dcm"
    assert np.array_equal(open_picture(file), open_picture(file.read_bytes()))


def test_a_file_without_preamble_needs_a_sop_class() -> None:
    bare = saved(dicom_dataset(np.arange(64, dtype=np.uint16).reshape(8, 8)))[132:]
    assert open_picture(bare).size == (8, 8)
    without = bare.replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x17\x00UI")
    assert without != bare
    assert "not a DICOM file" in str(refused(without))


@pytest.mark.parametrize(
    "limits", [{"max_pixels": 63}, {"max_ratio": 1.5}, {"max_frames": 1}, {"max_bytes": 300}, {"max_depth": 2}]
)
def test_limits_are_checked_before_decoding(tmp_path: Path, limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any, **__: Any) -> None:
        raise AssertionError("a decoder was asked")

    inner, middle, outer = Dataset(), Dataset(), Dataset()
    inner.PatientID = NAME
    middle.ReferencedSeriesSequence, outer.ReferencedStudySequence = [inner], [middle]
    file = write_dicom(tmp_path / "big", np.zeros((2, 4, 16), np.uint8), ReferencedPatientSequence=[outer])
    assert open_picture(file).size == (16, 4)
    monkeypatch.setattr(Decoder, "as_array", nothing)
    assert next(iter(limits)) in str(refused(file, limits=Limits(**limits))) or "max_ratio" in limits


def test_nested_sequences_without_end() -> None:
    # 2000 sequences of undefined length within one another: pydicom meets Python's recursion limit.
    opening = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    plain = saved(dicom_dataset(np.zeros((4, 4), np.uint8)))
    place = plain.index(b"\x10\x00\x10\x00PN")
    assert "nests sequences" in str(refused(plain[:place] + opening * 2000 + plain[place:]))


def test_a_deflated_bomb_is_not_inflated() -> None:
    dataset = dicom_dataset(np.zeros((64, 64), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    assert open_picture(saved(dataset)).size == (64, 64)
    dataset.add_new(0x00091001, "OB", bytes(4_000_000))
    small = saved(dataset)
    assert len(small) < 20_000
    assert "inflates" in str(refused(small, limits=Limits(max_bytes=1_000_000)))


def test_a_codestream_may_not_be_larger_than_the_header_says() -> None:
    huge = BytesIO()
    Image.new("L", (2000, 1000)).save(huge, "JPEG")
    dataset = dicom_dataset(np.zeros((8, 8), np.uint8), syntax=JPEGBaseline8Bit)
    dataset.PixelData = encapsulate([huge.getvalue()])
    assert "2000 x 1000" in str(refused(saved(dataset)))


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_the_size_of_a_codestream(kind: str) -> None:
    stream = BytesIO()
    Image.new("L", (300, 20)).save(stream, kind, **({"no_jp2": True} if kind == "JPEG2000" else {}))
    assert stated_size(stream.getvalue()) == (300, 20)
    assert stated_size(stream.getvalue()[:10]) is None
    assert stated_size(b"\0" * 100) is None


def lossless_jpeg(rows: int, columns: int) -> bytes:
    """A frame of JPEG Lossless, selection value 1, of 8 bits, with all samples 128: every difference is 0, of the code 0."""
    huffman = b"\xff\xc4" + struct.pack(">HB16B", 20, 0, 1, *[0] * 15) + b"\0"
    frame = b"\xff\xc3" + struct.pack(">HBHHB3B", 11, 8, rows, columns, 1, 1, 0x11, 0)
    scan = b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, 1, 0, 1, 0, 0)
    bits = rows * columns
    padding = (1 << (-bits % 8)) - 1
    return b"\xff\xd8" + huffman + frame + scan + padding.to_bytes((bits + 7) // 8, "big") + b"\xff\xd9"


def test_jpeg_lossless_is_decoded_in_a_child_process() -> None:
    pytest.importorskip("gdcm", reason="python-gdcm is not installed")
    dataset = dicom_dataset(np.zeros((16, 16), np.uint8), syntax=JPEGLosslessSV1, WindowCenter=128, WindowWidth=256)
    dataset.PixelData = encapsulate([lossless_jpeg(16, 16)])
    assert open_picture(saved(dataset)).getextrema() == ((128, 128),) * 3


def test_a_damaged_jpeg_lossless_file_costs_one_error() -> None:
    pytest.importorskip("gdcm", reason="python-gdcm is not installed")
    dataset = dicom_dataset(np.zeros((16, 16), np.uint8), syntax=JPEGLosslessSV1)
    dataset.PixelData = encapsulate([lossless_jpeg(16, 16)[:-40].replace(b"\xff\xc4", b"\xff\xfe")])
    refused(saved(dataset))
    assert open_picture(BUNDLED / "MR_small.dcm").size == (64, 64)


@pytest.mark.parametrize(
    ("syntax", "said"),
    [
        (JPEGLosslessSV1, ("JPEG Lossless", "medtune[dicom-lossless]")),
        (JPEG2000Lossless, ("JPEG 2000", "pylibjpeg-openjpeg")),
        (MPEG2MPML, ("MPEG2", "uncompressed")),
    ],
)
def test_without_a_decoder_the_remedy_is_named(syntax: str, said: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "available_plugins", property(lambda self: ()))  # noqa: ARG005
    dataset = dicom_dataset(np.zeros((16, 16), np.uint8), syntax=syntax)
    dataset.PixelData = encapsulate([lossless_jpeg(16, 16)])
    error = str(refused(saved(dataset)))
    assert said[0] in error
    assert said[1] in error


def test_a_panic_is_an_error_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):  # as pyo3 raises it: no Exception
        pass

    def panics(*_: Any, **__: Any) -> None:
        raise PanicException(NAME)

    monkeypatch.setattr(Decoder, "as_array", panics)
    assert "PanicException" in str(refused(BUNDLED / "MR_small_RLE.dcm"))


@pytest.mark.parametrize(
    "changes",
    [
        {"RescaleSlope": NAME},
        {"WindowCenter": NAME, "WindowWidth": NAME},
        {"PhotometricInterpretation": "CANARY PLANTED"},
        {"PixelPaddingValue": None, "BitsAllocated": 7},
        {"NumberOfFrames": NAME},
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"VOILUTSequence": [Dataset()]},
    ],
)
def test_wrong_values_are_errors_that_quote_nothing(changes: dict[str, Any]) -> None:
    dataset = dicom_dataset(np.zeros((16, 16), np.uint16), PixelPaddingValue=0)
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
            continue
        vr = pydicom.datadict.dictionary_VR(keyword)
        if isinstance(value, str) and vr in ("DS", "IS"):  # as bytes: pydicom would not let them be made
            dataset[keyword] = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(keyword), vr, len(value), value.encode(), 0, False, True
            )
        else:
            setattr(dataset, keyword, value)
    refused(saved(dataset))


def test_a_window_is_refused_for_colours() -> None:
    assert "colour" in str(refused(BUNDLED / "SC_rgb_rle.dcm", view=View(windows=((40, 80),))))


def test_an_object_without_pixels_is_named_by_its_class() -> None:
    assert "RT Plan Storage" in str(refused(BUNDLED / "rtplan.dcm"))


def test_random_damage_is_an_error_or_a_picture() -> None:
    random = np.random.default_rng(7)
    outcome: Counter[str] = Counter()
    for name in ("CT_small", "MR_small_RLE", "JPEG2000", "examples_palette", "SC_rgb_jpeg_dcmtk", "image_dfl"):
        whole = np.frombuffer((BUNDLED / f"{name}.dcm").read_bytes(), np.uint8)
        for _ in range(25):
            damaged = whole.copy()
            damaged[random.integers(132, min(len(whole), 4000), 12)] = random.integers(0, 256, 12, dtype=np.uint8)
            try:
                outcome[open_picture(damaged.tobytes(), limits=Limits(max_pixels=4_000_000)).mode] += 1
            except UnreadableImageError:
                outcome["refused"] += 1
    assert outcome.total() == 150
    assert outcome["refused"] > 10


def test_rle_with_a_header_that_asks_for_gigabytes() -> None:
    dataset = dicom_dataset(np.zeros((16, 16), np.uint8), syntax=RLELossless, Rows=60000, Columns=60000)
    dataset.PixelData = encapsulate([struct.pack("<16L", 1, 64, *[0] * 14) + b"\0\0"])
    assert "max_pixels" in str(refused(saved(dataset)))


def test_one_header_is_parsed_once_for_all_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Path] = []
    real = dicom_file._parsed
    monkeypatch.setattr(dicom_file, "_parsed", lambda picture, *rest: parsed.append(picture) or real(picture, *rest))
    file = write_dicom(tmp_path / "film", np.zeros((5, 4, 4), np.uint8))
    for index in range(5):
        read_header(file, view=View(index=index))
        open_picture(file, view=View(index=index))
    assert len(parsed) == 1
    write_dicom(file, np.full((3, 4, 4), 9, np.uint8))
    with pytest.raises(UnreadableImageError):
        open_picture(file, view=View(index=4))
