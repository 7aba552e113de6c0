"""A child process that works on files nobody vouches for.

Decoders are native code that fails in native ways: python-gdcm aborts the whole process on a mutated JPEG-Lossless file, a
header of a few bytes asks for gigabytes, a loop never ends. What works on such a file runs here, under a cap on its memory and
a limit on its silence; when it dies, the caller gets a :class:`ChildDiedError` and the next call a fresh process.

Arguments travel to the child as a pickle. Replies come back as JSON and plain bytes only: a child that a file has taken over
must not be able to name code for its parent to run. A reply that is too large or none at all counts as a crash.

On Linux the cap is ``RLIMIT_AS`` (setrlimit(2)): address space, which is more than the memory in use. macOS accepts and ignores
it; there the limits on the file's header are the only ones.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import inspect
import json
import os
import pickle
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from string import Formatter
from typing import Any, BinaryIO, Literal

from medtune import errors
from medtune.errors import MedtuneError
from medtune.language import Field, Text, msg

__all__ = ["DEFAULT_MAX_MEMORY", "Child", "ChildDiedError", "Death", "borrow"]

DEFAULT_MAX_MEMORY = 4 * 1024**3
"""Bytes of address space. Python, numpy, Pillow and pyarrow take about 1 GiB of it before the first file."""

Death = Literal["crash", "timeout", "memory"]

_HEAD = struct.Struct("<cQI")
"""Kind of a frame (value, error, failure, end), bytes of its JSON text, number of blobs. Each blob: length as ``<Q``, bytes."""
_LENGTH = struct.Struct("<Q")

_JSON_SHARE = 32
"""The JSON text of a reply has at most this share of the memory cap: ``[[],[],...`` takes twenty times its length when read."""


class ChildDiedError(MedtuneError):
    """The child process ended, fell silent or ran out of memory while it worked. ``death`` says which."""

    def __init__(self, death: Death, what: Text) -> None:
        super().__init__(what)
        self.death = death


def in_child() -> bool:
    """Whether this process is such a child: what may end it costs its parent one call."""
    specification = getattr(sys.modules.get("__main__"), "__spec__", None)
    return specification is not None and specification.name == "medtune.imaging.child"


class Child:
    """Runs functions of installed modules in a process of their own, one at a time. Started by the first call; use as a context.

    Args:
        max_memory: Bytes of address space that the process may have.
        seconds: The longest it may go without a reply before it is ended.
    """

    def __init__(self, *, max_memory: int = DEFAULT_MAX_MEMORY, seconds: float = 60.0) -> None:
        self.max_memory = max_memory
        self.seconds = seconds
        self.may_be_silent: Callable[[], bool] | None = None
        """Asked when ``seconds`` are over: True gives it as many again."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def call(self, function: str, *arguments: Any) -> Any:
        """The one value that ``function`` returns; see :meth:`run`."""
        (value,) = self.run(function, *arguments)
        return value

    def run(self, function: str, *arguments: Any) -> Generator[Any, None, None]:
        """What ``function`` (``package.module:name``) yields, or the one value that it returns.

        Values are JSON-like: None, bool, numbers, text, bytes, lists (tuples arrive as lists) and dicts with text keys.

        Raises:
            MedtuneError: Raised by the function; it arrives with its fields.
            ChildDiedError: The process crashed, was silent for too long, or ran out of memory.
            RuntimeError: Any other exception of the function: a defect. The message is its traceback.
        """
        process = self._started()
        assert process.stdin is not None
        try:
            self._send(process.stdin, pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL))
        except OSError:
            raise self._dead() from None
        finished = False
        try:
            while True:
                kind, value = self._receive(process)
                if kind == b"V":
                    yield value
                    continue
                finished = True
                if kind == b"E":
                    raise value
                if kind == b"M":
                    raise ChildDiedError("memory", msg("It needs more memory than the {limit} MiB allowed.", limit=self._mebibytes))
                if kind == b"F":
                    raise RuntimeError(f"in a child process:\n{value}")
                return
        finally:
            if not finished:  # the caller stopped listening, or the process died: what it still sends belongs to nobody
                self.close()

    def kill(self) -> None:
        """End the process from another thread: the one that waits for its reply gets a :class:`ChildDiedError`."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    @property
    def _mebibytes(self) -> int:
        return self.max_memory // 1024**2

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            # Not multiprocessing: its spawn runs the caller's main module again, its fork copies threads that hold locks.
            environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "medtune.imaging.child", str(self.max_memory), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # decoders write file contents there, which may name a patient
                env=environment,
                bufsize=0,
            )
        return self._process

    def _send(self, pipe: Any, content: bytes) -> None:
        view = memoryview(_LENGTH.pack(len(content)) + content)
        while view:
            view = view[pipe.write(view) :]

    def _receive(self, process: subprocess.Popen[bytes]) -> tuple[bytes, Any]:
        deadline = time.monotonic() + self.seconds
        kind, length, blobs = _HEAD.unpack(self._read(process, _HEAD.size, deadline))
        if length > self.max_memory // _JSON_SHARE:
            raise self._no_reply()
        text = self._read(process, length, deadline)
        left = self.max_memory
        contents = []
        for _ in range(blobs):
            (size,) = _LENGTH.unpack(self._read(process, _LENGTH.size, deadline))
            left -= size
            if left < 0:
                raise self._no_reply()
            contents.append(self._read(process, size, deadline))
        try:
            value: Any = json.loads(text) if text else None
            value = _with_bytes(value, contents) if contents else value
            return kind, _error(value) if kind == b"E" else value
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise self._no_reply() from error

    def _read(self, process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
        assert process.stdout is not None
        parts = bytearray()
        while len(parts) < size:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready and self.may_be_silent is not None and self.may_be_silent():
                deadline = time.monotonic() + self.seconds
                continue
            if not ready:
                self.close()
                raise ChildDiedError("timeout", msg("It was still at work after {seconds} seconds.", seconds=f"{self.seconds:g}"))
            part = os.read(process.stdout.fileno(), min(size - len(parts), 1 << 20))
            if not part:
                raise self._dead()
            parts += part
        return bytes(parts)

    def _no_reply(self) -> ChildDiedError:
        self.close()
        return ChildDiedError("crash", msg("The decoder's process answered with something that is no reply."))

    def _dead(self) -> ChildDiedError:
        process = self._process
        code: int | None = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(5)
        self.close()
        name = signal.Signals(-code).name if code is not None and -code in signal.valid_signals() else str(code)
        return ChildDiedError("crash", msg("The decoder ended its process ({signal}).", signal=name))


_IDLE: list[tuple[tuple[object, ...], Child]] = []
_IDLE_LOCK = threading.Lock()
_MAX_IDLE = 8


@contextlib.contextmanager
def borrow(*, max_memory: int = DEFAULT_MAX_MEMORY, seconds: float = 60.0) -> Iterator[Child]:
    """A child that is kept for the next borrower: starting one takes about half a second. Ended when this process ends."""
    # What a process takes from its parent when it starts must still be so.
    key = (max_memory, os.getpid(), os.getcwd(), tuple(sys.path), tempfile.gettempdir())
    with _IDLE_LOCK:
        place = next((place for place, (known, _) in enumerate(_IDLE) if known == key), None)
        child = Child(max_memory=max_memory, seconds=seconds) if place is None else _IDLE.pop(place)[1]
    child.seconds = seconds
    try:
        yield child
    finally:
        child.may_be_silent = None
        with _IDLE_LOCK:
            _IDLE.append((key, child))
            last = _IDLE.pop(0)[1] if len(_IDLE) > _MAX_IDLE else None
        if last is not None:
            last.close()


@atexit.register
def _close_idle() -> None:
    while _IDLE:
        _IDLE.pop()[1].close()


_ENVIRONMENT = {
    # One thread for each process: the caller has as many processes as it wants cores.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    # mimalloc and jemalloc reserve gigabytes of address space, which the cap counts.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
}


def _error(fields: dict[str, Any]) -> MedtuneError:
    kind = getattr(errors, str(fields["kind"]), MedtuneError)
    error: MedtuneError = MedtuneError.__new__(kind if isinstance(kind, type) and issubclass(kind, MedtuneError) else MedtuneError)
    MedtuneError.__init__(
        error,
        _text(fields["what"]),
        file=fields["file"],
        sample=fields["sample"],
        key=fields["key"],
        remedy=None if fields["remedy"] is None else _text(fields["remedy"]),
    )
    if isinstance(error, errors.RecipeError):
        error.faults = tuple((str(key), _text(fault)) for key, fault in fields["faults"])
    return error


def _text(packed: dict[str, Any]) -> Text:
    template, fields = packed["template"], packed["fields"]
    for _, name, specification, _ in Formatter().parse(template):
        # str.format follows attributes ({x.__class__}) and pads to any width ({x:>999999999}).
        if name is not None and not (name.isidentifier() and name in fields):
            raise ValueError(name)
        if re.search(r"[{}]|\d{4}", specification or ""):
            raise ValueError(specification)
    return Text(template, {name: _field(value) for name, value in fields.items()})


def _field(value: Any) -> Field:
    if isinstance(value, dict):
        return _text(value)
    if not isinstance(value, (str, int, float)):
        raise TypeError(type(value))
    return value


def _with_bytes(value: Any, blobs: list[bytes]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"\0blob"}:
            return blobs[value["\0blob"]]
        return {key: _with_bytes(entry, blobs) for key, entry in value.items()}
    return [_with_bytes(entry, blobs) for entry in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------------- inside the child


def _without_bytes(value: Any, blobs: list[bytes]) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        blobs.append(bytes(value))
        return {"\0blob": len(blobs) - 1}
    if isinstance(value, dict):
        return {key: _without_bytes(entry, blobs) for key, entry in value.items()}
    return [_without_bytes(entry, blobs) for entry in value] if isinstance(value, (list, tuple)) else value


def _packed(text: Text) -> dict[str, Any]:
    fields = {name: _packed(value) if isinstance(value, Text) else value for name, value in text.fields.items()}
    return {"template": text.template, "fields": fields}


def _reply(pipe: BinaryIO, kind: bytes, value: Any = None) -> None:
    blobs: list[bytes] = []
    text = b"" if kind == b"." else json.dumps(_without_bytes(value, blobs), ensure_ascii=False).encode("utf-8", "surrogatepass")
    pipe.write(_HEAD.pack(kind, len(text), len(blobs)) + text)
    for blob in blobs:
        pipe.write(_LENGTH.pack(len(blob)))
        pipe.write(blob)
    pipe.flush()


def _work(pipe: BinaryIO, function: str, arguments: tuple[Any, ...]) -> None:
    try:
        module, _, name = function.partition(":")
        made = getattr(importlib.import_module(module), name)(*arguments)
        for value in made if inspect.isgenerator(made) else (made,):
            _reply(pipe, b"V", value)
    except MemoryError:
        _reply(pipe, b"M")
    except MedtuneError as error:
        remedy = None if error.remedy is None else _packed(error.remedy)
        fields = {"what": _packed(error.what), "file": error.file, "sample": error.sample, "key": error.key, "remedy": remedy}
        faults = [(key, _packed(fault)) for key, fault in getattr(error, "faults", ())]
        _reply(pipe, b"E", {"kind": type(error).__name__, "faults": faults, **fields})
    except BaseException:  # pylibjpeg-rle panics with an exception that is no Exception
        _reply(pipe, b"F", traceback.format_exc())
    else:
        _reply(pipe, b".")


def _die_with(parent: int) -> None:
    """End this process when its parent is gone: a killed parent cannot end it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _main(max_memory: int, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what becomes of this one
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (max_memory, max_memory))
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    # What a decoder prints must not get between the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    commands = sys.stdin.buffer
    while len(head := commands.read(_LENGTH.size)) == _LENGTH.size:
        function, arguments = pickle.loads(commands.read(_LENGTH.unpack(head)[0]))
        _work(replies, function, arguments)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
