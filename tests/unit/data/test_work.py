"""The work folder: killed at any step, the old data set is there or the new one, and nothing half is taken for whole."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import source_files
from medtune.data import jobs, work
from medtune.data import prepare as preparing
from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset
from medtune.data.prepare import prepare
from medtune.data.work import work_folder
from medtune.errors import DataError, RunError


def settings(path: Path, **more: Any) -> DataSettings:
    entry = {"source": "toy_sources:Unparted", "options": {"path": str(path)}}
    return DataSettings.model_validate({"sources": [entry], "num_workers": 2, **more})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def rad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, "MAX_RECORDS", 15)
    return source_files.write_vqa_rad(tmp_path / "rad", num_images=12)


class Killed(BaseException):
    """Stands for SIGKILL: nothing that medtune does on the way out may be needed."""


def killed_at(patch: pytest.MonkeyPatch, module: Any, name: str, *, before: bool) -> None:
    """Kill the process just before or just after the call of a function; what would clean up afterwards does nothing."""
    real: Callable[..., Any] = getattr(module, name)

    def call(*given: Any, **named: Any) -> Any:
        if not before:
            real(*given, **named)
        for where, removing in ((work.shutil, "rmtree"), (work, "discard")):
            patch.setattr(where, removing, lambda *_, **__: None)
        raise Killed

    patch.setattr(module, name, call)


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("replaces", [True, False])
@pytest.mark.parametrize(
    ("module", "name", "before"),
    [
        (preparing, "move", True),
        (preparing, "move", False),
        (work, "_exchange", True),
        (work.os, "replace", True),
        (work.os, "replace", False),
    ],
)
def test_a_kill_at_the_move(
    rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, before: bool, replaces: bool, exchange: bool
) -> None:
    folder = tmp_path / "out"
    chosen = settings(rad)
    if replaces:
        prepare(settings(rad, split={"seed": 5}), name="x", folder=folder)
    prepare(chosen, name="x", folder=tmp_path / "undisturbed")
    found = contents(folder) if replaces else {}
    if not exchange:
        monkeypatch.setattr(work, "_exchange", lambda *_: False)
    with monkeypatch.context() as patch:
        real = preparing.move

        def move(*given: Any) -> None:
            if name == "replace":
                killed_at(patch, module, name, before=before)
            real(*given)

        if name == "replace":
            patch.setattr(preparing, "move", move)
        else:
            killed_at(patch, module, name, before=before)
        try:
            prepare(chosen, name="x", folder=folder, overwrite=True)
        except Killed:
            pass
        else:
            assert name in ("_exchange", "replace"), "these are not on every way"
    expected = contents(tmp_path / "undisturbed")
    if exchange and replaces:
        assert contents(folder) in (found, expected), "with one step there is no moment without a data set"
    # Whatever comes next puts it right: asking for the old one, ...
    if replaces and not folder.exists():
        with pytest.raises(DataError, match="other settings"):
            prepare(chosen, name="x", folder=folder)
        assert contents(folder) == found
    # ... or for the new one.
    prepare(chosen, name="x", folder=folder, overwrite=True)
    assert contents(folder) == expected
    prepare(chosen, name="x", folder=folder)
    assert not work_folder(folder).exists()


def test_what_a_killed_process_left_is_removed_by_the_next(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        killed_at(patch, preparing, "move", before=False)
        with pytest.raises(Killed):
            prepare(settings(rad), name="x", folder=folder)
    assert work_folder(folder).exists()
    prepare(settings(rad), name="x", folder=folder)
    assert not work_folder(folder).exists()


def test_finished_shards_without_their_pictures_are_not_used(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        killed_at(patch, preparing, "move", before=False)
        with pytest.raises(Killed):
            prepare(settings(rad), name="x", folder=folder)
    prepare(settings(rad), name="x", folder=folder, overwrite=True)
    dataset = Dataset.open(folder)
    assert all(dataset.image_path(ref).is_file() for ref in dataset.images.values())


def test_a_folder_that_another_process_made_meanwhile_is_not_replaced(
    rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    prepare(settings(rad, split={"seed": 5}), name="x", folder=tmp_path / "other")
    look = preparing._existing
    looks = []

    def meanwhile(*given: Any) -> Any:
        looks.append(look(*given))
        if len(looks) == 1:
            os.replace(tmp_path / "other", folder)
        return looks[-1]

    monkeypatch.setattr(preparing, "_existing", meanwhile)
    with pytest.raises(DataError, match="other settings"):
        prepare(settings(rad), name="x", folder=folder)
    assert Dataset.open(folder).manifest.split["seed"] == 5


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def none(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    prepare(settings(rad), name="x", folder=tmp_path / "out")


def test_a_torn_summary_is_made_again(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        killed_at(patch, preparing, "merge", before=True)
        with pytest.raises(Killed):
            prepare(settings(rad), name="x", folder=folder)
    (work_folder(folder) / "shards" / "000001" / "summary.json").write_bytes(b"")
    prepare(settings(rad), name="x", folder=folder)
    prepare(settings(rad), name="x", folder=tmp_path / "undisturbed")
    assert contents(folder) == contents(tmp_path / "undisturbed")


FULL = """
import os, sys
from medtune.data import pictures

def full(*_):
    raise OSError(28, "No space left on device", "somewhere")

pictures.FileStore.put = full
"""


def test_a_full_disk_is_told_and_gone_on_from(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sitecustomize.py").write_text(FULL)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "code"))
        with pytest.raises(RunError, match="no space is left") as caught:
            prepare(settings(rad), name="x", folder=tmp_path / "out")
    assert caught.value.remedy is not None
    assert prepare(settings(rad), name="x", folder=tmp_path / "out").num_images == 12


SLEEPS = """
import time
from typing import Literal
from medtune.types import Settings

class Sleeper(Settings):
    name: Literal["sleeper"] = "sleeper"

    def __call__(self, image):
        time.sleep(600)

    def map_box(self, box, width, height):
        return box
"""


def test_an_interrupt_does_not_wait_for_a_slow_picture(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sleeping.py").write_text(SLEEPS)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    asked = time.monotonic()

    def interrupted(*_: Any) -> None:
        nonlocal asked
        if time.monotonic() - asked > 4:
            asked = time.monotonic()
            raise KeyboardInterrupt

    chosen = settings(rad, transforms=[{"transform": "sleeping:Sleeper"}])
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        prepare(chosen, name="x", folder=tmp_path / "out", listener=interrupted)
    assert time.monotonic() - asked < 20, "data.limits.seconds is 60"
    assert threading.active_count() == before
    assert not work_folder(tmp_path / "out").exists()
