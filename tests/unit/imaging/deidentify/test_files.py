"""Single files through the profile: what goes, what stays, where a file lands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from dicom_objects import CT, ROOT, SECONDARY_CAPTURE, ULTRASOUND, image, save, with_text
from medtune.imaging.deidentify import file, text
from medtune.imaging.deidentify.file import clean_file
from medtune.imaging.deidentify.pixels import outside_regions, suspicions
from medtune.imaging.deidentify.verdict import REASONS
from medtune.imaging.pseudonym import Pseudonyms

KEY = bytes(range(32))
PSEUDONYMS = Pseudonyms(KEY)


def clean(path: Path, **settings: Any) -> tuple[dict[str, Any], Dataset]:
    """The result, and the file written."""
    target = path.with_name("result.dcm")
    result = clean_file(str(path), str(target), KEY, {"ocr": "none", **settings})
    assert result["verdict"] in ("pass", "review"), result
    return result, dcmread(target)


def refused(path: Path, **settings: Any) -> str:
    """Why nothing was written."""
    target = path.with_name("result.dcm")
    result = clean_file(str(path), str(target), KEY, {"ocr": "none", **settings})
    assert not target.exists()
    (reason,) = result["reasons"]
    assert reason in REASONS
    assert isinstance(reason, str)
    return reason


# ----------------------------------------------------------------------------------------------------------------- header


def test_names_ids_uids_and_dates_are_replaced_consistently(tmp_path: Path) -> None:
    original = image()
    result, cleaned = clean(save(original, tmp_path / "a.dcm"))
    patient = PSEUDONYMS.name("patient", "PID-0815-4711")
    assert (result["verdict"], result["reasons"]) == ("pass", [])
    assert cleaned.PatientID == str(cleaned.PatientName) == result["names"]["patient"] == patient
    assert cleaned.StudyInstanceUID == PSEUDONYMS.uid(f"{ROOT}.2")
    assert cleaned.SOPInstanceUID == cleaned.file_meta.MediaStorageSOPInstanceUID == PSEUDONYMS.uid(f"{ROOT}.1.1")
    assert cleaned.PatientBirthDate == ""
    assert (cleaned.StudyTime, cleaned.Manufacturer) == ("101500", "Example Devices")
    assert np.array_equal(cleaned.pixel_array, np.arange(64 * 64).reshape(64, 64))


def test_all_dates_of_a_patient_move_by_one_number_of_days(tmp_path: Path) -> None:
    from datetime import date

    first = image(AcquisitionDateTime="20200229101500.5+0100")
    second = image(number=2, StudyDate="20210315", StudyInstanceUID=f"{ROOT}.9")
    cleaned = [clean(save(original, tmp_path / f"{index}" / "a.dcm"))[1] for index, original in enumerate((first, second))]
    days = PSEUDONYMS.shift_days("PID-0815-4711")
    for before, after in ((first, cleaned[0]), (second, cleaned[1])):
        assert (date.fromisoformat(after.StudyDate) - date.fromisoformat(before.StudyDate)).days == days
    assert cleaned[0].AcquisitionDateTime == f"{cleaned[0].StudyDate}101500.5+0100"
    interval = date.fromisoformat(cleaned[1].StudyDate) - date.fromisoformat(cleaned[0].StudyDate)
    assert interval.days == 380
    assert cleaned[0].LongitudinalTemporalInformationModified == "MODIFIED"


def test_what_was_done_is_written_into_the_file(tmp_path: Path) -> None:
    _, cleaned = clean(save(image(), tmp_path / "a.dcm"), options=["retain-patient"], dates="keep")
    assert cleaned.PatientIdentityRemoved == "YES"
    assert [item.CodeValue for item in cleaned.DeidentificationMethodCodeSequence] == ["113100", "113106", "113108"]
    assert {item.CodingSchemeDesignator for item in cleaned.DeidentificationMethodCodeSequence} == {"DCM"}
    assert cleaned.LongitudinalTemporalInformationModified == "UNMODIFIED"
    assert cleaned.StudyDate == "20200229"
    assert cleaned.preamble == b"\0" * 128
    assert cleaned.file_meta.ImplementationClassUID == file.IMPLEMENTATION_UID


def test_the_head_and_the_preamble_are_new(tmp_path: Path) -> None:
    path = save(image(), tmp_path / "a.dcm")
    dataset = dcmread(path)
    dataset.preamble = b"Musterfrau".ljust(128, b" ")
    dataset.file_meta.SourceApplicationEntityTitle = "MUSTERHOSPITAL"
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3.4.5"
    dataset.file_meta.PrivateInformation = b"Musterfrau"
    dataset.save_as(path)
    clean(path)
    content = path.with_name("result.dcm").read_bytes()
    assert b"MUSTERHOSPITAL" not in content
    assert b"Musterfrau" not in content


def test_sequences_private_attributes_curves_and_overlays(tmp_path: Path) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, f"{ROOT}.1.7"
    request = Dataset()
    request.RequestedProcedureDescription = "for Mrs Musterfrau"
    original = image(ReferencedImageSequence=Sequence([item]), RequestAttributesSequence=Sequence([request]))
    block = original.private_block(0x0029, "EXAMPLE", create=True)
    block.add_new(0x10, "LO", "Musterfrau")
    original.add_new(0x50000010, "US", 1)
    original.add_new(0x60003000, "OW", b"\0\0")
    original.add_new(0x60000022, "LO", "Musterfrau's overlay")
    original.add_new(0x00080001, "UL", 5)
    result, cleaned = clean(save(original, tmp_path / "a.dcm"))
    reference = cleaned.ReferencedImageSequence[0]
    assert (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) == (CT, PSEUDONYMS.uid(f"{ROOT}.1.7"))
    assert "RequestAttributesSequence" not in cleaned
    assert not [
        element for element in cleaned if element.tag.is_private or (element.tag.group >= 0x5000 and element.tag.group < 0x7000)
    ]
    assert result["counts"]["private"] == 2


def test_a_dummy_sequence_keeps_its_form_and_no_value(tmp_path: Path) -> None:
    code, person = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "4711", "99X", "Dr. Beispiel"
    person.PersonIdentificationCodeSequence = Sequence([code])
    person.InstitutionName = "Beispielklinik"
    person.PersonName = "Beispiel^Anna"
    original = image(VerifyingObserverSequence=Sequence([person, person]))
    _, cleaned = clean(save(original, tmp_path / "a.dcm"))
    (item,) = cleaned.VerifyingObserverSequence
    assert str(item.PersonName) == "DEIDENTIFIED"
    assert "Beispiel" not in str(cleaned)


def test_identifiers_are_found_in_texts_that_stay(tmp_path: Path) -> None:
    original = image(ManufacturerModelName="Scanner of Erika MUSTERFRAU", SoftwareVersions=["v1", "pid-0815-4711"])
    result, cleaned = clean(save(original, tmp_path / "a.dcm"))
    assert cleaned.ManufacturerModelName == ""
    assert cleaned.SoftwareVersions == "v1"
    assert result["counts"]["found-in-text"] == 2


def test_ages_above_89_are_one(tmp_path: Path) -> None:
    for index, (age, kept) in enumerate((("093Y", "090Y"), ("089Y", "089Y"), ("011M", "011M"))):
        original = image(PatientAge=age, PatientSex="F")
        _, cleaned = clean(save(original, tmp_path / str(index) / "a.dcm"), options=["retain-patient"])
        assert (cleaned.PatientAge, cleaned.PatientSex) == (kept, "F")


def test_the_profile_s_options_keep_what_they_say(tmp_path: Path) -> None:
    original = image(StationName="CT2", InstitutionName="Klinik", StudyDescription="CT Thorax Musterfrau", PatientSex="F")
    path = save(original, tmp_path / "a.dcm")
    _, plain = clean(path)
    assert "PatientSex" not in plain or not plain.PatientSex
    assert "StudyDescription" not in plain
    options = ["retain-uids", "retain-device", "retain-institution", "clean-descriptors"]
    _, kept = clean(path, options=options)
    assert (kept.StationName, kept.InstitutionName, kept.StudyDescription) == ("CT2", "Klinik", "CT Thorax")
    assert kept.StudyInstanceUID == f"{ROOT}.2"


@pytest.mark.parametrize("name", ["Yamada^Tarou=山田^太郎=やまだ^たろう", "Müller^Jürgen", "王^小明"])
def test_names_of_all_scripts_are_found(tmp_path: Path, name: str) -> None:
    original = image(PatientName=name, ManufacturerModelName=f"for {name.split('=')[-1].replace('^', '')}")
    _, cleaned = clean(save(original, tmp_path / "a.dcm"))
    assert cleaned.ManufacturerModelName == ""
    content = (tmp_path / "result.dcm").read_bytes()
    for part in name.replace("=", "^").split("^"):
        assert part.encode() not in content or len(part) == 1


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_way_of_writing(tmp_path: Path, syntax: str) -> None:
    original = image()
    path = tmp_path / "a.dcm"
    original.file_meta = dcmread(save(image(), tmp_path / "b.dcm")).file_meta
    original.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        original.PixelData = np.arange(64 * 64, dtype=">u2").tobytes()
    original.save_as(path, enforce_file_format=True)
    _, cleaned = clean(path)
    assert np.array_equal(cleaned.pixel_array, np.arange(64 * 64).reshape(64, 64))


def test_what_identifies_by_chance_is_told_in_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An original value in the written bytes stops the file, whatever let it through."""
    path = save(image(), tmp_path / "a.dcm")
    content = bytearray(path.read_bytes())
    path.write_bytes(content)
    monkeypatch.setattr("medtune.imaging.deidentify.apply.Cleaning._clean_value", lambda *_: None)
    assert refused(path).startswith("identifier-left-")


