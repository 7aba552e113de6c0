"""JSON inside a model's answer."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import NoReturn, cast

from pydantic import JsonValue

from medtune.language import msg

__all__ = ["all_json", "read_json", "read_python_literal"]

_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def _refuse(constant: str) -> NoReturn:
    # Python's decoder takes NaN and Infinity, RFC 8259 has neither.
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def all_json(text: str, *, opening: str = "{[") -> Iterator[JsonValue]:
    """The outermost JSON values (RFC 8259) in ``text`` that begin with one of the characters ``opening``, in their order.

    A Markdown fence and words around them are no fault; where a fence holds values, only those count. Of a list that was cut
    off, its whole elements come. A Python literal (single quotes, ``None``) is not JSON.
    """
    found = False
    for part in (*_FENCE.findall(text), text):
        end = 0
        for start in re.finditer(f"[{re.escape(opening)}]", part):
            if start.start() < end:
                continue
            try:
                value, end = _DECODER.raw_decode(part, start.start())
            except RecursionError:
                # Each of the openings within would go as deep again: a text of brackets alone would take minutes.
                return
            except ValueError:
                continue
            found = True
            yield cast("JsonValue", value)
        if found:
            return


def read_json(text: str, *, opening: str = "{[") -> JsonValue:
    """The first of :func:`all_json`.

    Raises:
        ValueError: There is none: it is absent, cut off, malformed or nested too deep.
    """
    for value in all_json(text, opening=opening):
        return value
    raise ValueError(msg("The answer holds no sound JSON."))


def read_python_literal(text: str) -> JsonValue:
    """The value of a Python literal made of what JSON can hold; evaluates nothing (:func:`ast.literal_eval`).

    Raises:
        ValueError: It is not such a literal.
    """
    try:
        value = ast.literal_eval(text.strip())
        # A round trip refuses what JSON cannot hold (sets, bytes, complex numbers, NaN) and turns tuples into lists.
        return cast("JsonValue", json.loads(json.dumps(value, allow_nan=False)))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(msg("This is not a literal that JSON could hold.")) from error
