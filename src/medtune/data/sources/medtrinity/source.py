"""MedTrinity-25M: a picture and a caption a row, from demo shards, or from archives joined with metadata shards."""

from __future__ import annotations

import array
import difflib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from medtune.data.sources.archives import ArchiveMember, iter_tar
from medtune.data.sources.hub import hub_address, open_data
from medtune.data.sources.medtrinity.caption import read_caption
from medtune.data.sources.medtrinity.caption_index import CaptionIndex, CaptionRow
from medtune.data.sources.medtrinity.files import Files, find_files
from medtune.data.sources.medtrinity.index_folder import fingerprint
from medtune.data.sources.medtrinity.licences import licence_of
from medtune.data.sources.medtrinity.names import has_patients, read_name
from medtune.data.sources.medtrinity.volumes import Volumes, volumes_of
from medtune.data.sources.rows import RecordFault, faulty, parts_of, picture_of, read_rows, split_of
from medtune.errors import DataError
from medtune.language import Text, msg
from medtune.types import IMAGE_MARK, Fault, Message, Part, Picture, Record, Settings, SourceCard, SplitName

__all__ = ["QUESTIONS", "MedTrinity"]

QUESTIONS: dict[str, str] = {
    "en": "What does this picture show, and what is the diagnosis?",
    "zh": "这张图像显示了什么？诊断是什么？",
}
"""The question of every row, by language, where the recipe gives none."""

_PICTURES = (".png", ".jpg", ".jpeg")


