"""VQA-RAD: questions and answers of clinicians about 315 radiology pictures, in the three forms in which it travels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from medtune.data.sources.questions import is_yes_or_no, picture_below, question_record, required_text
from medtune.data.sources.rows import RecordFault, Row, data_files, faulty, parts_of, picture_group, picture_of, read_rows, split_of
from medtune.errors import DataError
from medtune.language import msg
from medtune.types import Part, Record, Settings, SourceCard, SplitName

__all__ = ["VqaRad"]

_FILES: dict[str, SplitName] = {"trainset.json": "train", "testset.json": "test"}
_PUBLIC = "VQA_RAD Dataset Public.json"
_IMAGES = ("images", "VQA_RAD Image Folder")
_TAGS = (("question_type", "question_type"), ("image_organ", "organ"), ("phrase_type", "phrase_type"))
Form = Literal["two-files", "public", "parquet"]


class VqaRad(Settings):
    """One of three forms, told apart by the files that are there:

    - ``trainset.json`` and ``testset.json`` (lists of objects with qid, image_name, image_organ, question, answer, answer_type,
      question_type, phrase_type), and the pictures in ``images/``;
    - ``VQA_RAD Dataset Public.json`` of osf.io/89kps, where test rows have a phrase_type that begins with ``test_``, and rows
      that ask the same in other words share a qid_linked_id;
    - Parquet with image, question and answer only, as ``flaviagiammarino/vqa-rad`` on the Hugging Face hub: no answer type is
      left, so that yes and no count as closed, and a picture is known by its bytes.

    What is odd in the published files is put right and noted in ``metadata["source_notes"]``, where ``validate`` finds it:
    answers that are numbers become text; blanks around question, answer and answer type are taken off.
    """

    path: Path
    """The folder with the files, or the public JSON file itself."""
    images: Path | None = None
    """The folder of the pictures; `images` or `VQA_RAD Image Folder` beside the JSON files when left out."""
    split: Literal["image-disjoint", "official"] = "image-disjoint"
    """`official` hands on the published split, whose test pictures all stand in the training file too; use it together with
    `data.split.kind: official`, and only to compare with published numbers. `image-disjoint` leaves the split to the recipe."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="vqa-rad",
            title="VQA-RAD",
            licence="CC0-1.0",
            citation="Lau et al., A dataset of clinically generated visual questions and answers about radiology images, "
            "Scientific Data 5, 180251 (2018)",
            url="https://osf.io/89kps/",
            group_kind="image",
            notes=(
                "The published split shares its test pictures with the training file.",
                "There are no patient ids: the pictures are teaching cases, and the picture is the smallest unit known.",
                "Rephrasings of a question are linked in the original file only (qid_linked_id); they ask about the same picture.",
                "The Parquet form has no answer types: answers of yes and no count as closed there, which is fewer questions.",
            ),
        )

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def parts(self) -> Sequence[Part]:
        """A JSON file each; Parquet by row groups.

        Raises:
            DataError: No form of VQA-RAD lies there.
        """
        form, files = self._files()
        return parts_of(files) if form == "parquet" else [Part(file) for file in files]

    def samples_of(self, part: Part) -> Iterator[Record]:
        """The records of one part."""
        parquet = part.file.suffix == ".parquet"
        links = {} if parquet else _links(part.file)
        for row in read_rows(part.file, part.start, part.stop):
            try:
                if row.fault is not None:
                    raise RecordFault(row.fault)
                yield self._bare(row) if parquet else self._annotated(row, links)
            except RecordFault as found:
                yield faulty(row, found.fault, record_id=str(row.values["qid"]) if "qid" in row.values else None)

    def _files(self) -> tuple[Form, list[Path]]:
        folder = self.path.expanduser()
        if folder.suffix.lower() == ".json":
            return "public", [folder]
        if any((folder / name).is_file() for name in _FILES):
            return "two-files", [folder / name for name in _FILES]
        if (folder / _PUBLIC).is_file():
            return "public", [folder / _PUBLIC]
        try:
            return "parquet", data_files(folder, (".parquet",))
        except DataError as error:
            raise DataError(
                msg("No form of VQA-RAD is here (looked for {names}).", names=", ".join([*_FILES, _PUBLIC, "*.parquet"])),
                file=folder,
                key="data.sources.options.path",
                remedy=msg("Give the folder that holds these files."),
            ) from error

    def _pictures(self, file: Path) -> Path:
        if self.images is not None:
            return self.images.expanduser()
        return next((file.parent / name for name in _IMAGES if (file.parent / name).is_dir()), file.parent / _IMAGES[0])

    def _annotated(self, row: Row, links: Mapping[str, str]) -> Record:
        values = row.values
        question, name, answer_type = (required_text(values, key) for key in ("question", "image_name", "answer_type"))
        identity = str(values.get("qid", row.id))
        metadata: dict[str, JsonValue] = {"language": "en", "image": name}
        for key, tag in _TAGS:
            if isinstance(values.get(key), str) and values[key].strip():
                metadata[tag] = values[key].strip()
        linked = links.get(_link(values), _link(values))
        if linked and linked != identity:
            metadata["linked_id"] = linked
        return question_record(
            row,
            record_id=identity,
            picture=picture_below(self._pictures(row.file), name),
            group=name,
            question=question,
            answer=values.get("answer"),
            closed=answer_type.strip().upper() == "CLOSED",
            answer_type=answer_type,
            metadata=metadata,
            split=self._handed_on(_FILES.get(row.file.name) or _public_split(values)),
        )

    def _bare(self, row: Row) -> Record:
        picture = picture_of(row.values.get("image"), name=row.id)
        return question_record(
            row,
            record_id=row.id,
            picture=picture,
            group=picture_group(picture),
            question=row.values.get("question"),
            answer=row.values.get("answer"),
            closed=is_yes_or_no(row.values.get("answer")),
            metadata={"language": "en"},
            split=self._handed_on(split_of(row.file)),
        )

    def _handed_on(self, split: SplitName | None) -> SplitName | None:
        return split if self.split == "official" else None


def _public_split(values: Mapping[str, Any]) -> SplitName:
    return "test" if str(values.get("phrase_type") or "").strip().lower().startswith("test_") else "train"


def _link(values: Mapping[str, Any]) -> str:
    link = str(values.get("qid_linked_id") or "").strip()
    return "" if link.lower() in ("null", "none", "nan") else link


def _links(file: Path) -> dict[str, str]:
    """Link -> id of the first row that bears it. The published links are UUIDs that a question and its rephrasings share; some
    copies name the other row instead, and these are no keys here unless two rows name the same one."""
    first: dict[str, str] = {}
    for row in read_rows(file):
        link = _link(row.values)
        if len(link) == 36 and "qid" in row.values:
            first.setdefault(link, str(row.values["qid"]))
    return first
