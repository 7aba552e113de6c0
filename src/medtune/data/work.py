"""The folder in which a data set is made: ``.<name>.preparing`` beside where it will stand.

::

    .<name>.preparing/
      lock         held while a process works here
      plan.json    settings and version that the finished shards were made with; without it nothing here is of use
      shards/      see medtune.data.shard
      out/         the data set as far as it is
      old/         for a moment: the data set that the new one replaces

The folder is removed when the data set stands. It stays when there are finished shards to go on with.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from medtune.data.pictures import TEMPORARY
from medtune.errors import RunError, system_reason
from medtune.language import Text, msg

__all__ = ["begin", "discard", "hold", "is_of_use", "move", "work_folder"]


def work_folder(folder: Path) -> Path:
    """Where the finished shards of a data set lie until it is whole."""
    return folder.parent / f".{folder.name}.preparing"


def is_of_use(work: Path) -> bool:
    """Whether a preparation can go on with what lies here."""
    return (work / "plan.json").is_file() and any(work.glob("shards/*/summary.json"))


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Path]:
    """The work folder of a data set, for this process alone. Removed at the end, unless it is of use.

    A data set that a killed process had put aside is back in its place when the block begins.

    Raises:
        RunError: Another process works there, or nothing can be written there (also when the block raised an OSError).
    """
    work = work_folder(folder)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise _not_writable(
            error, folder, msg("Check the path, who may write there, and the free space; or name another place.")
        ) from error
    try:
        _lock(lock, work, folder)
        if (work / "old").is_dir() and not folder.exists():
            os.replace(work / "old", folder)
        try:
            yield work
        finally:
            if not is_of_use(work):
                discard(work)
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise _not_writable(
            error,
            error.filename or folder,
            msg("Check the path, who may write there, and the free space; then go on with the same command."),
        ) from error
    finally:
        os.close(lock)


def _not_writable(error: OSError, file: Path | str, remedy: Text) -> RunError:
    return RunError(msg("Nothing can be written here: {error}", error=str(system_reason(error))), file=file, remedy=remedy)


def _lock(lock: int, work: Path, folder: Path) -> None:
    taken = RunError(
        msg("Another process is preparing this data set."), file=folder, remedy=msg("Wait until it is done, or end it.")
    )
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise taken from None
    except OSError:
        return  # a file system without locks: Lustre mounted without -o flock (ENOSYS), NFS without lockd (ENOLCK)
    # Who held it may have removed the folder between our opening the file and our turn: then the lock is on nothing.
    try:
        same = os.path.samestat(os.fstat(lock), os.stat(work / "lock"))
    except FileNotFoundError:
        same = False
    if not same:
        raise taken


def begin(work: Path, plan: str) -> None:
    """Make ready to work after ``plan``: what was finished after another plan goes, what was finished after this one stays."""
    file = work / "plan.json"
    if not file.is_file() or file.read_text(encoding="utf-8") != plan:
        discard(work)
        for name in ("shards", "out", "old", "keys"):
            shutil.rmtree(work / name, ignore_errors=True)
        (work / "plan.writing").write_text(plan, encoding="utf-8")
        os.replace(work / "plan.writing", file)
    for left in (work / "out").glob(f"images/*/{TEMPORARY}*"):
        left.unlink()


def discard(work: Path) -> None:
    """Declare that nothing here is of use any more. Comes before anything is taken away: half of it would look like all of it."""
    (work / "plan.json").unlink(missing_ok=True)


def move(work: Path, folder: Path) -> None:
    """``out`` becomes the data set ``folder``. An older one is there until the new one is, also when the process is killed.

    Where the system cannot exchange two folders in one step, the older one is put aside first, and :func:`hold` puts it back if
    it comes to that.
    """
    # From here on the finished shards lack their pictures.
    discard(work)
    made, old = work / "out", work / "old"
    if not folder.exists():
        os.replace(made, folder)
    elif not _exchange(made, folder):
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        try:
            os.replace(made, folder)
        except BaseException:
            os.replace(old, folder)
            raise


_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step (renameat2(2), Linux); False where system or file system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # macOS, an old C library, Windows
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
