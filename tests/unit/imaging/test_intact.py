"""Plain pictures are told from odd ones as Pillow tells them, and whole files from cut ones."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import source_files
from medtune.imaging.intact import PlainPicture, is_whole, read_plain
from medtune.imaging.read import read_header

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'


def with_xmp() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return info


PLAIN = {
    "jpeg": source_files.encoded(NOISE, "JPEG"),
    "jpeg grey": source_files.encoded(NOISE.convert("L"), "JPEG"),
    "jpeg progressive": source_files.encoded(NOISE, "JPEG", progressive=True),
    "png": source_files.encoded(NOISE, "PNG"),
    "png grey": source_files.encoded(NOISE.convert("L"), "PNG"),
}
ODD = {
    "jpeg turned": source_files.encoded(NOISE, "JPEG", exif=exif(6)),
    "jpeg turned by xmp": source_files.encoded(NOISE, "JPEG", xmp=XMP),
    "png turned by xmp": source_files.encoded(NOISE, "PNG", pnginfo=with_xmp()),
    "jpeg cmyk": source_files.encoded(NOISE.convert("CMYK"), "JPEG"),
    "png deep": source_files.encoded(Image.fromarray(np.arange(3072, dtype=np.uint16).reshape(48, 64)), "PNG"),
    "png palette": source_files.encoded(NOISE.convert("P"), "PNG"),
    "png alpha": source_files.encoded(NOISE.convert("RGBA"), "PNG"),
    "png transparent grey": source_files.encoded(NOISE.convert("L"), "PNG", transparency=7),
    "png turned": source_files.encoded(NOISE, "PNG", exif=exif(3)),
    "gif": source_files.encoded(NOISE.convert("P"), "GIF"),
    "bmp": source_files.encoded(NOISE, "BMP"),
    "two": source_files.encoded(NOISE, "MPO", save_all=True, append_images=[NOISE]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_pictures(name: str) -> None:
    header = read_header(PLAIN[name])
    assert read_plain(PLAIN[name]) == PlainPicture(header.plain_suffix or "", 64, 48)
    assert (header.width, header.height, header.reading) == (64, 48, ())


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_are_left_to_others(name: str) -> None:
    assert read_plain(ODD[name]) is None


@pytest.mark.parametrize("name", PLAIN)
def test_a_cut_file_is_not_whole(name: str) -> None:
    data = PLAIN[name]
    assert is_whole(data)
    assert is_whole(data + b"padding of a camera")
    for length in [*range(0, len(data) - 12, 97), len(data) - 1 if "png" in name else len(data) - 2]:
        assert not is_whole(data[:length]), length
        assert read_plain(data[:length]) is None


def test_a_png_with_a_flipped_bit_is_not_whole() -> None:
    data = bytearray(PLAIN["png"])
    data[len(data) // 2] ^= 4
    assert not is_whole(bytes(data))


def test_a_length_that_lies_ends_the_search() -> None:
    chunk = struct.pack(">I", 2**31) + b"IDAT" + b"x" * 20 + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert not is_whole(b"\x89PNG\r\n\x1a\n" + chunk)
    assert not is_whole(b"\xff\xd8\xff\xe0\x00\x00" * 10)
    assert not is_whole(b"\xff\xd8\xff\xe0\xff\xff")
