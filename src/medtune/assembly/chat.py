"""Who is talked with, and what may leave the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medtune.assembly.evaluation import trained
from medtune.errors import RecipeError, RunError
from medtune.language import msg
from medtune.recipe import Recipe, dataset_folder, find_recipe, load_recipe, make_recipe, run_folder
from medtune.runs import Run, find_run, is_run, list_runs


def chat_source(
    run: str | Path | Run | None, adapter: Path | None, overrides: Sequence[str], *, base_only: bool
) -> tuple[Recipe, Path | None]:
    """The recipe that says how to talk, and the adapter to talk with (None = the base model, or what a server serves).

    Raises:
        RunError: There is no such run, or it has not been trained.
    """
    if run is None and adapter is not None:
        file = adapter.parent / "recipe.yaml"
        recipe = load_recipe(file, overrides) if file.is_file() else _recipe_of_contract(adapter, overrides)
        return recipe, None if base_only else adapter
    known = isinstance(run, Run) or run is None or is_run(run) or is_run(Path("runs") / run)
    if not known and (recipe_file := _recipe_file(str(run))) is not None:
        recipe = load_recipe(recipe_file, overrides)
        if base_only or adapter is not None or not recipe.generation.generator.in_process:
            return recipe, None if base_only else adapter
        opened = Run(run_folder(recipe))
        if not is_run(opened.folder):
            raise RunError(
                msg("The recipe {name} has not been trained yet.", name=recipe.name),
                file=opened.folder,
                remedy=msg("Train it with `medtune train {recipe}`, or talk with the base model: --base-only.", recipe=str(run)),
            )
        return recipe, trained(opened)
    opened = run if isinstance(run, Run) else find_run(run) if run is not None else _latest_trained()
    recipe = load_recipe(opened.recipe_path, overrides)
    if base_only or adapter is not None:
        return recipe, None if base_only else adapter
    return recipe, trained(opened) if recipe.generation.generator.in_process else opened.adapter


def _recipe_file(name: str | Path) -> Path | None:
    try:
        return find_recipe(name)
    except RecipeError:
        return None


def may_leave(recipe: Recipe, adapter: Path | None) -> bool:
    """Whether what is said in a chat may go to another machine: not when data or adapter are ``local_only``.

    A data set that has not been prepared, or was left behind when a run moved, says nothing against it; its adapter still does.
    """
    from medtune.data.dataset import Dataset
    from medtune.models.contract import FILE_NAME, read_contract

    if recipe.data.local_only:
        return False
    if adapter is not None and (adapter / FILE_NAME).is_file() and read_contract(adapter).local_only:
        return False
    folder = dataset_folder(recipe)
    return not (folder / "manifest.json").is_file() or not Dataset.open(folder).manifest.local_only


def _latest_trained() -> Run:
    for run in list_runs():
        if run.adapter is not None:
            return run
    raise RunError(msg("There is no trained run in `runs`."), remedy=msg("Train one (`medtune demo`), or name a run folder."))


def _recipe_of_contract(adapter: Path, overrides: Sequence[str]) -> Recipe:
    """An adapter that was taken out of its run still names its base model."""
    from medtune.models.contract import read_contract

    contract = read_contract(adapter)
    settings = {
        "name": "adapter",
        "data": {"sources": [{"source": "none"}]},
        "model": {"base": contract.base_model, "revision": contract.base_revision},
    }
    return make_recipe(settings, overrides, file=adapter / "contract.json")
