"""One trial: the recipe with other settings, trained once for each seed into a run folder of its own."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from medtune import assembly
from medtune.errors import MedtuneError, RunError
from medtune.hpo.space import yaml_text
from medtune.language import Text, msg
from medtune.recipe import dataset_folder, load_recipe
from medtune.runs import Run, is_run
from medtune.types import Document, Event, Listener

__all__ = ["VALIDATION_LOSS", "Outcome", "SeedRun", "TrialJob", "run_trial"]

VALIDATION_LOSS = "validation-loss"
"""The objective that every training measures by itself."""

Ask = Callable[[int, float], bool]
"""(percent of the training, validation loss) -> whether to stop the trial."""


class TrialJob(Document):
    """What a worker is to do.

    Attributes:
        recipe: The sweep's ``recipe.yaml``.
        overrides: Of this trial.
        seeds: Trained one after the other, in this order.
        folder: Of the trial; ``seed-<n>`` in it is a run folder.
        objective: :data:`VALIDATION_LOSS`, or the name of a metric's value.
        keep_checkpoints: Leave the checkpoints of finished runs.
    """

    number: int
    recipe: Path
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    folder: Path
    objective: str = VALIDATION_LOSS
    keep_checkpoints: bool = False


class SeedRun(Document):
    """One training of a trial. ``value`` is the objective; ``seconds`` are those of the training."""

    seed: int
    value: float
    seconds: float | None = None
    num_steps: int | None = None


class Outcome(Document):
    """How a trial ended. A pruned or failed one has the runs that were finished before."""

    state: Literal["complete", "pruned", "failed"]
    runs: tuple[SeedRun, ...] = ()
    error: Text | None = None


def run_trial(job: TrialJob, ask: Ask, listener: Listener | None = None) -> Outcome:
    """Train and measure; what an earlier process finished of the trial is used again.

    Pruning looks at the first seed only, which all trials have in common. Checkpoints are removed when a run has ended.

    Args:
        ask: Called with each validation loss of the first seed, except the last.
        listener: Hears the events of the runs.

    Raises:
        KeyboardInterrupt: The run was interrupted from outside; a checkpoint is there to go on from.
    """
    runs: list[SeedRun] = []
    try:
        for seed in job.seeds:
            run = _trained(job, seed, ask if seed == job.seeds[0] else None, listener)
            if run is None:
                return Outcome(state="pruned", runs=tuple(runs))
            runs.append(_measured(run, job, seed, listener))
    except MedtuneError as error:
        return Outcome(state="failed", runs=tuple(runs), error=_with_remedy(error))
    except Exception as error:
        # A trial may fail for a reason nobody foresaw; the sweep has others to try, and the run folder keeps this one.
        return Outcome(state="failed", runs=tuple(runs), error=Text("{error}", {"error": f"{type(error).__name__}: {error}"}))
    return Outcome(state="complete", runs=tuple(runs))


def _trained(job: TrialJob, seed: int, ask: Ask | None, listener: Listener | None) -> Run | None:
    """The finished run of a seed; None when the trial was pruned."""
    folder = job.folder / f"seed-{seed}"
    recipe = load_recipe(
        job.recipe, [*job.overrides, f"train.seed={seed}", f"run.folder={yaml_text(folder.as_posix())}", "run.name=null"]
    )
    pruned = False

    def hear(event: Event) -> None:
        nonlocal pruned
        if listener is not None:
            listener(event)
        loss, done, total = event.values.get("eval_loss"), event.done, event.total
        if ask is None or event.kind != "log" or not isinstance(loss, float) or not done or not total or done >= total:
            return
        if ask(round(100 * done / total), loss):
            pruned = True
            raise KeyboardInterrupt  # the trainer ends its step, saves a checkpoint and says so in the run folder

    run = Run(folder)
    if is_run(folder) and run.record.status != "trained" and run.adapter is not None:
        shutil.rmtree(folder)  # killed between the saving of the result and its entry in run.json: the score is lost
    if not is_run(folder) or run.record.status != "trained":
        try:
            run = assembly.train(recipe, folder, resume=is_run(folder), listener=hear)
        except KeyboardInterrupt:
            if not pruned:
                raise
        finally:
            _free_memory()
    if not job.keep_checkpoints:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    return None if pruned else run


def _measured(run: Run, job: TrialJob, seed: int, listener: Listener | None) -> SeedRun:
    record = run.record
    value = record.eval_loss if job.objective == VALIDATION_LOSS else _metric(run, job.objective, listener)
    if value is None:
        raise RunError(msg("The run has no {objective}.", objective=job.objective), file=run.folder)
    return SeedRun(seed=seed, value=value, seconds=record.seconds, num_steps=record.num_steps)


def _metric(run: Run, name: str, listener: Listener | None) -> float | None:
    """A number of ``evaluate``, of the tuned model alone and on the validation split whatever the recipe says.

    Settings that were picked on the test split would make its numbers worthless, so no key and no option leads there.
    """
    from medtune.data.dataset import Dataset
    from medtune.evaluation.evaluate import evaluate

    recipe = load_recipe(run.recipe_path)
    tuned = assembly.trained(run)
    assembly.load_named_code(recipe)
    dataset = Dataset.open(dataset_folder(recipe))
    models = assembly.generators(recipe, tuned, local_only=dataset.manifest.local_only, listener=listener)
    try:
        report = evaluate(
            dataset,
            generators={"tuned": models["tuned"]},
            settings=recipe.evaluation,
            split="validation",
            controls=(),
            folder=run.folder,
            sampling=recipe.generation.sampling,
            identities=assembly.identities(recipe, tuned),
            listener=listener,
        )
    finally:
        del models
        _free_memory()
    measured = (measurement for condition in report.conditions for measurement in condition.measurements)
    return next((entry.value for entry in measured if entry.metric == name and entry.task is None), None)


def _with_remedy(error: MedtuneError) -> Text:
    return error.what if error.remedy is None else msg("{what} {remedy}", what=error.what, remedy=error.remedy)


def _free_memory() -> None:
    """Give the memory of a model back before the next one is loaded."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
