"""Which settings a sweep tries, where that is known before it begins."""

from __future__ import annotations

import itertools
from typing import Any

from medtune.hpo.config import Space
from medtune.hpo.space import own_choice
from medtune.recipe import Recipe

__all__ = ["DEFAULT_TRIALS", "num_trials", "planned"]

DEFAULT_TRIALS = 20
"""Of the samplers that could go on for ever. TPE draws its first ten at random (Optuna's ``n_startup_trials``)."""


def planned(space: Space, recipe: Recipe) -> list[dict[str, Any]]:
    """The points of a ``grid`` or ``one-at-a-time`` design in the order of the file; empty for ``tpe`` and ``random``.

    Points at which the recipe is as it stands are left out: that is the first trial of every sweep.
    """
    if space.sampler == "grid":
        choices = [parameter.choices or () for parameter in space.parameters.values()]
        points = [dict(zip(space.parameters, values, strict=True)) for values in itertools.product(*choices)]
    elif space.sampler == "one-at-a-time":
        points = [{key: value} for key, parameter in space.parameters.items() for value in parameter.choices or ()]
    else:
        return []
    own = {key: own_choice(recipe, key, parameter) for key, parameter in space.parameters.items()}
    return [point for point in points if any(value != own[key] for key, value in point.items())][: space.trials]


def num_trials(space: Space, recipe: Recipe) -> int:
    """How many trials the sweep has, the recipe's own settings included."""
    if space.sampler in ("grid", "one-at-a-time"):
        return 1 + len(planned(space, recipe))
    return 1 + (space.trials or DEFAULT_TRIALS)
