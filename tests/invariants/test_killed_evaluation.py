"""``kill -9`` while answers are written, then the same call again: nothing is asked twice that stands in the file, nothing is lost,
and the file is the one that an undisturbed evaluation writes. With one process, and with two that share the questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toy_evaluation import make_dataset

TESTS = Path(__file__).parents[1]

EVALUATION = """
import sys, time
from pathlib import Path
from medtune.data.dataset import Dataset
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.generation.several import SeveralProcesses, Workers
from medtune.plugins import BUILT_IN
import several_models

BUILT_IN["task"]["toy"] = "toy_evaluation:ToyTask"
BUILT_IN["metric"]["closed"] = "toy_evaluation:ToyAccuracy"
BUILT_IN["metric"]["bleu"] = "toy_evaluation:ToyLength"
folder, num_processes = Path(sys.argv[1]), int(sys.argv[2])

class Counted:
    def __init__(self, generator):
        self.generator = generator
    def generate(self, requests):
        with (folder / "asked.txt").open("a") as file:
            print(len(requests), file=file)
        yield from self.generator.generate(requests)
    def stream(self, request):
        yield ""
    def close(self):
        self.generator.close()

if num_processes == 1:
    generator = several_models.Telling("tuned", lambda event: None, 0.02)
else:
    workers = Workers([None] * num_processes, "several_models:telling", {"seconds": 0.02}, logs=folder)
    generator = SeveralProcesses(workers, "tuned", None, last=True)
settings = EvaluationSettings(num_resamples=100)
models = {"tuned": ("tuned", lambda: Counted(generator))}
evaluate(Dataset.open(folder.parent / "data"), generators=models, settings=settings, folder=folder, controls=())
"""


def start(folder: Path, num_processes: int) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.Popen([sys.executable, "-c", EVALUATION, str(folder), str(num_processes)], env=environment)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def without_seconds(path: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["generation"].pop("seconds")
    return lines


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_killed_evaluation_goes_on_as_if_nobody_had_touched_it(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=30)
    total = sum(1 for _ in dataset.rows("test"))
    found = {}
    for num_processes in (1, 2):
        folder = tmp_path / f"run-{num_processes}"
        path = folder / "evaluations" / "tuned" / "predictions.jsonl"
        for kill_at in (5, 30):
            process = start(folder, num_processes)
            while not path.is_file() or path.read_bytes().count(b"\n") < kill_at:
                assert process.poll() is None
                time.sleep(0.005)
            workers = children(process.pid)
            assert len(workers) == (num_processes if num_processes > 1 else 0)
            process.kill()
            process.wait()
            stored = path.read_bytes().count(b"\n")
            assert kill_at <= stored < total
            deadline = time.monotonic() + 60
            while any(Path(f"/proc/{pid}/cmdline").is_file() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers):
                assert time.monotonic() < deadline, "a worker outlives the evaluation"
                time.sleep(0.05)
            with path.open("ab") as file:
                file.write(b'{"sample_id": "s0-0", "generation": {"id": "s0')  # as a kill in the middle of a line leaves it
        process = start(folder, num_processes)
        assert process.wait(600) == 0
        asked = [int(line) for line in (folder / "asked.txt").read_text().split()]
        assert asked[0] == total
        assert asked[2] == total - stored, "what stood in the file was asked again, or the torn line counted"
        found[num_processes] = without_seconds(path)
        assert [line["sample_id"] for line in found[num_processes]] == [sample.id for sample in dataset.rows("test")]
    assert found[1] == found[2]
