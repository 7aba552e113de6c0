"""Members of tar and zip archives from outside, one at a time, under limits.

Archives are untrusted. No member is handed on under a name that leaves the folder it is unpacked in, links and devices are refused,
and what an archive may unfold to is limited while it unfolds. A refused *member* is an :class:`ArchiveMember` with a fault, so that
the others can be used; a refused or damaged *archive* raises :class:`ArchiveError`. Archives inside of archives are bytes: they are
never opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medtune.data.sources.archives.rules import ArchiveError, ArchiveLimits, ArchiveMember, opened, refused
from medtune.data.sources.archives.tar import iter_tar
from medtune.data.sources.archives.zip import iter_zip
from medtune.errors import DataError
from medtune.language import msg
from medtune.runs import atomic_folder
from medtune.types import Fault

__all__ = ["ArchiveError", "ArchiveLimits", "ArchiveMember", "extract", "iter_archive", "iter_tar", "iter_zip"]


def iter_archive(path: Path, limits: ArchiveLimits | None = None) -> Iterator[ArchiveMember]:
    """The members of a zip or tar file, told apart by their first bytes. See :func:`iter_tar` and :func:`iter_zip`."""
    with opened(path) as file:
        head = file.read(4)
    return iter_zip(path, limits) if head[:2] == b"PK" else iter_tar(path, limits)


def extract(path: Path, folder: Path, limits: ArchiveLimits | None = None) -> int:
    """Unpack an archive into a new folder, which appears whole or not at all. Returns the number of files.

    Raises:
        ArchiveError: As :func:`iter_archive`; or a member is refused, or two have one name.
        DataError: The folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            msg("The archive is not unpacked here: the folder exists and is not empty."),
            file=folder,
            remedy=msg("Name a folder that does not exist yet."),
        )
    count = 0
    with atomic_folder(folder) as temporary:
        for member in iter_archive(path, limits):
            fault = member.fault or _write(temporary, member, path)
            if fault is not None:
                raise ArchiveError(
                    "archive-refused",
                    fault.message,
                    file=fault.file or str(path),
                    remedy=fault.remedy or msg("Use an archive from its publisher."),
                )
            count += 1
    return count


def _write(folder: Path, member: ArchiveMember, archive: Path) -> Fault | None:
    target = folder / member.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(member.data)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return refused(str(archive), member.name, msg("Two members of the archive have one name.")).fault
    return None
