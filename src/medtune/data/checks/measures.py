"""What is measured on a picture while it is decoded. Runs in a child process: see :mod:`medtune.imaging.child`."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medtune.errors import UnreadableImageError
from medtune.imaging.config import Limits
from medtune.imaging.read import open_picture
from medtune.language import Text, msg

__all__ = ["MEASURES", "measure_pictures"]

MEASURES: dict[str, str] = {
    "burned-boxes": "medtune.data.checks.burned_boxes:measure",
    "burned-text": "medtune.data.checks.burned_text:measure",
    "fingerprint": "medtune.data.checks.fingerprint:measure",
    "thumbnail": "medtune.data.thumbnails:measure",
}
"""Name of a measure -> ``module:function``. The function takes the decoded picture (PIL, RGB, 8 bits) and returns what
:meth:`medtune.imaging.child.Child.run` can carry: None, numbers, text, bytes, lists, dicts with text keys."""


def measure_pictures(jobs: Sequence[Sequence[Any]], limits: Limits, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Read pictures one after the other; a picture that cannot be read is told, not raised.

    Args:
        jobs: For each picture [file, offset, number of bytes, name, sha256]; offset and number are None for a file of its own.
        limits: What a picture may be at most.
        names: The measures to take: names of :data:`MEASURES`, or ``module:function`` of others.

    Yields:
        ``intact``, and either ``fault`` ([reason, message, remedy]) or ``size`` and ``measured``.
    """
    functions = {name: _function(MEASURES.get(name, name)) for name in names}
    for file, offset, num_bytes, name, sha256 in jobs:
        yield _measure(Path(file), offset, num_bytes, name, sha256, limits, functions)


def _measure(
    file: Path, offset: int | None, num_bytes: int | None, name: str, sha256: str, limits: Limits, functions: dict[str, Any]
) -> dict[str, Any]:
    again = msg("Prepare the data set again.")
    if not file.is_file():
        return {"intact": False, "fault": ["image-missing", _packed(msg("The picture is missing.")), _packed(again)]}
    size = file.stat().st_size if num_bytes is None else num_bytes
    content: Path | bytes = file
    intact = False
    if size <= limits.max_bytes:
        with file.open("rb") as opened:
            opened.seek(offset or 0)
            content = opened.read(size)
        intact = hashlib.sha256(content).hexdigest() == sha256
    try:
        # At full size, although JPEG could be decoded at an eighth (libjpeg's scaling reads all of the file too): 0.5 ms become
        # 0.4 for 512 x 512, and equal pixels and thin coloured lines would no longer be seen.
        image = open_picture(content, name=name, limits=limits)
    except UnreadableImageError as error:
        return {"intact": intact, "fault": ["image-unreadable", _packed(error.what), _packed(error.remedy or again)]}
    except MemoryError:
        raise  # costs this picture a finding too: see Child
    except BaseException as error:  # decoders written in Rust panic with an exception that is no Exception
        what = msg("The picture is damaged or cut short: {error}", error=type(error).__name__)
        return {"intact": intact, "fault": ["image-unreadable", _packed(what), _packed(again)]}
    measured = {name: function(image) for name, function in functions.items()}
    return {"intact": intact, "size": list(image.size), "measured": measured}


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _packed(text: Text) -> list[Any]:
    return [text.template, dict(text.fields)]
