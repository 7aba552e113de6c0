"""``kill -9`` at any moment, then ``--resume``: the run ends as if nobody had touched it.

A run is killed and resumed again and again, twenty times in all, and then compared with one that was left alone: the losses,
learning rates and gradient norms of every step, validation losses, losses of the epochs, the record, and the bytes of the
result. Half of the kills come by the clock, half at a random file operation of the run, because the moments between two of
them are where half-written things come from, and too short to be met by chance.

Lives are forked from one process that has imported everything and has done nothing else yet, so that each costs what a run
costs and not also what Python's imports cost.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medtune.runs import Run
from medtune.training.checkpoints import all_checkpoints
from medtune.training.seal import damage

NUM_KILLS = 20
SEED = 4

RECIPE = """
name: killed
data:
  folder: {data}
  sources:
    - source: phantom
      options: {{num_patients: 4, slices_per_patient: 1, image_size: 64, forms: six-tasks, seed: 0}}
  split:
    fractions: {{train: 0.5, validation: 0.25, test: 0.25}}
model: {{base: medtune-nano}}
adapter: {{kind: lora, rank: 4, dropout: 0.2, targets: [language]}}
train:
  max_steps: {steps}
  batch_size: 1
  gradient_accumulation_steps: 2
  learning_rate: 5e-3
  warmup_steps: 2
  max_tokens: 1024
  evaluate_every: epoch
  save_every: 2
  average_last: 2
  log_every: 3
run:
  folder: {run}
"""

NURSERY = """
import contextlib, importlib.util, json, os, signal, sys
import torch
torch.set_num_threads(1)
from medtune import api
from medtune.training import job, launch, train
from medtune.runs import is_run
import peft, transformers.trainer, transformers.models.qwen3_vl.modeling_qwen3_vl, matplotlib.pyplot
import cv2, medtune.data.prepare, medtune.evaluation.evaluate
if importlib.util.find_spec("deepspeed"):
    with contextlib.redirect_stdout(sys.stderr):  # accelerate imports it where it is installed, which takes longer than a run
        import deepspeed

def live(folder, recipe, operation):
    if operation:
        left = [operation]
        def count(event, arguments):
            if event in {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"} and any(
                isinstance(each, str) and each.startswith(folder) for each in map(text, arguments[:2])
            ):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
    resume = is_run(folder)
    api.train(folder if resume else recipe, resume=resume)

def text(argument):
    return os.fspath(argument) if isinstance(argument, (str, os.PathLike)) else argument

for line in iter(sys.stdin.readline, ""):
    folder, recipe, operation = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            live(folder, recipe, operation)
            status = 0
        finally:
            os._exit(status)
    print(child, flush=True)
    # Until it is waited for the number stays the child's own, also when it comes to its end before the kill.
    sys.stdin.readline()
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    """Where lives of a run begin."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "DS_ACCELERATOR": "cpu"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def live(self, folder: Path, recipe: Path, *, seconds: float | None = None, operation: int = 0) -> bool:
        """One life of the run, killed after so many seconds or at its n-th file operation. Whether it came to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(folder), str(recipe), operation]), file=self._process.stdin, flush=True)
        child = int(self._process.stdout.readline())
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, 9)
        print(file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        assert status in (0, -9), f"the life of {folder.name} ended with {status}"
        return status == 0

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(300)


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    found = Nursery()
    yield found
    found.close()


def log_of(run: Run) -> dict[int, dict[str, Any]]:
    """What was logged at each step; what was done again counts as it was done last."""
    found: dict[int, dict[str, Any]] = {}
    for event in run.events():
        if event["kind"] in ("log", "epoch"):
            names = ("loss", "eval_loss", "learning_rate", "grad_norm", "epoch")
            numbers = {f"{event['kind']} {name}": event[name] for name in names if name in event}
            found.setdefault(event["step"], {}).update(numbers)
    return found


def result_of(run: Run) -> dict[str, bytes]:
    return {
        f"{folder}/{path.name}": path.read_bytes()
        for folder in ("adapter", "adapter_last")
        for path in sorted((run.folder / folder).glob("*"))
    }


FIELDS = ("status", "num_steps", "num_epochs", "train_loss", "eval_loss", "best_step", "validation_losses", "kept", "error")


def check_sound(folder: Path) -> None:
    """What has a name is whole."""
    if not folder.exists():
        return
    run = Run.open(folder)
    assert run.record.status in ("created", "training", "trained")
    assert all(event["kind"] for event in run.events())
    for _, checkpoint in all_checkpoints(run.checkpoints):
        assert damage(checkpoint) is None
    if run.adapter is not None:
        assert {path.name for path in run.adapter.iterdir()} >= {"adapter_model.safetensors", "contract.json"}


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_like_one_left_alone(tmp_path: Path, nursery: Nursery) -> None:
    def recipe(name: str) -> tuple[Path, Path]:
        path, folder = tmp_path / f"{name}.yaml", tmp_path / name
        path.write_text(RECIPE.format(data=tmp_path / "data", run=folder, steps=14), encoding="utf-8")
        return folder, path

    draw = random.Random(SEED)
    alone, path = recipe("alone")
    nursery.live(alone, path)  # makes the data set too
    again, path = recipe("again")
    started = time.monotonic()
    nursery.live(again, path)
    seconds = time.monotonic() - started
    wanted = Run.open(alone)
    assert log_of(Run.open(again)) == log_of(wanted), "two runs that nobody touched differ, so nothing can be compared"

    num_kills = num_chains = 0
    while num_kills < NUM_KILLS:
        num_chains += 1
        folder, path = recipe(f"killed-{num_chains}")
        ended = False
        while not ended and num_kills < NUM_KILLS:
            if num_kills % 2:
                ended = nursery.live(folder, path, operation=draw.randint(1, 400))
            else:
                ended = nursery.live(folder, path, seconds=draw.uniform(0.1, 0.7 * seconds))
            num_kills += not ended
            check_sound(folder)
        if not ended:
            nursery.live(folder, path)
        run = Run.open(folder)
        assert log_of(run) == log_of(wanted)
        assert result_of(run) == result_of(wanted)
        assert [getattr(run.record, name) for name in FIELDS] == [getattr(wanted.record, name) for name in FIELDS]
        assert not [path for path in run.checkpoints.iterdir() if path.name.startswith(".")]
