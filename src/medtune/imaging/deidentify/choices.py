"""The names that a person may choose from. A file of its own: the command line shows them before it loads anything."""

from __future__ import annotations

from typing import Literal

__all__ = ["Dates", "Ocr", "Option"]

Option = Literal["retain-uids", "retain-device", "retain-institution", "retain-patient", "clean-descriptors"]
"""Options of PS3.15, E.3 beside those of dates and pixels. Each keeps something, so none is on by default."""

Dates = Literal["shift", "keep", "remove"]
Ocr = Literal["suspected", "all", "none"]
