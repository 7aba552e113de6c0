"""Importing bitsandbytes asks no hub, whoever imports it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BITSANDBYTES = """
try:
    from kernels import get_kernel
    kernel = get_kernel("somebody/something", version=1)
except Exception:
    kernel = "its own"
"""
KERNELS = """
def get_kernel(*names, **options):
    return "fetched"
"""


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("pass", "fetched"),
        ("import medtune.models.config", "its own"),
        ("import kernels, medtune.models.config", "its own"),
        ("from medtune.training.config import TrainSettings", "fetched"),  # the settings alone import no library
        ("import medtune.recipe", "its own"),
    ],
)
def test_bitsandbytes_is_imported_without_a_hub(tmp_path: Path, first: str, expected: str) -> None:
    (tmp_path / "bitsandbytes.py").write_text(BITSANDBYTES)
    (tmp_path / "kernels.py").write_text(KERNELS)
    program = f"{first}\nimport bitsandbytes, kernels\nprint(bitsandbytes.kernel, '|', kernels.get_kernel())"
    places = os.pathsep.join([str(tmp_path), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places}, check=True
    )
    assert result.stdout.strip() == f"{expected} | fetched", "kernels itself stays usable"
