"""A training as a recipe asks for it: begun or gone on with, refused early, in a run folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.assembly.data import make_dataset, refuse_errors
from medtune.assembly.listener import say
from medtune.errors import MedtuneError, RecipeError, RunError
from medtune.language import msg
from medtune.recipe import Recipe, diff_settings, dump_recipe, load_recipe
from medtune.runs import Run, now
from medtune.training.config import FREE_ON_RESUME
from medtune.types import Event, Listener, RunRecord

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset


_FREE_ON_RESUME = (
    "name",
    "title",
    "data.folder",
    "data.num_workers",
    "data.faulty_records",
    *(f"train.{name}" for name in sorted(FREE_ON_RESUME)),
)
"""Settings that may differ when a run is resumed: they change no weight."""


def train(recipe: Recipe, folder: Path, *, resume: bool = False, listener: Listener | None = None) -> Run:
    """Tune the model of a recipe in the run folder ``folder``; the data set is made first when it is missing.

    A run that fails before its first step leaves no folder behind.

    Raises:
        MedtuneError: As :func:`medtune.api.train`.
    """
    from medtune.training.launch import follow
    from medtune.training.locality import locked_by, refuse_sending
    from medtune.training.outer import follows

    if follows():
        return follow(folder)
    run = resumable(folder, recipe) if resume else None
    if run is None and folder.exists():
        raise RunError(
            msg("The run folder exists already."),
            file=folder,
            remedy=msg("Choose another name with run.name=..., continue it with --resume, or delete the folder."),
        )
    check_startable(recipe)
    dataset = make_dataset(recipe, listener)
    refuse_sending(recipe.train, locked_by(dataset, recipe.adapter))
    refuse_errors(dataset, recipe, listener)
    record = RunRecord(
        name=folder.name,
        status="created",
        created=now(),
        updated=now(),
        recipe=recipe.name,
        base_model=recipe.model.base,
        base_revision=recipe.model.revision,
        dataset=dataset.manifest.name,
        dataset_hash=dataset.manifest.hash,
        seed=recipe.train.seed,
    )
    begun = run or Run.create(folder, recipe_text=dump_recipe(recipe), record=record)
    try:
        tune(begun, recipe, dataset, resume=resume, listener=listener)
    except MedtuneError:
        if run is None:
            discard_unstarted(begun)
        raise
    return begun


def resumable(folder: Path, recipe: Recipe) -> Run:
    """The run to be resumed, if it began with the settings of ``recipe``.

    Raises:
        RunError: There is no run in ``folder``.
        RecipeError: It began with other settings; each is named.
    """
    run = Run.open(folder)
    changed = [
        (entry.key, msg("The run began with {first}, now it is {second}.", first=str(entry.first), second=str(entry.second)))
        for entry in diff_settings(load_recipe(run.recipe_path), recipe)
        if entry.key not in _FREE_ON_RESUME and not entry.key.startswith(("run.", "generation.", "evaluation."))
    ]
    if changed:
        raise RecipeError(
            msg("A resumed run keeps the settings that it began with."),
            faults=changed,
            file=run.recipe_path,
            remedy=msg("Resume with `medtune train {folder} --resume`, or start another run with run.name=...", folder=folder),
        )
    return run


def check_startable(recipe: Recipe, *, in_this_process: bool = True) -> None:
    """Look for the model, and at what this machine may refuse, before an hour goes into preparing data.

    Args:
        in_this_process: The training will be here. Else its worker asks for the device: looking makes a process hold a GPU.

    Raises:
        ModelError: There is no such model.
        RecipeError: ``train.hf`` holds an unknown name.
        TrainingError: There is no device for the precision.
    """
    from medtune.models.hub import base_folder
    from medtune.training.arguments import check_hf, use_bf16
    from medtune.training.trackers import check_trackers

    is_folder = Path(recipe.model.base).expanduser().is_dir()
    base_folder(recipe.model, weights=is_folder)  # from a hub, only the small files
    check_hf(recipe.train)
    check_trackers(recipe.train)
    if in_this_process and recipe.distributed.kind == "none":
        use_bf16(recipe.train)


def discard_unstarted(run: Run) -> None:
    """Take a run folder away in which no step was made, unless it says more of the failure than the error does."""
    stepped = any(event["kind"] == "log" for event in run.events())
    if not stepped and not (run.folder / "worker.log").exists():
        shutil.rmtree(run.folder)


def tune(run: Run, recipe: Recipe, dataset: Dataset, *, resume: bool, listener: Listener | None) -> None:
    """Train on one device or many, as the recipe says; see :func:`medtune.training.launch.launch`."""
    from medtune.training.job import TrainJob
    from medtune.training.launch import launch

    say(listener, Event("phase", msg("Loading {model}", model=recipe.model.base)))
    job = TrainJob(
        dataset=dataset.folder,
        model=recipe.model,
        adapter=recipe.adapter,
        train=recipe.train,
        distributed=recipe.distributed,
        # A data set writes boxes in thousandths of the picture, whatever the base model was taught.
        box_convention="relative-1000" if "detection" in dataset.manifest.tasks else None,
        resume=resume,
    )
    launch(run, job, listener=listener)
