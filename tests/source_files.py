"""Small synthetic files in the exact layouts of public data sets. Every value is made up; no file is a copy of real data."""

from __future__ import annotations

import json
import tarfile
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
    "CAPTION",
    "brain_rows",
    "jpeg",
    "png",
    "write_alpaca",
    "write_arrow",
    "write_bare_questions",
    "write_brain",
    "write_iu_kaggle",
    "write_iu_medevalkit",
    "write_iu_r2gen",
    "write_llamafactory",
    "write_medtrinity",
    "write_medtrinity_archives",
    "write_nifti",
    "write_parquet",
    "write_slake",
    "write_tar",
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


CAPTION = (
    "The image is a non-contrast CT scan of the brain, made up. The region of interest, located centrally and in the upper-middle "
    "area of the image, occupies approximately 4.1% of the image area and shows a made-up density. It may press on adjacent tissue."
)


def write_tar(file: Path, members: dict[str, bytes]) -> Path:
    """A tar archive; packed by Zstandard where the name ends with .zst."""
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    content = buffer.getvalue()
    if file.suffix == ".zst":
        import zstandard

        content = zstandard.ZstdCompressor().compress(content)
    file.write_bytes(content)
    return file


def write_medtrinity_archives(folder: Path, rows: Sequence[tuple[str, str]], *, without_picture: int = 1) -> Path:
    """``25M_full`` with a caption for each (file name, source) and some more, ``25M_accessible`` with the pictures of the rows."""
    captions = [{"file_name": name, "caption": CAPTION, "source": source} for name, source in rows]
    captions += [{"file_name": f"gone-{n}.jpg", "caption": CAPTION, "source": "padchest"} for n in range(without_picture)]
    for number, part in enumerate((captions[::2], captions[1::2])):
        if part:
            write_parquet(folder / "25M_full" / f"{number:04d}.parquet", part)
    for number, names in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        members = {f"shard/{name}": jpeg(10 * number + place) for place, (name, _) in enumerate(names)}
        write_tar(folder / "25M_accessible" / f"{number:04d}.tar.zst", members)
    return folder


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


def write_iu_r2gen(folder: Path) -> Path:
    """R2Gen's form: two views a study."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for number, split in enumerate(("train", "train", "val", "test")):
        study = f"CXR{number}_IM-000{number}"
        names = [f"{study}/{view}.png" for view in range(2)]
        for view, name in enumerate(names):
            (folder / "images" / study).mkdir(parents=True, exist_ok=True)
            (folder / "images" / name).write_bytes(png(10 * number + view))
        entry = {"id": study, "report": f"made-up report {number} of XXXX .", "image_path": names, "split": split}
        splits.setdefault(split, []).append(entry)
    write_json(folder / "annotation.json", splits)
    return folder


def write_iu_medevalkit(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    entries = []
    for number in range(2):
        names = [f"open_i_{number}_{view}.png" for view in ("frontal", "lateral")]
        for view, name in enumerate(names):
            (folder / "images" / name).write_bytes(png(10 * number + view))
        entries.append({"id": f"open_i_{number}", "image": names, "findings": f"Made-up finding {number}.", "impression": "None."})
    write_json(folder / "test.json", entries)
    return folder


def write_iu_kaggle(folder: Path) -> Path:
    """The lateral view of each study stands before the frontal one; the third study has no picture, the fourth no report."""
    (folder / "images" / "images_normalized").mkdir(parents=True)
    projections, reports = ["uid,filename,projection"], ["uid,MeSH,Problems,image,indication,comparison,findings,impression"]
    for number in (1, 2, 3, 4):
        for view in ("Lateral", "Frontal") if number != 3 else ():
            name = f"{number}_IM-{number:04d}-{'4001' if view == 'Frontal' else '3001'}.dcm.png"
            (folder / "images" / "images_normalized" / name).write_bytes(png(10 * number + (view == "Frontal")))
            projections.append(f"{number},{name},{view}")
        texts = f"Made-up finding {number} of XXXX.,Made up." if number != 4 else ","
        reports.append(f'{number},normal,normal,"Xray Chest PA, and Lateral",made up,None.,{texts}')
    (folder / "indiana_projections.csv").write_text("\n".join(projections) + "\n", encoding="utf-8")
    (folder / "indiana_reports.csv").write_text("\n".join(reports) + "\n", encoding="utf-8")
    return folder


MIMIC_REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old made-up person.

 FINDINGS:

 The made-up lungs are clear.  There is
 no made-up effusion.

 IMPRESSION:

 No made-up process at ___.
"""


