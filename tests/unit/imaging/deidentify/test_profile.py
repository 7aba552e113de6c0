"""The table, the choice among its actions, and values in place of others."""

from __future__ import annotations

import re
from datetime import date

import pytest
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.sr.codedict import codes

from medtune.imaging.deidentify.profile import METHODS, Profile, read_table
from medtune.imaging.deidentify.settings import DeidentifySettings
from medtune.imaging.deidentify.values import clean_words, dummy_value, shift_date, shift_datetime

ACTIONS = {"D", "Z", "X", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}


def test_the_table_is_that_of_the_standard() -> None:
    table = read_table()
    rows = table["attributes"]
    assert table["edition"] == "2026d"
    assert re.fullmatch(r"[0-9a-f]{64}", table["xml_sha256"])
    assert len(rows) == len({row["tag"] for row in rows}) == 657
    assert {row["basic"] for row in rows} == ACTIONS
    for row in rows:
        assert set(row.get("options", {})) <= set(table["options"])
        assert set(row.get("options", {}).values()) <= {"K", "C"}
        if row["keyword"]:
            tag = int(row["tag"].replace("x", "0"), 16)
            assert (row["keyword"], row["vr"]) == (dictionary_keyword(tag), dictionary_VR(tag))


@pytest.mark.parametrize(
    ("keyword", "tag", "basic"),
    [  # read by eye in PS3.15, Table E.1-1
        ("PatientName", "00100010", "Z"),
        ("PatientBirthDate", "00100030", "Z"),
        ("SOPInstanceUID", "00080018", "U"),
        ("InstitutionName", "00080080", "X/Z/D"),
        ("OperatorsName", "00081070", "X/Z/D"),
        ("StudyDescription", "00081030", "X"),
        ("DeviceSerialNumber", "00181000", "X/Z/D"),
        ("ContentSequence", "0040a730", "D"),
        ("IconImageSequence", "00880200", "X"),
    ],
)
def test_known_rows(keyword: str, tag: str, basic: str) -> None:
    row = next(row for row in read_table()["attributes"] if row["tag"] == tag)
    assert (row["keyword"], row["basic"]) == (keyword, basic)


def action(keyword: str, **settings: object) -> str:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return Profile(DeidentifySettings.model_validate(settings)).action(tag, dictionary_VR(tag), known=True)


@pytest.mark.parametrize(
    ("keyword", "settings", "expected"),
    [
        ("PatientID", {}, "D"),
        ("AcquisitionDate", {}, "C"),
        ("AcquisitionDate", {"dates": "keep"}, "K"),
        ("AcquisitionDate", {"dates": "remove"}, "Z"),
        ("PatientBirthDate", {"dates": "keep"}, "Z"),  # no option keeps it
        ("StudyInstanceUID", {}, "U"),
        ("StudyInstanceUID", {"options": ["retain-uids"]}, "K"),
        ("ReferencedImageSequence", {}, "U"),
        ("PatientAge", {}, "X"),
        ("PatientAge", {"options": ["retain-patient"]}, "K"),
        ("Allergies", {"options": ["retain-patient"]}, "X"),  # the option says clean, and prose cannot be cleaned
        ("StationName", {"options": ["retain-device"]}, "K"),
        ("InstitutionName", {"options": ["retain-institution"]}, "K"),
        ("StudyDescription", {"options": ["clean-descriptors"]}, "C"),
        ("Rows", {}, "K"),
        ("Manufacturer", {}, "K"),
        ("DestinationAE", {}, "D"),
        ("CodingSchemeUID", {}, "U"),  # not listed: replaced, unless PS3.6 registers it
        ("ManufacturerModelName", {}, "K"),
        ("MaterialNotes", {}, "Z"),  # not listed, prose
        ("EvaluatorName", {}, "D"),
        ("ExpiryDate", {}, "C"),
        ("PatientBirthDateInAlternativeCalendar", {}, "Z"),
    ],
)
def test_actions(keyword: str, settings: dict[str, object], expected: str) -> None:
    assert action(keyword, **settings) == expected


@pytest.mark.parametrize("tag", [0x00091010, 0x50000010, 0x50103000, 0x60003000, 0x60004000, 0x60FF0010, 0x00080000, 0x0008FFFE])
def test_private_curves_overlays_and_unknown_attributes_go(tag: int) -> None:
    assert Profile(DeidentifySettings()).action(tag, "LO", known=dictionary_has_tag(tag)) == "X"


def test_methods_are_those_of_the_context_group() -> None:
    published = {getattr(codes.cid7050, name).value: getattr(codes.cid7050, name).meaning for name in codes.cid7050.dir()}
    for code, meaning in METHODS.values():
        assert published[code] == meaning
    assert [code for code, _ in Profile(DeidentifySettings()).methods] == ["113100", "113107"]
    assert [code for code, _ in Profile(DeidentifySettings(dates="remove", options=("retain-uids",))).methods] == [
        "113100",
        "113110",
    ]


@pytest.mark.parametrize(
    ("value", "days", "expected"),
    [
        ("20200301", -1, "20200229"),
        ("20210301", -1, "20210228"),
        ("2020.03.01", -1, "20200229"),
        ("10000101", -2, "09991230"),
        ("00010101", -1, None),
        ("20200230", -1, None),
        ("2020", -1, None),
        ("YESTERDAY", -1, None),
    ],
)
def test_dates_are_moved(value: str, days: int, expected: str | None) -> None:
    assert shift_date(value, days) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20200301", "20200229"),
        ("20200301235959.123456+0200", "20200229235959.123456+0200"),
        ("202003010730", "202002290730"),
        ("202003", "202002"),
        ("2020", "2019"),
        ("2020-0100", "2019-0100"),
        ("20201301", None),
        ("no date", None),
    ],
)
def test_times_of_day_and_zones_stay(value: str, expected: str | None) -> None:
    assert shift_datetime(value, -1) == expected


def test_intervals_stay() -> None:
    first, second = shift_date("20191231", -1234), shift_date("20240229", -1234)
    assert first is not None
    assert second is not None
    days = date.fromisoformat(second) - date.fromisoformat(first)
    assert days == date(2024, 2, 29) - date(2019, 12, 31)


def test_a_description_keeps_only_imaging_words() -> None:
    assert clean_words("CT Thorax Dr. Mustermann 12.03.1958 AXIAL") == "CT Thorax AXIAL"
    assert clean_words("头部 平扫 王小明") == "头部 平扫"
    assert clean_words("Musterfrau") == ""


def test_every_dummy_is_valid_for_its_representation() -> None:
    from pydicom import config
    from pydicom.valuerep import STR_VR, validate_value

    for vr in sorted(STR_VR):
        if vr != "UI":
            validate_value(vr, dummy_value(vr), config.RAISE)
