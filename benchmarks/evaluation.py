"""A whole evaluation of many samples without a model: time to the first answer, processor seconds and peak memory.

The samples are those of ``benchmarks/metrics.py`` (synthetic), each with a picture of its own in shards. ``echo`` answers, so that
what is measured is medtune: opening the data set, asking, storing, scoring, statistics, report and page. Every number of samples
is evaluated in a process of its own, killed once on the way where ``--kill`` is set, and gone on with.

``python benchmarks/evaluation.py --counts 10000 100000`` prints a line for each number. The peak is that of the evaluating process;
scoring processes are told apart.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from metrics import pairs

_PER_SHARD = 5_000
_SIDE = 64


def write_dataset(folder: Path, count: int, per_group: int) -> None:
    """A data set folder whose pictures are noise of ``_SIDE`` x ``_SIDE`` pixels, 12 kB each, one behind the other in files."""
    import numpy as np
    from PIL import Image

    from medtune.data.dataset import file_sha256, image_line, write_row
    from medtune.types import ImageRef, InShard, Manifest, Message, Sample, SourceCard, SourceRecord

    (folder / "images").mkdir(parents=True)
    tasks: dict[str, int] = {}
    pixels = np.random.default_rng(0)
    with (folder / "test.jsonl").open("w") as rows, (folder / "images.jsonl").open("w") as images:
        for number, (task, _, reference) in enumerate(pairs(count)):
            buffer = BytesIO()
            Image.fromarray(pixels.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)).save(buffer, "PNG", compress_level=0)
            shard = folder / "images" / f"{number // _PER_SHARD:06d}.tar"
            offset = shard.stat().st_size if shard.exists() else 0
            with shard.open("ab") as file:
                file.write(buffer.getvalue())
            digest = hashlib.sha256(buffer.getvalue()).hexdigest()
            place = InShard(file=f"images/{shard.name}", offset=offset, num_bytes=len(buffer.getvalue()))
            path = f"images/{digest[:2]}/{digest[:16]}.png"
            ref = ImageRef(path=path, sha256=digest, width=_SIDE, height=_SIDE, shard=place)
            images.write(image_line(ref) + "\n")
            turns = (Message(role="user", content="<image>What is seen?"), Message(role="assistant", content=reference))
            group = f"g{number // per_group}"
            sample = Sample(
                id=f"s{number:07d}", task=task, images=(ref,), messages=turns, target=reference, group=group, source="synthetic"
            )
            rows.write(write_row(sample) + "\n")
            tasks[task] = tasks.get(task, 0) + 1
    card = SourceCard(name="synthetic", title="-", licence="CC0-1.0", citation="-", group_kind="patient", synthetic=True)
    files = {name: file_sha256(folder / name) for name in ("test.jsonl", "images.jsonl")}
    manifest = Manifest(
        name="synthetic",
        medtune_version="0",
        sources=(SourceRecord(card=card, num_samples=count),),
        split={"kind": "group-hash", "seed": 0},
        num_samples={"test": count},
        num_groups={"test": -(-count // per_group)},
        num_images=count,
        tasks=tasks,
        group_kind="patient",
        synthetic=True,
        local_only=False,
        files=files,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())


class Answers(Mapping[str, str]):
    """The answer of each sample; with ``change``, one in eight lacks its last words."""

    def __init__(self, count: int, change: bool) -> None:
        self._answers = {f"s{number:07d}": answer for number, (_, answer, _) in enumerate(pairs(count))}
        self._change = change

    def __getitem__(self, name: str) -> str:
        answer = self._answers[name]
        return answer[: len(answer) * 7 // 8] if self._change and int(name[1:]) % 8 == 0 else answer

    def __iter__(self) -> Iterator[str]:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)


def evaluated(folder: Path, count: int, controls: list[str]) -> None:
    """In this process: evaluate, write the page, and print what it took, by phase."""
    from medtune.data.dataset import Dataset
    from medtune.evaluation.asking import Model
    from medtune.evaluation.config import EvaluationSettings
    from medtune.evaluation.evaluate import evaluate
    from medtune.evaluation.report_files import write_report_files
    from medtune.generation.echo import EchoGenerator
    from medtune.types import Event

    started = time.perf_counter()
    largest = [0]
    threading.Thread(target=watch_children, args=(largest,), daemon=True).start()

    def note(what: str) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        processor = usage.ru_utime + usage.ru_stime
        print(f"  {what:40} {time.perf_counter() - started:8.1f} {processor:8.1f} {usage.ru_maxrss // 1024:6}", flush=True)

    def hear(event: Event) -> None:
        if event.kind == "phase":
            note(str(event.text))
        if event.kind == "progress" and event.done == 1:
            note("first answer")

    dataset = Dataset.open(folder / "data")
    run = folder / "run"
    settings = EvaluationSettings.model_validate({"controls": controls})
    note("opened")
    models: dict[str, Model] = {
        "base": ("base", lambda: EchoGenerator(Answers(count, True))),
        "tuned": ("tuned", lambda: EchoGenerator(Answers(count, False))),
    }
    report = evaluate(dataset, generators=models, settings=settings, folder=run, listener=hear)
    note("report")
    write_report_files(report, run, dataset, "en")
    note("pages")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor, page = children.ru_utime + children.ru_stime, (run / "report.html").stat().st_size // 1024
    print(f"  scoring processes: {processor:.1f} processor s, largest {largest[0] // 1024} MiB; page {page} KiB", flush=True)


def watch_children(largest: list[int]) -> None:
    """Keep the most KiB that a child of this process has held. ``ru_maxrss`` of children begins with what their parent held when it
    started them (Linux, vfork), and would be a figure of the parent."""
    while True:
        for task in Path("/proc/self/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in task.read_text().split():
                    status = Path(f"/proc/{child}/status").read_text()
                    largest[0] = max(
                        largest[0], *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0
                    )
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--per-group", type=int, default=3)
    parser.add_argument("--controls", nargs="*", default=["shuffled"])
    parser.add_argument("--kill", action="store_true", help="kill each evaluation once while it asks")
    parser.add_argument("--keep", type=Path, help="where the data sets and runs stay")
    parser.add_argument("--child", type=int)
    options = parser.parse_args()
    if options.child is not None:
        evaluated(options.keep, options.child, options.controls)
        return
    with tempfile.TemporaryDirectory() as made:
        for count in options.counts:
            place = (options.keep or Path(made)) / str(count)
            if not (place / "data" / "manifest.json").exists():
                write_dataset(place / "data", count, options.per_group)
            command = [sys.executable, __file__, "--child", str(count), "--keep", str(place), "--controls", *options.controls]
            if options.kill:
                kill_once(command, place, count)
            print(
                f"{count} samples, 2 models, controls {options.controls}: phase, clock s, processor s, peak MiB so far", flush=True
            )
            subprocess.run(command, check=True)


def kill_once(command: list[str], place: Path, count: int) -> None:
    """Start, and kill while the answers of the tuned model are written."""
    file = place / "run" / "evaluations" / "tuned" / "predictions.jsonl"
    limit = random.randrange(count) * 300
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while child.poll() is None and not (file.exists() and file.stat().st_size > limit):
        time.sleep(0.01)
    child.kill()
    child.wait()
    size = file.stat().st_size
    if size:
        with file.open("r+b") as torn:
            torn.truncate(size - 1 - random.randrange(40))
    print(f"  killed after {sum(1 for _ in file.open('rb'))} of {count} answers")


if __name__ == "__main__":
    main()
