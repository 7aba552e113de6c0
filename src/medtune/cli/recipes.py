"""``medtune recipe``: list, show, copy and diff recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.cli.parameters import AsJson, Overrides, RecipeName, example
from medtune.cli.usage import Command, Group
from medtune.language import msg

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    group = typer.Typer(
        cls=Group,
        help=str(msg("List, show, copy and compare recipes.")),
        no_args_is_help=True,
        epilog=example("medtune recipe show demo"),
    )
    for name, command, text, shown in (
        ("list", list_recipes, msg("The shipped recipes."), "medtune recipe list"),
        ("show", show_recipe, msg("Print a recipe."), "medtune recipe show demo --explain"),
        ("copy", copy_recipe, msg("Make a recipe yours: copy it, comments and all."), "medtune recipe copy demo mine.yaml"),
        ("diff", diff_recipes, msg("The settings in which two recipes differ."), "medtune recipe diff demo mine.yaml"),
    ):
        group.command(name, cls=Command, help=str(text), epilog=example(shown))(command)
    app.add_typer(group, name="recipe")


def list_recipes(as_json: AsJson = False) -> None:
    from medtune import api
    from medtune.cli.tables import print_json, print_recipes

    listed = api.list_recipes()
    print_json({name: recipe.title for name, recipe in listed.items()}) if as_json else print_recipes(listed)


def show_recipe(
    recipe: RecipeName,
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help=str(msg("List every setting with its value and meaning.")))] = False,
    resolved: Annotated[bool, typer.Option("--resolved", help=str(msg("Write out every default.")))] = False,
    schema: Annotated[bool, typer.Option("--schema", help=str(msg("Print the JSON schema of all recipes.")))] = False,
) -> None:
    from medtune import api
    from medtune.cli.tables import print_json, print_settings

    shown = api.show_recipe(recipe, overrides or ())
    if schema:
        print_json(api.recipe_schema())
    elif explain:
        print_settings(shown.settings)
    else:
        typer.echo(shown.resolved if resolved or overrides else shown.text, nl=False)


def copy_recipe(
    recipe: RecipeName,
    target: Annotated[Path, typer.Argument(metavar="FILE", help=str(msg("The new file; its name becomes the recipe's name.")))],
) -> None:
    from medtune import api

    typer.echo(str(msg("Written: {file}", file=api.copy_recipe(recipe, target))))


def diff_recipes(first: RecipeName, second: RecipeName, as_json: AsJson = False) -> None:
    from medtune import api
    from medtune.cli.tables import print_json, print_recipe_diff

    differences = api.diff_recipes(first, second)
    print_json(differences) if as_json else print_recipe_diff(first, second, differences)
