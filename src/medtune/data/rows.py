"""A record becomes a row: its task puts it into words, and what cannot become a sound row is named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue, ValidationError

from medtune.data.construct import construct
from medtune.data.pictures import PictureReader, ReadPicture
from medtune.errors import DataError
from medtune.language import Text, msg
from medtune.schema import read_fault
from medtune.types import IMAGE_MARK, Fault, Record, Sample, Task

__all__ = ["LeaveOut", "RowMaker"]


class LeaveOut(Exception):
    """The record does not become a row; ``fault`` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class RowMaker:
    """Makes rows, and remembers the ids given, so it should live for a shard, not longer.

    ``task_options``: options of a task by its name.
    """

    def __init__(self, reader: PictureReader, task_options: Mapping[str, Mapping[str, Any]]) -> None:
        self.reader = reader
        self.task_options = task_options
        self._tasks: dict[str, Task] = {}
        self._ids: set[str] = set()

    def sample(self, record: Record, pictures: tuple[ReadPicture, ...], *, record_id: str, source: str) -> Sample:
        """The row of a record whose pictures have been read.

        Raises:
            LeaveOut: It cannot become a row.
        """
        if record_id in self._ids:
            raise _leave_out("duplicate-id", msg("Another record has the same id."), msg("Give each record an id of its own."))
        asked = self._with_box(record, pictures)
        try:
            messages = self._task(record.task).messages(asked)
        except DataError as error:
            raise LeaveOut(Fault("task", error.what, error.remedy, error.file)) from error
        marks = sum(message.content.count(IMAGE_MARK) for message in messages)
        if marks != len(pictures):
            raise _leave_out(
                "image-marks",
                msg(
                    "The messages have {marks} <image> marks, but the record has {pictures} pictures.",
                    marks=marks,
                    pictures=len(pictures),
                ),
                msg("Write one <image> mark for each picture."),
            )
        if not messages or not messages[-1].content.strip():
            raise _leave_out(
                "answer-empty", msg("The answer is empty."), msg("Complete the record in the source, or leave it out.")
            )
        if not all(message.content.strip() for message in messages):
            raise _leave_out("turn-empty", msg("A turn is empty."), msg("Complete the record in the source, or leave it out."))
        metadata = {key: value for key, value in asked.metadata.items() if key not in ("width", "height") or key in record.metadata}
        try:
            sample = Sample(
                id=record_id,
                task=record.task,
                images=tuple(picture.ref for picture in pictures),
                messages=messages,
                target=messages[-1].content,
                group=record.group,
                source=source,
                metadata=metadata,
            )
        except ValidationError as error:
            raise _leave_out(
                "row-malformed",
                msg("The record does not make a row: {error}", error=read_fault(error)),
                msg("Correct the record in the source, or leave it out."),
            ) from error
        try:
            json.dumps(metadata, allow_nan=False)
        except ValueError as error:
            raise _leave_out(
                "row-malformed",
                msg("The record does not make a row: {error}", error="NaN"),
                msg("Correct the record in the source, or leave it out."),
            ) from error
        self._ids.add(record_id)
        return sample

    def _with_box(self, record: Record, pictures: tuple[ReadPicture, ...]) -> Record:
        """The record with the first picture's size, and its box moved to where the transforms put it.

        What else the metadata say of the picture (area, position) stays true of the *source* picture, as the words of the
        record are; ``extent`` tells where that lies in the stored one, when it is not all of it.
        """
        if not pictures:
            return record
        ref = pictures[0].ref
        metadata: dict[str, JsonValue] = {**record.metadata, "width": ref.width, "height": ref.height}
        width, height = _source_size(pictures[0])
        extent = [round(edge, 3) for edge in self.reader.map_box((0.0, 0.0, float(width), float(height)), pictures[0])]
        if extent != [0, 0, ref.width, ref.height]:
            metadata["extent"] = list(extent)
        box = record.metadata.get("box")
        if box is not None:
            metadata["box"] = list(self._map_box(box, pictures[0]))
        return dataclasses.replace(record, metadata=metadata)

    def _map_box(self, box: JsonValue, picture: ReadPicture) -> tuple[float, ...]:
        width, height = _source_size(picture)
        try:
            x1, y1, x2, y2 = (float(edge) for edge in box)  # type: ignore[union-attr, arg-type]
            inside = -1 <= x1 < x2 <= width + 1 and -1 <= y1 < y2 <= height + 1
        except (TypeError, ValueError):
            inside = False
        if not inside:
            raise _leave_out(
                "box-outside",
                msg(
                    "The box {box} does not lie in the picture of {width} x {height} pixels.",
                    box=str(box),
                    width=width,
                    height=height,
                ),
                msg("Boxes are [x1, y1, x2, y2] in pixels of the upright picture."),
            )
        clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        return tuple(round(edge, 3) for edge in self.reader.map_box(clipped, picture))

    def _task(self, name: str) -> Task:
        if name not in self._tasks:
            options = self.task_options.get(name, {})
            task: Task = construct("task", name, options, f"data.task_options.{name}", nested=False)
            self._tasks[name] = task
        return self._tasks[name]


def _source_size(picture: ReadPicture) -> tuple[int, int]:
    """(width, height) before any transform."""
    return picture.sizes[0] if picture.sizes else (picture.ref.width, picture.ref.height)


def _leave_out(reason: str, message: Text, remedy: Text) -> LeaveOut:
    return LeaveOut(Fault(reason, message, remedy))
