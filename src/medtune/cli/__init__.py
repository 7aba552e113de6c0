"""The command line: each command parses, calls one verb of :mod:`medtune.api`, and renders what it returns.

The language is chosen before the commands are imported, because their help texts are rendered at import.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

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
    # PEFT imports it wherever it is installed; on some CPUs it then misses a package that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from typer import Abort

    from medtune.cli.app import app
    from medtune.cli.usage import usage_fault
    from medtune.errors import MedtuneError
    from medtune.language import msg

    try:
        # Not standalone: click would say usage faults in English, and end Ctrl-C with a word of its own.
        code = app(args=rest, prog_name="medtune", standalone_mode=False)
    except MedtuneError as error:
        _end(error.render(), 2)
    except (KeyboardInterrupt, Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone (`medtune ... | head`): nobody is left to be told, not even by the flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        _end(_refused(error), 2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # none of click's usage errors: a defect
            raise
        _end(usage_fault(error), 2)
    if code == _INTERRUPTED:
        _end(str(msg("Interrupted.")), code)
    sys.exit(code)


_INTERRUPTED = 130
"""128 + SIGINT, as shells have it. typer returns it; older ones raise Abort."""


def _end(words: str, code: int) -> NoReturn:
    sys.stderr.write(f"{words}\n")
    sys.exit(code)


_REFUSED = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOTDIR, errno.ENAMETOOLONG}
)
"""What the file system says when the fault is the place's, not the program's."""


def _refused(error: OSError) -> str:
    from medtune.errors import MedtuneError, system_reason
    from medtune.language import msg

    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = msg("Free some space, or name another place.") if full else msg("Check the path and who may write there.")
    what = msg("The file system refuses: {error}", error=str(system_reason(error)))
    return MedtuneError(what, file=error.filename, remedy=remedy).render()


def _take_language(arguments: list[str]) -> tuple[str | None, list[str]]:
    """``--lang en|zh`` wherever it stands, and the arguments without it. Anything else after ``--lang`` is left to be refused."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for index, argument in enumerate(arguments[:end]):
        if argument in ("--lang=en", "--lang=zh"):
            return argument.removeprefix("--lang="), arguments[:index] + arguments[index + 1 :]
        if argument == "--lang" and arguments[index + 1 : index + 2] in (["en"], ["zh"]):
            return arguments[index + 1], arguments[:index] + arguments[index + 2 :]
    return None, arguments