def test_an_identifier_in_a_jpeg_comment_goes(tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image
    from pydicom.uid import JPEGBaseline8Bit

    stream = BytesIO()
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(stream, "JPEG", comment=b"Musterfrau Erika")
    original = image(np.zeros((32, 32), np.uint8))
    original.PixelData = encapsulate([stream.getvalue()])
    original["PixelData"].is_undefined_length = True
    _, cleaned = clean(save(original, tmp_path / "a.dcm", syntax=JPEGBaseline8Bit))
    assert b"Musterfrau" not in (tmp_path / "result.dcm").read_bytes()
    assert not cleaned.file_meta.TransferSyntaxUID.is_encapsulated
    assert np.abs(cleaned.pixel_array.astype(int) - 90).max() <= 2


def test_overlays_in_unused_bits_go(tmp_path: Path) -> None:
    values = np.full((16, 16), 0x0123, np.uint16)
    original = image(values | 0x8000)
    original.BitsStored, original.HighBit = 12, 11
    original.add_new(0x60000100, "US", 16)
    original.add_new(0x60000102, "US", 15)
    _, cleaned = clean(save(original, tmp_path / "a.dcm"))
    assert np.array_equal(np.frombuffer(cleaned.PixelData, "<u2").reshape(16, 16), values)


# -------------------------------------------------------------------------------------------------------------- where to


def test_kinds_that_want_a_person(tmp_path: Path) -> None:
    for number, (kind, reason) in enumerate(
        (
            ("1.2.840.10008.5.1.4.1.1.88.11", "text-object"),
            ("1.2.840.10008.5.1.4.1.1.11.1", "text-object"),
            ("1.2.276.0.7230010.3.1.0.1", "unknown-class"),
        )
    ):
        original = image(sop_class=kind)
        del original.PixelData, original.BitsAllocated
        result, _ = clean(save(original, tmp_path / str(number) / "a.dcm"))
        assert (result["verdict"], result["reasons"]) == ("review", [reason])


def test_kinds_that_are_not_written(tmp_path: Path) -> None:
    document = image(sop_class="1.2.840.10008.5.1.4.1.1.104.1", EncapsulatedDocument=b"%PDF Musterfrau")
    assert refused(save(document, tmp_path / "pdf" / "a.dcm")) == "encapsulated-document"
    saved_screen = image(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    assert refused(save(saved_screen, tmp_path / "screen" / "a.dcm")) == "picture-of-text"
    (tmp_path / "notes.txt").write_text("Musterfrau")
    assert refused(tmp_path / "notes.txt") == "not-dicom"
    (tmp_path / "empty.dcm").write_bytes(b"")
    assert refused(tmp_path / "empty.dcm") == "not-dicom"
    whole = save(image(), tmp_path / "cut" / "a.dcm")
    whole.write_bytes(whole.read_bytes()[:-100])
    assert refused(whole) == "pixels-cut"
    compressed = save(image(), tmp_path / "rle" / "a.dcm")
    dataset = dcmread(compressed)
    dataset.compress(RLELossless)
    dataset.save_as(compressed)
    clean(compressed)
    compressed.with_name("result.dcm").unlink()
    compressed.write_bytes(compressed.read_bytes()[:-100])
    assert refused(compressed) == "unreadable"
    listing = image(sop_class="1.2.840.10008.1.3.10")
    assert refused(save(listing, tmp_path / "dir" / "DICOMDIR")) == "dicomdir"


def test_a_defect_is_told_by_its_place_without_words_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("Musterfrau")

    monkeypatch.setattr(file, "_of_kind", fail)
    result = clean_file(str(save(image(), tmp_path / "a.dcm")), str(tmp_path / "result.dcm"), KEY, {})
    assert (result["verdict"], result["reasons"]) == ("quarantine", ["defect"])
    assert result["place"].startswith("KeyError, test_files.py:")
    assert "Musterfrau" not in str(result)


# ----------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({}, []),
        ({"BurnedInAnnotation": "NO"}, []),
        ({"BurnedInAnnotation": "YES"}, ["burned-in-annotation"]),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, ["image-type"]),
        ({"ImageType": ["ORIGINAL", "SECONDARY"]}, ["image-type"]),
        ({"ConversionType": "DV"}, ["secondary-capture"]),
        ({"Modality": "CR"}, ["modality"]),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, ["colour"]),
    ],
)
def test_which_pictures_are_suspected(attributes: dict[str, Any], found: list[str]) -> None:
    assert suspicions(image(**attributes)) == found


