"""Archives from outside: what is in them, and what hostile ones do not reach. Every archive is made here."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zstandard

from medtune.data.sources.archives import ArchiveError, ArchiveLimits, extract, iter_archive, iter_tar, iter_zip
from medtune.errors import DataError, MedtuneError

ESCAPES = ("/etc/a", "../a", "a/../../b", "a\\..\\b", "C:a", "c:/a", "\\\\host\\a", "a\nb", "a\x1b[2Jb", "x" * 300)


def tar_bytes(members: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(kind: bytes, link: str = "") -> bytes:
    info = tarfile.TarInfo("odd")
    info.type = kind
    info.linkname = link
    return info.tobuf(tarfile.USTAR_FORMAT) + tar_bytes([("sound", b"s")], tarfile.USTAR_FORMAT)


def zstd_bytes(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def read(data: bytes, limits: ArchiveLimits | None = None) -> dict[str, bytes | str]:
    """Name -> bytes, or the English reason of the fault."""
    return {
        member.name: member.fault.message.render("en") if member.fault else member.data
        for member in iter_tar(io.BytesIO(data), limits, name="archive.tar")
    }


MEMBERS = [("./a.txt", b"one"), ("folder/b.bin", bytes(range(256)) * 5), ("空.txt", b""), ("deep/" * 40 + "c", b"three")]
CONTENT: dict[str, bytes | str] = {name.removeprefix("./"): data for name, data in MEMBERS}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd_bytes])
def test_tar_in_every_dress(form: int, pack: Callable[[bytes], bytes]) -> None:
    assert read(pack(tar_bytes(MEMBERS, form))) == CONTENT


def test_tar_folders_are_no_members() -> None:
    folder = tarfile.TarInfo("folder/")
    folder.type = tarfile.DIRTYPE
    folder.size = 4096  # a hint without data
    assert read(folder.tobuf() + tar_bytes([("folder/a", b"1")])) == {"folder/a": b"1"}


def test_archives_written_one_behind_the_other_are_read_whole() -> None:
    assert read(tar_bytes([("a", b"1")]) + tar_bytes([("b", b"2")])) == {"a": b"1", "b": b"2"}


def test_zstd_frames_one_behind_the_other_and_frames_to_skip() -> None:
    whole = tar_bytes(MEMBERS)
    skip = b"\x50\x2a\x4d\x18" + struct.pack("<L", 4) + b"skip"
    assert read(skip + zstd_bytes(whole[:700]) + skip + zstd_bytes(whole[700:])) == CONTENT


@pytest.mark.parametrize("name", ESCAPES)
def test_tar_names_that_escape_are_refused_and_the_rest_is_read(name: str) -> None:
    found = read(tar_bytes([(name, b"evil"), ("sound", b"s")]))
    assert found.pop("sound") == b"s"
    (reason,) = found.values()
    assert isinstance(reason, str)
    assert "name" in reason


def test_tar_name_that_is_not_utf8_and_a_name_with_nul() -> None:
    data = bytearray(tar_bytes([("abc", b"1")], tarfile.USTAR_FORMAT))
    data[0:3] = "胸".encode("gb18030") + b"x"
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    (member,) = iter_tar(io.BytesIO(bytes(data)), name="a.tar")
    assert member.fault is not None
    member.name.encode()  # can be written and shown
    assert str(member.fault.file).startswith("a.tar:")
    nul = tar_bytes([("a", b"1")])
    line = b"14 path=a\0b.x\n"
    header = tarfile.TarInfo("pax")
    header.type = tarfile.XHDTYPE
    header.size = len(line)
    found = read(header.tobuf() + line.ljust(512, b"\0") + nul)
    assert list(found) == ["a\\x00b.x"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z", tarfile.GNUTYPE_SPARSE]
)
def test_tar_links_devices_and_unknown_kinds_are_refused(kind: bytes) -> None:
    found = read(special(kind, "/etc/passwd"))
    assert found.pop("sound") == b"s"
    assert isinstance(found["odd"], str)


def test_tar_every_truncation_is_an_error() -> None:
    whole = tar_bytes(MEMBERS, tarfile.GNU_FORMAT).rstrip(b"\0")
    for cut in range(0, len(whole), 97):
        with pytest.raises(ArchiveError) as caught:
            read(whole[:cut])
        assert caught.value.reason == "archive-truncated"
    for pack in (gzip.compress, zstd_bytes):
        packed = pack(tar_bytes(MEMBERS))
        for cut in range(4, len(packed) - 12, 17):
            with pytest.raises(ArchiveError):
                read(packed[:cut])


def test_tar_of_something_else() -> None:
    for data in (
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(600),
        b"hello" * 300,
        b"\x1f\x8b" + b"x" * 600,
        b"\x28\xb5\x2f\xfd" + b"x" * 600,
        b"BZh91AY",
    ):
        with pytest.raises(ArchiveError) as caught:
            read(data)
        assert "archive.tar" in str(caught.value)


def test_tar_hostile_sizes() -> None:
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type = tarfile.GNUTYPE_LONGNAME
    long_name.size = 10**10
    with pytest.raises(ArchiveError) as caught:
        read(long_name.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert caught.value.reason == "archive-damaged"
    block = bytearray(tar_bytes([("abc", b"1")], tarfile.USTAR_FORMAT))
    block[124:136] = b"\xff" * 12  # base-256: minus one, with which tarfile never ends (CVE-2025-8194)
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block[:512]):06o}\0 ".encode()
    with pytest.raises(ArchiveError):
        read(bytes(block))
    for line in (b"9999999 path=a\n", b"0 path=a\n", b"-5 path=a\n", b"11 path=abc", b"path=a\n", b"18 size=\xd9\xa3 path=a\n"):
        header = tarfile.TarInfo("pax")
        header.type = tarfile.XHDTYPE
        header.size = len(line)
        with pytest.raises(ArchiveError):
            read(header.tobuf() + line.ljust(512, b"\0") + tar_bytes([("a", b"1")]))


def test_tar_limits() -> None:
    whole = tar_bytes([("a", b"1" * 600), ("b", b"22"), ("c", b"3")])
    with pytest.raises(ArchiveError, match="2 members"):
        read(whole, ArchiveLimits(max_members=2))
    with pytest.raises(ArchiveError, match="1000 bytes"):
        read(whole, ArchiveLimits(max_total_bytes=1000))
    found = read(whole, ArchiveLimits(max_member_bytes=100))
    assert isinstance(found["a"], str)
    assert found["b"] == b"22"


@pytest.mark.parametrize("pack", [gzip.compress, zstd_bytes])
def test_tar_bomb_costs_no_memory(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(tar_bytes([("zeros", bytes(80 * 1024 * 1024))]))
    tracemalloc.start()
    with pytest.raises(ArchiveError) as caught:
        read(bomb, ArchiveLimits(max_member_bytes=1024 * 1024))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason == "archive-limit"
    assert peak < 8 * 1024 * 1024


def test_tar_archive_in_an_archive_is_not_opened() -> None:
    inner = tar_bytes([("../evil", b"e")])
    assert read(tar_bytes([("inner.tar", inner)])) == {"inner.tar": inner}


# ------------------------------------------------------------------------------------------------------------------- zip


def zip_file(path: Path, members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_zip_members(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", [("folder/", b""), *((name, data) for name, data in MEMBERS)])
    assert {member.name: member.data for member in iter_zip(path)} == CONTENT
    assert {member.name: member.data for member in iter_archive(path)} == CONTENT


@pytest.mark.parametrize("name", ESCAPES)
def test_zip_names_that_escape_are_refused(tmp_path: Path, name: str) -> None:
    refused, sound = iter_zip(zip_file(tmp_path / "a.zip", [(name, b"evil"), ("sound", b"s")]))
    assert refused.fault is not None
    assert sound.data == b"s"


def test_zip_links_methods_and_encryption(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    path = zip_file(tmp_path / "a.zip", [(link, b"/etc/passwd"), ("sound", b"s")])
    assert [member.fault is None for member in iter_zip(path)] == [False, True]
    (member,) = iter_zip(zip_file(tmp_path / "b.zip", [("a", b"1")], zipfile.ZIP_LZMA))
    assert member.fault is not None
    assert "14" in member.fault.message.render("en")
    data = bytearray(zip_file(tmp_path / "c.zip", [("a", b"1")]).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "c.zip").write_bytes(data)
    (member,) = iter_zip(tmp_path / "c.zip")
    assert member.fault is not None
    assert member.fault.message.render("en") == "The member is encrypted."


def test_zip_damage(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", [("a", b"content" * 9), ("b", b"2")], zipfile.ZIP_STORED)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"content", b"CONTENT", 1))
    first, second = iter_zip(path)
    assert first.fault is not None
    assert second.data == b"2"
    for cut in range(0, len(whole), 13):
        path.write_bytes(whole[:cut])
        with pytest.raises(ArchiveError):
            list(iter_zip(path))


def test_zip_limits(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", [("a", b"1" * 600), ("b", b"22"), ("c", b"3")])
    with pytest.raises(ArchiveError, match="2 members"):
        list(iter_zip(path, ArchiveLimits(max_members=2)))
    with pytest.raises(ArchiveError, match="601 bytes"):
        list(iter_zip(path, ArchiveLimits(max_total_bytes=601)))
    first, *_ = iter_zip(path, ArchiveLimits(max_member_bytes=100))
    assert first.fault is not None
    bomb = zip_file(tmp_path / "bomb.zip", [(str(n), bytes(4 * 1024 * 1024)) for n in range(5)])
    with pytest.raises(ArchiveError, match="times its size"):
        list(iter_zip(bomb))


def test_zip_directory_that_would_not_fit_in_memory(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", [("a", b"1")])
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x05\x06")
    data[at + 12 : at + 16] = struct.pack("<L", 2**31)
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="directory"):
        list(iter_zip(path))
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 2**40, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    data[at + 12 : at + 16] = b"\xff" * 4
    path.write_bytes(data[:at] + record + locator + data[at:])
    with pytest.raises(ArchiveError, match="directory"):
        list(iter_zip(path))


def test_zip_member_that_lies_about_its_size(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", [("a", bytes(100_000))])
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 10)
    path.write_bytes(data)
    (member,) = iter_zip(path, ArchiveLimits(max_member_bytes=1000))
    assert member.fault is not None
    assert member.data == b""


# --------------------------------------------------------------------------------------------------------------- extract


def test_extract(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes(MEMBERS)))
    assert extract(tmp_path / "a.tar.gz", tmp_path / "out") == len(MEMBERS)
    assert {
        file.relative_to(tmp_path / "out").as_posix(): file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()
    } == CONTENT
    with pytest.raises(DataError, match="not empty"):
        extract(tmp_path / "a.tar.gz", tmp_path / "out")


@pytest.mark.parametrize(
    "members",
    [[("ok", b"1"), ("../evil", b"2")], [("a", b"1"), ("a", b"2")], [("a", b"1"), ("a/b", b"2")], [("a/b", b"1"), ("a", b"2")]],
)
def test_extract_whole_or_not_at_all(tmp_path: Path, members: list[tuple[str, bytes]]) -> None:
    (tmp_path / "in.tar").write_bytes(tar_bytes(members))
    with pytest.raises(ArchiveError) as caught:
        extract(tmp_path / "in.tar", tmp_path / "place" / "out")
    assert caught.value.reason == "archive-refused"
    assert "in.tar" in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["in.tar"]


def test_missing_archive_is_told(tmp_path: Path) -> None:
    for call in (iter_tar, iter_zip, iter_archive):
        with pytest.raises(MedtuneError, match="missing"):
            list(call(tmp_path / "no.tar"))
