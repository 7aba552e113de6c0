"""Canaries: invented names, numbers and dates in every tag, looked for in everything that medtune writes, prints or leaves behind.

The hospital's folders and files are called by its patients. What a person gave as an argument may be repeated to them on the
terminal; nothing below that folder, and nothing that is written.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, config
from pydicom.datadict import DicomDictionary
from pydicom.sequence import Sequence
from pydicom.uid import UID

from dicom_objects import image, save

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ("Zwitscherfink", "Kanarienvogelová", "黃鶯鳥", "Ёжиков")
IDS = ("KANARI-90210-7", "ACC-5551234-Q", "SER-KANARI-99")
DATE = "19530417"
ROOT_UID = "1.3.6.1.4.1.99999.77.31415926535"
ENCODINGS = ("utf-8", "latin-1", "gb18030", "utf-16-le", "utf-16-be", "koi8-r")


def forms(text: str) -> Iterator[bytes]:
    """The bytes under which a canary could stand somewhere."""
    for case in {text, text.upper(), text.lower()}:
        for encoding in ENCODINGS:
            try:
                plain = case.encode(encoding)
            except UnicodeEncodeError:
                continue
            yield plain
            if encoding == "utf-8":
                yield plain.hex().encode()
                # Of the three ways in which base64 can cut a text, the inner characters are the same wherever it stands.
                for shift in range(3):
                    yield base64.b64encode(b"\0" * shift + plain)[4 if shift else 0 : -4]


PATTERNS = {pattern: text for text in (*NAMES, *IDS, ROOT_UID, DATE) for pattern in forms(text) if len(pattern) >= 6}


def sightings(content: bytes, *, allowed: tuple[bytes, ...] = ()) -> set[str]:
    for word in allowed:
        content = content.replace(word, b"")
    return {text for pattern, text in PATTERNS.items() if pattern in content}


def assert_clean(folder: Path) -> int:
    """No canary in any file or name; returns the number of files."""
    number = 0
    for path in sorted(folder.rglob("*")):
        assert not sightings(os.fsencode(path.relative_to(folder))), path
        if path.is_file():
            number += 1
            assert not sightings(path.read_bytes()), path
    return number


def canary_value(vr: str) -> object:
    """An identifying value that fits a representation, or does not: devices write anything."""
    name = f"{NAMES[0]} {IDS[0]}"
    return {
        "PN": f"{NAMES[0]}^{NAMES[1]}={NAMES[2]}^{NAMES[3]}",
        "DA": DATE,
        "DT": f"{DATE}101112.5",
        "UI": UID(f"{ROOT_UID}.1"),
        "CS": NAMES[0].upper(),
        "AE": NAMES[0],
        "SH": IDS[0],
        "LO": f"{NAMES[1]} {IDS[0]}",
        "UR": f"http://pacs.example/{IDS[0]}",
        "OB": name.encode(),
        "OW": name.encode(),
        "UN": name.encode(),
    }.get(vr, f"{name} {NAMES[2]} {NAMES[3]} {DATE}")


TEXTUAL = frozenset({"PN", "DA", "DT", "UI", "CS", "AE", "SH", "LO", "LT", "ST", "UT", "UC", "UR", "OB", "OW", "UN"})
KEPT_BY_MEANING = frozenset(
    # What an image is: without these no program can read it.
    {"SpecificCharacterSet", "SOPClassUID", "Modality", "PhotometricInterpretation", "ImageType", "PixelData", "TransferSyntaxUID"}
)


def everything() -> Dataset:
    """A CT image with a canary in every attribute of the standard's dictionary that takes text, in sequences and privately too."""
    made = image(number=0, PatientID=IDS[0], PatientName=f"{NAMES[0]}^{NAMES[1]}={NAMES[2]}^{NAMES[3]}", AccessionNumber=IDS[1])
    inner = Dataset()
    for tag, (vr, *_, keyword) in sorted(DicomDictionary.items()):
        skipped = not keyword or keyword in KEPT_BY_MEANING or keyword in made or tag >> 16 < 8 or "DoubleFloat" in keyword
        if skipped or "FloatPixel" in keyword or vr not in TEXTUAL or keyword in ("PixelData", "EncapsulatedDocument"):
            continue
        if keyword.startswith(("FileSet", "Offset", "DirectoryRecord")) or keyword == "SmallestImagePixelValue":
            continue
        for dataset in (made, inner):
            dataset.add_new(tag, vr, canary_value(vr))
    made.PatientBirthDate = made.StudyDate = made.ContentDate = DATE
    made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID = (f"{ROOT_UID}.{number}" for number in (2, 3, 4))
    for keyword in ("ProcedureCodeSequence", "DerivationCodeSequence", "ReferencedImageSequence", "AnatomicRegionSequence"):
        setattr(made, keyword, Sequence([inner]))
    inner.private_block(0x0011, NAMES[0], create=True).add_new(1, "UT", canary_value("UT"))
    made.private_block(0x0009, NAMES[0], create=True).add_new(1, "PN", canary_value("PN"))
    made.private_block(0x0009, NAMES[0]).add_new(2, "SQ", Sequence([inner]))
    made.add_new(0x60000022, "LO", canary_value("LO"))
    made.add_new(0x50000030, "SH", canary_value("SH"))
    return made


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files and folders are called by the patient, with a damaged file and a report among them."""
    folder = tmp_path_factory.mktemp("hospital") / "export"
    patient = folder / f"{NAMES[0]}_{IDS[0]}" / NAMES[2]
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        save(everything(), patient / f"{NAMES[1]}.dcm")
        for number in (1, 2):
            plain = image(np.full((64, 64), number * 40, np.uint16), number=number, PatientID=IDS[0], AccessionNumber=IDS[1])
            plain.PatientName = f"{NAMES[0]}^{NAMES[1]}"
            plain.SOPInstanceUID, plain.SeriesInstanceUID = f"{ROOT_UID}.1{number}", f"{ROOT_UID}.2{number}"
            plain.StudyInstanceUID, plain.PatientBirthDate = f"{ROOT_UID}.2", DATE
            save(plain, patient / f"{NAMES[0]}_{number}.dcm")
        broken = save(everything(), patient / f"{NAMES[0]}_broken.dcm")
        broken.write_bytes(broken.read_bytes()[:3000])
        report = image(sop_class="1.2.840.10008.5.1.4.1.1.104.1", number=5, EncapsulatedDocument=NAMES[0].encode())
        report.PatientName = NAMES[0]
        save(report, patient / "report.dcm")
    finally:
        config.settings.writing_validation_mode = before
    (patient / f"{NAMES[0]}.txt").write_text(f"{NAMES[0]} {DATE}", encoding="utf-8")
    assert sightings((patient / f"{NAMES[1]}.dcm").read_bytes()) >= {*NAMES, *IDS[:2], DATE, ROOT_UID}
    return folder


class Watch:
    """Looks at a temporary folder all the time while a command runs: what lay there for a moment counts too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            for path in list(self.folder.rglob("*")):
                self.seen |= sightings(os.fsencode(path.name))
                try:
                    if path.is_file():
                        self.seen |= sightings(path.read_bytes())
                except OSError:
                    continue
            time.sleep(0.05)


