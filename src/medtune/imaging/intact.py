"""Whether a JPEG or PNG file is whole, and what it shows, from its structure alone.

Most pictures of a data set are plain: JPEG or PNG, 8 bits, grey or RGB, upright. They are copied as they are, and neither
decoded nor opened with Pillow, whose reading of a header costs more than the copy.

A JPEG file has no checksum: bits that flipped inside its scan are only seen by looking. ``medtune validate`` decodes every
picture and finds what a decoder can find.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

__all__ = ["PlainPicture", "is_whole", "read_plain"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STAND_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG markers without a length: TEM and RST0 to RST7 (ITU-T T.81, B.1.1.3)."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class PlainPicture(NamedTuple):
    """A whole picture that every reader shows alike: 8 bits a channel, grey or RGB, no transparency, upright, one frame."""

    suffix: str
    """``.jpg`` or ``.png``."""
    width: int
    height: int


class _Structure(NamedTuple):
    whole: bool
    plain: PlainPicture | None


def is_whole(data: bytes) -> bool:
    """Whether a file reaches its own end: JPEG has an end-of-image marker behind its first scan (ITU-T T.81, B.2.1); every chunk
    of a PNG has the right CRC, and the last is IEND (PNG, third edition, 5.3 and 5.6). False for any other file."""
    return _structure(data).whole


def read_plain(data: bytes) -> PlainPicture | None:
    """The picture, when it is plain and whole beyond doubt; None for everything else, sound or not."""
    structure = _structure(data)
    return structure.plain if structure.whole else None


def _structure(data: bytes) -> _Structure:
    if data.startswith(_PNG_SIGNATURE):
        return _png(memoryview(data))
    return _jpeg(data) if data.startswith(b"\xff\xd8") else _Structure(False, None)


_PNG_ODD = frozenset({b"tRNS", b"eXIf", b"acTL"})
"""Chunks that make a PNG transparent, turned or a film."""
_XMP = b"XML:com.adobe.xmp"


def _png(data: memoryview) -> _Structure:
    place = len(_PNG_SIGNATURE)
    plain: PlainPicture | None = None
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 12 + length
        if end > len(data) or zlib.crc32(data[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return _Structure(False, None)
        kind = bytes(data[place + 4 : place + 8])
        if kind == b"IHDR" and length == 13:
            width, height, depth, colour = struct.unpack_from(">IIBB", data, place + 8)
            # Colour types 0 and 2 are grey and RGB (PNG, third edition, 11.2.1).
            if depth == 8 and colour in (0, 2) and width and height:
                plain = PlainPicture(".png", width, height)
        elif kind in _PNG_ODD or (kind == b"iTXt" and data[place + 8 : place + 8 + len(_XMP)] == _XMP):
            plain = None
        elif kind == b"IEND":
            return _Structure(True, plain)
        place = end
    return _Structure(False, None)


_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Start of frame: baseline, extended, progressive (ITU-T T.81, table B.1)."""
_JPEG_ODD = ((0xE1, b""), (0xE2, b"MPF\0"), (0xEE, b"Adobe"))
"""(marker, beginning) of segments of which Pillow must judge: Exif or XMP, which may turn the picture; more pictures; colours."""


def _jpeg(data: bytes) -> _Structure:
    place = 2
    plain: PlainPicture | None = None
    odd = False
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _STAND_ALONE:
            place += 2
        elif marker == _START_OF_SCAN:
            # Inside a scan 0xFF is followed by 0x00 or a restart marker, so this is the end and no pixel.
            whole = data.find(bytes((0xFF, _END_OF_IMAGE)), place) >= 0
            return _Structure(whole, None if odd else plain)
        else:
            if marker in _FRAMES and place + 10 <= len(data):
                depth, height, width, components = struct.unpack_from(">BHHB", data, place + 4)
                if depth == 8 and components in (1, 3) and width and height:
                    plain = PlainPicture(".jpg", width, height)
            for kind, name in _JPEG_ODD:
                odd = odd or (marker == kind and data.startswith(name, place + 4))
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return _Structure(False, None)
