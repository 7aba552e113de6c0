"""MIMIC-CXR-JPG with the reports of MIMIC-CXR, as PhysioNet lays them out."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from medtune.data.sources.reports import deidentified_words, report_text, sections
from medtune.errors import DataError
from medtune.language import Text, msg
from medtune.types import Fault, Picture, Record, Settings, SourceCard, SplitName

__all__ = ["MimicCxrJpg"]

_PREFIX = "mimic-cxr-2.0.0-"
_SPLITS: dict[str, SplitName] = {"train": "train", "validate": "validation", "test": "test"}
_FRONTAL = ("PA", "AP")
"""ViewPosition (DICOM 0018,5101). Others in the file: LATERAL, LL, XTABLE LATERAL, AP AXIAL, ..., and empty."""


@dataclass(slots=True)
class _Study:
    patient: str
    split: str
    pictures: list[tuple[str, str]] = field(default_factory=list)
    """(dicom_id, view position)."""


class MimicCxrJpg(Settings):
    """``files/p10/p10000032/s50414267/<dicom_id>.jpg`` with ``mimic-cxr-2.0.0-{split,metadata,chexpert,negbio}.csv.gz``, and the
    reports ``p10/p10000032/s50414267.txt`` of MIMIC-CXR.

    A study is one record with its views, frontal first. Its split is the published one, which keeps patients apart. The tables
    are held in memory: 377,110 rows.
    """

    path: Path
    """The folder of MIMIC-CXR-JPG, with the tables and `files/`."""
    reports: Path | None = None
    """The folder of the unpacked mimic-cxr-reports.zip (with `p10/` or `files/p10/`); `path` itself when left out."""
    sections: Literal["findings", "impression", "both"] = "findings"
    """Which part of the report is the answer. With `both`, a study that has one of them stays, and the other is noted missing."""
    views: Literal["all", "frontal", "one-frontal"] = "all"
    """`frontal`: views PA and AP; `one-frontal`: the first of them, PA before AP."""
    labels: Literal["chexpert", "negbio", "none"] = "none"
    """Put the labels of this table into the metadata: 1 present, 0 absent, -1 uncertain; not mentioned: no key."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="mimic-cxr-jpg",
            title="MIMIC-CXR-JPG",
            licence="PhysioNet Credentialed Health Data License 1.5.0",
            citation="Johnson et al., MIMIC-CXR, Scientific Data 6, 317 (2019); Johnson et al., MIMIC-CXR-JPG, arXiv:1901.07042",
            url="https://physionet.org/content/mimic-cxr-jpg/",
            group_kind="patient",
            local_only=True,
            notes=(
                "PhysioNet forbids to send the data to services of others (its notice of 2025-09-24); they stay on this machine.",
                "Words taken out to hide identities stand as ___ in the reports; a model that learns them writes them.",
                "Reports speak of earlier studies that the record does not show.",
            ),
        )

    def samples(self) -> Iterator[Record]:
        folder = self.path.expanduser()
        positions = {row["dicom_id"]: row["ViewPosition"] for row in self._table("metadata", ("dicom_id", "ViewPosition"))}
        studies: dict[str, _Study] = {}
        for row in self._table("split", ("dicom_id", "study_id", "subject_id", "split")):
            study = studies.setdefault(row["study_id"], _Study(sys.intern(row["subject_id"]), sys.intern(row["split"])))
            study.pictures.append((row["dicom_id"], sys.intern(positions.pop(row["dicom_id"], "").strip())))
        labels = self._labels()
        texts = self._reports()
        for name, study in studies.items():
            yield self._record(folder / "files", texts, name, study, labels.get(name, {}))

    def _record(self, files: Path, texts: Path, name: str, study: _Study, labels: dict[str, JsonValue]) -> Record:
        patient, identity = f"p{study.patient}", f"s{name}"
        below = Path(patient[:3]) / patient
        report = texts / below / f"{identity}.txt"
        shown = self._shown(study.pictures)
        if not shown:
            return _faulty(identity, patient, "view-missing", msg("The study has no picture of the views asked for."), str(report))
        try:
            parts = sections(report.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return _faulty(identity, patient, "report-missing", msg("The study's report is missing, or is not text."), str(report))
        wanted = ["findings", "impression"] if self.sections == "both" else [self.sections]
        target = report_text({part: parts.get(part, "") for part in wanted})
        if not target:
            what = msg("The report has none of the sections asked for ({sections}).", sections=", ".join(wanted))
            return _faulty(identity, patient, "section-missing", what, str(report))
        notes: list[JsonValue] = [f"{part}-missing" for part in wanted if part not in parts]
        notes += deidentified_words(target)
        metadata: dict[str, JsonValue] = {
            "modality": "DX",
            "organ": "chest",
            "language": "en",
            "provenance": "clinical",
            "patient": patient,
            "study": identity,
            "view_position": ", ".join(view or "?" for _, view in shown),
            **parts,
        }
        if labels:
            metadata["labels"] = labels
        if notes:
            metadata["source_notes"] = notes
        return Record(
            id=identity,
            task="report",
            pictures=tuple(
                Picture(path=files / below / identity / f"{dicom}.jpg", name=f"{identity}/{dicom}", modality="DX")
                for dicom, _ in shown
            ),
            target=target,
            group=patient,
            metadata=metadata,
            split=_SPLITS.get(study.split),
            place=str(report),
        )

    def _shown(self, pictures: list[tuple[str, str]]) -> list[tuple[str, str]]:
        ordered = sorted(pictures, key=lambda item: _FRONTAL.index(item[1]) if item[1] in _FRONTAL else len(_FRONTAL))
        if self.views == "all":
            return ordered
        frontal = [item for item in ordered if item[1] in _FRONTAL]
        return frontal[:1] if self.views == "one-frontal" else frontal

    def _labels(self) -> dict[str, dict[str, JsonValue]]:
        if self.labels == "none":
            return {}
        return {
            row["study_id"]: {
                sys.intern(name): int(float(value))
                for name, value in row.items()
                if value and name not in ("subject_id", "study_id")
            }
            for row in self._table(self.labels, ("study_id",))
        }

    def _reports(self) -> Path:
        folder = (self.reports or self.path).expanduser()
        for candidate in (folder, folder / "files"):
            if next(candidate.glob("p1?/p*/s*.txt"), None) is not None:
                return candidate
        raise DataError(
            msg("There are no reports (p10/p10000032/s50414267.txt) in this folder."),
            file=folder,
            key="data.sources.options.reports",
            remedy=msg("Unpack mimic-cxr-reports.zip of MIMIC-CXR, and give its folder as options.reports."),
        )

    def _table(self, name: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
        folder = self.path.expanduser()
        packed = folder / f"{_PREFIX}{name}.csv.gz"
        file = packed if packed.is_file() else packed.with_suffix("")
        try:
            with contextlib.ExitStack() as stack:
                raw = stack.enter_context(file.open("rb"))
                plain = stack.enter_context(gzip.GzipFile(fileobj=raw)) if file == packed else raw
                text = io.TextIOWrapper(plain, encoding="utf-8", newline="")
                reader = csv.DictReader(text, strict=True)
                missing = [column for column in columns if column not in (reader.fieldnames or ())]
                if missing:
                    raise _damaged(file, f"no column {', '.join(missing)}")
                for row in reader:
                    if None in row or None in row.values():
                        raise _damaged(file, f"line {reader.line_num}")
                    yield row
        except FileNotFoundError as error:
            raise DataError(
                msg("The table is missing."),
                file=packed,
                key="data.sources.options.path",
                remedy=msg("Give the folder of MIMIC-CXR-JPG, which holds its tables."),
            ) from error
        except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
            raise _damaged(file, str(error)) from error


def _faulty(identity: str, patient: str, reason: str, what: Text, place: str) -> Record:
    fault = Fault(reason, what, msg("Ask for other sections or views, or leave the study out."), place)
    return Record(id=identity, task="", pictures=(), target="", group=patient, fault=fault)


def _damaged(file: Path, error: str) -> DataError:
    return DataError(
        msg("The data file is damaged: {error}", error=error.splitlines()[0] if error else "?"),
        file=file,
        remedy=msg("Was the download cut short? Fetch the file again."),
    )