def medtune(place: Path, *arguments: str) -> tuple[int, bytes]:
    """Exit code, and everything printed, of a command with a temporary folder of its own, which is watched and left clean."""
    temporary = place / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary), "HOME": str(place), "XDG_CONFIG_HOME": "", "MEDTUNE_LANG": "en"}
    with Watch(temporary) as watch:
        done = subprocess.run(
            [sys.executable, "-m", "medtune", *arguments], capture_output=True, check=False, timeout=300, env=environment, cwd=place
        )
    assert not watch.seen
    assert_clean(temporary)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, done.stdout + done.stderr


def test_the_canaries_can_be_seen() -> None:
    for text in (*NAMES, *IDS, DATE, ROOT_UID):
        for shown in (
            text.encode(),
            text.upper().encode("utf-16-le"),
            base64.b64encode(f"x{text}yz".encode()),
            text.encode().hex().encode(),
        ):
            if len(text.encode()) >= 9:
                assert text in sightings(shown), (text, shown)


def test_deidentify(hospital: Path, tmp_path: Path) -> None:
    code, printed = medtune(tmp_path, "deidentify", str(hospital), str(tmp_path / "out"), "--ocr", "none", "--workers", "2")
    assert code == 0
    # The person at the terminal is told which originals want a look, by their paths.
    shown = [line for line in printed.splitlines() if not line.startswith(b"  " + str(hospital).encode())]
    assert len(shown) < len(printed.splitlines())
    assert not sightings(b"\n".join(shown))
    assert assert_clean(tmp_path / "out") >= 6
    written = list((tmp_path / "out").rglob("*.dcm"))
    assert len(written) >= 3
    code, printed = medtune(tmp_path, "deidentify", str(hospital), str(tmp_path / "out2"), "--ocr", "none", "--json")
    assert code == 0
    assert not sightings(printed)
    options = [word for name in ("retain-device", "retain-patient", "clean-descriptors") for word in ("--option", name)]
    assert (
        medtune(tmp_path, "deidentify", str(hospital), str(tmp_path / "out3"), "--ocr", "none", "--dates", "remove", *options)[0]
        == 0
    )
    assert_clean(tmp_path / "out3")


def test_deidentify_faults(hospital: Path, tmp_path: Path) -> None:
    for arguments in (
        (str(hospital), str(hospital / "out")),
        (str(hospital / "nowhere"), "out"),
        (str(hospital), "out", "--option", "xyz"),
        (str(hospital), "out", "--key", str(hospital / "key")),
    ):
        code, printed = medtune(tmp_path, "deidentify", *arguments)
        assert code == 2
        assert not sightings(printed)


RECIPE = """\
title: Canaries
data:
  sources:
    - source: dicom
      options:
        path: {path}
        task: report
        texts: {{path: {table}, key: patient, answer: text}}
        slices: {{kind: all}}
  split: {{fractions: {{train: 1.0, validation: 0.0, test: 0.0}}}}
  folder: {folder}
  num_workers: {workers}
model: {{base: tiny}}
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_prepare_and_validate(hospital: Path, tmp_path: Path, workers: int) -> None:
    table = tmp_path / "reports.csv"
    table.write_text(f"patient,text\n{IDS[0]},No abnormality.\nKANARI-unmatched,Nothing.\n", encoding="utf-8")
    recipe = tmp_path / "canaries.yaml"
    recipe.write_text(RECIPE.format(path=hospital, table=table, folder="datasets/canaries", workers=workers), encoding="utf-8")
    code, printed = medtune(tmp_path, "prepare", "canaries.yaml")
    assert code == 0, printed.decode()
    assert not sightings(printed)
    assert assert_clean(tmp_path / "datasets") >= 5
    assert (tmp_path / "datasets/canaries/left_out.jsonl").read_text()
    for arguments in (["validate", "datasets/canaries"], ["validate", "datasets/canaries", "--json"]):
        code, printed = medtune(tmp_path, *arguments)
        assert code in (0, 1)
        assert not sightings(printed)
    assert_clean(tmp_path / "datasets")


def test_help_and_lists(tmp_path: Path) -> None:
    for arguments in (["--help"], ["deidentify", "--help"], ["runs", "list"], ["recipe", "list"]):
        assert not sightings(medtune(tmp_path, *arguments)[1])
