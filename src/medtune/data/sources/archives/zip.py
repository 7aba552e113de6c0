"""Members of zip archives."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from medtune.data.sources.archives.rules import (
    ArchiveLimits,
    ArchiveMember,
    beyond,
    check_count,
    check_total,
    damaged,
    misnamed,
    not_plain,
    one_line,
    opened,
    plain_name,
    refused,
    too_large,
    truncated,
)
from medtune.language import msg

__all__ = ["iter_zip"]

_MAX_DIRECTORY_BYTES = 256 * 1024 * 1024
"""Of a zip file's central directory, which is held in memory: at 46 bytes and a name for each member some millions of members."""
_DIRECTORY_END = struct.Struct("<4s4H2LH")
"""End of central directory record of a zip file (PKWARE APPNOTE 6.3, 4.3.16)."""
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
"""LZMA is not among them: a member can ask for 4 GiB of look-back."""


def iter_zip(path: Path, limits: ArchiveLimits | None = None) -> Iterator[ArchiveMember]:
    """The plain files of a zip archive, in the order of its directory.

    Memory is that of one member and of the directory. Damaged, encrypted and link members are faults of their own.

    Raises:
        ArchiveError: Not a zip archive, damaged, or beyond a limit.
    """
    limits = limits or ArchiveLimits()
    with opened(path) as file:
        _check_zip_directory(file, path)
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error, EOFError) as error:
            raise damaged(str(path), error) from error
        with archive:
            entries = archive.infolist()
            check_count(len(entries), str(path), limits)
            total, packed = 0, path.stat().st_size
            for entry in entries:
                if entry.is_dir():
                    continue
                member = _zip_member(archive, entry, str(path), limits)
                total += len(member.data)
                # Against the whole file: members may overlap in it, each of them innocent (Fifield, WOOT 2019).
                check_total(total, packed, str(path), limits)
                yield member


def _check_zip_directory(file: BinaryIO, path: Path) -> None:
    """Refuse a directory that would not fit in memory before ``zipfile`` reads it."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_535 - _DIRECTORY_END.size))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _DIRECTORY_END.size > len(tail):
        raise truncated(str(path))  # the directory stands at the end of the file
    directory = _DIRECTORY_END.unpack_from(tail, at)[5]
    if directory == 0xFFFFFFFF:  # the size stands in the zip64 record, whose place the 20 bytes before tell (4.3.14, 4.3.15)
        file.seek(max(0, size - len(tail) + at - 20))
        locator = file.read(20)
        file.seek(int.from_bytes(locator[8:16], "little") % max(size, 1))
        directory = int.from_bytes(file.read(48)[40:48], "little")
    if directory > _MAX_DIRECTORY_BYTES:
        raise beyond(str(path), msg("The directory of the archive has more than {limit} bytes.", limit=_MAX_DIRECTORY_BYTES))
    file.seek(0)


def _zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, called: str, limits: ArchiveLimits) -> ArchiveMember:
    name = entry.orig_filename  # the other attribute ends at a NUL
    refusal = misnamed(called, name)
    if refusal is not None:
        return refusal
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return not_plain(called, name)
    if entry.flag_bits & 0x1:
        return refused(called, name, msg("The member is encrypted."))
    if entry.compress_type not in _ZIP_METHODS:
        return refused(called, name, msg("The member is packed by method {number}, which is not read.", number=entry.compress_type))
    if entry.file_size > limits.max_member_bytes:
        return too_large(called, name, limits)
    try:
        with archive.open(entry) as member:
            data = member.read(limits.max_member_bytes + 1)
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
        struct.error,
    ) as error:
        return refused(called, name, msg("The member is damaged: {error}", error=one_line(error)))
    return ArchiveMember(plain_name(name), data)
