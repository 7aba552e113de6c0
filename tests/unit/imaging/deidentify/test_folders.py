"""A folder of files: names, sorting, going on, refusals; and the same files in the eyes of the package ``deid``."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from dicom_objects import ROOT, SECONDARY_CAPTURE, image, save
from medtune.errors import DataError, RunError
from medtune.imaging.child import Child
from medtune.imaging.deidentify.identifiers import is_well_known
from medtune.imaging.deidentify.pixels import suspicions
from medtune.imaging.deidentify.run import Deidentified, deidentify
from medtune.imaging.deidentify.settings import DeidentifySettings
from medtune.imaging.deidentify.verdict import REASONS, DeidentifyReport, FileRecord
from medtune.imaging.pseudonym import Pseudonyms, load_key

NO_OCR = DeidentifySettings(ocr="none")


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Two patients; folders and files are called by their names, as exports from a PACS are."""
    folder = tmp_path / "hospital"
    for number in range(3):
        save(image(number=number), folder / "Musterfrau_Erika" / f"{number}.dcm")
    save(image(number=9, PatientID="PID-2", PatientName="Beispiel^Bert"), folder / "Beispiel_Bert" / "CT.dcm")
    save(image(number=10, sop_class=SECONDARY_CAPTURE), folder / "Musterfrau_Erika" / "scan.dcm")
    (folder / "Musterfrau_Erika" / "letter.txt").write_text("Dear Mrs Musterfrau")
    document = image(number=11, sop_class="1.2.840.10008.5.1.4.1.1.104.1", EncapsulatedDocument=b"%PDF")
    save(document, folder / "Musterfrau_Erika" / "letter.dcm")
    return folder


def run(source: Path, target: Path, **arguments: object) -> Deidentified:
    return deidentify(source, target, **{"settings": NO_OCR, "key_file": target.parent / "key", **arguments})  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_files_are_sorted_under_new_names(hospital: Path, tmp_path: Path) -> None:
    before = tree(hospital)
    done = run(hospital, tmp_path / "out")
    assert tree(hospital) == before
    assert done.report.files == {"ignored": 1, "pass": 4, "quarantine": 1, "review": 1}
    assert done.report.reasons == {"encapsulated-document": 1, "no-ocr": 1, "not-dicom": 1}
    assert done.report.complete
    assert done.report.num_patients == 2
    assert DeidentifyReport.model_validate_json((tmp_path / "out/deidentify.json").read_bytes()) == done.report
    pseudonyms = Pseudonyms(load_key(tmp_path / "key", create=False))
    patients = {pseudonyms.name("patient", name) for name in ("PID-0815-4711", "PID-2")}
    assert {path.name for path in (tmp_path / "out/pass").iterdir()} == patients
    assert {path.name for path, _ in done.originals} == {"scan.dcm", "letter.dcm"}
    written = tree(tmp_path / "out")
    assert sum(name.endswith(".dcm") for name in written) == 5
    (note,) = [json.loads(content) for name, content in written.items() if name.startswith("quarantine/")]
    assert note["reasons"] == ["encapsulated-document"]
    for name, content in written.items():
        for word in ("Musterfrau", "Erika", "Beispiel", "0815", "letter"):
            assert word not in name
            assert word.encode() not in content
    assert not (tmp_path / "out/.work").exists()


def test_several_processes_write_the_same(hospital: Path, tmp_path: Path) -> None:
    shutil.copy(hospital / "Musterfrau_Erika/0.dcm", hospital / "Beispiel_Bert/copy.dcm")
    save(image(number=1, Manufacturer="Another"), hospital / "zz" / "1.dcm")
    first = run(hospital, tmp_path / "one")
    second = run(hospital, tmp_path / "two", num_workers=2)
    assert first.report == second.report
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert first.report.reasons["duplicate"] == 1


