"""A synthetic data set with planted faults, each kind several times, among clean rows.

Everything is made up: pictures are smooth random patterns, texts are one sentence of a pattern.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medtune.data.dataset import Dataset, file_sha256
from medtune.types import ImageRef, Manifest, SourceCard, SourceRecord

SIDE = 192
TIMES = 4
"""How often each kind is planted."""

UNENCODABLE = "An answer that the stand-in of a tokenizer refuses,"

Row = dict[str, Any]


class PlantedSet:
    """Rows and pictures as they grow. ``expected[code]`` holds the sample ids, or the number where a finding names none."""

    def __init__(self, *, official: bool = False) -> None:
        self.rng = np.random.default_rng(0)
        self.official = official
        self.rows: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
        self.files: dict[str, bytes] = {}
        self.refs: list[ImageRef] = []
        self.lines: list[tuple[str, str]] = []
        self.expected: dict[str, set[str] | int] = {}
        self.cards = {"planted": card("planted", "CC0-1.0")}
        self.number = 0
        self.num_orphans = 0

    def expect(self, code: str, sample: str) -> None:
        """``sample`` must be named by a finding of this code."""
        named = self.expected.setdefault(code, set())
        assert isinstance(named, set)
        named.add(sample)

    def picture(self, content: bytes | None = None, *, suffix: str = ".png", modality: str = "CT") -> str:
        """Store a picture, a new pattern where none is given; returns its path."""
        content = png(self.pattern()) if content is None else content
        digest = hashlib.sha256(content).hexdigest()
        path = f"images/{digest[:2]}/{digest[:16]}{suffix}"
        if path not in self.files:
            self.files[path] = content
            try:
                with Image.open(BytesIO(content)) as opened:
                    width, height = opened.size
            except OSError:
                width = height = SIDE
            self.refs.append(ImageRef(path=path, sha256=digest, width=width, height=height, modality=modality))
        return path

    def pattern(self, seed: int | None = None) -> Image.Image:
        """A grey picture like no other: 7 x 7 random values, smoothed, with a little noise."""
        rng = self.rng if seed is None else np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(20, 235, (7, 7), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse, np.float64) + rng.normal(0, 3, (SIDE, SIDE))
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert("RGB")

    def add(self, name: str, split: str = "train", *, path: str | None = None, answer: str | None = None, **metadata: Any) -> Row:
        """A sound row of a patient of its own; the caller may spoil it."""
        self.number += 1
        unique = f"{name}-{self.number:04d}"
        words = answer if answer is not None else f"A CT image of the brain shows a hyperdense lesion, number {self.number}."
        row = {
            "id": unique,
            "messages": [
                {"role": "user", "content": f"<image>What does picture {self.number} show?"},
                {"role": "assistant", "content": words},
            ],
            "images": [self.picture() if path is None else path],
            "task": "caption",
            "target": words,
            "group": f"p{self.number}",
            "source": "planted",
            "metadata": {
                "patient": f"p{self.number}", "study": f"s{self.number}", "volume": f"v{self.number}",
                "modality": "CT", "organ": "brain", **metadata,
            },
        }  # fmt: skip
        self.rows[split].append(row)
        return row

    def say(self, row: Row, answer: str) -> None:
        """Change the answer of a row."""
        row["target"] = row["messages"][-1]["content"] = answer

    def clean_names(self) -> set[str]:
        """What findings may call the clean rows by: ids, groups, patients, studies, volumes and pictures of theirs."""
        rows = [row for of_split in self.rows.values() for row in of_split if str(row["id"]).startswith("clean-")]
        tags = ("patient", "study", "volume")
        return {name for row in rows for name in (row["id"], row["group"], *row["images"], *(row["metadata"][tag] for tag in tags))}

    def write(self, folder: Path, **manifest: Any) -> Dataset:
        """The data set folder."""
        for path, content in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        (folder / "images.jsonl").write_text("".join(ref.model_dump_json(exclude={"shard"}) + "\n" for ref in self.refs))
        for split, rows in self.rows.items():
            lines = [json.dumps({**row, "metadata": _metadata(row)}, ensure_ascii=False) for row in rows]
            lines += [line for of, line in self.lines if of == split]
            (folder / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        names = [*(f"{split}.jsonl" for split in self.rows), "images.jsonl"]
        values: dict[str, Any] = {
            "name": "planted",
            "medtune_version": "0",
            "sources": tuple(SourceRecord(card=each, num_samples=self.number) for each in self.cards.values()),
            "split": {"kind": "official" if self.official else "group-hash"},
            "num_samples": {split: len(rows) for split, rows in self.rows.items()},
            "num_groups": {split: len({row["group"] for row in rows if "group" in row}) for split, rows in self.rows.items()},
            "num_images": len(self.refs),
            "tasks": {"caption": self.number},
            "group_kind": "patient",
            "synthetic": True,
            "local_only": False,
            "files": {name: file_sha256(folder / name) for name in names},
        }
        (folder / "manifest.json").write_text(Manifest(**{**values, **manifest}).model_dump_json(indent=2) + "\n")
        return Dataset.open(folder)


def _metadata(row: Row) -> Any:
    return json.dumps(row["metadata"], sort_keys=True) if isinstance(row.get("metadata"), dict) else row.get("metadata")


def card(name: str, licence: str) -> SourceCard:
    return SourceCard(name=name, title=name, licence=licence, citation="", group_kind="patient", synthetic=True)


def png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def quick_png(picture: Image.Image) -> bytes:
    """The same pixels as :func:`png`, in other bytes."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def jpeg(picture: Image.Image, quality: int = 85) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------------ faults of rows

