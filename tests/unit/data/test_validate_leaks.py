"""validate finds what stands on both sides of a split, by name and by likeness, and how far one comes without the pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from medtune.data.checks import keys
from medtune.data.checks.check import Context, PictureFacts, PictureUse
from medtune.data.checks.fingerprint import measure
from medtune.data.checks.hamming import RADIUS, NearPairs
from medtune.data.checks.row_table import RowTable
from medtune.data.checks.same_pictures import SamePictures
from medtune.data.dataset import Dataset, file_sha256, write_row
from medtune.data.findings import Findings
from medtune.data.split import SPLITS
from medtune.data.validate import validate
from medtune.types import GroupKind, ImageRef, Issue, Manifest, Message, Sample, SplitName, ValidationReport


@dataclass
class Row:
    split: SplitName
    picture: bytes
    question: str = "What is this?"
    answer: str = "a test object"
    group: str = ""
    task: str = "open-vqa"
    metadata: dict[str, Any] = field(default_factory=dict)


def scene(seed: int, *, shift: float = 0.0, size: int = 96) -> Image.Image:
    """A smooth grey picture of a few blobs; ``shift`` moves them a little, as the next slice of a volume would."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    total = np.zeros((size, size))
    for _ in range(8):
        cx, cy, radius, weight = rng.uniform([0.1, 0.1, 0.04, 0.3], [0.9, 0.9, 0.2, 1.0])
        dx, dy = rng.uniform(-1, 1, 2) * shift
        total += weight * np.exp(-((x - cx - dx) ** 2 + (y - cy - dy) ** 2) / (2 * radius**2))
    return Image.fromarray(np.rint(255 * total / total.max()).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make(folder: Path, rows: Iterable[Row], *, group_kind: GroupKind = "image", kind: str = "group-hash") -> Dataset:
    """A data set folder with these rows and pictures, in their order."""
    refs: dict[str, ImageRef] = {}
    lines: dict[SplitName, list[str]] = {"train": [], "validation": [], "test": []}
    for number, row in enumerate(rows):
        digest = sha256(row.picture).hexdigest()
        suffix = "png" if row.picture[1:4] == b"PNG" else "jpg"
        path = f"images/{digest[:2]}/{digest[:16]}.{suffix}"
        if path not in refs:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(row.picture)
            width, height = Image.open(BytesIO(row.picture)).size
            refs[path] = ImageRef(path=path, sha256=digest, width=width, height=height)
        sample = Sample(
            id=f"r{number}",
            task=row.task,
            images=(refs[path],),
            messages=(Message(role="user", content="<image>" + row.question), Message(role="assistant", content=row.answer)),
            target=row.answer,
            group=row.group or path,
            source="made",
            metadata=row.metadata,
        )
        lines[row.split].append(write_row(sample) + "\n")
    for split, content in lines.items():
        (folder / f"{split}.jsonl").write_text("".join(content), encoding="utf-8")
    (folder / "images.jsonl").write_text("".join(ref.model_dump_json() + "\n" for ref in refs.values()), encoding="utf-8")
    names = [*(f"{split}.jsonl" for split in lines), "images.jsonl"]
    manifest = Manifest(
        name="made",
        medtune_version="0",
        sources=(),
        split={"kind": kind},
        num_samples={split: len(content) for split, content in lines.items()},
        num_groups={},
        num_images=len(refs),
        tasks={},
        group_kind=group_kind,
        synthetic=True,
        local_only=False,
        files={name: file_sha256(folder / name) for name in names},
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return Dataset.open(folder)


def of(report: ValidationReport, code: str) -> list[Issue]:
    return [issue for issue in report.issues if issue.code == code]


def codes(report: ValidationReport) -> set[str]:
    return {issue.code for issue in report.issues}


LEAKS = {
    "same-pixels",
    "same-pixels-overlap",
    "near-duplicates",
    "near-duplicate-overlap",
    "adjacent-slices",
    "slice-run",
    "patient-overlap",
    "study-overlap",
    "volume-overlap",
    "leaking-volume",
    "question-overlap",
    "image-overlap",
}


def test_different_pictures_are_no_leak(tmp_path: Path) -> None:
    rows = [Row("train" if seed % 3 else "test", encoded(scene(seed)), f"Question {seed}?") for seed in range(40)]
    assert not codes(validate(make(tmp_path, rows))) & LEAKS


def test_the_same_pixels_in_another_file(tmp_path: Path) -> None:
    first = encoded(scene(1))
    again = encoded(scene(1), optimize=True, compress_level=1)
    assert first != again
    report = validate(
        make(tmp_path, [Row("train", first, "Q1?"), Row("train", encoded(scene(2)), "Q2?"), Row("test", again, "Q3?")])
    )
    (issue,) = of(report, "same-pixels-overlap")
    assert (issue.severity, issue.sample, issue.split) == ("error", "r2", "test")
    assert "row r0" in issue.message.render("en")
    inside = validate(make(tmp_path / "inside", [Row("train", first, "Q1?"), Row("train", again, "Q2?")]))
    assert [(issue.severity, issue.sample) for issue in of(inside, "same-pixels")] == [("warning", "r1")]


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: encoded(image, "JPEG", quality=40),
        lambda image: encoded(image.resize((60, 60))),
        lambda image: encoded(image.point(lambda value: min(255, round(value * 1.15)))),
    ],
)
def test_nearly_the_same_picture_across_splits(tmp_path: Path, copy: Any) -> None:
    rows = [Row("train", encoded(scene(seed)), f"Q{seed}?") for seed in range(12)]
    report = validate(make(tmp_path, [*rows, Row("test", copy(scene(5)), "Other?"), Row("train", copy(scene(7)), "More?")]))
    (issue,) = of(report, "near-duplicate-overlap")
    assert (issue.severity, issue.sample, issue.split) == ("warning", "r12", "test")
    assert "row r5 in train" in issue.message.render("en")
    (inside,) = of(report, "near-duplicates")
    assert (inside.count, inside.severity) == (1, "info")
    assert "r13" in inside.message.render("en") or "r7" in inside.message.render("en")


