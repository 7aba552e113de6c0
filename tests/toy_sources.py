"""Sources for tests, named in recipes as ``toy_sources:Name``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from medtune.data.sources.vqa_rad import VqaRad
from medtune.types import Part, Record, Settings, SourceCard


class Unparted(Settings):
    """VQA-RAD without parts: its records are read by the preparing process and handed to others."""

    path: Path

    @property
    def card(self) -> SourceCard:
        return VqaRad(path=self.path).card

    def samples(self) -> Iterator[Record]:
        return VqaRad(path=self.path).samples()


class Slow(Settings):
    """Three rows of text that come late."""

    seconds: float

    @property
    def card(self) -> SourceCard:
        return SourceCard(name="slow", title="Slow", licence="CC0-1.0", citation="", group_kind="row", synthetic=True)

    def parts(self) -> Sequence[Part]:
        return [Part(Path(__file__), 0, 3)]

    def samples(self) -> Iterator[Record]:
        yield from self.samples_of(self.parts()[0])

    def samples_of(self, part: Part) -> Iterator[Record]:
        time.sleep(self.seconds)
        for number in range(part.start, part.stop or 0):
            yield Record(id=str(number), task="text-qa", pictures=(), target="Yes.", group=str(number), question="Is it?")