_SPOILT: dict[str, Callable[[Row], Any]] = {
    "row-malformed": lambda row: row.pop("group"),
    "image-unknown": lambda row: row.update(images=["images/no/where.png"]),
    "image-marks": lambda row: row["messages"][0].update(content="no mark"),
    "role-order": lambda row: row["messages"].reverse(),
    "unknown-task": lambda row: row.update(task="juggling"),
    "target-differs": lambda row: row.update(target="something else"),
    "turn-empty": lambda row: row["messages"][0].update(content="<image>"),
}

_UNREAD = frozenset({"row-malformed", "image-unknown", "image-marks", "role-order"})
"""Rows that cannot be read: their pictures belong to no row."""

_ANSWERS: dict[str, tuple[str, ...]] = {
    "answer-empty": ("", " ", "\n", "\t"),
    "answer-placeholder": ("XXXX", "N/A", "___", "待补充"),
    "answer-is-number": ("0", "17", "-3", "2.5"),
    "stray-blanks": (" A lesion of the brain.", "A lesion of the brain. ", "A lesion of the brain.\n", "\tA lesion of the brain."),
    "text-placeholder": ("Compared with XXXX, a new lesion.", "The ___ lobe is clear.", "右额叶【待补充】",
        "A [insert organ] lesion."),
    "wording": (
        "An area of differing density in the brain.", "A white spot in the brain.", "提示脑溢血。", "The green box shows a lesion.",
    ),
    "text-modality": ("An MRI of the brain.", "An ultrasound image of the head.", "头部磁共振图像。", "A radiograph of the skull."),
    "text-organ": (
        "A CT image of the chest with a nodule in the lung.", "This CT image shows the liver and a round lesion.",
        "The CT image of the pelvis shows the bladder well.", "A CT image of the lumbar spine with a fracture.",
    ),
    "row-too-long": tuple("word " * 400 + f"end {number}" for number in range(TIMES)),
}  # fmt: skip

_TAGGED: dict[str, dict[str, Any]] = {
    "box-outside": {"box": [10, 10, SIDE + 5, 40]},
    "box-position": {"box": [8, 80, 40, 112], "horizontal": "right"},
    "box-area": {"box": [8, 8, 96, 96], "area_percent": 1.0},
    "tags-differ": {"tags_modality": "MR"},
    "source-answer-blanks": {"source_notes": ["answer-blanks"]},
}


