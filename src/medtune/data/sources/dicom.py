"""DICOM folders: slices of series as pictures, with the texts of a table."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, field_validator, model_validator

from medtune.data.sources.dicom_series import Slice, Volume, mask_areas, volumes_of
from medtune.data.sources.rows import RecordFault
from medtune.data.sources.slices import LargestMask, MiddleSlice, SliceChoice, choose_slices
from medtune.data.sources.texts import TextRow, Texts, TextTable
from medtune.errors import DataError
from medtune.imaging.config import Limits
from medtune.imaging.dicom_index import Instance, ObjectKind, Unread, index_files
from medtune.imaging.dicom_segmentation import MaskedFrame, masked_frames
from medtune.imaging.pseudonym import PseudonymKind, Pseudonyms, default_key_file, load_key
from medtune.imaging.window import WindowChoice, find_windows, modalities_of
from medtune.language import Text, msg
from medtune.types import Fault, GroupKind, Picture, Record, Settings, SourceCard, View

__all__ = ["Dicom"]

_ASKABLE: tuple[ObjectKind, ...] = ("localizer", "derived", "secondary-capture")


class Dicom(Settings):
    """A folder of DICOM files and all folders below it; one record for each chosen slice (or series) and row of the table.

    Slices lie in the order of their positions in the patient, whatever the files and instances are called. Headers are read in a
    child process. Names and headers hold identifiers, so every id that leaves this source is a pseudonym.
    """

    path: Path
    """The folder, or one file."""
    texts: Texts
    """The table of texts, joined by Patient ID, by the UID of the study, the series or the instance, or by the file (its path
    below the folder, or its name where no other file has it)."""
    task: str = "report"
    """The task of rows that name none."""
    slices: SliceChoice = MiddleSlice()
    """Which slices of a volume. With texts for an instance or a file: which of its frames."""
    record: Literal["slice", "series", "study"] = "slice"
    """`slice`: a record for each chosen slice. `series`, `study`: one record with all chosen slices as its pictures."""
    windows: tuple[WindowChoice, ...] = ()
    """Nothing, one window, three (shown in red, green and blue), or the name of a triple; a name or [center, width] each.
    Without: the file's own first window, else its VOI LUT, else all its values."""
    include: tuple[Literal["localizer", "derived", "secondary-capture"], ...] = ()
    """Pictures to read that are otherwise left out and listed."""
    key_file: Path | None = None
    """The secret key of the pseudonyms; made where there is none. Left out: `~/.config/medtune/pseudonym.key`."""
    already_deidentified: bool = False
    """The headers hold no identifiers (a public data set): ids are plain hashes of theirs, the same on every machine."""
    local_only: bool = False
    """The data may not be sent to another machine."""
    limits: Limits = Limits()
    """What a file may be at most, while its header is read."""

    @field_validator("windows")
    @classmethod
    def _windows(cls, chosen: tuple[WindowChoice, ...]) -> tuple[WindowChoice, ...]:
        find_windows(chosen)
        return chosen

    @model_validator(mode="after")
    def _texts_are_about_records(self) -> Dicom:
        finer = {"slice": (), "series": (), "study": ("series", "instance", "file")}[self.record]
        if self.texts.key in finer:
            raise ValueError(
                msg("Texts for a {key} cannot be the answer of a record for a {record}.", key=self.texts.key, record=self.record)
            )
        return self

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="dicom",
            title="DICOM files",
            licence="not stated",
            citation="",
            url="https://www.dicomstandard.org",
            group_kind=self._group_kind,
            local_only=self.local_only,
            notes=(
                ("Ids are plain hashes of identifiers that were said to name nobody.",)
                if self.already_deidentified
                else ("Ids are pseudonyms under a secret key: another key gives other ids and other splits.",)
            ),
        )

    @property
    def _group_kind(self) -> GroupKind:
        known = [(bool(patient), bool(study)) for patient, study, _ in self._found.series]
        if all(patient for patient, _ in known):
            return "patient"
        return "study" if all(patient or study for patient, study in known) else "volume"

    def samples(self) -> Iterator[Record]:
        yield from self._left_out()
        table = TextTable.read(self.texts)
        for unit in self._units():
            rows = next((rows for key in self._keys(unit[0].first) if (rows := table.rows_of(key))), ())
            try:
                yield from self._records(unit, rows)
            except RecordFault as error:
                yield self._faulty(unit[0].first, error.fault, f"{self._name('series', unit[0].first.series)}-{unit[0].number}")
        yield from table.faults
        yield from table.unmatched()

    def _left_out(self) -> Iterator[Record]:
        found = self._found
        if found.num_foreign:
            what = msg("{count} files of the folder are not DICOM.", count=found.num_foreign)
            fault = Fault("not-dicom", what, msg("Take them out of the folder, or leave them there: they are not read."))
            yield Record(id="not-dicom", task="", pictures=(), target="", group="not-dicom", fault=fault)
        for unread in found.unread:
            number = found.numbers[unread.path]
            fault = Fault(unread.reason, _REASONS[unread.reason], msg("Fetch the file again from where it came, or take it out."))
            placed = Fault(fault.reason, fault.message, fault.remedy, _place(number))
            yield Record(id=f"file-{number}", task="", pictures=(), target="", group=f"file-{number}", fault=placed)
        for instance in found.others:
            yield self._faulty(
                instance, _left_out_fault(instance), f"{self._picture_name(instance)}-{found.numbers[instance.path]}"
            )
        for instance in found.repeated:
            what = msg("Another file holds the same SOP instance.")
            fault = Fault("instance-repeated", what, msg("Nothing needs to be done: one of them is read."))
            yield self._faulty(instance, fault, f"{self._picture_name(instance)}-{found.numbers[instance.path]}")

    def _units(self) -> Iterator[list[Volume]]:
        """What one row of the table is about and one record may show: the volumes of a series, of a study or patient, or a file."""
        together: dict[tuple[str, ...], list[Volume]] = defaultdict(list)
        for (patient, study, series), instances in self._found.series.items():
            for volume in volumes_of(instances):
                if self.texts.key in ("instance", "file"):
                    for own in volume.by_instance():
                        together[(str(own.first.path), str(volume.number))].append(own)
                elif self.record == "study":
                    together[(patient, study or series)].append(volume)
                else:
                    together[(patient, study, series, str(volume.number))].append(volume)
        yield from together.values()

    def _records(self, unit: Sequence[Volume], rows: Sequence[TextRow]) -> Iterator[Record]:
        if not rows:
            what = msg("No row of the table is about these pictures.")
            raise RecordFault(Fault("text-missing", what, msg("Add a row, or take the files out of the folder.")))
        chosen: list[tuple[Volume, int]] = []
        for volume in unit:
            self._check_windows(volume)
            indices = choose_slices(self.slices, len(volume.slices), areas=self._areas(volume))
            chosen += [(volume, index) for index in indices]
        for shown in [[one] for one in chosen] if self.record == "slice" else [chosen]:
            for row in rows:
                yield self._record(shown, row, several=len(rows) > 1)

    def _record(self, shown: Sequence[tuple[Volume, int]], row: TextRow, *, several: bool) -> Record:
        volume, index = shown[0]
        slice_, instance = volume.slices[index], volume.first
        patient, study, series = (self._name(*each) for each in _identifiers(instance))
        metadata: dict[str, JsonValue] = {"series": series, "volume": f"{series}-{volume.number}"}
        if self.record == "slice":
            identity = self._picture_name(slice_.instance) + (f"-{slice_.frame}" if slice_.instance.frames > 1 else "")
            metadata["slice"] = volume.place_of(index)
        elif self.record == "series":
            identity = f"{series}-{volume.number}"
        else:
            identity = study or patient or series
            metadata = {}
        metadata |= {key: value for key, value in (("patient", patient), ("study", study)) if value}
        metadata |= _tags(slice_.instance, [each.slices[at].instance for each, at in shown])
        if volume.tilt:
            metadata["gantry_tilt"] = round(volume.tilt, 1)
        if slice_.instance.aspect != 1.0:
            metadata["pixel_aspect"] = round(slice_.instance.aspect, 4)
        if notes := list(dict.fromkeys(note for each, _ in shown for note in each.notes)):
            metadata["source_notes"] = [*notes]
        return Record(
            id=f"{identity}-t{row.number}" if several else identity,
            task=row.task or self.task,
            pictures=tuple(self._picture(each.slices[at]) for each, at in shown),
            target=row.answer,
            question=row.question,
            group=patient or study or series,
            metadata={**metadata, **row.metadata},
            split=row.split,
            place=_place(self._found.numbers[slice_.instance.path]),
        )

    def _picture(self, one: Slice) -> Picture:
        name = self._picture_name(one.instance) + (f", frame {one.frame}" if one.instance.frames > 1 else "")
        view = View(index=one.frame, windows=find_windows(self.windows))
        return Picture(path=one.instance.path, name=name, modality=one.instance.modality or None, view=view, private=True)

    def _check_windows(self, volume: Volume) -> None:
        if not self.windows:
            return
        if any(one.instance.colour for one in volume.slices):
            what = msg("A window was asked for, but these pictures are in colour.")
            raise RecordFault(Fault("window-on-colour", what, msg("Read them with a source of their own, without windows.")))
        for modality in sorted(modalities_of(self.windows) - {volume.first.modality}):
            what = msg(
                "The window preset is for {meant}, but the modality is {modality}.",
                meant=modality,
                modality=volume.first.modality or "?",
            )
            raise RecordFault(Fault("window-not-for-modality", what, msg("Give [center, width], or no window for this modality.")))

    def _areas(self, volume: Volume) -> list[int] | None:
        return mask_areas(volume, self._masks) if isinstance(self.slices, LargestMask) else None

    @cached_property
    def _masks(self) -> list[MaskedFrame]:
        folder = self.slices.masks if isinstance(self.slices, LargestMask) else None
        found = self._found if folder is None else _search(folder, self.limits, self.include)
        frames: list[MaskedFrame] = []
        for mask in found.others:
            if mask.kind == "segmentation":
                frames += masked_frames(mask.path, self.limits) or []
        return frames

    def _keys(self, instance: Instance) -> tuple[str, ...]:
        match self.texts.key:
            case "patient":
                return (instance.patient,)
            case "study":
                return (instance.study,)
            case "series":
                return (instance.series,)
            case "instance":
                return (instance.uid,)
            case "file":
                root = self.path.expanduser()
                below = instance.path.relative_to(root).as_posix() if root.is_dir() else instance.path.name
                # IM0001 lies in every patient's folder of an export: such a name alone says nothing.
                return (below, instance.path.name) if self._num_named[instance.path.name] == 1 else (below,)

    def _faulty(self, instance: Instance, fault: Fault, identity: str) -> Record:
        # The file's name may hold an identifier: its place in the sorted list says which one it is.
        placed = Fault(fault.reason, fault.message, fault.remedy, _place(self._found.numbers[instance.path]))
        patient, study, series = (self._name(*each) for each in _identifiers(instance))
        return Record(id=identity, task="", pictures=(), target="", group=patient or study or series or identity, fault=placed)

    def _picture_name(self, instance: Instance) -> str:
        return self._name("instance", instance.uid or f"{instance.series}/{self._found.numbers[instance.path]}")

    def _name(self, kind: PseudonymKind, value: str) -> str:
        if not value:
            return ""
        if self._pseudonyms is None:
            return hashlib.sha256(f"{kind}\0{value}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return self._pseudonyms.name(kind, value)

    @cached_property
    def _pseudonyms(self) -> Pseudonyms | None:
        if self.already_deidentified:
            return None
        return Pseudonyms(load_key(self.key_file or default_key_file(), create=True, outside=[self.path]))

    @cached_property
    def _num_named(self) -> Counter[str]:
        return Counter(path.name for path in self._found.numbers)

    @cached_property
    def _found(self) -> _Found:
        return _search(self.path, self.limits, self.include)


@dataclass(frozen=True, slots=True)
class _Found:
    """What lies in a folder.

    Attributes:
        numbers: Each file's place, from 1, in the sorted list of all files.
        num_foreign: Files that are not DICOM.
        unread: DICOM files that could not be read.
        others: Objects that are no picture, or a kind of picture that was not asked for.
        repeated: Instances that another file holds too.
        series: (patient, study, series) -> instances, sorted by these identifiers.
    """

    numbers: dict[Path, int]
    num_foreign: int
    unread: list[Unread]
    others: list[Instance]
    repeated: list[Instance]
    series: dict[tuple[str, str, str], list[Instance]]


def _search(path: Path, limits: Limits, include: Sequence[str]) -> _Found:
    path = path.expanduser()
    files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
    if not files or not path.exists():
        raise DataError(
            msg("No file is there."),
            file=path,
            key="data.sources.options.path",
            remedy=msg("Give the path of a DICOM file, or of a folder with DICOM files in it or below it."),
        )
    found = _Found({file: number for number, file in enumerate(files, 1)}, 0, [], [], [], {})
    num_foreign, seen, series = 0, set(), defaultdict(list)
    for result in index_files(files, limits):
        if isinstance(result, Unread):
            if result.reason == "not-dicom":
                num_foreign += 1
            else:
                found.unread.append(result)
        elif result.kind == "directory":
            continue
        elif result.kind != "image" and result.kind not in include:
            found.others.append(result)
        elif result.uid and result.uid in seen:
            found.repeated.append(result)
        else:
            seen.add(result.uid)
            # Without a Series Instance UID nothing says that two files belong together.
            key = result.series or f"\0{found.numbers[result.path]}"
            series[result.patient, result.study, key].append(result)
    if num_foreign == len(files):
        raise DataError(
            msg("None of the {count} files there is DICOM.", count=num_foreign),
            file=path,
            key="data.sources.options.path",
            remedy=msg("Unpack archives first, and give the folder that holds the DICOM files."),
        )
    return _Found(found.numbers, num_foreign, found.unread, found.others, found.repeated, dict(sorted(series.items())))


def _identifiers(instance: Instance) -> tuple[tuple[PseudonymKind, str], tuple[PseudonymKind, str], tuple[PseudonymKind, str]]:
    series = instance.series or instance.uid or str(instance.path)
    return ("patient", instance.patient), ("study", instance.study), ("series", series)


def _tags(instance: Instance, shown: Sequence[Instance]) -> dict[str, JsonValue]:
    """What the headers say, in the standard's own terms only; where the pictures of a record differ, of the first."""
    tags: dict[str, JsonValue] = {}
    if instance.modality:
        tags |= {"modality": instance.modality, "tags_modality": instance.modality}
    if instance.body_part:
        tags["organ"] = instance.body_part
    views = list(dict.fromkeys(each.view_position for each in shown if each.view_position))
    if views:
        tags["view_position"] = ", ".join(views)
    return tags


def _left_out_fault(instance: Instance) -> Fault:
    if instance.kind in _ASKABLE:
        remedy = msg("To read it, write {kind} under `include`.", kind=instance.kind)
        return Fault(instance.kind, msg("The file is a picture of the kind {kind}.", kind=instance.kind), remedy)
    what = msg("The file is no picture, but of the kind {kind}.", kind=instance.kind)
    return Fault(instance.kind, what, msg("Nothing needs to be done."))


def _place(number: int) -> str:
    return f"file {number}"


_REASONS: dict[str, Text] = {
    "unreadable": msg("The DICOM file is damaged, or beyond a limit."),
    "decoder-crash": msg("The DICOM file ended the process that read its header."),
    "decoder-timeout": msg("The header of the DICOM file took too long to read."),
    "decoder-memory": msg("The header of the DICOM file needs too much memory."),
}
