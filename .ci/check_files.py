"""Checks the files of the repository that no other tool reads: sizes, YAML and JSON syntax, conflict marks, links.

Without arguments it looks at everything git tracks; pre-commit gives it the files of the commit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 12_000_000
"""The weights of medtune-nano are the largest file that belongs here."""

CONFLICT_MARKS = ("<" * 7 + " ", ">" * 7 + " ")


def faults(path: Path) -> list[str]:
    """What is wrong with one file, a sentence each."""
    if path.is_symlink():
        return [] if path.exists() else ["is a link to nothing"]
    size = path.stat().st_size
    if size > MAX_BYTES:
        return [f"has {size:,} bytes; the limit is {MAX_BYTES:,}"]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    lines = enumerate(text.splitlines(), 1)
    found = [f"line {number} is a conflict mark" for number, line in lines if line.startswith(CONFLICT_MARKS)]
    try:
        if path.suffix in {".yaml", ".yml"}:
            for _ in yaml.safe_load_all(text):
                pass
        elif path.suffix == ".json":
            json.loads(text)
    except (yaml.YAMLError, ValueError) as error:
        found.append(f"cannot be parsed: {error}")
    return found


def main(arguments: list[str]) -> int:
    if not arguments:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        arguments = [name for name in listing.split("\0") if name]
    count = 0
    for name in arguments:
        path = ROOT / name
        if not path.exists() and not path.is_symlink():
            continue
        for fault in faults(path):
            print(f"{name}: {fault}", file=sys.stderr)
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
