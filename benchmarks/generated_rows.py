"""A source for benchmarks that makes its rows, all of them synthetic, while it is read: nothing is kept of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from medtune.types import Part, Picture, Record, Settings, SourceCard

ROWS_PER_PART = 2048


class GeneratedRows(Settings):
    """One question and one 16 x 16 picture a row, ten rows a patient; no two pictures are alike."""

    num_rows: int
    """How many."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="generated-rows", title="Generated rows", licence="Apache-2.0", citation="", group_kind="patient", synthetic=True
        )

    def parts(self) -> Sequence[Part]:
        starts = range(0, self.num_rows, ROWS_PER_PART)
        return [Part(Path(__file__), start, min(start + ROWS_PER_PART, self.num_rows)) for start in starts]

    def samples(self) -> Iterator[Record]:
        for part in self.parts():
            yield from self.samples_of(part)

    def samples_of(self, part: Part) -> Iterator[Record]:
        assert part.stop is not None
        for number in range(part.start, part.stop):
            yield Record(
                id=f"row-{number}",
                task="caption",
                pictures=(Picture(data=png(number), name=f"picture-{number}", modality="CT"),),
                target=f"Synthetic finding {number}: a square of grey {number % 256} at place {number % 97}.",
                group=f"patient-{number // 10}",
            )


def png(number: int) -> bytes:
    """A PNG file of 16 x 16 greys that no other number gives (PNG, third edition: IHDR, IDAT, IEND)."""
    row = struct.pack(">QQ", number, number * 0x9E3779B97F4A7C15 % 2**64)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress((b"\0" + row) * 16, 1)),
        (b"IEND", b""),
    ]
    body = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)
