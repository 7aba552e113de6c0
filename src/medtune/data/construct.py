"""Plug-ins of the data room are made from the options that the recipe writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from medtune import plugins
from medtune.errors import RecipeError
from medtune.language import msg
from medtune.schema import faults

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
        found = faults(made if issubclass(made, BaseModel) else BaseModel, error)
        raise RecipeError(
            msg("The options of the {kind} {name!r} are wrong.", kind=kind, name=name),
            faults=tuple((f"{place}.{option}", sentence) for option, sentence in found),
            key=place,
        ) from error
    except TypeError as error:
        raise RecipeError(
            msg("The {kind} {name!r} does not take these options: {error}", kind=kind, name=name, error=str(error)), key=place
        ) from error
