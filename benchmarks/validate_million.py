"""What ``medtune validate`` costs a row and a picture: time, and memory beyond that of a small set.

Run: ``python benchmarks/validate_million.py [--rows 1000000] [--pictures 10000] [--facts 1000000]``. Two
parts, each in a process of its own:

- ``folder``: a data set of so many rows over so many tiny pictures, validated as it is; and one of 10,000 rows over the same
  pictures, so that the difference in peak memory, divided by the rows more, is the memory of a row.
- ``facts``: so many made-up fingerprints, a hundredth of them copies with up to six bits and a little noise more and put into test,
  straight into the search for duplicates; no file is decoded. ``--facts`` measures the search alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from medtune.data.checks.check import Context, PictureFacts, PictureUse
from medtune.data.checks.row_table import RowTable
from medtune.data.checks.same_pictures import SamePictures
from medtune.data.dataset import Dataset, file_sha256
from medtune.data.findings import Findings
from medtune.data.validate import validate
from medtune.types import ImageRef, Manifest

__all__ = ["main"]

SMALL = 10_000


def manifest_of(folder: Path, num_rows: int, num_images: int) -> Manifest:
    """The manifest of a made-up folder."""
    return Manifest(
        name="million",
        medtune_version="0",
        sources=(),
        split={"kind": "group-hash"},
        num_samples={"train": num_rows - num_rows // 10, "validation": 0, "test": num_rows // 10},
        num_groups={},
        num_images=num_images,
        tasks={},
        group_kind="patient",
        synthetic=True,
        local_only=False,
        files={file.name: file_sha256(file) for file in sorted(folder.glob("*.jsonl"))},
    )


def write_folder(folder: Path, num_rows: int, num_pictures: int) -> None:
    """Rows with distinct ids and questions; each row shows one of the pictures, those of test no picture of train."""
    rng = np.random.default_rng(0)
    paths = []
    with (folder / "images.jsonl").open("w") as index:
        for _ in range(num_pictures):
            buffer = BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(buffer, "PNG")
            content = buffer.getvalue()
            digest = sha256(content).hexdigest()
            path = f"images/{digest[:2]}/{digest[:16]}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
            index.write(ImageRef(path=path, sha256=digest, width=16, height=16).model_dump_json() + "\n")
            paths.append(path)
    tests = num_pictures // 10
    for split, first, last in (("train", 0, num_rows - num_rows // 10), ("test", num_rows - num_rows // 10, num_rows)):
        chosen = paths[:tests] if split == "test" else paths[tests:]
        with (folder / f"{split}.jsonl").open("w") as rows:
            for number in range(first, last):
                place = number % len(chosen)
                words = f"Question {number} about the picture?"
                row = {
                    "id": f"row-{number}",
                    "messages": [
                        {"role": "user", "content": f"<image>{words}"},
                        {"role": "assistant", "content": f"Answer {number % 1000}"},
                    ],
                    "images": [chosen[place]],
                    "task": "open-vqa",
                    "target": f"Answer {number % 1000}",
                    "group": f"{split}-{place}",
                    "source": "made",
                    "metadata": json.dumps(
                        {"patient": f"{split}-{place}", "study": f"{split}-{place}", "volume": f"{split}-{place}"}
                    ),
                }
                rows.write(json.dumps(row) + "\n")
    (folder / "validation.jsonl").write_text("")
    (folder / "manifest.json").write_text(manifest_of(folder, num_rows, num_pictures).model_dump_json())


def peak() -> float:
    """Peak memory of this process, MiB; its decoding children not counted."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_folder(folder: Path) -> dict[str, float]:
    """Validate a folder, in this process."""
    started = time.perf_counter()
    report = validate(Dataset.open(folder))
    return {
        "seconds": time.perf_counter() - started,
        "peak": peak(),
        "errors": report.num_errors,
        "rows": sum(report.num_rows.values()),
    }


def measure_facts(count: int) -> dict[str, float]:
    """Feed made-up fingerprints to the search for duplicates."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "train.jsonl").open("w") as rows:
            for number in range(count):
                rows.write(f'{{"id": "r{number}"}}\n')
        table = RowTable(Dataset(folder, manifest_of(folder, count, count)))
        numbers = {split: [place.number for place, _ in table.read(split)] for split in ("train", "validation", "test")}
        assert len(numbers["train"]) == count
        findings = Findings()
        check = SamePictures(Context(table.dataset, findings, table, folder))
        ref = ImageRef(path="images/00/0.png", sha256="0" * 64, width=1, height=1)
        before, started = peak(), time.perf_counter()
        copies = count // 100
        kept: list[tuple[int, bytes]] = []
        for number in range(count):
            if number < count - copies:
                split = "train"
                pattern, thumbnail = int(rng.integers(0, 2**63)) * 2, rng.bytes(1024)
                if number < copies:
                    kept.append((pattern, thumbnail))
            else:
                split = "test"
                pattern, thumbnail = kept[number - (count - copies)]
                for bit in rng.choice(64, int(rng.integers(0, 7)), replace=False).tolist():
                    pattern ^= 1 << bit
                noisy = np.frombuffer(thumbnail, np.uint8).astype(np.int16) + rng.integers(-5, 6, 1024)
                thumbnail = np.clip(noisy, 0, 255).astype(np.uint8).tobytes()
            measured = {"hash": pattern, "pixels": number + 1, "spread": 74.0, "thumbnail": thumbnail}
            check.picture(PictureFacts(ref, measured={"fingerprint": measured}), PictureUse(number, number, (split,)))
        fed = time.perf_counter()
        check.conclude()
        found = sum(issue.count for issue in findings.issues() if issue.code == "near-duplicate-overlap")
        return {
            "feed": fed - started,
            "search": time.perf_counter() - fed,
            "peak": peak(),
            "before": before,
            "copies": copies,
            "found": found,
        }


def in_process(*arguments: str) -> dict[str, float]:
    """Run a part of this file in a new process."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(measure_facts(given.facts) if given.part == "facts" else measure_folder(Path(given.part))))
        return 0
    with tempfile.TemporaryDirectory() as name:
        sizes = {}
        for rows in (SMALL, given.rows):
            folder = Path(name) / str(rows)
            folder.mkdir()
            write_folder(folder, rows, given.pictures)
            sizes[rows] = in_process("--part", str(folder))
            seconds, memory, errors = (sizes[rows][key] for key in ("seconds", "peak", "errors"))
            print(
                f"{rows} rows, {given.pictures} pictures: {seconds:.1f} s, peak {memory:.0f} MiB, errors {errors:.0f}", flush=True
            )
        if given.rows > SMALL:
            more = (sizes[given.rows]["peak"] - sizes[SMALL]["peak"]) * 2**20 / (given.rows - SMALL)
            slower = (sizes[given.rows]["seconds"] - sizes[SMALL]["seconds"]) / (given.rows - SMALL)
            print(f"a row more: {more:.0f} bytes, {1e6 * slower:.0f} microseconds")
    facts = in_process("--part", "facts", "--facts", str(given.facts))
    each = (facts["peak"] - facts["before"]) * 2**20 / given.facts
    print(
        f"{given.facts} fingerprints: search {facts['search']:.1f} s, peak {each:.0f} bytes of memory for each; "
        f"{facts['found']:.0f} of {facts['copies']:.0f} near duplicates across splits found"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
