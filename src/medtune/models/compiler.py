"""Whether ``torch.compile`` can work here. Imports nothing heavy.

On a GPU it writes Triton kernels, and Triton builds the C code that starts them on the machine itself: with the compiler that the
environment variable ``CC`` names, else gcc or clang (``triton/runtime/build.py``), and with the headers of Python.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from medtune.language import Text, msg

__all__ = ["Missing", "c_compiler", "missing_for_compiling"]


@dataclass(frozen=True, slots=True)
class Missing:
    """Attributes:
    what: Is not here.
    remedy: How it comes here.
    """

    what: Text
    remedy: Text


def c_compiler() -> str | None:
    """The C compiler that Triton will call, or None."""
    named = os.environ.get("CC")
    candidates = [shlex.split(named)[0]] if named and named.strip() else ["gcc", "clang"]
    return next((found for found in map(shutil.which, candidates) if found is not None), None)


def missing_for_compiling() -> Missing | None:
    """The first thing that ``torch.compile`` lacks on a machine with a GPU, or None when it can work."""
    if importlib.util.find_spec("triton") is None:
        return Missing(
            msg("the package triton is not installed"),
            msg("Install the build of torch for your GPU, which brings triton (https://pytorch.org/get-started/locally)."),
        )
    if c_compiler() is None:
        return Missing(
            msg("there is no C compiler"), msg("Install gcc (Debian, Ubuntu: apt install gcc), or name a compiler in CC.")
        )
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not headers.is_file():
        return Missing(
            msg("{file} is missing", file=headers), msg("Install Python's headers (Debian, Ubuntu: apt install python3-dev).")
        )
    return None
