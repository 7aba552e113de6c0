"""A folder that the user names for what is found out once about large files and used by every process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from medtune.data.sources.rows import file_state

__all__ = ["Fingerprint", "alone", "fingerprint"]

Fingerprint = list[list[str | int]]
"""Name, bytes and time of change (ns) of each file."""


def fingerprint(files: Sequence[Path]) -> Fingerprint:
    """Tells files that changed since something was found out about them. Reads no contents."""
    return [list(file_state(file)) for file in files]


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Until the block ends, other processes that ask for the same folder wait."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