def test_blank_pictures_are_named_and_are_nobodys_duplicate(tmp_path: Path) -> None:
    blank = [encoded(Image.new("L", (40 + number, 40), 3)) for number in range(5)]
    report = validate(make(tmp_path, [Row("test" if number else "train", data, f"{number}?") for number, data in enumerate(blank)]))
    assert len(of(report, "image-blank")) == 5
    assert not codes(report) & {"near-duplicate-overlap", "near-duplicates", "same-pixels-overlap"}


def test_blank_pictures_of_the_same_pixels_are_no_leak(tmp_path: Path) -> None:
    black = Image.new("L", (40, 40), 0)
    rows = [Row("train", encoded(black), "Q1?"), Row("test", encoded(black, compress_level=0), "Q2?")]
    assert rows[0].picture != rows[1].picture
    assert not codes(validate(make(tmp_path, rows))) & LEAKS


def test_pictures_of_near_hashes_are_the_same_only_when_they_correlate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dataset = make(tmp_path, [Row("train", encoded(scene(1)), "Q1?"), Row("test", encoded(scene(2)), "Q2?")])
    rows = RowTable(dataset)
    assert [sum(1 for _ in rows.read(split)) for split in SPLITS] == [1, 0, 1]
    one = rng.integers(0, 200, 1024)
    for noise, count in ((10, 1), (120, 0)):
        other = one + rng.integers(0, noise, 1024)
        (tmp_path / str(noise)).mkdir()
        check = SamePictures(Context(dataset, Findings(), rows, tmp_path / str(noise)))
        places: list[tuple[np.ndarray[Any, Any], SplitName]] = [(one, "train"), (np.minimum(other, 255), "test")]
        for number, (grey, split) in enumerate(places):
            found = {"hash": 77, "pixels": number + 1, "spread": 50.0, "thumbnail": grey.astype(np.uint8).tobytes()}
            ref = next(iter(dataset.images.values()))
            check.picture(PictureFacts(ref, measured={"fingerprint": found}), PictureUse(number, number, (split,)))
        check.conclude()
        assert sum(issue.code == "near-duplicate-overlap" for issue in check.findings.issues()) == count


def volumes(*, named: bool) -> list[Row]:
    """Six volumes of eight slices; of the first two every third slice is put into test, the others are whole."""
    rows = []
    for volume in range(6):
        for index in range(8):
            cut = volume < 2 and index % 3 == 2
            whole = volume == 5
            metadata: dict[str, Any] = {"volume": f"v{volume}", "slice": index} if named else {}
            picture = encoded(scene(volume + 100, shift=0.012 * index))
            rows.append(Row("test" if cut or whole else "train", picture, f"Slice {volume}.{index}?", metadata=metadata))
    return rows


def test_volumes_that_are_named(tmp_path: Path) -> None:
    report = validate(make(tmp_path, volumes(named=True)))
    (issue,) = of(report, "volume-overlap")
    assert (issue.severity, issue.count, issue.split) == ("error", 2, "test")
    assert "2 of the 3 volumes of test" in issue.message.render("en")
    named = [issue.message.render("en") for issue in of(report, "leaking-volume")]
    assert sorted(named) == ["Rows of the volume v0: train 6, test 2.", "Rows of the volume v1: train 6, test 2."]
    assert "adjacent-slices" in report.skipped


