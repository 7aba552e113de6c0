"""Pictures a second of ``medtune prepare`` beside the scripts that users write today, its scaling, and its peak memory.

Run: ``python benchmarks/prepare.py [--rows 20000] [--enhanced-rows 1024] [--million]``. Whole processes, start and imports
included, one after the other on the same synthetic Parquet files; the page cache is warm for all. Prints wall and processor
seconds and ratios:

- ``plain``: decode and save again each picture, against ``prepare`` with one process (copies the bytes, checked by header,
  structure and hash).
- ``enhanced``: CLAHE and letterbox with ``datasets.map``, against ``prepare`` with the same transforms and one process.
- two processes against one.
- ``--million``: peak memory of 10,000 and of 1,000,000 rows made on the fly.

Per core: the ratio of *processor* seconds (user and system, all processes of the tree) is what one core does. Wall seconds are
given as well; on a busy machine they say less.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).parent


@dataclass
class Usage:
    """Of a process and all that it started: seconds, and the largest sum of resident memory (private, MiB) seen."""

    wall: float
    cpu: float
    peak: float


def run(*command: str | Path, cwd: Path) -> Usage:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), environment.get("PYTHONPATH")]))
    before, started = os.times(), time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command], cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak = [0.0]
    watcher = threading.Thread(target=watch, args=(process.pid, peak))
    watcher.start()
    if process.wait():
        raise SystemExit(f"failed: {command}")
    wall = time.perf_counter() - started
    after = os.times()
    watcher.join()
    # Children of children count once their parent has waited for them; medtune waits for its own.
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Usage(wall, cpu, peak[0])


def watch(pid: int, peak: list[float]) -> None:
    """Sample the private memory of the tree five times a second."""
    try:
        root = psutil.Process(pid)
        while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for process in (root, *root.children(recursive=True)):
                try:
                    total += process.memory_full_info().uss
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total / 1024**2)
            time.sleep(0.2)
    except psutil.Error:
        return


def write_shard(file: Path, rows: int) -> int:
    """A Parquet file like a MedTrinity demo shard, of synthetic 512 x 512 JPEG pictures; the mean size of one."""
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(-1, 1, 512), np.linspace(-1, 1, 512))
    images, sizes = [], []
    noise = random.normal(0, 6, (1024, 512)).astype(np.float32)
    for _ in range(rows):
        radius, x, y = random.uniform(0.1, 0.3), *random.uniform(-0.4, 0.4, 2)
        grey = 150.0 * (across**2 + 1.3 * down**2 < 0.7) + 70 * ((across - x) ** 2 + (down - y) ** 2 < radius**2)
        start = int(random.integers(0, 512))
        pixels = np.clip(grey + noise[start : start + 512], 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").save(buffer, "JPEG", quality=75)
        images.append({"bytes": buffer.getvalue(), "path": None})
        sizes.append(len(buffer.getvalue()))
    captions = [
        f"A synthetic axial CT slice, number {number}. " + "The region of interest is bright. " * 12 for number in range(rows)
    ]
    table = pa.table(
        {
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "id": [f"picture-{number:06d}" for number in range(rows)],
            "caption": captions,
        }
    )
    pq.write_table(table, file, row_group_size=500)
    return int(np.mean(sizes))


def recipe(file: Path, shard: Path, *, workers: int, transforms: str = "") -> Path:
    file.write_text(
        f"name: benchmark\nmodel: {{base: medtune-nano}}\ndata:\n  folder: {file.with_suffix('')}\n  num_workers: {workers}\n"
        f"  sources: [{{source: medtrinity, options: {{path: {shard}}}}}]\n"
        + (f"  transforms: [{transforms}]\n" if transforms else ""),
        encoding="utf-8",
    )
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="pictures that are copied")
    parser.add_argument("--enhanced-rows", type=int, default=1024, help="pictures that get CLAHE and letterbox")
    parser.add_argument("--million", action="store_true", help="also measure memory with 1,000,000 rows (some minutes)")
    parser.add_argument("--only-million", action="store_true")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder when left out")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="benchmark-prepare-", dir=options.folder))
    try:
        if not options.only_million:
            speed(folder, options.rows, options.enhanced_rows)
        if options.million or options.only_million:
            memory(folder)
    finally:
        shutil.rmtree(folder)


def speed(folder: Path, rows: int, enhanced_rows: int) -> None:
    shard, small = folder / "train-copied.parquet", folder / "train-enhanced.parquet"
    size = write_shard(shard, rows)
    write_shard(small, enhanced_rows)
    print(f"pictures of 512 x 512 pixels, {size / 1000:.0f} kB each; {os.cpu_count()} processors\n")
    medtune, peer = (sys.executable, "-m", "medtune", "prepare"), (sys.executable, HERE / "peers" / "plain_prepare.py")
    both = "{transform: clahe}, {transform: letterbox, options: {size: 448}}"
    found: dict[str, Usage] = {}
    for name, number, command in (
        ("plain script", rows, (*peer, "plain", shard, folder / "plain")),
        ("medtune, 1 process", rows, (*medtune, recipe(folder / "copy1.yaml", shard, workers=1))),
        ("medtune, 2 processes", rows, (*medtune, recipe(folder / "copy2.yaml", shard, workers=2))),
        ("datasets.map script", enhanced_rows, (*peer, "enhanced", small, folder / "enhanced")),
        ("medtune, enhanced, 1", enhanced_rows, (*medtune, recipe(folder / "both1.yaml", small, workers=1, transforms=both))),
        ("medtune, enhanced, 2", enhanced_rows, (*medtune, recipe(folder / "both2.yaml", small, workers=2, transforms=both))),
    ):
        found[name] = usage = run(*command, cwd=folder)
        speed = f"{number / usage.wall:8.0f} pictures/s  {number / usage.cpu:8.0f} per core"
        print(f"{name:22} {number:6} pictures  wall {usage.wall:7.2f} s  cpu {usage.cpu:7.2f} s  {speed}", flush=True)
    print()
    for name, one, other in (
        ("copied bytes", "plain script", "medtune, 1 process"),
        ("CLAHE and letterbox", "datasets.map script", "medtune, enhanced, 1"),
    ):
        print(
            f"{name}: per core {found[one].cpu / found[other].cpu:.2f} times, wall {found[one].wall / found[other].wall:.2f} times"
        )
    for name, one, other in (
        ("copied bytes", "medtune, 1 process", "medtune, 2 processes"),
        ("CLAHE and letterbox", "medtune, enhanced, 1", "medtune, enhanced, 2"),
    ):
        print(f"two processes, {name}: {found[one].wall / found[other].wall:.2f} times one")
    print(f"two processes that only count: {counting():.2f} times one (what this machine gives at this moment)")


def counting() -> float:
    """Work of two processes that share nothing against that of one, in the same time."""

    def seconds(processes: int) -> float:
        started = time.perf_counter()
        command = [sys.executable, "-c", "sum(range(200_000_000))"]
        for process in [subprocess.Popen(command) for _ in range(processes)]:
            process.wait()
        return time.perf_counter() - started

    return 2 * min(seconds(1) for _ in range(3)) / min(seconds(2) for _ in range(3))


def memory(folder: Path) -> None:
    print()
    peaks = {}
    for rows in (10_000, 1_000_000):
        file = folder / f"rows{rows}.yaml"
        file.write_text(
            f"name: benchmark\nmodel: {{base: medtune-nano}}\ndata:\n  folder: {folder / str(rows)}\n  num_workers: 2\n"
            f"  storage: shards\n  sources: [{{source: 'generated_rows:GeneratedRows', options: {{num_rows: {rows}}}}}]\n",
            encoding="utf-8",
        )
        usage = run(sys.executable, "-m", "medtune", "prepare", file, cwd=folder)
        peaks[rows] = usage.peak
        print(f"{rows:9,} rows: peak {usage.peak:6.0f} MiB in all processes, {usage.wall:6.1f} s, {rows / usage.wall:6.0f} rows/s")
        shutil.rmtree(folder / str(rows))
    print(f"1,000,000 rows against 10,000: {peaks[1_000_000] / peaks[10_000]:.3f} times the memory")


if __name__ == "__main__":
    main()
