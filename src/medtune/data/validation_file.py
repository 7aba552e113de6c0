"""``validation.json`` of a data set folder: what the last ``validate`` found, so that ``train`` need not decode a million pictures.

It is believed as long as nothing that it speaks of changed: the manifest and the files that it names by hash, the list of records
left out, the size of every picture or shard, the checks and their settings, and medtune's version. A picture that was replaced by
one of the same size is seen by ``validate`` itself, which never reads this file. It is no part of the data set: no hash covers it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from medtune import __version__
from medtune.data.checks.row_length import RowLength
from medtune.data.dataset import Dataset
from medtune.data.validate import CHECKS, validate
from medtune.errors import MedtuneError
from medtune.imaging.config import Limits
from medtune.language import msg
from medtune.runs import atomic_write
from medtune.types import Document, Issue, Listener, ValidationReport

__all__ = ["NAME", "keep", "stored_report", "validated"]

NAME = "validation.json"

_HERE = "./"
"""Begins the path of a file of the data set: where the folder lies is nobody's business, and it may be moved."""


class _Stored(Document):
    key: str
    report: ValidationReport


def validated(
    dataset: Dataset,
    *,
    faulty_records: Literal["error", "leave-out"] = "error",
    limits: Limits | None = None,
    num_workers: int = 2,
    listener: Listener | None = None,
) -> ValidationReport:
    """The findings of ``validate`` without the row lengths: those stored if they are still true, else new ones, which are stored.

    Arguments as of :func:`medtune.data.validate.validate`.
    """
    key = _key(dataset, faulty_records, limits)
    if key is not None:
        with contextlib.suppress(OSError, ValidationError, UnicodeDecodeError):
            stored = _Stored.model_validate_json((dataset.folder / NAME).read_text(encoding="utf-8"))
            if stored.key == key:
                return _with_files(stored.report, lambda file: _there(dataset.folder, file))
    report = validate(dataset, faulty_records=faulty_records, limits=limits, num_workers=num_workers, listener=listener)
    keep(dataset, report, faulty_records=faulty_records, limits=limits)
    return report


def stored_report(dataset: Dataset, *, limits: Limits | None = None) -> ValidationReport | None:
    """The stored findings, if they are still true of the data set, in whichever way they were made; nothing is validated for it."""
    with contextlib.suppress(OSError, ValidationError, UnicodeDecodeError):
        stored = _Stored.model_validate_json((dataset.folder / NAME).read_text(encoding="utf-8"))
        if stored.key in (_key(dataset, "error", limits), _key(dataset, "leave-out", limits)):
            return _with_files(stored.report, lambda file: _there(dataset.folder, file))
    return None


def keep(
    dataset: Dataset,
    report: ValidationReport,
    *,
    faulty_records: Literal["error", "leave-out"] = "error",
    limits: Limits | None = None,
) -> None:
    """Store a report, without what it says of row lengths, which are a model's. A folder that cannot be written keeps none."""
    key = _key(dataset, faulty_records, limits)
    if key is None:
        return
    lengths = {name: msg("No model was given, so the rows were not measured.") for name in RowLength.names}
    plain = report.model_copy(
        update={
            "issues": tuple(issue for issue in report.issues if issue.code not in RowLength.codes),
            "checks": tuple(name for name in report.checks if name not in lengths),
            "skipped": {**report.skipped, **lengths},
        }
    )
    stored = _Stored(key=key, report=_with_files(plain, lambda file: _relative(dataset.folder, file)))
    with contextlib.suppress(MedtuneError):
        atomic_write(dataset.folder / NAME, stored.model_dump_json() + "\n")


def _key(dataset: Dataset, faulty_records: str, limits: Limits | None) -> str | None:
    """Names the state of the data set and of the settings; None when it is not what its manifest says."""
    digest = hashlib.sha256(repr((__version__, CHECKS, faulty_records, (limits or Limits()).model_dump())).encode())
    try:
        if dataset.changed_files():
            return None
        for name in ("manifest.json", "left_out.jsonl"):
            file = dataset.folder / name
            digest.update(file.read_bytes() if file.is_file() else b"\0")
        last: Path | None = None
        for ref in dataset.images.values():
            # Pictures of one shard follow each other.
            file = dataset.image_path(ref)
            if file != last:
                digest.update(b"%d\n" % file.stat().st_size)
                last = file
    except (OSError, MedtuneError):
        return None
    return digest.hexdigest()


def _with_files(report: ValidationReport, change: Callable[[str], str]) -> ValidationReport:
    def changed(issue: Issue) -> Issue:
        return issue if issue.file is None else issue.model_copy(update={"file": change(issue.file)})

    return report.model_copy(update={"issues": tuple(changed(issue) for issue in report.issues)})


def _relative(folder: Path, file: str) -> str:
    # With the number of the line behind it a path is still a path.
    path = Path(file)
    return _HERE + path.relative_to(folder).as_posix() if path.is_relative_to(folder) else file


def _there(folder: Path, file: str) -> str:
    return str(folder / file.removeprefix(_HERE)) if file.startswith(_HERE) else file
