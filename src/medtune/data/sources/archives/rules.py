"""What every archive keeps to: limits, names that stay in the folder, and how a refusal is put."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO

from pydantic import Field

from medtune.errors import DataError
from medtune.language import Text, msg
from medtune.types import Fault, Settings

__all__ = [
    "ArchiveError",
    "ArchiveLimits",
    "ArchiveMember",
    "beyond",
    "check_count",
    "check_total",
    "damaged",
    "misnamed",
    "not_plain",
    "one_line",
    "opened",
    "plain_name",
    "refused",
    "too_large",
    "truncated",
]

_RATIO_GRACE = 16 * 1024 * 1024
"""Bytes that may unfold before the ratio is judged: a small archive of texts is allowed to be dense."""
_DRIVE = re.compile(r"[A-Za-z]:")


class ArchiveLimits(Settings):
    """What an archive may unfold to."""

    max_total_bytes: Annotated[int, Field(gt=0)] = 1024**4
    """All members together, unpacked."""
    max_members: Annotated[int, Field(gt=0)] = 10_000_000
    """Members, folders and refused ones included."""
    max_member_bytes: Annotated[int, Field(gt=0)] = 256 * 1024 * 1024
    """One member, unpacked; it is held in memory. The default is that of a picture file (`data.limits.max_bytes`)."""
    max_ratio: Annotated[float, Field(ge=1.0)] = 200.0
    """Unpacked over packed bytes. JPEG and PNG are near 1, texts below 30; DEFLATE cannot exceed 1,032."""


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A plain file of an archive: its POSIX name without a leading ``./``, and its bytes; or why it is refused (then no bytes)."""

    name: str
    data: bytes = b""
    fault: Fault | None = None


class ArchiveError(DataError):
    """An archive is damaged, cut short or beyond a limit. ``reason`` is ``archive-damaged``, ``archive-truncated``,
    ``archive-limit`` or ``archive-refused``."""

    def __init__(self, reason: str, what: Text, *, file: str, remedy: Text) -> None:
        super().__init__(what, file=file, remedy=remedy)
        self.reason = reason


def misnamed(archive: str, name: str) -> ArchiveMember | None:
    path = PurePosixPath(name)
    if not path.parts or path == PurePosixPath("."):
        what = msg("The member has no name.")
    elif name.startswith("/") or "\\" in name or ".." in path.parts or _DRIVE.match(name):
        what = msg("The member's name leaves the folder of the archive.")
    elif any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
        what = msg("The member's name is not UTF-8 text, or has control characters.")
    elif len(name.encode()) > 1024 or any(len(part.encode()) > 255 for part in path.parts):
        what = msg("The member's name is too long.")
    else:
        return None
    return refused(archive, name, what)


def refused(archive: str, name: str, what: Text) -> ArchiveMember:
    # A name that is refused may hold what no terminal and no UTF-8 file takes.
    shown = name[:200] if name.isprintable() else name[:200].encode("unicode_escape").decode()
    remedy = msg("Use an archive from its publisher, or make it again from plain files.")
    return ArchiveMember(shown, fault=Fault("archive-member", what, remedy, f"{archive}:{shown}"))


def not_plain(archive: str, name: str) -> ArchiveMember:
    return refused(archive, name, msg("The member is no plain file but a link, a device or of an unknown kind."))


def too_large(archive: str, name: str, limits: ArchiveLimits) -> ArchiveMember:
    return refused(archive, name, msg("The member has more than {limit} bytes.", limit=limits.max_member_bytes))


def plain_name(name: str) -> str:
    return PurePosixPath(name).as_posix()


def check_count(count: int, called: str, limits: ArchiveLimits) -> None:
    if count > limits.max_members:
        raise beyond(called, msg("The archive has more than {limit} members.", limit=limits.max_members))


def check_total(total: int, packed: int, called: str, limits: ArchiveLimits) -> None:
    if total > limits.max_total_bytes:
        raise beyond(called, msg("The archive unfolds to more than {limit} bytes.", limit=limits.max_total_bytes))
    if total > _RATIO_GRACE and total > packed * limits.max_ratio:
        raise beyond(called, msg("The archive unfolds to more than {limit} times its size.", limit=limits.max_ratio))


def beyond(called: str, what: Text) -> ArchiveError:
    return ArchiveError(
        "archive-limit", what, file=called, remedy=msg("Is it the archive that you meant? Unpack it yourself if you trust it.")
    )


def truncated(called: str) -> ArchiveError:
    return ArchiveError(
        "archive-truncated",
        msg("The archive ends too early."),
        file=called,
        remedy=msg("Was the download cut short? Fetch the file again."),
    )


def damaged(called: str, error: Exception) -> ArchiveError:
    return ArchiveError(
        "archive-damaged",
        msg("This is not an archive that can be read, or it is damaged: {error}", error=one_line(error)),
        file=called,
        remedy=msg("Was the download cut short? Fetch the file again."),
    )


def one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    if not path.is_file():
        raise DataError(msg("The archive is missing."), file=path, remedy=msg("Check the path in the recipe."))
    with path.open("rb") as file:
        yield file
