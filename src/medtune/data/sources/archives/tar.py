"""Members of tar archives, read once from front to back.

The blocks are walked here and not by :class:`tarfile.TarFile`, of which only the reader of one header is used: ``TarFile`` reads a
name of any stated length into memory, and skips, follows or guesses where this module has to refuse (two of its own faults on
hostile files were CVE-2024-6232 and CVE-2025-8194).
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from medtune.data.sources.archives.rules import (
    ArchiveError,
    ArchiveLimits,
    ArchiveMember,
    check_count,
    check_total,
    damaged,
    misnamed,
    not_plain,
    opened,
    plain_name,
    refused,
    too_large,
    truncated,
)
from medtune.errors import MissingDependencyError
from medtune.language import msg

__all__ = ["iter_tar"]

_BLOCK = tarfile.BLOCKSIZE
_MAX_HEADER_BYTES = 64 * 1024
"""Of one long name or pax header. Linux paths have at most 4,096 bytes; tar writers add a few short keys."""
_ZSTD_WINDOW = 2**27
"""Bytes of look-back that a frame may ask for: the 128 MiB at which the ``zstd`` program stops without ``--long``. RFC 8878
(3.1.1.1.2) wants 8 MiB at least, and leaves the limit to the decoder."""
_CHUNK = 1024 * 1024
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


def iter_tar(archive: Path | BinaryIO, limits: ArchiveLimits | None = None, *, name: str = "") -> Iterator[ArchiveMember]:
    """The plain files of a tar archive in their order, read once from front to back: plain, gzip or Zstandard by the first bytes.

    Memory is that of one member. Folders are passed over, blocks of zeros between archives written one behind the other as well.

    Args:
        archive: A file, or a binary stream that need not be seekable.
        limits: See :class:`ArchiveLimits`.
        name: How messages call a stream.

    Raises:
        ArchiveError: Not a tar archive, damaged, cut short (the zeros that end every archive are missing), or beyond a limit.
        MissingDependencyError: A Zstandard archive, and the package zstandard is not installed.
    """
    limits = limits or ArchiveLimits()
    called = name or (str(archive) if isinstance(archive, Path) else "<stream>")
    with ExitStack() as stack:
        raw = stack.enter_context(opened(archive)) if isinstance(archive, Path) else archive
        yield from _tar_members(_Unpacked(raw, called, limits), called, limits)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Unpacked:
    """The unpacked bytes of a stream, counted against the limits as they come."""

    def __init__(self, raw: BinaryIO, called: str, limits: ArchiveLimits) -> None:
        self._packed = _Counted(raw)
        self._called = called
        self._limits = limits
        self._total = 0
        head = self._packed.peek(4)
        self._dense = True
        if head[:2] == b"\x1f\x8b":
            self._stream: _Readable = gzip.GzipFile(fileobj=cast("BinaryIO", self._packed), mode="rb")
        elif head == b"\x28\xb5\x2f\xfd" or (head[1:] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):  # frame, or one to skip (RFC 8878)
            self._stream = _zstd(self._packed)
        elif head[:3] == b"BZh" or head == b"\xfd7zX":
            raise ArchiveError(
                "archive-refused",
                msg("Archives packed with bzip2 or xz are not read."),
                file=called,
                remedy=msg("Unpack the archive, or pack it with gzip or zstd."),
            )
        else:
            self._stream, self._dense = self._packed, False

    def read(self, size: int) -> bytes:
        """``size`` bytes, or fewer at the end."""
        parts: list[bytes] = []
        wanted = size
        while wanted:
            try:
                part = self._stream.read(min(wanted, _CHUNK))
            except EOFError as error:
                raise truncated(self._called) from error
            except (OSError, zlib.error, ValueError) as error:
                raise damaged(self._called, error) from error
            except Exception as error:
                if type(error).__name__ != "ZstdError":  # the class of an optional package
                    raise
                raise damaged(self._called, error) from error
            if not part:
                break
            parts.append(part)
            wanted -= len(part)
            self._total += len(part)
            check_total(self._total, self._packed.count if self._dense else self._total, self._called, self._limits)
        return b"".join(parts)

    def exactly(self, size: int) -> bytes:
        """``size`` bytes.

        Raises:
            ArchiveError: The stream ends before.
        """
        data = self.read(size)
        if len(data) < size:
            raise truncated(self._called)
        return data

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.exactly(min(size, _CHUNK)))


class _Counted:
    """A binary stream that counts what was read from it, and whose first bytes can be looked at."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._ahead = b""
        self.count = 0

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size and (part := self._raw.read(size - len(self._ahead))):
            self._ahead += part
        return self._ahead

    def read(self, size: int = -1) -> bytes:
        if self._ahead:
            data = self._ahead if size < 0 else self._ahead[:size]
            self._ahead = self._ahead[len(data) :]
        else:
            data = self._raw.read(size)
        self.count += len(data)
        return data


