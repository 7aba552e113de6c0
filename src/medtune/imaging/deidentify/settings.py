"""What ``medtune deidentify`` keeps and how hard it looks."""

from __future__ import annotations

from medtune.imaging.deidentify.choices import Dates, Ocr, Option
from medtune.types import Settings

__all__ = ["DeidentifySettings"]


class DeidentifySettings(Settings):
    """How files are de-identified. What is kept beyond the basic profile is asked for here and written into each file."""

    dates: Dates = "shift"
    """``shift``: all dates of a patient move by one number of days (Retain Longitudinal Temporal Information Modified Dates,
    E.3.6); ``keep``: they stay (Full Dates); ``remove``: as the basic profile says."""
    options: tuple[Option, ...] = ()
    """What else is kept: ``retain-uids``, ``retain-device``, ``retain-institution``, ``retain-patient`` (sex, age, weight, ...),
    ``clean-descriptors`` (of descriptions, the words of a list of imaging words)."""
    ocr: Ocr = "suspected"
    """Which pictures are searched for text: all but plain CT, MR, PT and NM images; ``all``; ``none``."""