def plant_rows(planted: PlantedSet) -> None:
    """Faults that stand in one row alone."""
    for code, spoil in _SPOILT.items():
        for _ in range(TIMES):
            row = planted.add(code)
            spoil(row)
            planted.expect(code, row["id"])
            planted.num_orphans += code in _UNREAD
    for code, answers in _ANSWERS.items():
        for answer in answers:
            row = planted.add(code, answer=answer)
            planted.expect(code, row["id"])
            if answer != answer.strip():
                planted.expect("stray-blanks", row["id"])
    for code, metadata in _TAGGED.items():
        for _ in range(TIMES):
            planted.expect(code, planted.add(code, answer=f"A round lesion, number {planted.number}.", **metadata)["id"])
    for number in range(TIMES):
        planted.lines.append(("train", f'{{"id": "torn-{number}", "messages": ['))
    planted.expected["row-not-json"] = TIMES
    for _ in range(TIMES):
        planted.expect("not-encodable", planted.add("not-encodable", answer=f"{UNENCODABLE} number {planted.number}.")["id"])
        row = planted.add("twice")
        again = planted.add("twice")
        again["id"] = row["id"]
        planted.expect("duplicate-id", row["id"])
        row, again = planted.add("same"), planted.add("same")
        again.update(
            messages=row["messages"], images=row["images"], target=row["target"], group=row["group"], metadata=row["metadata"]
        )
        planted.expect("duplicate-row", again["id"])
        planted.num_orphans += 1


# -------------------------------------------------------------------------------------------------------- faults of pictures


def plant_pictures(planted: PlantedSet) -> Iterator[Callable[[Path], None]]:
    """Faults of pictures. Yields what has to be done to the folder once it is written."""
    for number in range(TIMES):
        row = planted.add("missing")
        planted.expect("image-missing", row["id"])
        yield lambda folder, path=row["images"][0]: (folder / path).unlink()

        row = planted.add("cut", path=planted.picture(jpeg(planted.pattern()), suffix=".jpg"))
        planted.expect("image-unreadable", row["id"])
        yield lambda folder, path=row["images"][0]: (folder / path).write_bytes((folder / path).read_bytes()[:900])

        row, other = planted.add("changed"), png(planted.pattern())
        planted.expect("image-changed", row["id"])
        yield lambda folder, path=row["images"][0], other=other: (folder / path).write_bytes(other)

        blank = png(Image.new("RGB", (SIDE, SIDE + number), (40, 40, 40)))
        planted.expect("image-blank", planted.add("blank", path=planted.picture(blank))["id"])

        framed = planted.pattern()
        ImageDraw.Draw(framed).rectangle((20 + number, 30, 90, 120), outline=(0, 255, 0), width=1 + number % 3)
        content = jpeg(framed) if number % 2 else png(framed)
        row = planted.add("framed", path=planted.picture(content, suffix=".jpg" if number % 2 else ".png"))
        planted.expect("burned-in-box", row["id"])

        planted.picture()
    planted.expected["image-unused"] = TIMES + planted.num_orphans


