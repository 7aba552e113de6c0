"""Small data sets in the exact schemas of the published ones, drawn here: no row, picture or sentence is taken from them.

Each writer makes at least :data:`NUM_PICTURES` groups, so that a split by group leaves none of its parts empty.
"""

from __future__ import annotations

import io
import json
import random
import uuid
from pathlib import Path
from typing import Any

NUM_PICTURES = 24


def picture(number: int, size: int = 64) -> Any:
    """A grey square picture with a brighter or darker box in it, and the box [x1, y1, x2, y2] in pixels."""
    import numpy as np
    from PIL import Image

    draw = random.Random(number)
    pixels = np.random.default_rng(number).integers(80, 110, (size, size), dtype=np.uint8)
    width, height = draw.randint(size // 8, size // 3), draw.randint(size // 8, size // 3)
    left, top = draw.randint(0, size - width), draw.randint(0, size - height)
    pixels[top : top + height, left : left + width] = draw.choice((30, 220))
    return Image.fromarray(pixels, mode=None).convert("RGB"), (left, top, left + width, top + height)


def encoded(image: Any, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form)
    return buffer.getvalue()


def identity(number: int) -> str:
    """A UUID of the first version, as the MedTrinity rows have."""
    return str(uuid.UUID(fields=(number + 1, 0x1F00, 0x1100, 0x80, 0, 0x0242AC110002), version=1))


def words(box: tuple[int, int, int, int], size: int = 64) -> tuple[str, str, float]:
    """Horizontal and vertical position and the share of the area in percent."""
    x, y = (box[0] + box[2]) / 2 / size, (box[1] + box[3]) / 2 / size
    horizontal = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "center"
    vertical = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else "middle"
    return horizontal, vertical, 100 * (box[2] - box[0]) * (box[3] - box[1]) / size**2


def write_medtrinity(path: Path) -> None:
    """One shard of the demo part of MedTrinity-25M: ``image`` (bytes, path), ``id`` (UUID), ``caption``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[Any]] = {"image": [], "id": [], "caption": []}
    for number in range(NUM_PICTURES):
        image, box = picture(number)
        horizontal, vertical, area = words(box)
        rows["image"].append({"bytes": encoded(image, "JPEG"), "path": None})
        rows["id"].append(identity(number))
        rows["caption"].append(
            "A CT image of a head without devices. The region of interest, located in the "
            f"{vertical} {horizontal} part of the image, occupies approximately {area:.1f}% of the area and differs in density. "
            "It may displace the tissue around it."
        )
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(rows["image"], image_type), "id": rows["id"], "caption": rows["caption"]}), path)


def write_brain(folder: Path) -> None:
    """The six-task brain set: ``image``, ``id``, ``text``, ``question``, ``notes``; a text begins with its question's tag."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[Any]] = {"image": [], "id": [], "text": [], "question": [], "notes": []}
    for number in range(NUM_PICTURES):
        image, box = picture(number)
        horizontal, vertical, area = words(box)
        caption = f"Head CT with a region of other density, {vertical} {horizontal}."
        record = {
            "caption": caption,
            "region of interest": f"{vertical} {horizontal}, {area:.1f}%",
            "observation": "one region",
            "notes": "",
            "bloc": "".join(f"<loc_{edge}>" for edge in box),
        }
        texts = {
            "<CAPTION>": caption,
            "<CAPTION_DETAILS>": f"{caption} The ventricles are not widened. It may be a bleeding.",
            "<REGION_OF_INTEREST>": f"{vertical} {horizontal}, {area:.1f}% of the image\n<OBSERVATION>denser than its surroundings",
            "<JSON_RECORD>": repr(record),
            "<DETECT_REGION_LOC>": json.dumps({"bloc": record["bloc"], "bbox": json.dumps([float(edge) for edge in box])}),
            "<REGION_LOC_DESCRIPTION>": f"A region {vertical} {horizontal}, next to the skull.",
        }
        for question, text in texts.items():
            rows["image"].append({"bytes": encoded(image), "path": None})
            rows["id"].append(identity(number))
            rows["text"].append(question + text)
            rows["question"].append(question)
            rows["notes"].append("")
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: pa.array(values, image_type) if name == "image" else values for name, values in rows.items()})
    pq.write_table(table, folder / "train-00000-of-00001.parquet")


def write_alpaca(path: Path) -> None:
    """Medical questions in Alpaca form; every third row has an input."""
    organs = ("heart", "lung", "liver", "kidney", "spleen", "pancreas", "stomach", "bladder")
    rows = [
        {
            "instruction": f"Name {count} functions of the {organ}.",
            "input": "Answer in one sentence." if count == 3 else "",
            "output": f"The {organ} has at least {count} functions.",
        }
        for organ in organs
        for count in (1, 2, 3)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")


def write_vqa_rad(folder: Path) -> None:
    """VQA-RAD's two JSON files and pictures, faults included: a number for an answer, a trailing blank in an answer type."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(NUM_PICTURES):
        image, box = picture(number)
        horizontal, _, _ = words(box)
        name = f"synpic{10000 + number}.jpg"
        (folder / "images" / name).write_bytes(encoded(image, "JPEG"))
        shared = {"image_name": name, "image_organ": ("HEAD", "CHEST", "ABD")[number % 3], "phrase_type": "freeform"}
        rows += [
            shared
            | {
                "qid": 3 * number + 1,
                "question": "Is there a region of other density on the left?",
                "answer": "Yes" if horizontal == "left" else "No",
                "answer_type": "CLOSED " if number == 0 else "CLOSED",
                "question_type": "PRES",
            },
            shared
            | {
                "qid": 3 * number + 2,
                "question": "Where is the region?",
                "answer": f"in the {horizontal}",
                "answer_type": "OPEN",
                "question_type": "POS",
            },
            shared
            | {
                "qid": 3 * number + 3,
                "question": "How many regions are there?",
                "answer": 1,
                "answer_type": "OPEN",
                "question_type": "COUNT",
            },
        ]
    (folder / "trainset.json").write_text(json.dumps(rows[6:]), encoding="utf-8")
    (folder / "testset.json").write_text(json.dumps(rows[:6]), encoding="utf-8")
