"""VQA-RAD: questions and answers of clinicians about 315 radiology pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from medtune.data.sources.rows import RecordFault, Row, faulty, read_rows
from medtune.language import msg
from medtune.types import Fault, Picture, Record, Settings, SourceCard, SplitName

__all__ = ["VqaRad"]

_FILES: dict[str, SplitName] = {"trainset.json": "train", "testset.json": "test"}
_TEXT_KEYS = ("question", "image_name", "answer_type")


class VqaRad(Settings):
    """The JSON form: ``trainset.json`` and ``testset.json`` (lists of objects with qid, image_name, image_organ, question, answer,
    answer_type, question_type, phrase_type), and the pictures in ``images/``.

    What is odd in the published files is put right and noted in ``metadata["source_notes"]``, where ``validate`` finds it:
    answers that are numbers become text; blanks around question, answer and answer type are taken off.
    """

    path: Path
    """The folder with the two JSON files and `images/`."""
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
            ),
        )

    def samples(self) -> Iterator[Record]:
        folder = self.path.expanduser()
        for name, split in _FILES.items():
            for row in read_rows(folder / name):
                try:
                    yield self._record(row, folder / "images", split if self.split == "official" else None)
                except RecordFault as found:
                    yield faulty(row, found.fault, record_id=str(row.values["qid"]) if "qid" in row.values else None)

    def _record(self, row: Row, images: Path, split: SplitName | None) -> Record:
        if row.fault is not None:
            raise RecordFault(row.fault)
        values = row.values
        for key in _TEXT_KEYS:
            if not isinstance(values.get(key), str):
                raise RecordFault(
                    Fault(
                        "key-missing",
                        msg("The record has no text under {key!r}.", key=key),
                        msg("Complete the record in the source."),
                    )
                )
        question, answer, answer_type = values["question"], values.get("answer"), values["answer_type"]
        notes = _notes(question, answer, answer_type)
        closed = answer_type.strip().upper() == "CLOSED"
        metadata: dict[str, JsonValue] = {
            "answer_type": "closed" if closed else "open",
            "language": "en",
            "image": values["image_name"],
        }
        for key, name in (("question_type", "question_type"), ("image_organ", "organ"), ("phrase_type", "phrase_type")):
            if isinstance(values.get(key), str) and values[key].strip():
                metadata[name] = values[key].strip()
        if _linked(values):
            metadata["linked_id"] = str(values["qid_linked_id"])
        if notes:
            metadata["source_notes"] = list(notes)
        return Record(
            id=str(values.get("qid", row.id)),
            task="closed-vqa" if closed else "open-vqa",
            pictures=(Picture(path=images / values["image_name"], name=values["image_name"]),),
            target="" if answer is None else str(answer).strip(),
            group=values["image_name"],
            question=question.strip(),
            metadata=metadata,
            split=split,
            place=row.place,
        )


def _linked(values: Mapping[str, Any]) -> bool:
    return str(values.get("qid_linked_id") or "").strip().lower() not in ("", "null", "none")


def _notes(question: str, answer: Any, answer_type: str) -> tuple[str, ...]:
    found = {
        "answer-not-text": answer is not None and not isinstance(answer, str),
        "answer-blanks": isinstance(answer, str) and answer != answer.strip(),
        "question-blanks": question != question.strip(),
        "answer-type-blanks": answer_type != answer_type.strip(),
    }
    return tuple(name for name, is_so in found.items() if is_so)
