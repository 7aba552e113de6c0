"""A disk that fills up ends a run with one sentence, and what was saved before is still good."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medtune.errors import RunError, TrainingError
from medtune.runs import Run
from medtune.training import checkpoints, finish, space
from medtune.training.checkpoints import all_checkpoints
from medtune.training.seal import damage
from medtune.training.space import is_full_disk
from medtune.types import Event
from tiny_training import Setup, losses

SETTINGS: dict[str, Any] = {"max_steps": 6, "save_every": 2, "evaluate_every": "never", "learning_rate": 5e-3}


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Fills:
    """A function that finds the disk full from its n-th call on, until there is room again."""

    def __init__(self, real: Any, calls: int) -> None:
        self.real, self.left, self.room = real, calls, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # How many events of progress there are depends on the clock; checkpoints can be counted.
        if not (isinstance(args[-1], Event) and args[-1].kind != "checkpoint" and self.left >= 0):
            self.left -= 1
        return full() if self.left < 0 and not self.room else self.real(*args, **kwargs)


@pytest.fixture(scope="module")
def straight(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = setup.run(tmp_path_factory.mktemp("straight") / "run")
    setup.train(run, **SETTINGS)
    return run


@pytest.mark.parametrize(
    ("owner", "name", "calls", "saved"),
    [
        (Run, "append", 1, [2, 4]),
        ("torch", "save", 4, [2]),
        ("peft.peft_model", "safe_save_file", 2, [2, 4]),
        (checkpoints, "write_seal", 1, [2]),
        (finish, "save_result", 0, [4, 6]),
    ],
    ids=["events", "optimizer", "weights", "list of files", "result"],
)
def test_what_was_saved_before_is_good_and_the_run_goes_on_when_there_is_room(
    setup: Setup,
    straight: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    calls: int,
    saved: list[int],
) -> None:
    import importlib

    run = setup.run(tmp_path / "run")
    target = importlib.import_module(owner) if isinstance(owner, str) else owner
    fills = Fills(getattr(target, name), calls)
    monkeypatch.setattr(target, name, lambda *args, **kwargs: fills(*args, **kwargs))
    with pytest.raises(TrainingError) as caught:
        setup.train(run, **SETTINGS)
    words = caught.value.render("en")
    assert "The disk is full" in words
    assert " are free, a checkpoint needs " in words
    assert "--resume" in words
    assert run.record.status == "failed"
    assert [step for step, _ in all_checkpoints(run.checkpoints)] == saved
    assert all(damage(path) is None for _, path in all_checkpoints(run.checkpoints))
    assert not (run.checkpoints / ".saving").exists(), "what was half written still takes room"
    assert run.adapter is None

    fills.room = True
    assert setup.train(run, resume=True, **SETTINGS).status == "trained"
    assert losses(run) == losses(straight)


def test_no_room_for_a_single_checkpoint_is_told_before_the_first_step(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = setup.run(tmp_path / "run")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: usage)  # noqa: ARG005
    with pytest.raises(TrainingError, match=r"The disk is full: 1\.0 kB are free"):
        setup.train(run, **SETTINGS)
    assert not losses(run)


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EACCES, "x"), False),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("shape"), False),
    ],
    ids=str,
)
def test_the_forms_of_a_full_disk(error: Exception, is_full: bool) -> None:
    assert is_full_disk(error) is is_full
    from medtune.language import msg

    outer = RunError(msg("run.json cannot be read: {error}", error="x"))
    outer.__cause__ = error
    assert is_full_disk(outer) is is_full


BALLAST = 3 * 2**20 - 300_000

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from medtune.errors import TrainingError
from medtune.runs import Run
from medtune.training.checkpoints import all_checkpoints
from medtune.training.seal import damage
from tiny_training import losses, make_setup
setup = make_setup(Path({setup!r}))
run = setup.run(Path({disk!r}) / "run")
settings = dict(max_steps=8, save_every=2, save_total_limit=3, evaluate_every="never", learning_rate=5e-3)
ballast = Path({disk!r}) / "ballast"
ballast.write_bytes(bytes({ballast}))
try:
    setup.train(run, **settings)
    print("there was room")
except TrainingError as error:
    print(error.render("en"))
print("status", run.record.status)
print("saved", [step for step, path in all_checkpoints(run.checkpoints) if damage(path) is None])
ballast.unlink()
print("then", setup.train(run, resume=True, **settings).status, sorted(losses(run)))
"""


def test_a_real_disk_that_is_full(setup: Setup, tmp_path: Path) -> None:
    """A file system of 3 MB in memory; with the ballast, two checkpoints of the tiny model (0.1 MB each) have room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    tests = str(Path(__file__).resolve().parents[2])
    script = SCRIPT.format(tests=tests, setup=str(setup.data_folder), disk=str(disk), ballast=BALLAST)
    command = f'mount -t tmpfs -o size=3m none {disk} && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, sys.executable, script],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert "The disk is full" in done.stdout, done.stdout + done.stderr
    assert "status failed" in done.stdout
    assert "saved [2" in done.stdout
    assert "then trained [1, 2, 3, 4, 5, 6, 7, 8]" in done.stdout