def test_a_call_that_was_cut_off_goes_on(hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(hospital, tmp_path / "whole", key_file=tmp_path / "key")
    calls = 0
    real = Child.call

    def counted(child: Child, function: str, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real(child, function, *arguments)

    monkeypatch.setattr(Child, "call", counted)
    with pytest.raises(KeyboardInterrupt):
        run(hospital, tmp_path / "out")
    assert not DeidentifyReport.model_validate_json((tmp_path / "out/deidentify.json").read_bytes()).complete
    with (tmp_path / "out/done.jsonl").open("a") as file:
        file.write('{"id": "torn')
    before = len((tmp_path / "out/done.jsonl").read_text().splitlines()) - 1
    calls = 10
    done = run(hospital, tmp_path / "out")
    assert calls == 10 + 7 - before
    assert done.report == whole.report
    assert {name: content for name, content in tree(tmp_path / "out").items() if name != "done.jsonl"} == {
        name: content for name, content in tree(tmp_path / "whole").items() if name != "done.jsonl"
    }
    calls = 10
    again = run(hospital, tmp_path / "out")
    assert calls == 10
    assert {path for path, _ in again.originals} == {path for path, _ in done.originals}


def test_an_original_that_changed_is_done_again(hospital: Path, tmp_path: Path) -> None:
    run(hospital, tmp_path / "out")
    path = hospital / "Beispiel_Bert/CT.dcm"
    save(image(number=77, PatientID="PID-2"), path)
    os.utime(path, ns=(1, 1))
    done = run(hospital, tmp_path / "out")
    assert done.report.files["pass"] == 4
    (name,) = (tmp_path / "out/pass").rglob(
        f"{Pseudonyms(load_key(tmp_path / 'key', create=False)).name('instance', f'{ROOT}.1.77')}.dcm"
    )
    assert len(list(name.parent.iterdir())) == 1


def test_a_dying_decoder_costs_one_file(hospital: Path, tmp_path: Path) -> None:
    # Rows and columns that ask for more memory than the process may have.
    large = image(number=50, sop_class=SECONDARY_CAPTURE)
    large.Rows = large.Columns = 65535
    large.NumberOfFrames = 40
    large.PixelData = encapsulate([bytes(64)] * 40)
    save(large, hospital / "large.dcm", syntax=RLELossless)
    done = run(hospital, tmp_path / "out", settings=DeidentifySettings(ocr="all"), max_memory=3 * 1024**3)
    records = [FileRecord.model_validate_json(line) for line in (tmp_path / "out/done.jsonl").read_text().splitlines()]
    assert done.report.files["quarantine"] == 2
    reasons = {reason for record in records for reason in record.reasons if record.verdict == "quarantine"}
    assert reasons <= {"memory", "pixels-unreadable", "encapsulated-document"}
    assert done.report.files["pass"] >= 4


def test_places_that_lie_in_each_other_are_refused(hospital: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    for target in (hospital, hospital / "out", tmp_path):
        with pytest.raises(DataError, match="among the originals"):
            run(hospital, target, key_file=tmp_path / "elsewhere" / "key")
    for key in (hospital / "key", tmp_path / "out" / "key"):
        with pytest.raises(DataError, match="inside the data"):
            run(hospital, tmp_path / "out", key_file=key)
    with pytest.raises(DataError, match="no such file"):
        run(tmp_path / "nowhere", tmp_path / "out")
    assert tree(tmp_path) == before


def test_another_key_other_settings_and_other_content_are_refused(hospital: Path, tmp_path: Path) -> None:
    run(hospital, tmp_path / "out")
    with pytest.raises(DataError, match="another key"):
        run(hospital, tmp_path / "out", key_file=tmp_path / "key2")
    with pytest.raises(DataError, match="other settings"):
        run(hospital, tmp_path / "out", settings=DeidentifySettings(ocr="none", dates="keep"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    with pytest.raises(DataError, match="not empty"):
        run(hospital, tmp_path / "full")


def test_two_calls_into_one_folder_are_refused(hospital: Path, tmp_path: Path) -> None:
    import fcntl

    run(hospital, tmp_path / "out")
    with (tmp_path / "out/.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="Another process"):
            run(hospital, tmp_path / "out")


def test_one_file_will_do(tmp_path: Path) -> None:
    path = save(image(), tmp_path / "in" / "Musterfrau.dcm")
    done = run(path, tmp_path / "out")
    assert done.report.files == {"pass": 1}


# ------------------------------------------------------------------------------------- pydicom's files, and the package deid

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, FileRecord]]:
    """The files that come with pydicom, cleaned; original -> record."""
    folder = tmp_path_factory.mktemp("pydicom")
    key = load_key(folder / "key", create=True)
    done = deidentify(TEST_FILES, folder / "out", settings=NO_OCR, key_file=folder / "key", num_workers=2)
    assert "defect" not in done.report.reasons
    assert not [reason for reason in done.report.reasons if reason.startswith("identifier-left")]
    records = {}
    for line in (folder / "out/done.jsonl").read_text().splitlines():
        record = FileRecord.model_validate_json(line)
        records[record.id] = record
    names = {
        path: Pseudonyms(key).name("instance", f"file {path.relative_to(TEST_FILES).as_posix()}") for path in TEST_FILES.rglob("*")
    }
    return folder / "out", {path: records[name] for path, name in names.items() if name in records}


def test_pydicom_s_files_are_read_and_sorted(cleaned: tuple[Path, dict[Path, FileRecord]]) -> None:
    _, records = cleaned
    verdicts = [record.verdict for record in records.values()]
    assert len(records) >= 150
    assert verdicts.count("pass") + verdicts.count("review") >= 130
    for record in records.values():
        assert set(record.reasons) <= set(REASONS)


@pytest.mark.filterwarnings("ignore")
def test_what_deid_lists_as_an_identifier_is_gone(cleaned: tuple[Path, dict[Path, FileRecord]]) -> None:
    """``deid`` lists every field with its value; those that its own list of protected fields names must not be in ours."""
    from deid.dicom import get_identifiers

    folder, records = cleaned
    named = ("PatientID", "AccessionNumber", "Address", "Numbers", "BirthDate", "StudyID", "SerialNumber", "InstanceUID", "nName")
    looked = 0
    for path, record in records.items():
        if record.file is None:
            continue
        fields = get_identifiers([str(path)])[str(path)]
        content = (folder / record.file).read_bytes()
        result = dcmread(folder / record.file)
        texts = {str(element.value) for element in result.iterall() if element.VR not in ("SQ", "OB", "OW")}
        for field in fields.values():
            element, value = field.element, str(field.element.value).strip()
            if not (element.VR == "PN" or element.keyword.endswith(named)) or len(value) < 5 or is_well_known(value):
                continue
            keyword = element.keyword
            looked += 1
            assert value not in texts, (path.name, keyword)
            if len(value) >= 8:
                assert value.encode() not in content, (path.name, keyword)
    assert looked > 500


@pytest.mark.filterwarnings("ignore")
def test_what_deid_suspects_of_burned_in_text_is_suspected_here() -> None:
    """``deid`` follows the rules of CTP's pixel anonymiser, from the header alone."""
    from deid.dicom.pixels import has_burned_pixels

    paths = [path for path in sorted(TEST_FILES.glob("*.dcm")) if "PixelData" in dcmread(path, force=True)]
    flagged = [path for path in paths if has_burned_pixels(str(path))["flagged"]]
    assert len(flagged) >= 10
    missed = {path.name for path in flagged if not suspicions(dcmread(path, force=True))}
    assert missed == set()


def test_a_folder_without_files_is_a_wrong_path(tmp_path: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(DataError, match="No file is there"):
        run(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
