"""SLAKE: questions in English and Chinese about 642 radiology pictures, with and without outside knowledge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import JsonValue

from medtune.data.sources.questions import picture_below, question_record, required_text
from medtune.data.sources.rows import RecordFault, Row, faulty, read_rows, split_of
from medtune.errors import DataError
from medtune.language import msg
from medtune.types import Part, Record, Settings, SourceCard

__all__ = ["Slake"]

_FILES = (("train.json",), ("validation.json", "validate.json"), ("test.json",))
"""The second was renamed in the course of time."""
_MODALITIES = {"ct": "CT", "mri": "MR", "x-ray": "DX"}
_TAGS = (("location", "organ"), ("content_type", "question_type"), ("base_type", "base_type"), ("modality", "modality"))


class Slake(Settings):
    """``train.json``, ``validation.json`` (once ``validate.json``) and ``test.json``, and the folder ``imgs`` of ``imgs.zip``:
    lists of objects with img_id, img_name (``xmlab0/source.jpg``), question, answer, q_lang, location, modality, answer_type,
    base_type (vqa, or kvqa: asks for knowledge that no picture shows), content_type, triple, qid."""

    path: Path
    """The folder with the three files and `imgs/`."""
    language: Literal["en", "zh", "both"] = "en"
    """Which questions are read. The two languages ask about the same pictures."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="slake",
            title="SLAKE",
            licence="CC-BY-4.0",
            citation="Liu et al., SLAKE: a semantically-labeled knowledge-enhanced dataset for medical visual question answering, "
            "ISBI 2021, arXiv:2102.09542",
            url="https://huggingface.co/datasets/BoKelvin/SLAKE",
            group_kind="image",
            notes=(
                "There are no patient ids: the folder of a picture is the smallest unit known.",
                "Masks and detections beside the pictures are not read, nor are the triples and the knowledge graph.",
            ),
        )

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def parts(self) -> Sequence[Part]:
        """The three files, those that are there.

        Raises:
            DataError: None of them is there, or the pictures were not unpacked.
        """
        folder = self.path.expanduser()
        parts = [Part(folder / name) for names in _FILES for name in names if (folder / name).is_file()]
        if not parts:
            raise DataError(
                msg("No file of SLAKE is here (looked for {names}).", names=", ".join(name for names in _FILES for name in names)),
                file=folder,
                key="data.sources.options.path",
                remedy=msg("Give the folder that holds these files."),
            )
        if not (folder / "imgs").is_dir():
            raise DataError(
                msg("The folder imgs with the pictures is missing."),
                file=folder,
                remedy=msg("Unpack imgs.zip beside the JSON files."),
            )
        return parts

    def samples_of(self, part: Part) -> Iterator[Record]:
        """The records of one file."""
        for row in read_rows(part.file, part.start, part.stop):
            language = str(row.values.get("q_lang") or "").strip().lower()
            if row.fault is None and self.language not in ("both", language) and language in ("en", "zh"):
                continue  # asked for by the recipe
            try:
                if row.fault is not None:
                    raise RecordFault(row.fault)
                yield self._record(row, language)
            except RecordFault as found:
                yield faulty(row, found.fault)

    def _record(self, row: Row, language: str) -> Record:
        name, answer_type = (required_text(row.values, key) for key in ("img_name", "answer_type"))
        metadata: dict[str, JsonValue] = {"image": name}
        if language:
            metadata["language"] = language
        for key, tag in _TAGS:
            value = row.values.get(key)
            if isinstance(value, str) and value.strip():
                metadata[tag] = _MODALITIES.get(value.strip().lower(), value.strip()) if tag == "modality" else value.strip()
        return question_record(
            row,
            record_id=row.id,
            picture=picture_below(self.path.expanduser() / "imgs", name),
            group=PurePosixPath(name).parent.as_posix() if "/" in name else name,
            question=row.values.get("question"),
            answer=row.values.get("answer"),
            closed=answer_type.strip().upper() == "CLOSED",
            answer_type=answer_type,
            metadata=metadata,
            split=split_of(row.file),
        )
