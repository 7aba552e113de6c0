"""What the name of a NIfTI file says: patient, session, and which segmentation belongs to which volume."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from medtune.data.sources.rows import data_files, read_rows
from medtune.data.sources.texts import TextKey
from medtune.errors import DataError
from medtune.language import msg

__all__ = ["FileNames", "NamedFile"]

# BIDS 1.10, "File name structure": entities are key-value pairs joined by underscores; labels are letters and digits.
_SUBJECT = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)(?=[/_.]|$)")
_SESSION = re.compile(r"(?:^|[/_])(ses-[A-Za-z0-9]+)(?=[/_.]|$)")
_TABLES = (".csv", ".json", ".jsonl")


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A volume's file.

    Attributes:
        below: POSIX path below the source's folder.
        patient: As the names have it (``sub-01``); empty when unknown.
        session: ``ses-01``; empty when there is none.
        unique: No other file of the source has this name in another folder: a table may use the name alone.
    """

    path: Path
    below: str
    patient: str
    session: str
    unique: bool

    @property
    def stem(self) -> str:
        """The name without ``.nii`` or ``.nii.gz``."""
        return _stem(self.path)

    def keys(self, key: TextKey) -> tuple[str, ...]:
        """How a table may name this file under ``key``, the fullest form first."""
        match key:
            case "patient":
                forms: tuple[str, ...] = (self.patient, self.patient.removeprefix("sub-"))
            case "study":
                joined = (f"{self.patient}/{self.session}", f"{self.patient}_{self.session}") if self.patient else (self.session,)
                forms = joined if self.session else ()
            case "series":
                forms = (self.below.removesuffix(".gz").removesuffix(".nii"), self.stem if self.unique else "")
            case "file":
                forms = (self.below, self.path.name if self.unique else "")
            case "instance":
                forms = ()
        return tuple(form for form in forms if form)


class FileNames:
    """Reads the names of a source's files.

    Args:
        path: As the source was given it: a file, a folder or a pattern.
        pattern: Regular expression whose first group is the patient.
        patients: Table with the columns ``file`` and ``patient``.
        mask_suffix: What segmentations have behind the name of their volume.
    """

    def __init__(self, path: Path, pattern: str | None, patients: Path | None, mask_suffix: str) -> None:
        self.root = _root(path.expanduser())
        self.pattern = re.compile(pattern) if pattern is not None else None
        self.patients = patients
        self.mask_suffix = mask_suffix

    @property
    def explicit(self) -> bool:
        """Whether the recipe says how to find the patient, so that a file without one is a fault."""
        return self.pattern is not None or self.patients is not None

    def volumes(self, files: Iterable[Path], *, without_masks: bool) -> list[NamedFile]:
        """The files, in their order, but for segmentations that lie beside the volumes."""
        kept = [file for file in files if not (without_masks and self._is_mask(file))]
        stems = Counter(map(_stem, kept))
        return [self._named(file, unique=stems[_stem(file)] == 1) for file in kept]

    def mask_of(self, file: NamedFile, folder: Path | None) -> Path | None:
        """The segmentation of a volume: in ``folder``, or beside it; None where there is none.

        In a folder it may lie under the volume's relative path or at the top, and have the volume's name or that with the suffix.
        """
        if folder is None:
            places, stems = [file.path.parent], [file.stem + self.mask_suffix]
        else:
            folder = folder.expanduser()
            places = [folder / Path(file.below).parent, folder]
            stems = [file.stem + self.mask_suffix, file.stem]
        for place in places:
            for stem in stems:
                for suffix in (".nii.gz", ".nii"):
                    if (place / f"{stem}{suffix}").is_file():
                        return place / f"{stem}{suffix}"
        return None

    def _is_mask(self, file: Path) -> bool:
        return bool(self.mask_suffix) and _stem(file).endswith(self.mask_suffix)

    def _named(self, file: Path, *, unique: bool) -> NamedFile:
        below = file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else file.name
        session = _SESSION.search(below)
        return NamedFile(file, below, self._patient(below, file.name, unique), session.group(1) if session else "", unique)

    def _patient(self, below: str, name: str, unique: bool) -> str:
        if self.patients is not None:
            return self._table.get(below) or (self._table.get(name, "") if unique else "")
        found = (self.pattern or _SUBJECT).search(below)
        return (found.group(1) or "").strip() if found else ""

    @cached_property
    def _table(self) -> dict[str, str]:
        assert self.patients is not None
        table: dict[str, str] = {}
        for row in read_rows(data_files(self.patients, _TABLES)[0]):
            if row.fault is not None or not {"file", "patient"} <= row.values.keys():
                raise DataError(
                    msg("A row of the table of patients has no file and patient."),
                    file=row.place,
                    key="data.sources.options.patients",
                    remedy=msg("Give the table the columns file and patient."),
                )
            table[str(row.values["file"]).strip()] = str(row.values["patient"] or "").strip()
        return table


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _root(path: Path) -> Path:
    """The folder that relative paths start from: of a pattern the part before the first wildcard."""
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    before = path.parts
    for place, part in enumerate(before):
        if re.search(r"[*?\[]", part):
            return Path(*before[:place])
    return path.parent