def write_mimic(folder: Path, *, reports: dict[str, str | None] | None = None) -> Path:
    """Four studies of three patients, two views each (the lateral one first); ``reports`` by study, None = no file."""
    import gzip

    studies = {"50000001": ("10000001", "train"), "50000002": ("10000001", "train"), "50000003": ("10000002", "validate")}
    studies["50000004"] = ("11000003", "test")
    tables: dict[str, list[str]] = {
        "split": ["dicom_id,study_id,subject_id,split"],
        "metadata": ["dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns"],
        "chexpert": ["subject_id,study_id,Edema,No Finding,Pneumonia"],
        "negbio": ["subject_id,study_id,Edema,No Finding,Pneumonia"],
    }
    for study, (patient, split) in studies.items():
        place = folder / "files" / f"p{patient[:2]}" / f"p{patient}"
        (place / f"s{study}").mkdir(parents=True)
        report = (reports or {}).get(study, MIMIC_REPORT)
        if report is not None:
            (place / f"s{study}.txt").write_text(report, encoding="utf-8")
        for number, position in enumerate(("LATERAL", "AP", "PA")):
            dicom = f"{study}-{number}"
            (place / f"s{study}" / f"{dicom}.jpg").write_bytes(jpeg(10 * int(study) + number))
            tables["split"].append(f"{dicom},{study},{patient},{split}")
            tables["metadata"].append(f"{dicom},{patient},{study},CHEST (PA AND LAT),{position},48,64")
        tables["chexpert"].append(f"{patient},{study},-1.0,,1.0")
        tables["negbio"].append(f"{patient},{study},0.0,,1.0")
    for name, lines in tables.items():
        (folder / f"mimic-cxr-2.0.0-{name}.csv.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))
    return folder


def write_shard(file: Path, members: Sequence[tuple[str, bytes]] | None = None, *, first: int = 0) -> Path:
    """A WebDataset shard; two samples with JSON when ``members`` is None."""
    import tarfile

    if members is None:
        members = []
        for number in range(first, first + 2):
            words = {"question": "What is it?", "answer": f"Made up {number}.", "patient": f"p{number}"}
            members += [(f"{number:06d}.jpg", jpeg(number)), (f"{number:06d}.json", json.dumps(words).encode())]
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    return file


def write_sharegpt(folder: Path) -> Path:
    """LLaVA's layout, which is ShareGPT's with an ``image``."""
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number in range(2):
        (folder / "pictures" / f"{number}.png").write_bytes(png(number))
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"Made up {number}."}]
        rows.append({"id": f"row-{number}", "image": f"pictures/{number}.png", "conversations": turns})
    return write_json(folder / "chats.json", rows)


def write_openai(folder: Path) -> Path:
    import base64

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "0.png").write_bytes(png(0))
    addresses = ["0.png", "data:image/png;base64," + base64.b64encode(png(1)).decode()]
    lines = []
    for address in addresses:
        parts = [{"type": "text", "text": "What is it? "}, {"type": "image_url", "image_url": {"url": address}}]
        turns = [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": "Made up."},
        ]
        lines.append(json.dumps({"messages": turns}))
    (folder / "chats.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "chats.jsonl"


def write_table(folder: Path, *, name: str = "reports.csv", encoding: str = "utf-8", delimiter: str = ",") -> Path:
    """A table as a hospital might write it: two rows of one patient, one of another, pictures by path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [delimiter.join(("病历号", "影像", "问题", "报告"))]
    for number, (patient, answer) in enumerate((("1001", "未见异常"), ("1001", "左侧出血"), ("1002", "右侧占位"))):
        (folder / f"{number}.png").write_bytes(png(number))
        lines.append(delimiter.join((patient, f"{number}.png", "这是什么？", answer)))
    (folder / name).write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return folder / name


def write_nifti(folder: Path) -> dict[str, Any]:
    """Options of a source over two subjects in BIDS layout and a table of reports."""
    import nibabel

    for number in (1, 2):
        path = folder / f"sub-{number:02}" / "anat" / f"sub-{number:02}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        image = nibabel.Nifti1Image(np.random.default_rng(number).integers(0, 900, (12, 14, 10)).astype(np.int16), np.eye(4))
        nibabel.save(image, path)
    table = folder / "reports.jsonl"
    rows = [{"patient": f"sub-{number:02}", "answer": f"Report {number}."} for number in (1, 2)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"path": str(folder), "texts": {"path": str(table), "key": "patient"}, "already_deidentified": True}
