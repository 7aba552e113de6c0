"""Brain slices of MedTrinity with six texts each, one for each of six tasks."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from medtune.data.sources.brain_payloads import DetectedRegion, detected_region, json_record, payload_fault, region_text
from medtune.data.sources.medtrinity.volumes import Volumes, volumes_of
from medtune.data.sources.rows import RecordFault, Row, data_files, faulty, file_state, picture_of, read_rows, split_of
from medtune.errors import UnreadableImageError
from medtune.imaging.boxes import BoxConvention, measure_box_convention, to_pixels
from medtune.imaging.read import read_size
from medtune.language import Text, msg
from medtune.types import Part, Picture, Record, Settings, SourceCard

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

_DETECTION = "<DETECT_REGION_LOC>"
_TAG = re.compile(r"^\s*<([A-Z_]+)>")
_UNKNOWN = BoxConvention("unknown", "unknown", 0.0, {})


class MedTrinityBrain(Settings):
    """Parquet shards in one of the layouts that were published, told apart by their columns:

    - ``image``, ``id``, ``text``, ``question``: six rows a picture; ``text`` begins with the tag that ``question`` holds (or holds
      the only tag, where there is no such column), and the tag is not part of the answer;
    - ``image``, ``id`` and a column for a task (``caption``, ``region_of_interest``, ...): one row a picture.

    Rows whose payload does not parse are left out with the reason: they never become an answer. In which convention the location
    tokens of a file are written is measured over the file; a box in pixels is preferred to them.
    """

    path: Path
    """A Parquet file, a folder of them, or a pattern. Names that begin with train, validation or test give the official split."""
    volume_heuristic: Literal["none", "uuid-time"] = "none"
    """`uuid-time`: pictures that were made right after one another and look alike are kept together as a volume, as for
    `medtrinity`, whose ids the rows have kept. A heuristic; it costs a pass over the pictures."""
    volume_correlation: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Least correlation of neighbours of one volume, as thumbnails."""
    volume_gap: Annotated[float, Field(gt=0.0)] = 1.0
    """Most seconds between the making of two neighbours of one volume."""
    index: Path | None = None
    """A folder that keeps the volumes, so that one process finds them for all."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="medtrinity-brain",
            title="MedTrinity brain CT, six tasks",
            licence="see the data set page (derived from MedTrinity-25M; not verified)",
            citation="Xie et al., MedTrinity-25M, arXiv:2408.02900; rows prepared by mychen76 on the Hugging Face hub",
            url="https://huggingface.co/datasets/mychen76/medtrinity_brain_30k_hf",
            group_kind="volume" if self._by_volume else "image",
            notes=(
                "Volumes were found by the heuristic uuid-time, from order of making and likeness: some are joined, some are cut."
                if self._by_volume
                else "The volumes are unknown: rows of one picture stay together, "
                "slices of one CT can fall on both sides of a split.",
                "The boxes look like predictions of a detection model, not like marks of radiologists.",
                "The texts were written by a language model.",
            ),
        )

    @property
    def _by_volume(self) -> bool:
        return self.volume_heuristic != "none"

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def parts(self) -> Sequence[Part]:
        """The shards: ids are counted within one, and its location tokens are measured together."""
        return [Part(file) for file in self._files()]

    def samples_of(self, part: Part) -> Iterator[Record]:
        """The records of one shard."""
        # A picture may have two rows of one task; ids stay unique and do not depend on how far the file was read.
        seen: Counter[str] = Counter()
        volumes = self._volumes() if self._by_volume else None
        for row in read_rows(part.file, part.start, part.stop):
            image = str(row.values.get("id") or row.id)
            volume = volumes.find(image) if volumes else None
            for tag, text in _texts(row.values):
                identity = f"{image}/{TASKS.get(tag, 'unknown')}"
                seen[identity] += 1
                if seen[identity] > 1:
                    identity += f"-{seen[identity]}"
                try:
                    yield _record(row, identity, image, tag, text, volume)
                except RecordFault as found:
                    yield faulty(row, found.fault, record_id=identity)

    def remarks(self) -> Sequence[Text]:
        """In which convention each shard writes its location tokens."""
        return [_remark(file, _convention(file)) for file in self._files()]

    def _files(self) -> list[Path]:
        return data_files(self.path, (".parquet", ".arrow"))

    def _volumes(self) -> Volumes:
        folder = None if self.index is None else self.index.expanduser()
        return volumes_of(self._files(), folder, correlation=self.volume_correlation, seconds=self.volume_gap)


def _record(row: Row, identity: str, image: str, tag: str, text: Any, volume: str | None) -> Record:
    payload = _payload(tag, text)
    picture = picture_of(row.values.get("image"), name=image)
    truths: dict[str, JsonValue] = {}
    known: dict[str, JsonValue] = {"volume": volume} if volume else {}
    match tag:
        case "<REGION_OF_INTEREST>":
            payload = region_text(payload)
        case "<JSON_RECORD>":
            payload = json_record(payload)
        case "<DETECT_REGION_LOC>":
            truths, payload = _located(detected_region(payload), picture, row.file), ""
    return Record(
        id=identity,
        task=TASKS[tag],
        pictures=(picture,),
        target=payload,
        group=volume or image,
        metadata={"modality": "CT", "organ": "brain", "language": "en", "provenance": "generated", **known, **truths},
        split=split_of(row.file),
        place=row.place,
    )


def _texts(values: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    """(tag, text) of a row's records."""
    if "question" in values:
        return [(str(values["question"] or "").strip(), values.get("text"))]
    if "text" in values:
        head = _TAG.match(str(values["text"] or ""))
        return [(f"<{head.group(1)}>" if head else "<CAPTION>", values["text"])]
    columns = {re.sub(r"[^A-Z]+", "_", name.upper()).strip("_"): name for name in values}
    return [(tag, values[columns[tag[1:-1]]]) for tag in TASKS if tag[1:-1] in columns] or [("", None)]


