"""What a verb may be given: a recipe or a run, under any of their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medtune import runs
from medtune.recipe import Recipe, load_recipe, make_recipe, shipped_recipes
from medtune.runs import Run

RecipeLike = str | Path | Recipe
"""A recipe: its file, the name of a shipped one, a run folder, or a recipe that was read already."""

RunLike = str | Path | Run
"""A run: its folder, the name of a folder in ``runs``, or a run that was opened already."""


def recipe_of(recipe: RecipeLike, overrides: Sequence[str]) -> Recipe:
    """The recipe that is meant, with the overrides in it.

    Raises:
        RecipeError: It cannot be found, or is wrong.
    """
    if not isinstance(recipe, Recipe):
        return load_recipe(recipe, overrides)
    return make_recipe(recipe.model_dump(mode="json"), overrides) if overrides else recipe


def is_data(target: Path) -> bool:
    """Whether a folder is to be read as a data set: it is neither a run nor the name of a shipped recipe."""
    return target.is_dir() and not (target / "recipe.yaml").is_file() and str(target) not in shipped_recipes()


def find_run(run: RunLike) -> Run:
    """A run by its folder, or by the name of a folder in ``runs``.

    Raises:
        RunError: There is none; the nearest name is given.
    """
    return run if isinstance(run, Run) else runs.find_run(run)