def region(left: int, top: int, right: int, bottom: int) -> Dataset:
    made = Dataset()
    made.RegionLocationMinX0, made.RegionLocationMinY0 = left, top
    made.RegionLocationMaxX1, made.RegionLocationMaxY1 = right - 1, bottom - 1
    return made


def test_ultrasound_keeps_its_regions_only(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 255, (3, 40, 60, 3), dtype=np.uint8)
    regions = [region(10, 8, 40, 30), region(30, 20, 55, 38)]
    original = image(values, sop_class=ULTRASOUND, SequenceOfUltrasoundRegions=Sequence(regions))
    result, cleaned = clean(save(original, tmp_path / "a.dcm"))
    inside = np.zeros((40, 60), bool)
    inside[8:30, 10:40] = inside[20:38, 30:55] = True
    assert np.array_equal(cleaned.pixel_array[:, inside], values[:, inside])
    assert not cleaned.pixel_array[:, ~inside].any()
    assert cleaned.BurnedInAnnotation == "NO"
    assert "113101" in [item.CodeValue for item in cleaned.DeidentificationMethodCodeSequence]
    assert result["reasons"] == ["no-ocr"]
    assert outside_regions(image(values, sop_class=ULTRASOUND)) is None


OCR = pytest.mark.skipif(not text.has_ocr(), reason="needs the extra ocr")