def _payload(tag: str, text: Any) -> str:
    if tag not in TASKS:
        raise payload_fault("unknown-task", msg("The question {question!r} is none of the six tasks.", question=tag or "-"))
    if not isinstance(text, str):
        raise payload_fault("text-missing", msg("The record has no text."))
    head = _TAG.match(text)
    if head is None:
        return text.strip()
    if f"<{head.group(1)}>" != tag:
        raise payload_fault(
            "tag-mismatch",
            msg("The text begins with {found}, but the question is {question}.", found=head.group(0).strip(), question=tag),
        )
    return text[head.end() :].strip()


# ------------------------------------------------------------------------------------------------------- location tokens


def _located(region: DetectedRegion, picture: Picture, file: Path) -> dict[str, JsonValue]:
    """The box as metadata: from the pixels, else from the tokens, if their convention is known."""
    convention = _convention(file) if region.tokens else _UNKNOWN
    placed = _in_pixels(region.tokens, picture, convention) if region.tokens else None
    box = region.box or placed
    if box is None:
        raise payload_fault(
            "box-unparsed", msg("The record has location tokens only, and in which convention this file writes them is not known.")
        )
    truths: dict[str, JsonValue] = {"box": list(box), "provenance": "pseudo-label"}
    if region.box is None:
        truths["source_notes"] = ["box-from-location-tokens"]
    elif region.tokens and (placed is None or any(abs(a - b) > 1.0 for a, b in zip(box, placed, strict=True))):
        truths["source_notes"] = ["location-tokens-differ"]
    return truths


def _in_pixels(
    tokens: tuple[int, int, int, int], picture: Picture, convention: BoxConvention
) -> tuple[float, float, float, float] | None:
    if convention.kind == "unknown" or convention.corners == "unknown":
        return None
    try:
        size = (0, 0) if convention.kind == "pixels" else _size(picture)
    except UnreadableImageError:
        return None  # the picture's own fault is told when it is stored
    return to_pixels([float(token) for token in tokens], size, convention.kind, convention.corners)


def _size(picture: Picture) -> tuple[int, int]:
    return read_size(picture.path or picture.data or b"", name=picture.name)


def _convention(file: Path) -> BoxConvention:
    return _measured(file, file_state(file))


@functools.lru_cache(maxsize=64)
def _measured(file: Path, state: tuple[str, int, int]) -> BoxConvention:  # noqa: ARG001  (a changed file is measured anew)
    """A pass over the file. Holds four tokens and four edges for each of its pictures, about 0.5 kB."""
    tokens: list[Sequence[float]] = []
    boxes: list[Sequence[float] | None] = []
    sizes: list[tuple[float, float]] = []
    for row in read_rows(file):
        for tag, text in _texts(row.values):
            if tag != _DETECTION:
                continue
            try:
                region = detected_region(_payload(tag, text))
                extent = _size(picture_of(row.values.get("image"), name=""))
            except (RecordFault, UnreadableImageError):
                continue
            if region.tokens:
                tokens.append(region.tokens)
                boxes.append(region.box)
                sizes.append(extent)
    known = boxes if any(boxes) else ()
    return measure_box_convention(tokens, sizes, known=known) if tokens else _UNKNOWN


def _remark(file: Path, convention: BoxConvention) -> Text:
    if not convention.counts.get("boxes"):
        return msg("{file} has no location tokens.", file=file.name)
    if convention.kind == "unknown" or convention.corners == "unknown":
        return msg("In which convention {file} writes its location tokens could not be measured.", file=file.name)
    return msg(
        "The location tokens of {file} are {kind}, {corners} (measured: {share} % of {count} boxes fit).",
        file=file.name,
        kind=convention.kind,
        corners=convention.corners,
        share=f"{100 * convention.share:.1f}",
        count=convention.counts["boxes"],
    )
