"""What a finished checkpoint consists of: the names, sizes and sha256 of its files, so that damage is found before it is used.

A file cut short by a crash of the machine, a quota or a copy looks like a file. The list is written last; a checkpoint without
it is not finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetensors import SafetensorError, safe_open

from medtune.language import Text, msg

__all__ = ["SEAL", "damage", "flush", "flush_folder", "write_seal"]

SEAL = "files.json"

_THREADS = 4
"""hashlib lets other threads run while it computes: four files at once are read nearly four times as fast."""


def write_seal(folder: Path) -> None:
    """List all files below ``folder``, as they are read back, in ``files.json``."""
    files = _files(folder)
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = list(pool.map(_sha256, files))
    names = [path.relative_to(folder).as_posix() for path in files]
    listed = {
        name: {"bytes": path.stat().st_size, "sha256": digest} for name, path, digest in zip(names, files, digests, strict=True)
    }
    (folder / SEAL).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")


def damage(folder: Path, *, contents: bool = True) -> Text | None:
    """What is wrong with a sealed folder; None when nothing is.

    Args:
        contents: Also compare the sha256 of every file, which reads all of them; without it only the sizes are compared, and
            the files are opened as what they are (safetensors, torch's zip archives, JSON).
    """
    try:
        listed: dict[str, dict[str, int | str]] = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return msg("it has no readable list of its files ({name})", name=SEAL)
    for name, (size, _) in expected.items():
        path = folder / name
        if not path.is_file():
            return msg("{name} is missing", name=name)
        if path.stat().st_size != size:
            return msg("{name} has {found} of {size} bytes", name=name, found=path.stat().st_size, size=size)
        if not _opens(path):
            return msg("{name} cannot be opened", name=name)
    if contents:
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(_sha256, [folder / name for name in expected])
            for (name, (_, digest)), now in zip(expected.items(), found, strict=True):
                if now != digest:
                    return msg("the contents of {name} have changed", name=name)
    return None


def flush(path: Path) -> None:
    """Wait until a file is on the disk (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Wait until every file and folder below ``folder``, and it itself, is on the disk. A new name is in its folder only after
    the folder was flushed too (fsync(2), notes)."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _opens(path: Path) -> bool:
    """Whether the index of the file can be read: at the front of safetensors, at the end of a zip archive, all of JSON."""
    try:
        match path.suffix:
            case ".safetensors":
                with safe_open(path, "numpy"):
                    return True
            case ".pt" | ".pth":
                with zipfile.ZipFile(path):
                    return True
            case ".json":
                json.loads(path.read_text(encoding="utf-8"))
        return True
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return False
