"""Detection: the box of the finding."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from medtune.errors import DataError
from medtune.imaging.boxes import SCALE, into_extent, ordered_box, relative_box
from medtune.language import msg
from medtune.tasks.asking import InstructedTask, Instructions
from medtune.tasks.reading.boxes import read_boxes, read_scored_boxes, write_boxes
from medtune.types import Record, Sample

__all__ = ["Detection"]


class Detection(InstructedTask):
    """Where the finding is, as a box in integers of 0 to 1000 of the picture's sides (see :mod:`medtune.tasks.reading.boxes`).

    A record with a target keeps it; where a transform has put the source picture into a part of the stored one
    (``metadata["extent"]``), the target's boxes move with it. Without a target it is written from ``metadata``: ``box``
    (pixels) with ``width`` and ``height`` (pixels of the same picture) and ``kind`` as the label; ``normal: true`` without a
    box gives ``[]``.

    ``parse`` gives ``{"boxes": [[x1, y1, x2, y2], ...], "labels": [...]}``, and ``"confidences"`` where every box has one.
    """

    name = "detection"
    metrics = ("box", "llamafactory")
    instructions: ClassVar[Instructions] = {
        "en": "Locate the finding in this image. Answer with JSON only: "
        '{"bbox_2d": [x1, y1, x2, y2], "label": "..."}, coordinates from 0 to 1000 relative to the image\'s width and height, '
        "a list for several findings, [] for none.",
        "zh": "在图像中定位病变。只用 JSON 回答："
        '{"bbox_2d": [x1, y1, x2, y2], "label": "..."}，坐标为相对图像宽高的 0 到 1000，多处病变用列表，没有病变用 []。',
    }

    def answer(self, record: Record) -> str:
        metadata = record.metadata
        if record.target:
            return record.target if metadata.get("extent") is None else _moved(record)
        box = metadata.get("box")
        if box is None and metadata.get("normal") is True:
            return write_boxes([])
        width, height = metadata.get("width"), metadata.get("height")
        if not isinstance(box, list) or not isinstance(width, int | float) or not isinstance(height, int | float):
            raise DataError(
                msg("The record has neither a reference answer nor a box with the width and height of its picture."),
                sample=record.id,
                remedy=msg("Give it a target, or metadata with box [x1, y1, x2, y2], width and height in pixels."),
            )
        try:
            relative = relative_box(box, width, height)  # type: ignore[arg-type]
        except ValueError as error:
            raise DataError(
                msg("The box {box} cannot be used: {error}", box=str(box), error=str(error)), sample=record.id
            ) from error
        x1, y1, x2, y2 = relative
        if not (0 <= x1 < x2 <= SCALE and 0 <= y1 < y2 <= SCALE):
            raise DataError(
                msg(
                    "The box {box} is empty or leaves its picture of {width} x {height} pixels.",
                    box=str(box),
                    width=width,
                    height=height,
                ),
                sample=record.id,
                remedy=msg("Boxes are x1, y1, x2, y2 in pixels of the upright picture."),
            )
        return write_boxes([(relative, str(metadata.get("kind") or "finding"))])

    def parse(self, text: str, sample: Sample) -> JsonValue:
        """See :func:`medtune.tasks.reading.boxes.read_boxes`.

        Raises:
            ValueError: There is neither a box nor an empty list.
        """
        del sample
        found = read_scored_boxes(text)
        answer: dict[str, JsonValue] = {"boxes": [list(box) for box, _, _ in found], "labels": [label for _, label, _ in found]}
        if found and all(confidence is not None for _, _, confidence in found):
            answer["confidences"] = [confidence for _, _, confidence in found]
        return answer


def _moved(record: Record) -> str:
    """The target's boxes, 0 to 1000 of the source picture, as 0 to 1000 of the stored one."""
    metadata = record.metadata
    try:
        boxes, labels = read_boxes(record.target)
        extent = ordered_box(metadata["extent"])  # type: ignore[arg-type]
        moved = [relative_box(into_extent(box, extent), metadata["width"], metadata["height"]) for box in boxes]  # type: ignore[arg-type]
    except (KeyError, ValueError) as error:
        raise DataError(
            msg("The boxes of the reference answer cannot be moved with the picture: {error}", error=str(error)),
            sample=record.id,
            remedy=msg("Give the record a box in its metadata, or prepare the data without a transform that pads pictures."),
        ) from error
    return write_boxes(list(zip(moved, labels, strict=True)))
