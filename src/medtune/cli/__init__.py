"""The command line: each command parses, calls one verb of :mod:`medtune.api`, and renders what it returns.

The language is chosen before the commands are imported, because their help texts are rendered at import.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit.

    Exit codes: 0 done; 1 ``validate`` or ``doctor`` found errors; 2 a fault that the user can put right, said in one
    message on standard error; 130 ended with Ctrl-C.
    """
    chosen, rest = _take_language(list(sys.argv[1:] if arguments is None else arguments))
    if chosen is not None:
        os.environ["MEDTUNE_LANG"] = chosen
    if not sys.warnoptions:
        # Libraries announce their own renamings; `python -W default -m medtune` shows them.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
    from medtune.cli.app import app
    from medtune.errors import MedtuneError

    try:
        app(args=rest, prog_name="medtune")
    except MedtuneError as error:
        sys.stderr.write(f"{error.render()}\n")
        sys.exit(2)


def _take_language(arguments: list[str]) -> tuple[str | None, list[str]]:
    """``--lang en|zh`` wherever it stands, and the arguments without it. Anything else after ``--lang`` is left to be refused."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for index, argument in enumerate(arguments[:end]):
        if argument in ("--lang=en", "--lang=zh"):
            return argument.removeprefix("--lang="), arguments[:index] + arguments[index + 1 :]
        if argument == "--lang" and arguments[index + 1 : index + 2] in (["en"], ["zh"]):
            return arguments[index + 1], arguments[:index] + arguments[index + 2 :]
    return None, arguments
