"""Where a file goes, why, and the report of a folder. No word of it comes from a file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medtune.language import Text, msg
from medtune.types import Document

__all__ = ["REASONS", "DeidentifyReport", "FileRecord", "Verdict"]

Verdict = Literal["pass", "review", "quarantine", "ignored"]
"""``pass``: nothing suspicious is left; ``review``: cleaned, a person should look; ``quarantine``: nothing was written;
``ignored``: no DICOM object."""

REASONS: dict[str, Text] = {
    "not-dicom": msg("not a DICOM file"),
    "dicomdir": msg("a DICOMDIR: a list of patients, useless beside new names"),
    "unreadable": msg("damaged: cannot be read"),
    "no-instance": msg("damaged: no SOP class or instance UID"),
    "pixels-cut": msg("damaged: the pixels are cut short or missing"),
    "unwritable": msg("damaged: a value fits no representation"),
    "pixels-unreadable": msg("may hold burned-in text, and its pixels cannot be decoded"),
    "encapsulated-document": msg("a document (PDF, CDA, ...) inside DICOM"),
    "picture-of-text": msg("a saved screen or dose report: a picture of text"),
    "text-remains": msg("burned-in text was still found after blanking"),
    "identifier-left-name": msg("a person's name was found in the result"),
    "identifier-left-value": msg("an identifying value was found in the result"),
    "identifier-left-date": msg("an original date was found in the result"),
    "identifier-left-uid": msg("an original UID was found in the result"),
    "crash": msg("the decoder crashed"),
    "timeout": msg("took too long"),
    "memory": msg("needs more memory than allowed"),
    "defect": msg("a defect of medtune; its note says where"),
    "duplicate": msg("another file has the same instance UID and other content"),
    "unknown-class": msg("an unknown or private SOP class"),
    "text-object": msg("a structured report, presentation state or waveform"),
    "graphics": msg("drawn annotations"),
    "no-ocr": msg("may hold burned-in text, and no OCR looked"),
    "text-blanked": msg("burned-in text was found and blanked"),
    "text-uncertain": msg("something may be text"),
}


class FileRecord(Document):
    """One line of ``done.jsonl``: what became of one original.

    Attributes:
        id: Keyed pseudonym of the original's path below the input folder.
        state: Of its path, size and time of change: tells a file that was changed since.
        file: Of the result, relative to the output folder; None when nothing was written.
    """

    id: str
    state: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    file: str | None = None
    counts: dict[str, int] = Field(default_factory=dict)
    blanked: int = 0
    num_short: int = 0


class DeidentifyReport(Document):
    """``deidentify.json``: how a folder was de-identified, and the sums. Holds no identifier, no path and no time.

    Attributes:
        edition: Of PS3.15.
        key: Fingerprint of the key.
        settings: As used.
        methods: Codes of PS3.16, CID 7050 that every file carries.
        ocr: Whether OCR was there.
        complete: False while files are left to do.
        files: Verdict -> number of files.
        reasons: Reason -> number of files.
        elements: What was done -> number of elements.
        blanked: Rectangles of pixels.
        num_short: Identifying values too short to be searched for in the results.
        num_patients: Of the files in ``pass`` and ``review``.
    """

    format_version: Literal[1] = 1
    medtune_version: str
    standard: str
    edition: str
    key: str
    settings: dict[str, object]
    methods: tuple[str, ...]
    ocr: bool
    complete: bool = False
    files: dict[str, int] = Field(default_factory=dict)
    reasons: dict[str, int] = Field(default_factory=dict)
    elements: dict[str, int] = Field(default_factory=dict)
    blanked: int = 0
    num_short: int = 0
    num_patients: int = 0