def test_volumes_that_nobody_names(tmp_path: Path) -> None:
    report = validate(make(tmp_path, volumes(named=False)))
    (issue,) = of(report, "adjacent-slices")
    assert (issue.severity, issue.count, issue.split) == ("warning", 4, "test")
    assert {issue.sample for issue in of(report, "slice-run")} == {"r0", "r8"}
    assert "from r0 to r7" in of(report, "slice-run")[0].message.render("en")


def test_volumes_that_some_rows_name(tmp_path: Path) -> None:
    """One row that names its volume says nothing about those that do not."""
    named = Row("train", encoded(scene(99)), metadata={"volume": "v"})
    (issue,) = of(validate(make(tmp_path, [*volumes(named=False), named])), "adjacent-slices")
    assert issue.count == 4


def test_patients_and_studies_on_both_sides(tmp_path: Path) -> None:
    rows = [
        Row(
            cast("SplitName", split),
            encoded(scene(number)),
            f"{number}?",
            metadata={"patient": f"p{number % 4}", "study": number % 6},
        )
        for number, split in enumerate(["train"] * 8 + ["validation"] * 2 + ["test"] * 2)
    ]
    report = validate(make(tmp_path, rows))
    assert [(issue.split, issue.count) for issue in of(report, "patient-overlap")] == [("validation", 2), ("test", 2)]
    assert [(issue.split, issue.count) for issue in of(report, "study-overlap")] == [("validation", 2), ("test", 2)]
    assert "e.g. p0, p1" in of(report, "patient-overlap")[0].message.render("en")
    official = validate(make(tmp_path / "official", rows, kind="official"))
    assert {issue.severity for issue in of(official, "patient-overlap")} == {"warning"}


def test_questions_about_the_same_picture(tmp_path: Path) -> None:
    picture = encoded(scene(3))
    report = validate(
        make(
            tmp_path,
            [
                Row("train", picture, "Is there an effusion?", "yes", task="closed-vqa"),
                Row("train", picture, "is there an  effusion", "No", task="closed-vqa"),
                Row("train", picture, "Is there an effusion?!", "Yes.", task="closed-vqa"),
                Row("test", picture, "Is there AN effusion?", "yes", task="closed-vqa"),
                Row("test", encoded(scene(4)), "Is there an effusion?", "yes", task="closed-vqa"),
            ],
        )
    )
    (other,) = of(report, "contradicting-answers")
    assert (other.sample, other.severity) == ("r1", "warning")
    assert of(report, "repeated-question")[0].count == 2
    (shared,) = of(report, "question-overlap")
    assert (shared.split, shared.count, shared.severity) == ("test", 1, "error")
    assert "r3" in shared.message.render("en")


def test_answers_that_need_no_picture(tmp_path: Path) -> None:
    """Two training questions have one answer each, the third has two; test asks the first, and eight that nobody asked before."""
    asked = (("Organ?", "brain"), ("Plane?", "axial"), ("Side?", "left"))
    rows = [Row("train", encoded(scene(n)), *asked[n % 3]) for n in range(30)]
    rows += [Row("train", encoded(scene(60 + n)), "Side?", "right") for n in range(15)]
    rows += [Row("test", encoded(scene(100 + n)), "Organ?", "brain" if n < 6 else "liver") for n in range(8)]
    rows += [Row("test", encoded(scene(120 + n)), f"New {n}?", "right") for n in range(8)]
    (issue,) = of(validate(make(tmp_path, rows)), "question-only")
    # The majority of train is right, 15 of 45: it is what is said of a question that nobody asked before.
    assert issue.message.fields["majority"] == 8 / 16
    assert issue.message.fields["right"] == (6 + 8) / 16
    assert issue.message.fields["seen"] == 8 / 16
    balance = of(validate(make(tmp_path, rows)), "class-balance")[0].message.fields
    assert (balance["classes"], balance["answer"], balance["rarest"]) == (4, "right", 10)
    assert balance["share"] == pytest.approx(15 / 45)


def test_questions_that_give_their_answers_away_are_a_warning(tmp_path: Path) -> None:
    rows = [
        Row("train" if n < 20 else "test", encoded(scene(n)), ("Organ?", "Plane?")[n % 2], ("brain", "axial")[n % 2])
        for n in range(40)
    ]
    (issue,) = of(validate(make(tmp_path, rows)), "question-only")
    assert (issue.severity, issue.message.fields["right"], issue.message.fields["majority"]) == ("warning", 1.0, 0.5)


