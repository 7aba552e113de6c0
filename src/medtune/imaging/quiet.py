"""Keeps pydicom from quoting the values that it dislikes: they may name a patient."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

_lock = threading.Lock()
_inside = 0
_filters: warnings.catch_warnings[None] | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """No warning is shown and no record of pydicom's loggers leaves them while anybody is inside. Several threads may be."""
    global _inside, _filters
    logger = logging.getLogger("pydicom")  # has a NullHandler of its own; root handlers would print what is propagated
    with _lock:
        _inside += 1
        if _inside == 1:
            # catch_warnings alone is not safe with threads: the one that leaves first would restore the filters for all.
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.simplefilter("ignore")
            logger.propagate = False
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _filters is not None:
                _filters.__exit__(None, None, None)
                _filters = None
                logger.propagate = True
