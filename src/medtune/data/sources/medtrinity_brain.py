"""Brain CT slices of MedTrinity with six texts each, one for each of six tasks."""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from medtune.data.sources.rows import RecordFault, Row, data_files, faulty, picture_of, read_rows, split_of
from medtune.language import msg
from medtune.types import Fault, Record, Settings, SourceCard

__all__ = ["TASKS", "MedTrinityBrain"]

TASKS: dict[str, str] = {
    "<CAPTION>": "caption",
    "<CAPTION_DETAILS>": "caption-details",
    "<REGION_OF_INTEREST>": "region",
    "<JSON_RECORD>": "json-record",
    "<DETECT_REGION_LOC>": "detection",
    "<REGION_LOC_DESCRIPTION>": "region-description",
}
"""Value of the ``question`` column -> task."""

_TAG = re.compile(r"^\s*<([A-Z_]+)>")
_OBSERVATION = "<OBSERVATION>"
_LOCATION = re.compile(r"<loc_(\d+)>")


class MedTrinityBrain(Settings):
    """Parquet shards with the columns ``image``, ``id``, ``text``, ``question`` and ``notes``.

    ``text`` begins with the tag that ``question`` holds; the tag is not part of the answer. Rows whose payload does not parse
    are left out with the reason: they never become an answer.
    """

    path: Path
    """A Parquet file, a folder of them, or a pattern. Names that begin with train, validation or test give the official split."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="medtrinity-brain",
            title="MedTrinity brain CT, six tasks",
            licence="see the data set page (derived from MedTrinity-25M)",
            citation="Xie et al., MedTrinity-25M, arXiv:2408.02900; rows prepared by mychen76 on the Hugging Face hub",
            url="https://huggingface.co/datasets/mychen76/medtrinity_brain_30k_hf",
            group_kind="image",
            notes=(
                "The volumes are unknown: rows of one picture stay together, slices of one CT can fall on both sides of a split.",
                "The boxes look like predictions of a detection model, not like marks of radiologists.",
                "The texts were written by a language model.",
            ),
        )

    def samples(self) -> Iterator[Record]:
        # A picture may have two rows of one task; ids stay unique and do not depend on how far the file was read.
        seen: Counter[str] = Counter()
        for file in data_files(self.path, (".parquet", ".arrow")):
            split = split_of(file)
            for row in read_rows(file):
                image = str(row.values.get("id") or row.id)
                tag = str(row.values.get("question") or "").strip()
                identity = f"{image}/{TASKS.get(tag, 'unknown')}"
                seen[identity] += 1
                if seen[identity] > 1:
                    identity += f"-{seen[identity]}"
                try:
                    payload = _payload(row, tag)
                    target, truths = _READERS[tag](payload) if tag in _READERS else (payload, {})
                    picture = picture_of(row.values.get("image"), name=image)
                except RecordFault as found:
                    yield faulty(row, found.fault, record_id=identity)
                    continue
                yield Record(
                    id=identity,
                    task=TASKS[tag],
                    pictures=(picture,),
                    target=target,
                    group=image,
                    metadata={"modality": "CT", "organ": "brain", "language": "en", "provenance": "generated", **truths},
                    split=split,
                    place=row.place,
                )


def _payload(row: Row, tag: str) -> str:
    if tag not in TASKS:
        raise _fault("unknown-task", msg("The question {question!r} is none of the six tasks.", question=tag or "-"))
    text = row.values.get("text")
    if not isinstance(text, str):
        raise _fault("text-missing", msg("The record has no text."))
    head = _TAG.match(text)
    if head is None:
        return text.strip()
    if f"<{head.group(1)}>" != tag:
        raise _fault(
            "tag-mismatch",
            msg("The text begins with {found}, but the question is {question}.", found=head.group(0).strip(), question=tag),
        )
    return text[head.end() :].strip()


def _region(payload: str) -> tuple[str, dict[str, JsonValue]]:
    region, mark, observation = payload.partition(_OBSERVATION)
    if not mark:
        return payload, {}
    return f"Region features: {region.strip()}\n\nClinical observation: {observation.strip()}", {}


def _json_record(payload: str) -> tuple[str, dict[str, JsonValue]]:
    # The published payload is the text of a Python dict (single quotes), which no JSON reader takes.
    try:
        record = ast.literal_eval(payload)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _fault("record-unparsed", msg("The JSON record cannot be read: {error}", error=str(error).splitlines()[0])) from error
    try:
        if not isinstance(record, dict) or not record or not all(isinstance(key, str) for key in record):
            raise TypeError(type(record).__name__)
        return json.dumps(record, ensure_ascii=False, allow_nan=False), {}
    except (TypeError, ValueError) as error:
        raise _fault("record-unparsed", msg("The JSON record is not an object of plain values.")) from error


def _detection(payload: str) -> tuple[str, dict[str, JsonValue]]:
    try:
        record: Any = json.loads(payload)
        box = _box(record)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _fault(
            "box-unparsed", msg("The box cannot be read: {error}", error=str(error).splitlines()[0] if str(error) else "?")
        ) from error
    truths: dict[str, JsonValue] = {"box": list(box), "provenance": "pseudo-label"}
    # Seen in the published rows: the location tokens are the pixels rounded up, not bins of a 0-999 scale.
    bloc = [int(number) for number in _LOCATION.findall(str(record.get("bloc", "")))]
    if len(bloc) == 4 and any(abs(math.ceil(edge) - pixel) > 1 for edge, pixel in zip(box, bloc, strict=True)):
        truths["source_notes"] = ["location-tokens-differ"]
    return "", truths


def _box(record: Any) -> tuple[float, float, float, float]:
    bbox = record["bbox"]
    if isinstance(bbox, str):
        bbox = json.loads(bbox)
    x1, y1, x2, y2 = (float(edge) for edge in bbox)
    if not all(math.isfinite(edge) for edge in (x1, y1, x2, y2)) or x2 <= x1 or y2 <= y1:
        raise ValueError(f"[{x1}, {y1}, {x2}, {y2}] is not x1, y1, x2, y2 of a box")
    return x1, y1, x2, y2


_READERS = {"<REGION_OF_INTEREST>": _region, "<JSON_RECORD>": _json_record, "<DETECT_REGION_LOC>": _detection}


def _fault(reason: str, message: Any) -> RecordFault:
    return RecordFault(Fault(reason, message, msg("Correct the record in the source, or leave it out.")))
