"""A tiny model and a handful of rows with pictures."""

from __future__ import annotations

import pytest

from tiny_training import Setup, make_setup


@pytest.fixture(scope="session")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return make_setup(tmp_path_factory.mktemp("setup"))
