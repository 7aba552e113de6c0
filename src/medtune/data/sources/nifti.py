"""NIfTI volumes: slices of them as pictures, with the texts of a table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from medtune.data.sources.nifti_names import FileNames, NamedFile
from medtune.data.sources.rows import RecordFault, data_files
from medtune.data.sources.slices import LargestMask, MiddleSlice, SliceChoice, choose_slices
from medtune.data.sources.texts import TextRow, Texts, TextTable
from medtune.errors import UnreadableImageError
from medtune.imaging.config import Limits
from medtune.imaging.pseudonym import PseudonymKind, Pseudonyms, default_key_file, load_key
from medtune.imaging.window import WindowChoice, find_windows, modalities_of
from medtune.language import msg
from medtune.types import Axis, Fault, Part, Picture, Record, Settings, SourceCard, View

if TYPE_CHECKING:
    from medtune.imaging.nifti import Volume

__all__ = ["Nifti"]

_SUFFIXES = (".nii", ".nii.gz")


class Nifti(Settings):
    """A folder or pattern of ``.nii`` and ``.nii.gz`` files, read in place; one record for each chosen slice (or volume) and row
    of the table. Files of a BIDS data set (``sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz``) are grouped by ``sub-``.

    Names of files may hold identifiers, so every id that leaves this source is a pseudonym.
    """

    path: Path
    """The volumes: a file, a folder, or a pattern with `*`."""
    texts: Texts
    """The table of texts. Keys: `patient` (with or without `sub-`), `study` (the session after the patient: `sub-01/ses-01`),
    `series` (a file's path below the folder without its suffix) or `file` (the path); the name alone where no other file has it."""
    task: str = "report"
    """The task of rows that name none."""
    axis: Axis = "axial"
    """The plane of the pictures, whatever the file's own."""
    slices: SliceChoice = MiddleSlice()
    """Which slices of a volume."""
    record: Literal["slice", "volume"] = "slice"
    """`slice`: a record for each chosen slice. `volume`: one record with all chosen slices as its pictures, in spatial order."""
    volume: Annotated[int, Field(ge=0)] | Literal["all"] = 0
    """Of files with a fourth dimension: which volume, from 0, or all of them."""
    windows: tuple[WindowChoice, ...] = ()
    """Nothing, one window, three (shown in red, green and blue), or the name of a triple; a name or [center, width] each.
    Without: the header's own range, else percentiles 0.5 and 99.5 of the volume."""
    modality: str | None = None
    """The DICOM modality code of all volumes (CT, MR); the files do not say it."""
    mask_suffix: str = "_mask"
    """For `slices.kind: largest-mask`: what a segmentation's name has behind the volume's, where it lies beside it or has not
    just the same name."""
    patient_pattern: str | None = None
    """A regular expression whose first group, found in a file's path below the folder, is the patient. Left out: BIDS `sub-`."""
    patients: Path | None = None
    """A table with the columns `file` (path below the folder, or name) and `patient`; in place of a pattern."""
    trust_orientation: bool = False
    """Read files that state no orientation, or two that contradict each other, instead of leaving them out: left and right may
    then be exchanged."""
    key_file: Path | None = None
    """The secret key of the pseudonyms; made where there is none. Left out: `~/.config/medtune/pseudonym.key`."""
    already_deidentified: bool = False
    """The names hold no identifiers (a public data set): ids are plain hashes of them, the same on every machine."""
    local_only: bool = False
    """The data may not be sent to another machine."""
    limits: Limits = Limits()
    """What a file may be at most, while its header and its segmentation are read."""

    @field_validator("windows")
    @classmethod
    def _windows(cls, chosen: tuple[WindowChoice, ...]) -> tuple[WindowChoice, ...]:
        find_windows(chosen)
        return chosen

    @model_validator(mode="after")
    def _windows_are_for_the_modality(self) -> Nifti:
        if self.modality:
            for meant in sorted(modalities_of(self.windows) - {self.modality}):
                raise ValueError(
                    msg("The window preset is for {meant}, but the modality is {modality}.", meant=meant, modality=self.modality)
                )
        return self

    @model_validator(mode="after")
    def _one_way_to_the_patient(self) -> Nifti:
        if self.patient_pattern is not None:
            if self.patients is not None:
                raise ValueError(msg("Give patient_pattern or patients, not both."))
            try:
                groups = re.compile(self.patient_pattern).groups
            except re.error as error:
                raise ValueError(msg("patient_pattern is not a regular expression: {error}", error=str(error))) from error
            if groups < 1:
                raise ValueError(msg("patient_pattern needs a group in parentheses: the patient."))
        if self.texts.key == "instance":
            raise ValueError(msg("NIfTI files have no instances: join the texts by patient, study, series or file."))
        return self

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="nifti",
            title="NIfTI volumes",
            licence="not stated",
            citation="",
            url="https://nifti.nimh.nih.gov/nifti-1",
            group_kind="patient" if all(file.patient for file in self._files) else "volume",
            local_only=self.local_only,
            notes=(
                ("Ids are plain hashes of file names that were said to hold no identifiers.",)
                if self.already_deidentified
                else ("Ids are pseudonyms under a secret key: another key gives other ids and other splits.",)
            ),
        )

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def parts(self) -> Sequence[Part]:
        """One for each volume's file, and the table, for its rows that fit no file.

        Raises:
            DataError: There is no file, or a table is missing or damaged.
        """
        return [*(Part(file.path) for file in self._files), Part(self.texts.path)]

    def samples_of(self, part: Part) -> Iterator[Record]:
        """The records of one volume, or the rows of the table that fit no volume."""
        if part.file == self.texts.path:
            yield from self._rest()
            return
        number, file = next((number, file) for number, file in enumerate(self._files, 1) if file.path == part.file)
        names = self._names(file)
        try:
            yield from self._records(file, names, number)
        except RecordFault as error:
            yield self._faulty(error.fault, names, number)
        except UnreadableImageError as error:
            yield self._faulty(Fault("unreadable-image", error.what, error.remedy), names, number)

    def _records(self, file: NamedFile, names: _Ids, number: int) -> Iterator[Record]:
        from medtune.imaging.nifti import read_volume

        rows = self._rows(self._table, file)
        if not rows:
            what = msg("No row of the table is about this volume.")
            raise RecordFault(Fault("text-missing", what, msg("Add a row, or take the volume out of the folder.")))
        if not file.patient and self.names.explicit:
            what = msg("Nothing says which patient this volume is of.")
            raise RecordFault(Fault("patient-missing", what, msg("Correct patient_pattern, or complete the table of patients.")))
        volume = read_volume(file.path, name=names.series, limits=self.limits)
        self._check_orientation(volume)
        chosen = choose_slices(self.slices, volume.num_slices(self.axis), areas=self._areas(file, volume, names))
        volumes = range(volume.num_volumes) if self.volume == "all" else [self.volume]
        windows = find_windows(self.windows)
        for time in volumes:
            pictures = [
                Picture(
                    path=file.path,
                    name=f"{names.series}, {self.axis} {index}",
                    modality=self.modality,
                    view=View(index=index, axis=self.axis, volume=time, windows=windows),
                    private=True,
                )
                for index in chosen
            ]
            together = [(tuple(pictures), None)] if self.record == "volume" else [((each,), each.view) for each in pictures]
            for shown, view in together:
                for row in rows:
                    yield self._record(row, shown, view.index if view else None, names, time, number)

    def _record(self, row: TextRow, shown: tuple[Picture, ...], index: int | None, names: _Ids, time: int, number: int) -> Record:
        metadata: dict[str, JsonValue] = {**row.metadata, "volume": names.series, "series": names.series}
        if names.patient:
            metadata["patient"] = names.patient
        if names.study:
            metadata["study"] = names.study
        if index is not None:
            metadata["slice"] = index
        if self.modality:
            metadata["modality"] = self.modality
        place = self.axis if index is None else f"{self.axis}-{index:04d}"
        return Record(
            id=f"{names.series}-{time}-{place}-{row.number}",
            task=row.task or self.task,
            pictures=shown,
            target=row.answer,
            question=row.question,
            group=names.patient or names.series,
            metadata=metadata,
            split=row.split,
            place=_place(number),
        )

    def _rest(self) -> Iterator[Record]:
        table = TextTable.read(self.texts)
        for file in self._files:
            self._rows(table, file)
        yield from table.faults
        yield from table.unmatched()

    def _rows(self, table: TextTable, file: NamedFile) -> Sequence[TextRow]:
        for key in file.keys(self.texts.key):
            if rows := table.rows_of(key):
                return rows
        return ()

    def _check_orientation(self, volume: Volume) -> None:
        if self.trust_orientation:
            return
        remedy = msg("Correct the header, or set trust_orientation if you know that left is left.")
        if volume.orientation_from == "none":
            raise RecordFault(Fault("orientation-unstated", msg("The file does not say which side is left."), remedy))
        if volume.contradicts:
            what = msg("The file states two orientations (sform and qform) that contradict each other.")
            raise RecordFault(Fault("orientation-contradicts", what, remedy))

    def _areas(self, file: NamedFile, volume: Volume, names: _Ids) -> list[int] | None:
        from medtune.imaging.nifti import mask_areas, read_volume

        if not isinstance(self.slices, LargestMask):
            return None
        path = self.names.mask_of(file, self.slices.masks)
        if path is None:
            return None
        called = f"{names.series}{self.mask_suffix}"
        mask = read_volume(path, name=called, limits=self.limits)
        if mask.canonical_shape != volume.canonical_shape:
            shapes = [" x ".join(map(str, each.canonical_shape)) for each in (mask, volume)]
            what = msg("The segmentation has {mask} voxels, the volume {volume}.", mask=shapes[0], volume=shapes[1])
            raise RecordFault(Fault("mask-differs", what, msg("Give a segmentation on the grid of the volume.")))
        return mask_areas(path, self.axis, name=called, limits=self.limits)

    def _faulty(self, fault: Fault, names: _Ids, number: int) -> Record:
        # The file's name may hold an identifier: its place in the sorted list says which one it is.
        placed = Fault(fault.reason, fault.message, fault.remedy, _place(number))
        return Record(id=names.series, task="", pictures=(), target="", group=names.patient or names.series, fault=placed)

    @cached_property
    def names(self) -> FileNames:
        """What the names of the files say."""
        return FileNames(self.path, self.patient_pattern, self.patients, self.mask_suffix)

    @cached_property
    def _files(self) -> list[NamedFile]:
        masks = isinstance(self.slices, LargestMask) and self.slices.masks is None
        return self.names.volumes(data_files(self.path, _SUFFIXES), without_masks=masks)

    @cached_property
    def _table(self) -> TextTable:
        return TextTable.read(self.texts)

    @cached_property
    def _pseudonyms(self) -> Pseudonyms | None:
        if self.already_deidentified:
            return None
        return Pseudonyms(load_key(self.key_file or default_key_file(), create=True, outside=[self.names.root]))

    def _names(self, file: NamedFile) -> _Ids:
        study = f"{file.patient}/{file.session}" if file.session else ""
        return _Ids(
            patient=self._name("patient", file.patient), study=self._name("study", study), series=self._name("series", file.below)
        )

    def _name(self, kind: PseudonymKind, value: str) -> str:
        if not value:
            return ""
        if self._pseudonyms is None:
            return hashlib.sha256(f"{kind}\0{value}".encode()).hexdigest()[:16]
        return self._pseudonyms.name(kind, value)


@dataclass(frozen=True, slots=True)
class _Ids:
    """Pseudonyms; patient and study are empty where nothing is known."""

    patient: str
    study: str
    series: str


def _place(number: int) -> str:
    return f"volume {number}"
