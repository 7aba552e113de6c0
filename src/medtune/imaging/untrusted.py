"""Pictures that arrive while the program runs (chat, server): nobody vouches for them, so none is decoded in this process.

One child process, started by the first picture and kept, decodes them one at a time under the limits' cap on memory and time. A
decoder that aborts (python-gdcm, on a mutated JPEG-Lossless file), panics, loops or asks for gigabytes costs that one picture an
error; the next picture gets a new process. What comes back are pixels, whose number is checked against the size.

A data set's stored pictures are read without it: ``prepare`` has decoded each of them once, in a child, and stored an upright
8-bit JPEG or PNG whose sha256 is in ``images.jsonl``. Training reads them many times, and a copy through a pipe for each would
cost more than the decoding.
"""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

from medtune.errors import MedtuneError, UnreadableImageError
from medtune.imaging.child import Child, ChildDiedError, Death
from medtune.imaging.config import Limits
from medtune.language import Text, msg
from medtune.types import View

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DecoderDiedError", "open_untrusted"]

_DECODE = "medtune.imaging.untrusted:decode"


class DecoderDiedError(UnreadableImageError):
    """The picture ended the process that decoded it, or was ended there. ``reason`` is stable."""

    def __init__(self, reason: Literal["decoder-crash", "decoder-timeout", "decoder-memory"], what: Text, *, file: str) -> None:
        super().__init__(what, file=file, remedy=_remedy(reason))
        self.reason = reason


def open_untrusted(picture: Path | bytes, *, name: str = "", view: View | None = None, limits: Limits | None = None) -> Image:
    """Decode a picture in a child process: upright, RGB, 8 bits a channel, as :func:`~medtune.imaging.read.open_picture` does.

    May be called from several threads, which wait for one another.

    Args:
        picture: A file, or the bytes of one.
        name: How messages call it; the file's path when empty.
        view: Of a DICOM or NIfTI file: which part, through which windows.
        limits: ``max_memory`` and ``seconds`` are the child's.

    Raises:
        DecoderDiedError: The child crashed, was silent for too long, or needed too much memory.
        UnreadableImageError: Missing, damaged, not a picture of a known format, or beyond a limit.
    """
    from PIL import Image

    limits = limits or Limits()
    called = name or (str(picture) if isinstance(picture, Path) else "<bytes>")
    if isinstance(picture, Path):
        picture = picture.absolute()  # the child keeps the folder that it was started in
    try:
        with _lock:
            decoded = _child(limits).call(_DECODE, picture, called, view, limits)
    except ChildDiedError as error:
        raise DecoderDiedError(_REASONS[error.death], error.what, file=called) from error
    # The child is not believed: a file may have taken it over.
    match decoded:
        case [int(width), int(height), bytes(pixels)] if width > 0 < height and len(pixels) == 3 * width * height:
            return Image.frombytes("RGB", (width, height), pixels)
        case _:
            raise DecoderDiedError("decoder-crash", msg("The decoder answered with something that is no picture."), file=called)


def decode(picture: Path | bytes, called: str, view: View | None, limits: Limits) -> tuple[int, int, bytes]:
    """(width, height, RGB pixels in rows from the top). Runs in the child.

    Raises:
        UnreadableImageError: As :func:`open_untrusted`.
    """
    from medtune.imaging.read import open_picture

    try:
        image = open_picture(picture, name=called, view=view, limits=limits)
        return image.width, image.height, image.tobytes()
    except (MedtuneError, MemoryError):
        raise
    except BaseException as error:  # pylibjpeg's Rust decoders panic with an exception that is no Exception
        raise UnreadableImageError(
            msg("The picture is damaged or cut short: {error}", error=(str(error) or type(error).__name__).splitlines()[0]),
            file=called,
            remedy=msg("Fetch the file again from where it came, or leave the sample out."),
        ) from error


_REASONS: dict[Death, Literal["decoder-crash", "decoder-timeout", "decoder-memory"]] = {
    "crash": "decoder-crash",
    "timeout": "decoder-timeout",
    "memory": "decoder-memory",
}


def _remedy(reason: Literal["decoder-crash", "decoder-timeout", "decoder-memory"]) -> Text:
    match reason:
        case "decoder-crash":
            return msg("Fetch the file again from where it came, or leave the sample out.")
        case "decoder-timeout":
            return msg("Make the picture smaller, or raise data.limits.{field}.", field="seconds")
        case "decoder-memory":
            return msg("Make the picture smaller, or raise data.limits.{field}.", field="max_memory")
        case _:
            assert_never(reason)


# ------------------------------------------------------------------------------------------------------------ the one child

_lock = threading.Lock()
_kept: Child | None = None


def _child(limits: Limits) -> Child:
    """The child under these limits; one under others is ended. The caller holds the lock."""
    global _kept
    max_memory = limits.max_memory * 1024**2
    if _kept is not None and (_kept.max_memory, _kept.seconds) != (max_memory, limits.seconds):
        _kept.close()
        _kept = None
    if _kept is None:
        _kept = Child(max_memory=max_memory, seconds=limits.seconds)
    return _kept


def _end() -> None:
    if _kept is not None:
        _kept.close()


def _after_fork() -> None:
    """A forked process has the pipes too: two readers of one pipe would get each other's pictures. It starts a child of its own."""
    global _lock, _kept
    _lock, _kept = threading.Lock(), None


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
