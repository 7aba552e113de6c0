"""Write a data set in another form: whole or not at all, the same bytes each time, a row at a time.

Everything is written on this machine, so a local-only data set may be exported; the card that goes with it says that it must stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from medtune.data.card import write_card
from medtune.data.dataset import Dataset
from medtune.data.export.llamafactory import write_llamafactory
from medtune.data.export.parquet import write_parquet
from medtune.data.export.rows import Rows
from medtune.data.export.webdataset import write_webdataset
from medtune.errors import DataError
from medtune.language import msg
from medtune.runs import atomic_folder
from medtune.types import Event, Listener

__all__ = ["EXPORT_FORMATS", "MAX_SHARD_BYTES", "ExportFormat", "Exported", "export_dataset"]

ExportFormat = Literal["llamafactory", "webdataset", "parquet"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

MAX_SHARD_BYTES = 1_000_000_000
"""Of a tar or Parquet file. Large enough to read at the speed of the disk, small enough to copy again when it was cut short."""

_WRITERS: dict[ExportFormat, Callable[[Rows, Path, int], None]] = {
    "llamafactory": write_llamafactory,
    "webdataset": write_webdataset,
    "parquet": write_parquet,
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. ``num_rows`` is by split; ``local_only``: the folder must stay on this machine."""

    folder: Path
    to: ExportFormat
    num_rows: dict[str, int]
    local_only: bool


def export_dataset(
    dataset: Dataset,
    folder: Path,
    to: ExportFormat,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    listener: Listener | None = None,
) -> Exported:
    """Write a data set into a new folder.

    Args:
        dataset: Its rows and pictures are read one after the other, and each picture is held against its sha256.
        folder: Must not exist, or be empty.
        to: ``llamafactory``: ShareGPT rows, ``dataset_info.json``, pictures as files. ``webdataset``: tar files. ``parquet``:
            ``data/<split>-00000-of-0000N.parquet`` with the pictures inside.
        max_shard_bytes: A tar or Parquet file is ended before it would grow larger; one row never is cut.

    Raises:
        DataError: The folder is in use, a row cannot be read, or a picture is not the one that was prepared.
        RunError: Nothing can be written there.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(msg("The folder exists already."), file=folder, remedy=msg("Name another folder, or delete this one."))

    def tell(split: str, done: int) -> None:
        if listener is not None and done % 100 == 0:
            total = dataset.manifest.num_samples.get(split)
            listener(Event("progress", msg("Writing {split}", split=split), done=done, total=total))

    rows = Rows(dataset, tell)
    with atomic_folder(folder) as temporary:
        _WRITERS[to](rows, temporary, max_shard_bytes)
        write_card(temporary, dataset.manifest, layout=to)
    return Exported(folder, to, dict(rows.written), dataset.manifest.local_only)
