"""Plug-ins of the data room are made from the options that the recipe writes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from medtune import plugins
from medtune.errors import RecipeError
from medtune.language import Text, msg

__all__ = ["construct"]


def construct(kind: plugins.Kind, name: str, options: Mapping[str, Any], key: str, *, nested: bool = True) -> Any:
    """The plug-in ``name`` with its options. ``key`` is where the recipe names it; ``nested``: options stand below ``options``.

    Raises:
        PluginError: The name is unknown.
        RecipeError: Options are unknown, missing or wrong; all faults at once.
    """
    made = plugins.resolve(kind, name)
    place = f"{key}.options" if nested else key
    try:
        return made(**options)
    except ValidationError as error:
        faults = tuple((".".join([place, *map(str, fault["loc"])]), _fault(fault, made)) for fault in error.errors())
        raise RecipeError(
            msg("The options of the {kind} {name!r} are wrong.", kind=kind, name=name), faults=faults, key=place
        ) from error
    except TypeError as error:
        raise RecipeError(
            msg("The {kind} {name!r} does not take these options: {error}", kind=kind, name=name, error=str(error)), key=place
        ) from error


def _fault(fault: Any, made: Any) -> Text:
    if fault["type"] == "missing":
        return msg("This option must be given.")
    if fault["type"] == "extra_forbidden":
        known = list(getattr(made, "model_fields", ()))
        nearest = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        if nearest:
            return msg("There is no such option. Did you mean {nearest}?", nearest=nearest[0])
        return msg("There is no such option. Known: {known}.", known=", ".join(known) or "-")
    return msg("{problem} (it is {value})", problem=fault["msg"], value=repr(fault.get("input")))
