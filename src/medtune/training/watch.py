"""Which worker process died, and why: notes that every worker keeps in the run folder while it lives.

A launcher that ends all processes when one dies leaves many corpses. The notes tell the first from those that followed: a worker
writes its process id when it starts, and how it ended when it could; the launcher looks whether the processes still live.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.errors import MedtuneError, TrainingError
from medtune.language import Text, msg
from medtune.runs import atomic_write

__all__ = ["NOTES", "Watch", "log_file", "note_crash", "note_end", "note_start", "text_from_json", "text_to_json"]

NOTES = ".workers"
"""Folder in the run folder; gone when the workers have ended."""


def log_file(rank: int) -> str:
    """The file in the run folder that worker ``rank`` prints into. The first shares its file with the launcher."""
    return "worker.log" if rank == 0 else f"worker-{rank}.log"


def note_start(folder: Path, rank: int) -> None:
    """Say that this process is worker ``rank``."""
    _write(folder, rank, {"pid": os.getpid()})


def note_end(folder: Path, rank: int, error: MedtuneError | None = None) -> None:
    """Say that this worker ended by itself: well, or with an error that it told."""
    fields: dict[str, Any] = {"pid": os.getpid(), "ended": True}
    if error is not None:
        fields["error"] = {
            "what": text_to_json(error.what),
            "sample": error.sample,
            "key": error.key,
            "remedy": None if error.remedy is None else text_to_json(error.remedy),
        }
    with contextlib.suppress(OSError):  # the folder is gone when the launcher has given up already
        _write(folder, rank, fields)


def note_crash(folder: Path, rank: int) -> None:
    """Say that an exception ends this worker. One that waits for a worker that was killed ends so too, and may be found first."""
    with contextlib.suppress(OSError):
        _write(folder, rank, {"pid": os.getpid(), "crashed": time.time()})


def _write(folder: Path, rank: int, fields: dict[str, Any]) -> None:
    (folder / NOTES).mkdir(exist_ok=True)
    atomic_write(folder / NOTES / f"{rank}.json", json.dumps(fields) + "\n")


@dataclass(frozen=True, slots=True)
class _Note:
    rank: int
    pid: int
    ended: bool
    error: dict[str, Any] | None
    crashed: float


class Watch:
    """Looks after the workers of a run on this machine.

    Attributes:
        lost: Rank of the first worker that was found dead without having said why; None while there is none.
        failed: Rank of the first that was found to have ended with an error of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lost: int | None = None
        self.failed: int | None = None
        self.forget()

    def look(self) -> bool:
        """Whether a worker has died or failed, now or before."""
        if self.lost is None and self.failed is None:
            notes = self._notes()
            self.failed = next((note.rank for note in notes if note.error is not None), None)
            dead = [note for note in notes if not note.ended and not _lives(note.pid)]
            if self.failed is None and dead:
                # Who was killed could say nothing: 0, before all that crashed.
                self.lost = min(dead, key=lambda note: note.crashed).rank
        return self.lost is not None or self.failed is not None

    def error(self) -> TrainingError | None:
        """What to tell the user of it."""
        if self.failed is not None:
            note = next((note for note in self._notes() if note.rank == self.failed), None)
            if note is not None and note.error is not None:
                remedy = note.error["remedy"]
                return TrainingError(
                    text_from_json(note.error["what"]),
                    file=self._folder / log_file(self.failed),
                    sample=note.error["sample"],
                    key=note.error["key"],
                    remedy=None if remedy is None else text_from_json(remedy),
                )
        if self.lost is not None:
            return TrainingError(
                msg("Worker process {rank} died, and the others were ended.", rank=self.lost),
                file=self._folder / log_file(self.lost),
                remedy=msg(
                    "The end of this file may say why (out of main memory leaves no trace in it, but in `dmesg`). "
                    "`medtune train {folder} --resume` goes on from the last checkpoint.",
                    folder=self._folder,
                ),
            )
        return None

    def end_all(self) -> None:
        """Kill the workers that still live: each is in a session of its own, so they outlive the launcher's."""
        for note in self._notes():
            if _lives(note.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(note.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Take the notes away, and the logs that nothing was written into."""
        shutil.rmtree(self._folder / NOTES, ignore_errors=True)
        for path in self._folder.glob("worker-*.log"):
            if path.stat().st_size == 0:
                path.unlink(missing_ok=True)

    def _notes(self) -> list[_Note]:
        found = []
        for path in sorted((self._folder / NOTES).glob("*.json"), key=lambda path: int(path.stem)):
            with contextlib.suppress(OSError, ValueError, KeyError):
                fields = json.loads(path.read_text(encoding="utf-8"))
                crashed = float(fields.get("crashed", 0))
                found.append(_Note(int(path.stem), int(fields["pid"]), bool(fields.get("ended")), fields.get("error"), crashed))
        return found


def text_to_json(text: Text) -> list[Any]:
    """A sentence, still translatable, as JSON."""
    # A field may be a sentence itself; no other field is a list.
    fields = {name: text_to_json(value) if isinstance(value, Text) else value for name, value in text.fields.items()}
    return [text.template, fields]


def text_from_json(text: list[Any]) -> Text:
    """The sentence that :func:`text_to_json` wrote."""
    template, fields = text
    return Text(template, {name: text_from_json(value) if isinstance(value, list) else value for name, value in fields.items()})


def _lives(pid: int) -> bool:
    """A process that has ended, but whose parent has not asked how, counts as dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
        return False
    except (OSError, IndexError):
        return True
    return state not in ("Z", "X")
