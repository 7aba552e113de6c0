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

    def forward(event: Event) -> None:
        with (run.folder / EVENTS_FILE).open("a", encoding="utf-8") as file:
            file.write(event_line(event))

    try:
        run = Run.open(run.folder)
        run_job(run, read_job(run), listener=forward if os.environ.get("RANK", "0") == "0" else None)
    except MedtuneError as error:
        print(error.render(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
