"""Lines of a file by where they begin."""

from __future__ import annotations

import os
import threading
from pathlib import Path

__all__ = ["LineFile"]

_PIECE = 4096
"""Bytes that are read first: most lines of rows and pictures are shorter. Then twice as many each time, so that a line of many
megabytes is not copied thousands of times."""


class LineFile:
    """Reads single lines of a file that stays open from the first one on. For several threads; can be sent to other processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def line_at(self, offset: int) -> bytes:
        """The line that begins at ``offset``, without its end.

        Raises:
            OSError: The file cannot be opened or read.
        """
        with self._lock:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        line = b""
        while b"\n" not in line:
            more = self._read(self._descriptor, max(_PIECE, 2 * len(line)), offset + len(line))
            if not more:
                break
            line += more
        return line.partition(b"\n")[0]

    def _read(self, descriptor: int, count: int, offset: int) -> bytes:
        # pread: a forked process shares the descriptor, and would share a position. Windows has neither of the two.
        if hasattr(os, "pread"):
            return os.pread(descriptor, count, offset)
        with self._lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, count)

    def __reduce__(self) -> tuple[type[LineFile], tuple[Path]]:
        return LineFile, (self.path,)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]
