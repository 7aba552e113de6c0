"""Whether a JPEG or PNG file is whole, from its structure alone: pictures that are copied as they are need no decoding.

A JPEG file has no checksum: bits that flipped inside its scan are only seen by looking. ``medtune validate`` decodes every
picture and finds what a decoder can find.
"""

from __future__ import annotations

import struct
import zlib

__all__ = ["is_whole"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STAND_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG markers without a length: TEM and RST0 to RST7 (ITU-T T.81, B.1.1.3)."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def is_whole(data: bytes) -> bool:
    """Whether a file reaches its own end: JPEG has an end-of-image marker behind its first scan (ITU-T T.81, B.2.1); every chunk
    of a PNG has the right CRC, and the last is IEND (PNG, third edition, 5.3 and 5.6). False for any other file."""
    if data.startswith(_PNG_SIGNATURE):
        return _png_is_whole(memoryview(data))
    return data.startswith(b"\xff\xd8") and _jpeg_is_whole(data)


def _png_is_whole(data: memoryview) -> bool:
    place = len(_PNG_SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 12 + length
        if end > len(data):
            return False
        if zlib.crc32(data[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return False
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place = end
    return False


def _jpeg_is_whole(data: bytes) -> bool:
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            return False
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _STAND_ALONE:
            place += 2
        elif marker == _START_OF_SCAN:
            # Inside a scan 0xFF is followed by 0x00 or a restart marker, so this is the end and no pixel.
            return data.find(bytes((0xFF, _END_OF_IMAGE)), place) >= 0
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False
