"""The verbs of training: plan, train, sweep, advise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtune import assembly
from medtune.api.given import RecipeLike, recipe_of
from medtune.api.runs import RunView, show_run
from medtune.errors import DataError
from medtune.language import msg
from medtune.recipe import dataset_folder, run_folder
from medtune.runs import is_run
from medtune.types import Event, Listener

if TYPE_CHECKING:
    from medtune.hpo.advise import Advice
    from medtune.hpo.report import SweepReport
    from medtune.training.forecast import Forecast


def plan(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    gpu: str | None = None,
    num_gpus: int | None = None,
    price: float | None = None,
    listener: Listener | None = None,
) -> Forecast:
    """What training a recipe will need, and what the engine chose, from the headers of data set and model.

    No picture is opened and no weight is read; the model's folder needs its small files only (config, tokenizer, processor).

    Args:
        gpu: A name such as ``H100``, or ``cpu``; the first GPU of this machine, or its CPU, when left out.
        num_gpus: As many as the recipe says, when left out.
        price: Of one of them for an hour, in any currency.

    Raises:
        DataError: The data set is not prepared yet.
        TrainingError: The run cannot fit, and what can is named; or the GPU is not known.
        ModelError: The model's size or its tokenizer cannot be read.
    """
    from medtune.data.dataset import Dataset
    from medtune.data.jobs import settings_hash
    from medtune.training.forecast import plan_dataset

    loaded = recipe_of(recipe, overrides)
    folder = dataset_folder(loaded)
    if not folder.exists():
        name = recipe if isinstance(recipe, (str, Path)) else loaded.name
        raise DataError(
            msg("The data set is not prepared yet, so its rows cannot be counted."),
            file=folder,
            remedy=msg("Prepare it with `medtune prepare {recipe}`.", recipe=name),
        )
    dataset = Dataset.open(folder)
    remarks = []
    if dataset.manifest.settings_hash != settings_hash(loaded.data):
        remarks.append(msg("This data set was made with other settings than the recipe has now: `medtune train` will refuse it."))
    assembly.say(listener, Event("phase", msg("Counting the tokens of {folder}", folder=folder)))
    return plan_dataset(
        dataset,
        model=loaded.model,
        adapter=loaded.adapter,
        settings=loaded.train,
        distributed=loaded.distributed,
        gpu=gpu,
        num_gpus=num_gpus,
        folder=run_folder(loaded),
        price=price,
        remarks=remarks,
    )


def train(recipe: RecipeLike, overrides: Sequence[str] = (), *, resume: bool = False, listener: Listener | None = None) -> RunView:
    """Tune the model of a recipe; the data set is made first when it is missing.

    A run that fails before its first step leaves no folder behind, so that the same command can be given again.

    Args:
        resume: Continue the interrupted run from its last checkpoint. The settings must be those it began with.

    Raises:
        DataError: The data set has errors.
        RunError: The run folder exists (without ``resume``), or there is none (with it), or another process holds it.
        RecipeError: A resumed run began with other settings, or settings do not fit the model.
        TrainingError: The training cannot start or go on.
    """
    loaded = recipe_of(recipe, overrides)
    folder = run_folder(loaded)
    if resume and isinstance(recipe, (str, Path)) and is_run(recipe):
        folder = Path(recipe)  # a run folder may have been moved since its recipe was written
    return show_run(assembly.train(loaded, folder, resume=resume, listener=listener))


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What ``sweep`` found, the page that shows it, the recipe of the best, and the command that goes on from there."""

    folder: Path
    report: SweepReport
    page: Path
    best: Path
    next_command: str


def sweep(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    space: str | Path | None = None,
    folder: str | Path | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    num_workers: int | None = None,
    gpus_per_trial: int = 1,
    keep_checkpoints: bool = False,
    listener: Listener | None = None,
) -> SweepResult:
    """Train a recipe with other settings, many times, and say which were best and whether that is more than chance.

    The same call goes on with a sweep that was cut off. See docs/sweeps.md.

    Args:
        overrides: Of the recipe; what results are "the recipe's own settings", the first trial.
        space: The search space; ``<name>.sweep.yaml`` beside the recipe when left out. A :class:`~medtune.recipe.Recipe` has no
            place, so it needs one.
        folder: ``sweeps/<name of the recipe>`` when left out.
        trials: Instead of the search space's.
        seeds: How many, instead of the search space's.
        num_workers: Trainings at the same time; one for each GPU when left out, one on a CPU.
        gpus_per_trial: More than one for a recipe with ``distributed``.
        keep_checkpoints: Leave the checkpoints of finished runs.

    Raises:
        RecipeError: The search space is wrong, or the folder holds another sweep.
        DataError: The data set has errors or no validation rows.
        TrainingError: Every trial failed.
        MissingDependencyError: Optuna is not installed.
    """
    from medtune.hpo.page import PAGE_NAME
    from medtune.hpo.space import find_space, load_space
    from medtune.hpo.sweep import Sweep

    loaded = recipe_of(recipe, overrides)
    file = find_space(recipe if isinstance(recipe, (str, Path)) else loaded.name, space)
    changes = {key: value for key, value in (("trials", trials), ("seeds", seeds)) if value is not None}
    searched = load_space(file, loaded, changes)
    place = Path(folder) if folder is not None else Path("sweeps") / loaded.name
    run = Sweep(loaded, searched, place, keep_checkpoints=keep_checkpoints)
    report = run.run(num_workers=num_workers, gpus_per_trial=gpus_per_trial, listener=listener)
    best = place / "best.yaml"
    return SweepResult(place, report, place / PAGE_NAME, best, f"medtune train {best}")


def advise(
    recipe: RecipeLike, overrides: Sequence[str] = (), *, sweep: str | Path | None = None, listener: Listener | None = None
) -> Advice:
    """What others say of good settings, each rule with its source, held against a recipe and its data set.

    The data set is made first when it is missing. Nothing is recommended: a rule is a claim until a sweep has tested it.

    Args:
        sweep: The folder of a sweep, which says of each rule whether it was confirmed, contradicted, or cannot be told.

    Raises:
        DataError: The data set cannot be made.
        RunError: ``sweep`` is not a sweep folder.
    """
    from medtune.hpo.advise import advise as hold_against

    return hold_against(recipe_of(recipe, overrides), sweep=None if sweep is None else Path(sweep), listener=listener)
