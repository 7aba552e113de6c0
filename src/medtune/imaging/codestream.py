"""The size that a compressed frame itself states. A few bytes of JPEG can ask a decoder for gigabytes, whatever the header says."""

from __future__ import annotations

__all__ = ["stated_size"]

_JPEG_START = b"\xff\xd8"
_JPEG2000_START = b"\xff\x4f\xff\x51"  # SOC, SIZ (ITU-T T.800, A.4.1 and A.5.1; T.814 keeps them for high throughput)
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 of ITU-T T.81, table B.1, without the codes for DHT, JPG and DAC; SOF55 of JPEG-LS (T.87, C.1.1)."""
_STAND_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def stated_size(frame: bytes) -> tuple[int, int] | None:
    """(width, height) that the codestream of a JPEG, JPEG-LS or JPEG 2000 frame states; None when none is found."""
    if frame.startswith(_JPEG_START):
        return _jpeg(frame)
    start = frame.find(_JPEG2000_START, 0, 4096)  # a JP2 box may stand before it, against PS3.5, A.4.4
    if start < 0 or len(frame) < start + 24:
        return None
    x_end, y_end, x_start, y_start = (int.from_bytes(frame[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    return x_end - x_start, y_end - y_start


def _jpeg(frame: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(frame):
        if frame[place] != 0xFF:
            return None
        marker = frame[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _STAND_ALONE:
            place += 2
        elif marker in _FRAME_HEADERS:
            height, width = (int.from_bytes(frame[place + at : place + at + 2], "big") for at in (5, 7))
            return width, height
        else:
            place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None
