"""What ``medtune deidentify`` keeps and how hard it looks."""

from __future__ import annotations

from typing import Literal

from medtune.types import Settings

__all__ = ["Dates", "DeidentifySettings", "Ocr", "Option"]

Option = Literal["retain-uids", "retain-device", "retain-institution", "retain-patient", "clean-descriptors"]
"""Options of PS3.15, E.3 beside those of dates and pixels. Each keeps something, so none is on by default."""

Dates = Literal["shift", "keep", "remove"]
Ocr = Literal["suspected", "all", "none"]


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