@OCR
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1", "PALETTE COLOR", "RGB", "frames", "deep"])
def test_burned_in_text_is_blanked(tmp_path: Path, photometric: str) -> None:
    shown = with_text("MUSTERFRAU ERIKA 12.03.1958")
    values: Any = shown
    attributes: dict[str, Any] = {}
    if photometric == "MONOCHROME1":
        values, attributes = 255 - shown, {"PhotometricInterpretation": photometric}
    elif photometric == "PALETTE COLOR":
        # Stored values run backwards: the darkest is 255.
        values = 255 - shown
        ramp = (np.arange(255, -1, -1).astype("<u2") * 257).tobytes()
        attributes = {"PhotometricInterpretation": photometric}
        for colour in ("Red", "Green", "Blue"):
            attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            attributes[f"{colour}PaletteColorLookupTableData"] = ramp
    elif photometric == "RGB":
        values = np.repeat(shown[..., None], 3, axis=2)
    elif photometric == "frames":
        values = np.stack([np.full_like(shown, 60)] * 5 + [shown] + [np.full_like(shown, 60)] * 6)
    elif photometric == "deep":
        values = shown.astype(np.int16) * 16 - 1024
    original = image(values, sop_class=SECONDARY_CAPTURE, **attributes)
    result, cleaned = clean(save(original, tmp_path / "a.dcm"), ocr="suspected")
    assert result["verdict"] == "review"
    assert "text-blanked" in result["reasons"]
    after, before = cleaned.pixel_array, original.pixel_array
    changed = after != before
    band = changed.any(axis=(0, 3) if values.ndim == 4 else 0 if photometric == "frames" else 2 if values.ndim == 3 else ())
    rows = np.nonzero(band)[0]
    assert rows.min() >= 8
    assert rows.max() <= 44  # the rest of the picture is as it was
    bright = {"MONOCHROME1": 0, "PALETTE COLOR": 0, "deep": 255 * 16 - 1024}.get(photometric, 255)
    assert (before == bright).sum() > 100
    assert (after == bright).sum() < 5
    from medtune.imaging.deidentify.text import find_text

    assert not find_text(
        after if photometric != "PALETTE COLOR" else 255 - after, frames=photometric == "frames", colour=photometric == "RGB"
    ).boxes
    assert cleaned.BurnedInAnnotation == "NO"


