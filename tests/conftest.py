"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development folder with real data and tokenizers: ``MEDTUNE_SHARED``, or ``shared`` beside the checkout."""
    folder = Path(os.environ.get("MEDTUNE_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs the shared development folder, and {folder.name!r} is not there (set MEDTUNE_SHARED)")
    return folder
