"""CSV as it comes: from spreadsheets of any language, with tabs or semicolons, in UTF-8 or what Windows wrote."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from medtune.data.sources.hub import open_data
from medtune.data.sources.rows import Row, allow_long_fields, not_csv
from medtune.errors import DataError
from medtune.language import msg
from medtune.types import Fault

__all__ = ["Encoding", "read_delimited"]

_HEAD_BYTES = 1024 * 1024
_DELIMITERS = (",", "\t", ";", "|")
"""Tried in this order; Excel writes ``;`` where the comma is the decimal point."""
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def _known(encoding: str) -> str:
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise ValueError(msg("There is no encoding {encoding!r}.", encoding=encoding)) from error
    return encoding


Encoding = Annotated[str, AfterValidator(_known)]
"""The name of a character encoding that Python has, such as gb18030."""


def read_delimited(
    file: Path, *, encoding: str | None = None, delimiter: str | None = None, options: str = "options"
) -> Iterator[Row]:
    """The rows of a delimited file with a head line, as text. A row of another number of fields carries a fault.

    Args:
        file: On this machine or on a hub.
        encoding: None: by the byte order mark, else UTF-8. A file of another encoding is refused with the likely one named, not
            guessed: a wrong guess becomes wrong characters in reports.
        delimiter: None: that of comma, tab, semicolon and bar which cuts the head line into most columns.
        options: Where in the source's entry of a recipe the encoding stands, for messages.

    Raises:
        DataError: Not text in this encoding, not delimited, or two columns have one name.
    """
    with open_data(file) as stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(0)
        used = encoding or next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")
        try:
            with io.TextIOWrapper(stream, encoding=used, newline="") as text:
                yield from _rows(file, text, delimiter)
        except UnicodeError as error:
            raise DataError(
                msg("The file is not text in the encoding {encoding}.", encoding=used),
                file=file,
                key=f"data.sources.{options}.encoding",
                remedy=msg(
                    "It reads as {likely}: set {key}, or save it as UTF-8.", likely=_likely(head), key=f"{options}.encoding"
                ),
            ) from error


def _rows(file: Path, text: io.TextIOWrapper, delimiter: str | None) -> Iterator[Row]:
    allow_long_fields()
    line = text.readline()
    text.seek(0)
    used = delimiter or max(_DELIMITERS, key=lambda mark: len(next(csv.reader([line], delimiter=mark), [])))
    reader = csv.reader(text, delimiter=used, strict=True)
    try:
        yield from _below_head(file, reader)
    except csv.Error as error:
        raise not_csv(file, reader.line_num, error) from error


def _below_head(file: Path, reader: Iterator[list[str]]) -> Iterator[Row]:
    names = [name.strip() for name in next(reader, [])]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise DataError(
            msg("The head line names no columns.") if not names else msg("Two columns are called {name!r}.", name=twice[0]),
            file=file,
            remedy=msg("The first line must name each column once."),
        )
    number = 0
    for fields in reader:
        if not fields:
            continue
        number += 1
        fault = None
        if len(fields) != len(names):
            fault = Fault(
                "field-count",
                msg("The row has {found} fields, the head line {expected}.", found=len(fields), expected=len(names)),
                msg("Quote fields that hold the delimiter."),
            )
        values: dict[str, Any] = dict(zip(names, fields, strict=False))
        yield Row(file, number, values, fault)


def _likely(head: bytes) -> str:
    """The encoding that Windows programs of the language would have written."""
    if b"\0" in head[:1000]:
        return "UTF-16"
    for name in ("gb18030", "big5", "shift_jis"):
        # An incremental decoder does not mind a character cut at the end of the head.
        try:
            codecs.getincrementaldecoder(name)().decode(head)
        except UnicodeDecodeError:
            continue
        return name
    return "cp1252"