@OCR
def test_a_side_mark_is_no_text(tmp_path: Path) -> None:
    result, cleaned = clean(
        save(image(with_text("L", height=24), sop_class=SECONDARY_CAPTURE), tmp_path / "a.dcm"), ocr="suspected"
    )
    assert result["verdict"] == "pass"
    assert (cleaned.pixel_array == 255).sum() > 20


@OCR
def test_plain_images_are_not_searched_unless_asked(tmp_path: Path) -> None:
    path = save(image(with_text("MUSTERFRAU ERIKA")), tmp_path / "a.dcm")
    assert clean(path, ocr="suspected")[0]["verdict"] == "pass"
    assert clean(path, ocr="all")[0]["reasons"] == ["text-blanked"]


def test_without_ocr_suspected_pictures_want_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "has_ocr", lambda: False)
    original = image(sop_class=SECONDARY_CAPTURE)
    assert clean(save(original, tmp_path / "a.dcm"), ocr="suspected")[0]["reasons"] == ["no-ocr"]


@OCR
def test_a_suspected_picture_that_cannot_be_decoded_is_not_written(tmp_path: Path) -> None:
    original = image(sop_class=SECONDARY_CAPTURE)
    original.PixelData = encapsulate([b"no run lengths"])
    file = save(original, tmp_path / "a.dcm", syntax=RLELossless)
    assert refused(file, ocr="suspected") == "pixels-unreadable"
