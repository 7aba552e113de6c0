"""Recipes for readers: listed, shown, copied, compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.errors import RecipeError
from medtune.language import msg
from medtune.recipe import (
    Recipe,
    Setting,
    SettingDifference,
    diff_settings,
    dump_recipe,
    explain,
    find_recipe,
    load_recipe,
    read_head,
    rename,
    shipped_recipes,
)
from medtune.runs import atomic_write


@dataclass(frozen=True, slots=True)
class ShownRecipe:
    """A recipe for readers.

    Attributes:
        recipe: As it would be used.
        head: The comments at the head of its file.
        text: The file as it stands.
        resolved: Head and every setting, defaults written out.
        settings: Every setting with its default and its meaning.
    """

    recipe: Recipe
    head: str
    text: str
    resolved: str
    settings: tuple[Setting, ...]


def list_recipes() -> dict[str, Recipe]:
    """The shipped recipes by name."""
    return {name: load_recipe(path) for name, path in shipped_recipes().items()}


def show_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> ShownRecipe:
    """A recipe with its comments, its resolved form and what its settings mean.

    Raises:
        RecipeError: It cannot be found, or is wrong.
    """
    path = find_recipe(recipe)
    loaded = load_recipe(path, overrides)
    head = read_head(path)
    resolved = f"{head}\n\n{dump_recipe(loaded)}" if head else dump_recipe(loaded)
    return ShownRecipe(loaded, head, path.read_text(encoding="utf-8"), resolved, tuple(explain(loaded)))


def copy_recipe(recipe: str | Path, target: Path) -> Path:
    """Copy a recipe, comments and all, under the name of its new file; returns the file.

    Raises:
        RecipeError: The recipe cannot be found, ``target`` exists, or its name cannot be a recipe's.
    """
    path = find_recipe(recipe)
    load_recipe(path)
    target = target if target.suffix in (".yaml", ".yml") else target.with_name(f"{target.name}.yaml")
    if target.exists():
        raise RecipeError(msg("The file exists already."), file=target, remedy=msg("Give another name."))
    text = rename(path.read_text(encoding="utf-8"), target.stem)
    atomic_write(target, text)
    try:
        load_recipe(target)
    except RecipeError:
        target.unlink()
        raise
    return target


def diff_recipes(first: str | Path, second: str | Path) -> list[SettingDifference]:
    """The settings in which two recipes (files, names or run folders) differ."""
    return diff_settings(load_recipe(first), load_recipe(second))
