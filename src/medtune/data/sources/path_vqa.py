"""PathVQA: questions generated from the captions of pathology pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from medtune.data.sources.questions import is_yes_or_no, question_record
from medtune.data.sources.rows import RecordFault, data_files, faulty, parts_of, picture_group, picture_of, read_rows, split_of
from medtune.types import Part, Record, Settings, SourceCard

__all__ = ["PathVqa"]


class PathVqa(Settings):
    """Parquet shards with the columns ``image``, ``question`` and ``answer``, as ``flaviagiammarino/path-vqa`` on the Hugging
    Face hub. There is no answer type: yes and no count as closed, everything else as open."""

    path: Path
    """A Parquet file, a folder of them, or a pattern. Names that begin with train, validation or test give the official split."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="path-vqa",
            title="PathVQA",
            licence="see the data set page (not verified)",
            citation="He et al., PathVQA: 30000+ questions for medical visual question answering, arXiv:2003.10286",
            url="https://huggingface.co/datasets/flaviagiammarino/path-vqa",
            group_kind="image",
            notes=(
                "Questions were generated from captions of textbook figures, not asked by pathologists.",
                "There are no patient ids, and parts of one figure can be several pictures.",
                "There are no answer types: answers of yes and no count as closed.",
            ),
        )

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def parts(self) -> Sequence[Part]:
        """Row groups of the shards.

        Raises:
            DataError: No shard is there, or one is damaged.
        """
        return parts_of(data_files(self.path, (".parquet", ".arrow")))

    def samples_of(self, part: Part) -> Iterator[Record]:
        """The records of one part."""
        for row in read_rows(part.file, part.start, part.stop):
            try:
                picture = picture_of(row.values.get("image"), name=row.id)
                yield question_record(
                    row,
                    record_id=row.id,
                    picture=picture,
                    group=picture_group(picture),
                    question=row.values.get("question"),
                    answer=row.values.get("answer"),
                    closed=is_yes_or_no(row.values.get("answer")),
                    metadata={"language": "en", "modality": "SM"},
                    split=split_of(part.file),
                )
            except RecordFault as found:
                yield faulty(row, found.fault)
