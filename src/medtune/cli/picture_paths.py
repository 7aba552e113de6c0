"""Picture paths as people paste or drag them into a terminal, apart from the words around them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

__all__ = ["read_path", "split_pictures"]

# DICOM and NIfTI are no formats that a chat reads, but a path to one is meant as a picture: the answer is then a clear refusal.
_SUFFIX = r"\.(?:png|jpe?g|jfif|bmp|gif|tiff?|webp|p[bgnp]m|dcm|dicom|nii|nii\.gz)"
# A path ends at the suffix when a blank, a quote, punctuation or a letter outside ASCII follows: Chinese needs no blank between.
_END = re.compile(rf"{_SUFFIX}(?!\.\w|[\w\-/\\%](?<=[\x00-\x7f]))['\"’”]?", re.IGNORECASE)
_AT_END = re.compile(rf"{_SUFFIX}['\"’”]?(?P<mark>[?!.？！。]*)$", re.IGNORECASE)
# What only a path begins with; quotes may stand before.
_BEGIN = re.compile(r"['\"‘“]?(?:file://|~?/(?!/)|~[\w.-]+/|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\)")
_WINDOWS = re.compile(r"['\"‘“]?(?:[A-Za-z]:[/\\]|\\\\)")
# A line whose first word is a picture's name means that picture, also when it is spelt wrong; so does a last word with a folder.
_FIRST_WORD = re.compile(rf"(?!\S*://)[^\s'\"]*?[\w)]{_SUFFIX}(?=[\s,，：]|$)", re.IGNORECASE)
_WITH_FOLDER = re.compile(r"(?!\S*://)[^\s'\"/\\]+[/\\]\S+$")
_QUOTES = {"'": "'", '"': '"', "‘": "’", "“": "”"}
_AFTER_PATH = " \t\u3000,;:.，；：、。"
_BEFORE_PATH = " \t\u3000,:，："


def split_pictures(line: str) -> tuple[list[Path], str]:
    """The pictures at the beginning and the end of a line, in their order, and the text between them.

    Understood are plain paths (with blanks too, where such a file exists), quoted ones, shell escapes (``\\ ``), ``file://``
    addresses with percent encoding, ``~`` and Windows paths. A path that names no file is returned as well when it can be
    nothing else (it has a folder and a picture's suffix, or is the first word and has the suffix), so that the caller can say
    that it is wrong. A bare ``scan.png`` inside or at the end of a sentence is a picture only where that file exists.
    """
    text = line.strip()
    first: list[Path] = []
    last: list[Path] = []
    while found := _at_start(text):
        path, text = found
        first.append(path)
    while found := _at_end(text):
        path, text = found
        last.insert(0, path)
    if not first and not last and (word := _FIRST_WORD.match(text)):
        return [read_path(word[0])], text[word.end() :].lstrip(_AFTER_PATH)
    return first + last, text


def read_path(raw: str) -> Path:
    """What one written path means: the first reading that names a file, else the most likely one."""
    readings = list(_readings(raw.strip()))
    # In a Windows path the backslashes are no escapes.
    likely = readings[0] if _WINDOWS.match(raw.strip()) else readings[-1]
    return next((path for path in readings if _is_file(path)), likely)


def _at_start(text: str) -> tuple[Path, str] | None:
    candidates = [text[: match.end()] for match in _END.finditer(text)]
    for raw in reversed(candidates):  # the longest name that exists: "a.png b.png" may be one file
        if (path := _existing(raw)) is not None:
            return path, text[len(raw) :].lstrip(_AFTER_PATH)
    if _BEGIN.match(text):
        if (path := _existing(text)) is not None:  # a file without a picture's suffix, alone on the line
            return path, ""
        if candidates:
            return read_path(candidates[0]), text[len(candidates[0]) :].lstrip(_AFTER_PATH)
    return None


def _at_end(text: str) -> tuple[Path, str] | None:
    if (match := _AT_END.search(text)) is None:
        return None
    mark = match["mark"]
    body = text[: len(text) - len(mark)]
    starts = [index for index in range(1, len(body)) if _may_begin(body, index)]
    found = next(((path, index) for index in starts if (path := _existing(body[index:])) is not None), None)  # the longest
    if found is None:
        meant = (index for index in reversed(starts) if _BEGIN.match(body, index) or _WITH_FOLDER.match(body, index))
        found = next(((read_path(body[index:]), index) for index in meant), None)
    if found is None:
        return None
    path, index = found
    return path, body[:index].rstrip(_BEFORE_PATH) + mark


def _may_begin(text: str, index: int) -> bool:
    """After a blank; after a letter or mark outside ASCII; or where only a path begins, after punctuation."""
    before = text[index - 1]
    if text[index].isspace():
        return False
    return before.isspace() or not before.isascii() or (before in ":;,(" and _BEGIN.match(text, index) is not None)


def _existing(raw: str) -> Path | None:
    return next((path for path in _readings(raw) if _is_file(path)), None)


def _readings(raw: str) -> Iterator[Path]:
    """What ``raw`` may mean, the most literal first."""
    unquoted = raw[1:-1] if len(raw) > 1 and _QUOTES.get(raw[0]) == raw[-1] else raw
    for words in (unquoted, _shell_word(raw)):
        if words is None:
            continue
        if words.lower().startswith("file:"):
            yield _from_address(words)
        else:
            yield _home(words)
            # Windows Subsystem for Linux mounts C: there.
            if drive := re.match(r"([A-Za-z]):[/\\](.*)", words, re.DOTALL):
                yield Path("/mnt", drive[1].lower(), drive[2].replace("\\", "/"))


def _shell_word(raw: str) -> str | None:
    """``raw`` as a POSIX shell reads it, when that is a single word."""
    try:
        words = shlex.split(raw)
    except ValueError:
        return None
    return words[0] if len(words) == 1 else None


def _from_address(address: str) -> Path:
    """RFC 8089: file:///path, file://localhost/path, file:/path; file:///C:/path on Windows."""
    # By hand: urlsplit takes ? and # for the end of the path, and a dragged name may hold both.
    path = unquote(re.sub(r"^file:(?://[^/]*)?", "", address, flags=re.IGNORECASE))
    return Path(path[1:] if re.match(r"/[A-Za-z]:/", path) and Path("C:/").drive else path)


def _home(words: str) -> Path:
    try:
        return Path(words).expanduser()
    except RuntimeError:  # ~nobody
        return Path(words)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or a NUL inside
        return False