def test_the_share_of_normal_rows(tmp_path: Path) -> None:
    rows = [Row("train", encoded(scene(n)), f"{n}?", metadata={"normal": n % 10 != 0}) for n in range(30)]
    (issue,) = of(validate(make(tmp_path, rows)), "normal-share")
    assert (issue.severity, issue.message.fields["share"], issue.message.fields["total"]) == ("warning", 0.9, 30)


def test_a_picture_cut_short_is_found_though_the_index_names_it(tmp_path: Path) -> None:
    """The index may have been made after the damage: only decoding tells."""
    whole = encoded(scene(1, size=256), "JPEG", quality=90)
    dataset = make(tmp_path, [Row("train", whole), Row("train", encoded(scene(2)))])
    (ref,) = [ref for ref in dataset.images.values() if ref.path.endswith("jpg")]
    for share in (0.5, 0.9, 0.98):
        cut = whole[: int(len(whole) * share)]
        (dataset.folder / ref.path).write_bytes(cut)
        line = json.dumps({**ref.model_dump(mode="json"), "sha256": sha256(cut).hexdigest()})
        lines = (dataset.folder / "images.jsonl").read_text().splitlines()
        (dataset.folder / "images.jsonl").write_text("\n".join(line if ref.path in old else old for old in lines) + "\n")
        issues = of(validate(Dataset.open(dataset.folder)), "image-unreadable")
        assert [issue.sample for issue in issues] == ["r0"]


@pytest.mark.parametrize("seed", range(3))
def test_all_near_hashes_are_found(seed: int) -> None:
    """Against all pairs compared one by one."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, 60, dtype=np.uint64) * np.uint64(2)
    hashes = np.concatenate([centres, centres])
    for number in range(60):
        for bit in rng.choice(64, number % 10, replace=False):
            hashes[60 + number] ^= np.uint64(1) << np.uint64(bit)
    found = {
        tuple(sorted(pair)) for first, second in NearPairs(hashes) for pair in zip(first.tolist(), second.tolist(), strict=True)
    }
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    expected = {(int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(distance <= RADIUS, 1)), strict=True)}
    assert found == expected
    assert len(expected) >= 48


def test_a_crowd_of_equal_hashes_is_searched_in_bounds() -> None:
    hashes = np.full(5000, 12345, np.uint64)
    search = NearPairs(hashes, max_bucket=8)
    assert sum(len(first) for first, _ in search) <= 4 * 8 * 5000
    assert search.crowded.all()


def test_the_fingerprint_of_a_picture_that_can_be_worked_out() -> None:
    """A cosine of half a period across: its only frequency besides the mean is (0, 1)."""
    wave = np.tile(128 + 100 * np.cos(np.pi / 32 * (np.arange(32) + 0.5)), (32, 1))
    found = measure(Image.fromarray(np.rint(wave).astype(np.uint8)).convert("RGB"))
    bits = f"{found['hash']:064b}"
    assert bits[0] == "1"
    assert bits[1] == "1"
    assert found["spread"] == pytest.approx(100 / np.sqrt(2), rel=0.01)
    # Of 63 frequencies 31 lie above their median, and the mean's own bit is set.
    assert measure(scene(5).convert("RGB"))["hash"].bit_count() == 32
    assert len(found["thumbnail"]) == 1024


def test_words_that_differ_in_dress_only() -> None:
    assert keys.normalised("  Is there\tAN effusion?! ") == keys.normalised("is there an effusion")
    assert keys.normalised("左侧有出血吗？") == keys.normalised("左侧有出血吗?")
    assert keys.normalised("T1") != keys.normalised("T2")
    assert keys.key("ab", "c") != keys.key("a", "bc")


def test_rephrasings_of_nobody_knows_which_row(tmp_path: Path) -> None:
    """VQA-RAD as JSON says of a row that it rephrases another, and not which."""
    one, other = encoded(scene(3)), encoded(scene(4))
    rows = [
        Row("train", one, "Is there air?", "yes", metadata={"phrase_type": "freeform"}),
        Row("test", one, "Can air be seen?", "Yes", metadata={"phrase_type": "test_para"}),
        Row("test", one, "Which organ is it?", "lung", metadata={"phrase_type": "para"}),
        Row("test", other, "Can air be seen here?", "yes", metadata={"phrase_type": "para"}),
        Row("test", one, "Is air there?", "yes", metadata={"phrase_type": "freeform"}),
    ]
    (issue,) = of(validate(make(tmp_path, rows)), "paraphrase-overlap")
    assert (issue.count, issue.message.fields["total"], issue.split) == (1, 3, "test")
    assert "r1" in issue.message.render("en")
