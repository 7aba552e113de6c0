"""Small synthetic files in the exact layouts of public data sets. Every value is made up; no file is a copy of real data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

__all__ = [
    "BRAIN_TAGS",
    "brain_rows",
    "jpeg",
    "png",
    "write_alpaca",
    "write_arrow",
    "write_bare_questions",
    "write_brain",
    "write_llamafactory",
    "write_medtrinity",
    "write_parquet",
    "write_slake",
    "write_vqa_rad",
    "write_vqa_rad_public",
]

BRAIN_TAGS = (
    "<CAPTION>",
    "<CAPTION_DETAILS>",
    "<REGION_OF_INTEREST>",
    "<JSON_RECORD>",
    "<DETECT_REGION_LOC>",
    "<REGION_LOC_DESCRIPTION>",
)


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    return encoded(picture(seed, size), "JPEG")


def png(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    return encoded(picture(seed, size), "PNG")


def write_json(file: Path, value: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return file


def write_parquet(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), file)
    return file


def write_arrow(file: Path, rows: Sequence[dict[str, Any]], *, stream: bool = True) -> Path:
    table = pa.Table.from_pylist(list(rows))
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, table.schema) as writer:
        writer.write_table(table)
    return file


def vqa_rad_row(qid: int, image: str, **changes: Any) -> dict[str, Any]:
    row = {
        "qid": qid,
        "image_name": image,
        "image_organ": "HEAD",
        "answer": "Yes",
        "answer_type": "CLOSED",
        "question_type": "PRES",
        "question": f"Is thing {qid} there?",
        "phrase_type": "freeform",
    }
    return {**row, **changes}


def write_vqa_rad(folder: Path, *, num_images: int = 6, changes: dict[int, dict[str, Any]] | None = None) -> Path:
    """Two questions a picture in ``trainset.json``, one about every second picture in ``testset.json``; ``changes`` by qid."""
    (folder / "images").mkdir(parents=True)
    changes = changes or {}
    train, test = [], []
    for number in range(num_images):
        name = f"synpic{number}.jpg"
        (folder / "images" / name).write_bytes(jpeg(number))
        for qid in (10 * number + 1, 10 * number + 2):
            train.append(vqa_rad_row(qid, name, **changes.get(qid, {})))
        if number % 2 == 0:
            qid = 10 * number + 3
            test.append(
                vqa_rad_row(
                    qid,
                    name,
                    **{"answer": "left side", "answer_type": "OPEN", "question": f"Where is {qid}?", **changes.get(qid, {})},
                )
            )
    write_json(folder / "trainset.json", train)
    write_json(folder / "testset.json", test)
    return folder


def write_vqa_rad_public(folder: Path, *, num_images: int = 3) -> Path:
    """``VQA_RAD Dataset Public.json``: of each picture a question, its rephrasing under the same link, and a test question."""
    (folder / "VQA_RAD Image Folder").mkdir(parents=True)
    rows = []
    for number in range(num_images):
        name = f"synpic{number}.jpg"
        (folder / "VQA_RAD Image Folder" / name).write_bytes(jpeg(number))
        link = f"00000000-0000-4000-8000-{number:012d}"
        public = {"image_case_url": "https://example.org", "evaluation": "not evaluated", "question_rephrase": "NULL"}
        for place, phrase_type in enumerate(("freeform", "para", "test_freeform"), start=1):
            row = vqa_rad_row(10 * number + place, name, phrase_type=phrase_type, **public)
            rows.append({**row, "qid_linked_id": link if place < 3 else "NULL"})
    write_json(folder / "VQA_RAD Dataset Public.json", rows)
    return folder


def write_bare_questions(folder: Path) -> Path:
    """Parquet with image, question and answer only: VQA-RAD and PathVQA on the Hugging Face hub. Two splits share a picture."""
    for split, seeds in (("train", (0, 0, 1)), ("test", (1, 2))):
        rows = [
            {
                "image": {"bytes": jpeg(seed), "path": None},
                "question": f"Is {n} there?",
                "answer": "no" if n % 2 else "a made-up cell",
            }
            for n, seed in enumerate(seeds)
        ]
        write_parquet(folder / "data" / f"{split}-00000-of-00001-0123456789abcdef.parquet", rows)
    return folder


def write_slake(folder: Path, *, validation: str = "validation.json") -> Path:
    """Two pictures a split, each asked in both languages."""
    for start, name in enumerate(("train.json", validation, "test.json")):
        rows = []
        for number in (2 * start, 2 * start + 1):
            place = folder / "imgs" / f"xmlab{number}"
            place.mkdir(parents=True)
            (place / "source.jpg").write_bytes(jpeg(number))
            (place / "mask.png").write_bytes(png(number))
            common = {
                "img_id": number,
                "img_name": f"xmlab{number}/source.jpg",
                "location": "Abdomen",
                "modality": "MRI",
                "content_type": "Organ",
                "base_type": "vqa",
                "triple": ["vhead", "_", "_"],
            }
            english = {"question": "Which organ?", "answer": "A made-up one", "answer_type": "OPEN", "q_lang": "en", "qid": number}
            chinese = {"question": "有吗？", "answer": "没有", "answer_type": "CLOSED", "q_lang": "zh", "qid": 10_000 + number}
            rows += [{**common, **english}, {**common, **chinese}]
        write_json(folder / name, rows)
    return folder


def write_medtrinity(file: Path, *, num_rows: int = 3) -> Path:
    return write_parquet(
        file,
        [
            {
                "image": {"bytes": jpeg(number), "path": None},
                "id": f"00000000-0000-11ee-8000-{number:012d}",
                "caption": f"A made-up CT slice. The region of interest, located right, covers {number + 1}.0% of the image.",
            }
            for number in range(num_rows)
        ],
    )


def brain_rows(identity: str, *, seed: int = 0, changes: dict[str, str] | None = None) -> list[dict[str, Any]]:
    record = {
        "caption": "A made-up slice.",
        "region of interest": "right",
        "observation": "it's dense",
        "notes": "",
        "bloc": "[1, 2]",
    }
    texts = {
        "<CAPTION>": "A made-up brain CT slice.",
        "<CAPTION_DETAILS>": "A made-up brain CT slice with a dense area.",
        "<REGION_OF_INTEREST>": "A dense region, 4.1% of the area.\n<OBSERVATION>It suggests a made-up bleed.",
        "<JSON_RECORD>": repr(record),
        "<DETECT_REGION_LOC>": json.dumps({"bloc": "<loc_11><loc_21><loc_31><loc_41>", "bbox": "[10.5, 20.25, 30.5, 40.75]"}),
        "<REGION_LOC_DESCRIPTION>": "On the right, beside the ventricle.",
    }
    texts.update(changes or {})
    image = {"bytes": jpeg(seed, (512, 512)), "path": None}
    return [{"image": image, "id": identity, "text": tag + texts[tag], "question": tag, "notes": ""} for tag in BRAIN_TAGS]


def write_brain(folder: Path, *, num_images: int = 2, changes: dict[str, str] | None = None) -> Path:
    for split in ("train", "validation", "test"):
        rows = [row for n in range(num_images) for row in brain_rows(f"{split}-{n}", seed=len(split) * 100 + n, changes=changes)]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", rows)
    return folder


def write_alpaca(file: Path) -> Path:
    return write_json(
        file,
        [
            {"instruction": "What is a made-up disease?", "input": "", "output": "One that nobody has."},
            {"instruction": "Translate.", "input": "heart", "output": "心脏", "system": "You are a translator."},
            {
                "instruction": "And then?",
                "input": "",
                "output": "Nothing.",
                "history": [["Who?", "Nobody."], ["Where?", "Nowhere."]],
            },
        ],
    )


def write_llamafactory(folder: Path) -> Path:
    """A ``dataset_dir`` with one entry for each layout."""
    (folder / "pictures").mkdir(parents=True)
    for number in range(2):
        (folder / "pictures" / f"{number}.png").write_bytes(png(number))
    ask, answer = "<image>What is it?", "Made up."
    role_tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    columns = {"messages": "messages", "images": "images"}
    spoken = [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
    write_json(
        folder / "gpt.json",
        [
            {
                "conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": answer}],
                "images": ["pictures/0.png"],
                "system": "Be brief.",
            }
        ],
    )
    (folder / "roles.jsonl").write_text(
        "".join(json.dumps({"messages": spoken, "images": [f"pictures/{n}.png"], "patient": f"p{n}"}) + "\n" for n in range(2)),
        encoding="utf-8",
    )
    write_json(folder / "alpaca.json", [{"instruction": ask, "input": "", "output": answer, "images": ["pictures/1.png"]}])
    parts = [{"type": "image_url", "image_url": {"url": "pictures/0.png"}}, {"type": "text", "text": "What is it?"}]
    write_json(
        folder / "openai.json", [{"messages": [{"role": "user", "content": parts}, spoken[1]], "images": ["pictures/0.png"]}]
    )
    (folder / "text.csv").write_text('instruction,input,output\n"Who, me?",,Yes.\n', encoding="utf-8")
    write_parquet(folder / "shard.parquet", [{"messages": spoken, "images": [{"bytes": png(0), "path": None}]}])
    write_arrow(folder / "stream.arrow", [{"messages": spoken, "images": ["pictures/0.png"]}])
    write_arrow(folder / "file.arrow", [{"messages": spoken, "images": ["pictures/0.png"]}], stream=False)
    role_entry = {"formatting": "sharegpt", "columns": columns, "tags": role_tags}
    write_json(
        folder / "dataset_info.json",
        {
            "gpt": {
                "file_name": "gpt.json",
                "formatting": "sharegpt",
                "columns": {"messages": "conversations", "images": "images", "system": "system"},
            },
            "roles": {"file_name": "roles.jsonl", **role_entry, "total_tokens": 12, "num_rows": 2, "avg_tokens": 6},
            "alpaca": {
                "file_name": "alpaca.json",
                "columns": {"prompt": "instruction", "query": "input", "response": "output", "images": "images"},
            },
            "openai": {"file_name": "openai.json", "formatting": "openai", "columns": columns},
            "csv": {"file_name": "text.csv"},
            "parquet": {"file_name": "shard.parquet", **role_entry},
            "arrow-stream": {"file_name": "stream.arrow", **role_entry},
            "arrow-file": {"file_name": "file.arrow", **role_entry},
            "ranked": {"file_name": "gpt.json", "ranking": True},
            "remote": {"hf_hub_url": "somebody/something"},
            "tagless": {"file_name": "roles.jsonl", "formatting": "sharegpt", "columns": columns, "tags": {"role_tag": "role"}},
        },
    )
    return folder
