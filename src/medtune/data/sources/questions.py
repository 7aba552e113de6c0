"""What the sets of questions about pictures have in common: oddities put right and noted, closed answers, pictures in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import JsonValue

from medtune.data.sources.rows import RecordFault, Row
from medtune.language import msg
from medtune.types import Fault, Picture, Record, SplitName

__all__ = ["is_yes_or_no", "picture_below", "question_record", "required_text"]

_YES_NO = frozenset({"yes", "no", "是", "否", "不是", "有", "没有"})


def is_yes_or_no(answer: Any) -> bool:
    """Whether an answer is a bare yes or no, in English or Chinese.

    Copies of data sets that dropped the annotated answer type are scored this way by others. It is a narrower notion: of the 272
    test questions that VQA-RAD marks as closed, 251 are answered with yes or no.
    """
    return isinstance(answer, str) and answer.strip().rstrip(".。").lower() in _YES_NO


def required_text(values: Mapping[str, Any], key: str) -> str:
    """The text under ``key``.

    Raises:
        RecordFault: There is none.
    """
    value = values.get(key)
    if not isinstance(value, str):
        raise RecordFault(
            Fault("key-missing", msg("The record has no text under {key!r}.", key=key), msg("Complete the record in the source."))
        )
    return value


def picture_below(folder: Path, name: str) -> Picture:
    """The picture ``name`` (a POSIX path) of a folder.

    Raises:
        RecordFault: The name leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not name.strip():
        raise RecordFault(
            Fault(
                "picture-outside",
                msg("The picture's name {name!r} leads out of the folder of pictures.", name=name),
                msg("Correct the record in the source, or leave it out."),
            )
        )
    return Picture(path=folder / path, name=name)


def question_record(
    row: Row,
    *,
    record_id: str,
    picture: Picture,
    group: str,
    question: Any,
    answer: Any,
    closed: bool,
    metadata: Mapping[str, JsonValue],
    answer_type: str = "",
    split: SplitName | None = None,
) -> Record:
    """A question with its answer. Numbers become text and blanks are taken off; ``metadata["source_notes"]`` says so.

    Args:
        answer_type: As the source writes it, where it does.

    Raises:
        RecordFault: There is no question.
    """
    if not isinstance(question, str):
        raise RecordFault(
            Fault(
                "key-missing",
                msg("The record has no text under {key!r}.", key="question"),
                msg("Complete the record in the source."),
            )
        )
    found = {
        "answer-not-text": answer is not None and not isinstance(answer, str),
        "answer-blanks": isinstance(answer, str) and answer != answer.strip(),
        "question-blanks": question != question.strip(),
        "answer-type-blanks": answer_type != answer_type.strip(),
    }
    tags: dict[str, JsonValue] = {"answer_type": "closed" if closed else "open", **metadata}
    if any(found.values()):
        tags["source_notes"] = [note for note, is_so in found.items() if is_so]
    return Record(
        id=record_id,
        task="closed-vqa" if closed else "open-vqa",
        pictures=(picture,),
        target="" if answer is None else str(answer).strip(),
        group=group,
        question=question.strip(),
        metadata=tags,
        split=split,
        place=row.place,
    )
