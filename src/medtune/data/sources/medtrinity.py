"""MedTrinity-25M, the demo shards: a picture and a caption a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from medtune.data.sources.rows import RecordFault, data_files, faulty, picture_of, read_rows, split_of
from medtune.language import msg
from medtune.types import IMAGE_MARK, Fault, Message, Record, Settings, SourceCard

__all__ = ["QUESTIONS", "MedTrinity"]

QUESTIONS: dict[str, str] = {
    "en": "What does this picture show, and what is the diagnosis?",
    "zh": "这张图像显示了什么？诊断是什么？",
}
"""The question of every row, by language, where the recipe gives none."""


class MedTrinity(Settings):
    """``25M_demo`` Parquet shards with the columns ``image`` (encoded picture), ``id`` (UUID) and ``caption``."""

    path: Path
    """A Parquet file, a folder of them, or a pattern (`shards/train-0000*.parquet`)."""
    question: str | None = None
    """Asked of every picture; a sentence in `language` when left out. Empty: the task's own instruction is used instead."""
    language: Literal["en", "zh"] = "en"
    """Language of the question. The published captions are English."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="medtrinity",
            title="MedTrinity-25M (demo shards)",
            licence="access on request; CC BY-NC-SA 4.0 according to projects that use it",
            citation="Xie et al., MedTrinity-25M, arXiv:2408.02900",
            url="https://huggingface.co/datasets/UCSC-VLAA/MedTrinity-25M",
            group_kind="image",
            notes=(
                "Captions were written by a language model from metadata and boxes, not by radiologists.",
                "No patient, study or volume is known: neighbouring slices of one volume can fall on both sides of a split.",
                "Users report captions about another picture, and boxes drawn into pictures (the project's issues 8, 27, 32).",
            ),
        )

    def samples(self) -> Iterator[Record]:
        question = QUESTIONS[self.language] if self.question is None else self.question.strip()
        for file in data_files(self.path, (".parquet", ".arrow")):
            split = split_of(file)
            for row in read_rows(file):
                identity = str(row.values.get("id") or row.id)
                try:
                    if not {"image", "caption"} <= row.values.keys():
                        raise RecordFault(
                            Fault(
                                "column-missing",
                                msg("The file has no columns image and caption; it has {columns}.", columns=", ".join(row.values)),
                                msg("Use the shards of the 25M_demo part; the full and accessible parts are laid out otherwise."),
                            )
                        )
                    picture = picture_of(row.values["image"], name=identity)
                    caption = str(row.values["caption"] or "").strip()
                except RecordFault as found:
                    yield faulty(row, found.fault, record_id=identity)
                    continue
                messages = (
                    (Message(role="user", content=IMAGE_MARK + question), Message(role="assistant", content=caption))
                    if question
                    else ()
                )
                yield Record(
                    id=identity,
                    task="caption",
                    pictures=(picture,),
                    target=caption,
                    group=identity,
                    question=question,
                    messages=messages,
                    metadata={"language": "en", "provenance": "generated"},
                    split=split,
                    place=row.place,
                )