def _tar_members(stream: _Unpacked, called: str, limits: ArchiveLimits) -> Iterator[ArchiveMember]:
    count = 0
    ended = False
    pax: dict[str, str] = {}
    while block := stream.read(_BLOCK):
        if not block.strip(b"\0"):
            ended = True
            continue
        ended = False
        header = _header(block, called)
        if header.size < 0:
            raise damaged(called, ValueError(f"size {header.size}"))
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            pax |= _long_header(stream, header, called)
            continue
        if header.type == tarfile.XGLTYPE:  # of all members; the keys that matter here are those of single members
            _padded(stream, header.size, called)
            continue
        count += 1
        check_count(count, called, limits)
        name = pax.get("path", header.name)
        size = _size(pax, header, called)
        sparse = header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in pax)
        pax = {}
        if header.type == tarfile.DIRTYPE:
            continue  # no data follow: its size is a hint for quotas (POSIX.1-2008, pax, ustar interchange format)
        refusal = misnamed(called, name)
        if header.type not in _PLAIN:
            refusal = refusal or not_plain(called, name)
        elif sparse:
            refusal = refusal or refused(called, name, msg("The member is a sparse file, which is not read."))
        elif size > limits.max_member_bytes:
            refusal = refusal or too_large(called, name, limits)
        if refusal is None:
            data = stream.exactly(size)
            stream.skip(_rounded(size) - size)
            yield ArchiveMember(plain_name(name), data)
            continue
        yield refusal
        if header.type == tarfile.GNUTYPE_SPARSE:
            _skip_sparse_maps(stream, block)
        if header.type not in _WITHOUT_DATA:
            stream.skip(_rounded(size))
    if not ended:
        raise truncated(called)


def _header(block: bytes, called: str) -> tarfile.TarInfo:
    if len(block) < _BLOCK:
        raise truncated(called)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise damaged(called, error) from error


def _long_header(stream: _Unpacked, header: tarfile.TarInfo, called: str) -> dict[str, str]:
    body = _padded(stream, header.size, called)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": body.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return {}
    values: dict[str, str] = {}
    while body:
        # "%d %s=%s\n" with the length of the whole line (POSIX.1-2008, pax, extended header).
        digits, _, _ = body.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, equals, value = body[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or length > len(body) or body[length - 1 : length] != b"\n":
            raise damaged(called, ValueError("pax"))
        values[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        body = body[length:]
    return values


def _padded(stream: _Unpacked, size: int, called: str) -> bytes:
    if size > _MAX_HEADER_BYTES:
        raise damaged(called, ValueError(f"a header of {size} bytes"))
    return stream.exactly(_rounded(size))[:size]


def _size(pax: dict[str, str], header: tarfile.TarInfo, called: str) -> int:
    size = pax.get("size")
    if size is None:
        return header.size
    if not size.isascii() or not size.isdigit() or len(size) > 19:
        raise damaged(called, ValueError("pax size"))
    return int(size)


def _skip_sparse_maps(stream: _Unpacked, block: bytes) -> None:
    """Old GNU format: byte 482 of the header, and byte 504 of each map, say that another map follows before the data."""
    more = block[482]
    while more:
        more = stream.exactly(_BLOCK)[504]


def _rounded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _zstd(packed: _Counted) -> _Readable:
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError("zstandard", needed_for=msg("A .zst archive"), pip="'medtune[zstd]'") from error
    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return unpacker.stream_reader(cast("BinaryIO", packed), read_across_frames=True)