class MedTrinity(Settings):
    """One of the forms in which MedTrinity-25M is published, told apart by the files and their columns:

    - ``25M_demo``: Parquet shards with ``image`` (encoded picture), ``id`` (UUID) and ``caption``;
    - ``25M_accessible``: ``*.tar.zst`` archives of pictures, joined on the base name of each member with the metadata shards of
      ``25M_full``: Parquet with ``file_name``, ``caption`` and ``source``.
    """

    path: Path
    """A Parquet file, an archive, a folder of them, or a pattern (`shards/train-0000*.parquet`)."""
    captions: Path | None = None
    """The metadata shards of the archives, where they do not lie in the folder `path` as well."""
    index: Path | None = None
    """A folder for what is found out once about the files. Archives need it: their captions are copied there, so that they can be
    looked up by name (the size of their text and 20 bytes for each)."""
    question: str | None = None
    """Asked of every picture; a sentence in `language` when left out. Empty: the task's own instruction is used instead."""
    language: Literal["en", "zh"] = "en"
    """Language of the question. The published captions are English."""
    allow_sources: tuple[str, ...] = ()
    """Take the pictures of these sources only (the column `source`, e.g. `bhx`); all when left out. Each source has a licence of
    its own."""
    deny_sources: tuple[str, ...] = ()
    """Take no pictures of these sources."""
    boxes_from_names: bool = False
    """Take boxes that stand in file names. What their numbers mean was inferred from examples."""
    volume_heuristic: Literal["none", "uuid-time"] = "none"
    """`uuid-time`: pictures of the demo shards that were made right after one another and look alike are kept together as a
    volume. A heuristic; it costs a pass over the pictures."""
    volume_correlation: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Least correlation of neighbours of one volume, as thumbnails."""
    volume_gap: Annotated[float, Field(gt=0.0)] = 1.0
    """Most seconds between the making of two neighbours of one volume."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> MedTrinity:
        both = {name.lower() for name in self.allow_sources} & {name.lower() for name in self.deny_sources}
        if both:
            raise ValueError(msg("allow_sources and deny_sources both name {names}.", names=", ".join(sorted(both))))
        return self

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="medtrinity",
            title="MedTrinity-25M",
            licence="access on request; CC BY-NC-SA 4.0 according to users (not verified); each source has terms of its own",
            citation="Xie et al., MedTrinity-25M, arXiv:2408.02900",
            url="https://huggingface.co/datasets/UCSC-VLAA/MedTrinity-25M",
            group_kind="volume" if self._by_volume else "patient" if self._by_patient else "image",
            notes=(
                "Captions were written by a language model from metadata and boxes, not by radiologists.",
                "Users report captions about another picture, and boxes drawn into pictures (the project's issues 8, 27, 32).",
                "Volumes were found by the heuristic uuid-time, from order of making and likeness: some are joined, some are cut."
                if self._by_volume
                else "Patients were read from file names; some of their patterns are inferred from examples."
                if self._by_patient
                else "Not every picture's patient or volume is known: slices of one volume can fall on both sides of a split.",
            ),
        )

    @property
    def _by_volume(self) -> bool:
        return self.volume_heuristic != "none"

    @property
    def _by_patient(self) -> bool:
        """Whether every source that may come names its pictures by patient: of a mixed set the weakest unit counts."""
        return has_patients(self.allow_sources)

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def parts(self) -> Sequence[Part]:
        """Row groups of the demo shards, or the archives.

        Raises:
            DataError: No form lies there, or more than one; or an option does not fit the form.
        """
        files = self._files()
        return [Part(file) for file in files.archives] if files.archives else parts_of(files.tables)

    def samples_of(self, part: Part) -> Iterator[Record]:
        """The records of one part."""
        files = self._files()
        return self._archived(part.file, files) if files.archives else self._demo(part, files)

    def remarks(self) -> Sequence[Text]:
        """How many captions have no picture, and how many are of sources that the recipe leaves out."""
        files = self._files()
        if not files.archives:
            return ()
        index = self._captions(files)
        found: list[Text] = []
        without = index.num_without_picture(files.archives)
        if without is None:
            found.append(msg("How many captions have no picture is not known: not every archive was read to its end."))
        elif without:
            found.append(
                msg("{count} of {total} captions have no picture in the archives.", count=without, total=index.num_captions)
            )
        left_out = {name: count for name, count in index.sources.items() if not self._takes(name)}
        if left_out:
            found.append(
                msg(
                    "{count} captions are of sources that the recipe leaves out: {names}.",
                    count=sum(left_out.values()),
                    names=", ".join(left_out),
                )
            )
        return found

    def _files(self) -> Files:
        files = find_files(self.path, self.captions)
        if files.archives:
            if self.index is None:
                raise DataError(
                    msg("Archives are joined with their captions by an index, for which a folder must be named."),
                    file=files.archives[0],
                    key="data.sources.options.index",
                    remedy=msg("Set index to a folder with room for the text of all captions."),
                )
            if self._by_volume:
                raise DataError(
                    msg("The heuristic uuid-time is for the demo shards; pictures in archives have names instead."),
                    key="data.sources.options.volume_heuristic",
                    remedy=msg("Set it to none."),
                )
        elif self.allow_sources or self.deny_sources:
            raise DataError(
                msg("The demo shards do not say from which source a picture is: no source can be allowed or denied."),
                file=files.tables[0],
                key="data.sources.options.allow_sources",
                remedy=msg("Use the archives of 25M_accessible with the captions of 25M_full."),
            )
        return files

    def _takes(self, source: str) -> bool:
        name = source.lower()
        allowed = {each.lower() for each in self.allow_sources}
        return (not allowed or name in allowed) and name not in {each.lower() for each in self.deny_sources}

    # --------------------------------------------------------------------------------------------------------- demo

    def _demo(self, part: Part, files: Files) -> Iterator[Record]:
        volumes = self._volumes(files) if self._by_volume else None
        split = split_of(part.file)
        for row in read_rows(part.file, part.start, part.stop):
            identity = str(row.values.get("id") or row.id)
            try:
                picture = picture_of(row.values.get("image"), name=identity)
            except RecordFault as found:
                yield faulty(row, found.fault, record_id=identity)
                continue
            volume = volumes.find(identity) if volumes else None
            tags: dict[str, JsonValue] = {"volume": volume} if volume else {}
            caption = str(row.values.get("caption") or "").strip()
            yield self._record(identity, picture, caption, volume or identity, tags, row.place, split=split)

    def _volumes(self, files: Files) -> Volumes:
        folder = None if self.index is None else self.index.expanduser()
        return volumes_of(files.tables, folder, correlation=self.volume_correlation, seconds=self.volume_gap)

    # ----------------------------------------------------------------------------------------------------- archives

    def _archived(self, archive: Path, files: Files) -> Iterator[Record]:
        index = self._captions(files)
        self._check_sources(index)
        matched = array.array("I")
        for member in _members(archive):
            place = f"{archive}:{member.name}"
            name = PurePosixPath(member.name).name
            if member.fault is not None:
                yield _fault(name, member.fault, place)
                continue
            if PurePosixPath(name).suffix.lower() not in _PICTURES:
                yield _fault(name, Fault("not-a-picture", msg("The member of the archive is no PNG or JPEG file.")), place)
                continue
            rows = index.find(name)
            matched.extend(row.position for row in rows)
            try:
                row = _one(rows, name)
            except RecordFault as found:
                yield _fault(name, found.fault, place)
                continue
            if self._takes(row.source):
                yield self._captioned(row, member.data, place)
        index.note_pictures(archive, matched)

    def _captioned(self, row: CaptionRow, data: bytes, place: str) -> Record:
        tags: dict[str, JsonValue] = {"source_set": row.source, "licence": licence_of(row.source)}
        named = read_name(row.source, row.file_name)
        group = f"{row.source}/{row.file_name}"
        if named is not None:
            group = named.patient
            known = {"patient": named.patient, "study": named.study, "series": named.series, "volume": named.series}
            tags |= {key: value for key, value in known.items() if value is not None}
            if named.slice is not None:
                tags["slice"] = named.slice
            if self.boxes_from_names and named.box is not None:
                tags["box"] = list(named.box)
        elif self._by_patient:
            return _fault(
                row.file_name,
                Fault(
                    "file-name-unknown",
                    msg(
                        "The name does not follow the pattern of the source {source}: the patient is not known.", source=row.source
                    ),
                    msg("Leave allow_sources out to group such pictures by themselves, or leave the record out."),
                ),
                place,
            )
        return self._record(row.file_name, Picture(data=data, name=row.file_name), row.caption.strip(), group, tags, place)

    def _captions(self, files: Files) -> CaptionIndex:
        assert self.index is not None
        return _index_of(files.tables, repr(fingerprint(files.tables)), self.index.expanduser())

    def _check_sources(self, index: CaptionIndex) -> None:
        known = {name.lower() for name in index.sources}
        for option in ("allow_sources", "deny_sources"):
            for name in getattr(self, option):
                if name.lower() not in known:
                    nearest = difflib.get_close_matches(name.lower(), known, n=3) or sorted(known)[:10]
                    raise DataError(
                        msg("No caption is of the source {name}.", name=name),
                        key=f"data.sources.options.{option}",
                        remedy=msg("Known: {known}.", known=", ".join(nearest)),
                    )

    # -------------------------------------------------------------------------------------------------------- record

    def _record(
        self,
        identity: str,
        picture: Picture,
        caption: str,
        group: str,
        tags: dict[str, JsonValue],
        place: str,
        *,
        split: SplitName | None = None,
    ) -> Record:
        question = QUESTIONS[self.language] if self.question is None else self.question.strip()
        messages = (
            (Message(role="user", content=IMAGE_MARK + question), Message(role="assistant", content=caption)) if question else ()
        )
        return Record(
            id=identity,
            task="caption",
            pictures=(picture,),
            target=caption,
            group=group,
            question=question,
            messages=messages,
            metadata={"language": "en", "provenance": "generated", **_said(caption), **tags},
            split=split,
            place=place,
        )


