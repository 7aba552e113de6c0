"""A record of the picture as one JSON object."""

from __future__ import annotations

import json
from typing import ClassVar

from pydantic import JsonValue

from medtune.errors import DataError
from medtune.language import msg
from medtune.tasks.asking import InstructedTask, Instructions
from medtune.tasks.reading.json_text import read_json, read_python_literal
from medtune.types import Record, Sample

__all__ = ["JsonRecord"]


class JsonRecord(InstructedTask):
    """A JSON object with the keys of the brain data sets' records.

    Those sets hold Python literals (single quotes): a model trained on them as they stand writes what no JSON reader takes.
    Here the reference answer is always sound JSON, whichever of the two the record brings.
    """

    name = "json-record"
    metrics = ("json-record", "llamafactory")
    instructions: ClassVar[Instructions] = {
        "en": 'Give a record of this image as one JSON object with the keys "caption", "region of interest", "observation", '
        '"notes" and "bloc" (the location), an empty string where there is nothing to say. Answer with the JSON only.',
        "zh": '用一个 JSON 对象记录这幅图像，键为 "caption"、"region of interest"、"observation"、"notes" 和 "bloc"（位置），'
        "没有内容的键用空字符串。只回答 JSON。",
    }

    def answer(self, record: Record) -> str:
        text = record.target.strip()
        try:
            value: JsonValue = json.loads(text)
            sound = isinstance(value, dict)
        except (ValueError, RecursionError):
            try:
                value = read_python_literal(text)
            except ValueError:
                value = None
            sound = False
        if not isinstance(value, dict):
            raise DataError(
                msg("The reference answer is neither a JSON object nor a Python dict literal."),
                sample=record.id,
                remedy=msg("Put the record right, or leave it out of the data set."),
            )
        return text if sound else json.dumps(value, ensure_ascii=False)

    def parse(self, text: str, sample: Sample) -> JsonValue:
        """The first JSON object in the text.

        Raises:
            ValueError: There is none; a Python literal is not one.
        """
        del sample
        return read_json(text, opening="{")
