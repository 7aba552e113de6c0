"""Sources for tests, named in recipes as ``toy_sources:Name``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medtune.data.sources.vqa_rad import VqaRad
from medtune.types import Record, Settings, SourceCard


class Unparted(Settings):
    """VQA-RAD without parts: its records are read by the preparing process and handed to others."""

    path: Path

    @property
    def card(self) -> SourceCard:
        return VqaRad(path=self.path).card

    def samples(self) -> Iterator[Record]:
        return VqaRad(path=self.path).samples()