def _said(caption: str) -> dict[str, JsonValue]:
    """The parts of a caption as metadata, and those that could not be read as notes."""
    parts = read_caption(caption)
    said: dict[str, JsonValue] = {}
    for key in ("modality", "contrast", "organ", "horizontal", "vertical", "area_percent", "finding", "relation"):
        value = getattr(parts, key)
        if value is not None:
            said[key] = value
    if parts.unread:
        said["source_notes"] = [f"caption-unread-{name}" for name in parts.unread]
    return said


def _members(archive: Path) -> Iterator[ArchiveMember]:
    return iter_tar(archive) if hub_address(archive) is None else iter_tar(open_data(archive), name=str(archive))


def _one(rows: Sequence[CaptionRow], name: str) -> CaptionRow:
    """The caption of a picture.

    Raises:
        RecordFault: There is none, or there are several that differ.
    """
    if not rows:
        raise RecordFault(
            Fault("caption-missing", msg("No caption names the picture {name}.", name=name), msg("Are all metadata shards there?"))
        )
    if any((row.caption, row.source) != (rows[0].caption, rows[0].source) for row in rows):
        raise RecordFault(
            Fault(
                "caption-ambiguous",
                msg("{count} captions name a picture {name}, and they differ.", count=len(rows), name=name),
                msg("Nothing says which is meant: leave the record out."),
            )
        )
    return rows[0]


def _fault(identity: str, fault: Fault, place: str) -> Record:
    placed = Fault(fault.reason, fault.message, fault.remedy, fault.file or place)
    return Record(id=identity, task="", pictures=(), target="", group=identity, fault=placed)


# A process opens an index once, whatever the number of parts it reads. The second argument tells files that changed.
@functools.lru_cache(maxsize=4)
def _index_of(files: tuple[Path, ...], state: str, folder: Path) -> CaptionIndex:  # noqa: ARG001
    return CaptionIndex.of(files, folder)
