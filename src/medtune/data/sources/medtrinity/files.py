"""Which form of MedTrinity-25M lies somewhere: told by the files' names and their columns, not by folder names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.data.sources.columnar import column_names
from medtune.data.sources.rows import data_files
from medtune.errors import DataError
from medtune.language import msg

__all__ = ["Files", "find_files"]

_ARCHIVES = (".tar.zst", ".tar", ".tar.gz", ".tgz")
_TABLES = (".parquet", ".arrow")


@dataclass(frozen=True, slots=True)
class Files:
    """Archives with the metadata shards that have their captions; or demo shards, and no archives."""

    tables: tuple[Path, ...]
    archives: tuple[Path, ...] = ()


def find_files(path: Path, captions: Path | None) -> Files:
    """What lies under ``path``, sorted. Reads no rows: the columns of a table stand in its footer.

    Raises:
        DataError: Nothing of MedTrinity lies there, demo shards and archives lie there together, or one half of the join is
            missing.
    """
    found = data_files(path, (*_TABLES, ".zst", ".tar", ".gz", ".tgz"))
    archives = tuple(file for file in found if file.name.lower().endswith(_ARCHIVES))
    tables = [file for file in found if file.suffix.lower() in _TABLES]
    if captions is not None:
        tables += [file for file in data_files(captions, _TABLES) if file not in tables]
    demo = [file for file in tables if {"image", "caption"} <= set(column_names(file))]
    full = [file for file in tables if {"file_name", "caption"} <= set(column_names(file)) and file not in demo]
    _refuse_others(tables, demo, full)
    if archives and demo:
        raise DataError(
            msg("Demo shards and archives lie here together: they are two forms of the data set."),
            file=path,
            key="data.sources.options.path",
            remedy=msg("Name the folder of one of them."),
        )
    if archives and not full:
        raise DataError(
            msg("The archives have no captions: the metadata shards are missing."),
            file=archives[0],
            key="data.sources.options.captions",
            remedy=msg("Give the Parquet shards of 25M_full (file_name, caption, source) under captions."),
        )
    if full and not archives:
        raise DataError(
            msg("These are captions without pictures."),
            file=full[0],
            key="data.sources.options.path",
            remedy=msg("Give the archives of 25M_accessible as path, and these shards as captions; or use the shards of 25M_demo."),
        )
    return Files(tuple(full or demo), archives)


def _refuse_others(tables: Sequence[Path], demo: Sequence[Path], full: Sequence[Path]) -> None:
    for table in tables:
        if table not in demo and table not in full:
            raise DataError(
                msg(
                    "The file has neither image and caption nor file_name and caption; it has {columns}.",
                    columns=", ".join(column_names(table)) or "-",
                ),
                file=table,
                remedy=msg("Use the shards of 25M_demo, or those of 25M_full with the archives of 25M_accessible."),
            )