def plant_text_in_pictures(planted: PlantedSet) -> None:
    """Made-up names, words and markers in the pixels: for ``--ocr``."""
    names = ("DOE^JANE 1961-02-03", "ROE, RICHARD  MRN 0081234", "DOB 03/02/1961", "General Hospital 20190304")
    words = ("lesion here", "before contrast", "see arrow", "large artery")
    font = ImageFont.load_default(18)
    for code, texts in (
        ("burned-in-identifier", names),
        ("burned-in-text", words),
        ("burned-in-marker", ("5 cm", "W:80", "10 cm", "kV 120")),
    ):
        for text in texts:
            dark = planted.pattern().point(lambda value: value // 4).resize((384, 384))
            ImageDraw.Draw(dark).text((12, 340), text, fill=(255, 255, 255), font=font)
            planted.expect(code, planted.add(code, path=planted.picture(png(dark)))["id"])


# ----------------------------------------------------------------------------------------------------------- faults of splits


def plant_overlaps(planted: PlantedSet) -> None:
    """What two splits have in common. Counted, as one finding names many."""
    for _ in range(TIMES):
        for key in ("patient", "study", "volume"):
            shared = planted.add(f"{key}-train")["metadata"][key]
            planted.add(f"{key}-test", "test", **{key: shared})
        row = planted.add("group-train")
        planted.add("group-test", "test")["group"] = row["group"]
        row = planted.add("picture-train")
        planted.add("picture-test", "test", path=row["images"][0])
        row = planted.add("asked")
        planted.add("rephrased", "test", linked_id=row["id"])
        picture = planted.pattern()
        planted.add("pixels-train", path=planted.picture(png(picture)))
        planted.add("pixels-test", "test", path=planted.picture(quick_png(picture)))
        row = planted.add("asked-train")
        again = planted.add("asked-test", "test", path=row["images"][0])
        again["messages"][0]["content"] = row["messages"][0]["content"]
        planted.expect("contradicting-answers", again["id"])
        row = planted.add("phrased-train")
        again = planted.add("phrased-test", "test", path=row["images"][0], answer=row["target"])
        row["metadata"]["phrase_type"], again["metadata"]["phrase_type"] = "freeform", "test_para"
        row = planted.add("one-answer")
        again = planted.add("other-answer", path=row["images"][0])
        again.update(group=row["group"], metadata=row["metadata"])
        again["messages"][0]["content"] = row["messages"][0]["content"]
        planted.expect("contradicting-answers", again["id"])
        picture = planted.pattern()
        planted.add("pixels-first", path=planted.picture(png(picture)))
        row = planted.add("pixels-again", path=planted.picture(quick_png(picture)))
        planted.expect("same-pixels", row["id"])
        row = planted.add("asked-once")
        again = planted.add("asked-twice", path=row["images"][0], answer=row["target"])
        again.update(group=row["group"], metadata=row["metadata"])
        again["messages"][0]["content"] = row["messages"][0]["content"].upper().replace("<IMAGE>", "<image>")
        picture = planted.pattern()
        planted.add("near-first", path=planted.picture(png(picture)))
        planted.add("near-again", path=planted.picture(jpeg(picture, 60), suffix=".jpg"))
        picture = planted.pattern()
        planted.add("near-train", path=planted.picture(png(picture)))
        planted.add("near-test", "test", path=planted.picture(jpeg(picture, 60), suffix=".jpg"))
    for code in ("patient", "study", "volume", "group", "linked", "same-pixels", "question", "paraphrase"):
        planted.expected[f"{code}-overlap"] = TIMES
    planted.expected["image-overlap"] = 3 * TIMES
    planted.expected["leaking-volume"] = TIMES
    planted.expected["near-duplicate-overlap"] = TIMES
    planted.expected["near-duplicates"] = TIMES
    planted.expected["repeated-question"] = TIMES


def plant_slices(planted: PlantedSet) -> None:
    """Runs of pictures that change a little from one to the next and name no volume; every third is held out. For a set of its own:
    where all rows name their volumes, nothing is guessed."""
    for _ in range(TIMES):
        first, last = np.asarray(planted.pattern(), np.float64), np.asarray(planted.pattern(), np.float64)
        for number in range(9):
            between = first + (last - first) * number / 24
            picture = planted.picture(png(Image.fromarray(between.clip(0, 255).astype(np.uint8))))
            row = planted.add("slice", "test" if number % 3 == 2 else "train", path=picture)
            del row["metadata"]["volume"]
            if number == 0:
                planted.expect("slice-run", row["id"])
    planted.expected["adjacent-slices"] = 3 * TIMES


NEAR_MISSES = (
    "No.", "4 cm", "none", "Grey and white matter are well told apart in this CT image of the brain.",
    "CT image of the head. The ventricles are of normal size.", "The lesion is hyperdense and lies in the left frontal lobe.",
    "Unchanged, see above; n/a does not apply here.", "右侧基底节区见高密度影。",
)  # fmt: skip
"""Sound answers that look a little like faults: short ones, a colour that is an anatomical term, words that hold a placeholder."""


def add_clean(planted: PlantedSet, num_rows: int) -> None:
    """Sound rows, with boxes that fit their words."""
    words = (("left", 24), ("center", 96), ("right", 168))
    for number in range(num_rows):
        (word, across), (_, down) = words[number % 3], words[number // 3 % 3]
        box = [across - 15, down - 15, across + 15 + number % 7, down + 15]
        share = round(100 * (box[2] - box[0]) * 30 / SIDE**2 / 1.3, 1)
        split = ("train", "train", "validation", "test")[number % 4]
        height = ("upper", "middle", "lower")[number // 3 % 3]
        answer = NEAR_MISSES[number // 5 % len(NEAR_MISSES)] if number % 5 == 4 else None
        planted.add("clean", split, answer=answer, box=box, horizontal=word, vertical=height, area_percent=share)
