"""A search space held against the recipe that it varies, and one point of it as a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medtune.errors import RecipeError
from medtune.hpo.config import Parameter, Space
from medtune.language import Text, msg
from medtune.recipe import Recipe, find_recipe, make_recipe, read_yaml
from medtune.schema import faults

__all__ = ["SUFFIX", "find_space", "load_space", "overrides_of", "own_choice", "own_value", "with_changes", "yaml_text"]

SUFFIX = ".sweep.yaml"
"""``mine.sweep.yaml`` is the search space of ``mine.yaml``."""

_FIXED: dict[str, Text] = {
    "data": msg("The data set decides which rows the validation loss is measured on: all trials share one."),
    "run": msg("The sweep names its runs itself."),
    "name": msg("The sweep names its runs itself."),
    "title": msg("The sweep names its runs itself."),
    "distributed": msg("How a run is spread over devices is the same for all trials."),
    "evaluation": msg("How the result is judged is the same for all trials."),
    "generation": msg("How the result is judged is the same for all trials."),
    "model.base": msg("Losses of two base models are not comparable: their tokens differ."),
    "model.revision": msg("Losses of two base models are not comparable: their tokens differ."),
    "model.hub": msg("Losses of two base models are not comparable: their tokens differ."),
    "model.supervise": msg("It changes which tokens the validation loss is measured on."),
    "train.max_tokens": msg("It changes which rows the validation loss is measured on."),
    "train.too_long": msg("It changes which rows the validation loss is measured on."),
    "train.evaluate_every": msg("The validation loss is measured alike in all trials."),
    "train.seed": msg("Seeds are not searched: write seeds beside parameters."),
}
"""Keys (and all keys below them) that a sweep may not vary, and why."""


def find_space(recipe: str | Path, space: str | Path | None = None) -> Path:
    """The file of a search space: ``space``, else ``<name>.sweep.yaml`` beside the recipe.

    Raises:
        RecipeError: There is none.
    """
    if space is not None:
        path = Path(space)
    else:
        file = find_recipe(recipe)
        path = file.with_name(f"{file.stem}{SUFFIX}")
    if not path.is_file():
        raise RecipeError(
            msg("There is no search space in this place."),
            file=path,
            remedy=msg("Write one there, or name it with --space FILE; docs/sweeps.md shows how."),
        )
    return path


def load_space(path: Path, recipe: Recipe, changes: Mapping[str, Any] | None = None) -> Space:
    """Read a search space and check every key and every value of it against the recipe.

    Args:
        changes: Entries that replace those of the file, such as ``trials``.

    Raises:
        RecipeError: The file is damaged, a key is no setting of the recipe (the nearest is named) or may not be varied, or a
            value is none that the setting takes. All faults are told at once.
    """
    settings = {**read_yaml(path), **(changes or {})}
    try:
        space = Space.model_validate(settings)
    except ValidationError as error:
        found = faults(Space, error)
    else:
        found = list(_misfits(space, recipe))
        if not found:
            return space
    raise RecipeError(
        msg("The search space has {count} faults.", count=len(found)) if len(found) > 1 else msg("The search space has a fault."),
        faults=found,
        file=path,
        remedy=msg("`medtune recipe show demo --explain` lists every setting; docs/sweeps.md shows a search space."),
    )


def _misfits(space: Space, recipe: Recipe) -> Iterator[tuple[str, Text]]:
    for key, parameter in space.parameters.items():
        reason = next((_FIXED[name] for name in _above(key) if name in _FIXED), None)
        if reason is not None:
            yield key, msg("A sweep may not vary this. {reason}", reason=reason)
            continue
        if key in ("model.min_pixels", "model.max_pixels") and recipe.train.too_long == "leave-out":
            yield key, msg("A sweep may not vary this. {reason}", reason=_FIXED["train.max_tokens"])
            continue
        if parameter.times is not None and not isinstance(own_value(recipe, parameter.times), int | float):
            yield key, msg("times names {other}, which is no number in this recipe.", other=parameter.times)
            continue
        for value in parameter.choices if parameter.choices is not None else (parameter.low, parameter.high):
            try:
                with_changes(recipe, overrides_of({key: value}, space, recipe))
            except RecipeError as error:
                yield from error.faults
                break


def _above(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def own_value(recipe: Recipe, key: str) -> Any:
    """The recipe's value of a dotted key; None where it has none."""
    place: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        if isinstance(place, Mapping):
            place = place.get(part)
        elif isinstance(place, Sequence) and not isinstance(place, str) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        else:
            return None
    return place


def own_choice(recipe: Recipe, key: str, parameter: Parameter) -> Any:
    """The recipe's own value as the search space writes it: with ``times``, as a multiple of the other setting."""
    value = own_value(recipe, key)
    if parameter.times is None:
        return value
    if value is None and (key, parameter.times) == ("adapter.alpha", "adapter.rank"):
        return 2  # what LoraSettings.alpha means when it is not given
    return value / own_value(recipe, parameter.times) if isinstance(value, int | float) else None


def overrides_of(settings: Mapping[str, Any], space: Space, recipe: Recipe) -> tuple[str, ...]:
    """A point of the space as overrides of the recipe. Keys that ``settings`` leaves out stay as the recipe has them."""
    plain = {key: value for key, value in settings.items() if _factor_of(space, key) is None}
    written = [f"{key}={yaml_text(value)}" for key, value in plain.items()]
    for key, value in settings.items():
        other = _factor_of(space, key)
        if other is not None:
            number = plain.get(other, own_value(recipe, other))
            written.append(f"{key}={max(1, round(value * number))}")
    return tuple(written)


def _factor_of(space: Space, key: str) -> str | None:
    parameter: Parameter | None = space.parameters.get(key)
    return parameter.times if parameter is not None else None


def with_changes(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with overrides.

    Raises:
        RecipeError: They do not fit each other or the recipe.
    """
    return make_recipe(recipe.model_dump(mode="json"), overrides)


def yaml_text(value: Any) -> str:
    """A value on one line, so that YAML reads it back as it was: ``5.0e-05`` and not ``5e-05``, which YAML takes for text."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()
