"""``python -m medtune.training.worker RUN_DIR``: one process of a training run on several devices.

Started by :func:`medtune.training.launch.launch`, which has written ``job.json`` into the run folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from medtune.errors import MedtuneError
from medtune.runs import Run
from medtune.training.job import read_job, run_job
from medtune.training.launch import EVENTS_FILE, event_line
from medtune.training.watch import log_file, note_crash, note_end, note_start
from medtune.types import Event

__all__ = ["main"]

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""


def main(arguments: list[str]) -> int:
    """Exit status: 0 trained, 2 a fault that the user can put right (told on stderr), 130 interrupted."""
    if len(arguments) != 1:
        print("usage: python -m medtune.training.worker RUN_DIR", file=sys.stderr)
        return 2
    run = Run(Path(arguments[0]))
    rank = int(os.environ.get("RANK", "0"))
    started = False

    def forward(event: Event) -> None:
        with (run.folder / EVENTS_FILE).open("a", encoding="utf-8") as file:
            file.write(event_line(event))

    try:
        run = Run.open(run.folder)
        job = read_job(run)
        if rank:
            _print_into(run.folder / log_file(rank))
        note_start(run.folder, rank)
        started = True
        run_job(run, job, listener=forward if rank == 0 else None)
    except MedtuneError as error:
        print(error.render(), file=sys.stderr)
        if started:
            note_end(run.folder, rank, error)
        return 2
    except KeyboardInterrupt:
        note_end(run.folder, rank)
        return INTERRUPTED
    except BaseException:
        note_crash(run.folder, rank)
        raise
    note_end(run.folder, rank)
    return 0


def _print_into(path: Path) -> None:
    """A file for each worker: in one file, lines of several processes would not tell whose they are."""
    with path.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
