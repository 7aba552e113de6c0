"""A sweep from its first trial to its report: what runs where, what is begun again, what is written."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtune import __version__, assembly
from medtune.errors import DataError, PluginError, RecipeError, RunError, TrainingError
from medtune.hpo.config import Space
from medtune.hpo.page import write_page
from medtune.hpo.plots import draw_all
from medtune.hpo.pool import Message, Pool, Worker, devices
from medtune.hpo.report import REPORT_FILE, SweepReport, SweptData, read_report, summarize
from medtune.hpo.space import load_space, own_choice, with_changes
from medtune.hpo.study import Store, Trial
from medtune.hpo.table import objective_title
from medtune.hpo.trial import VALIDATION_LOSS, Outcome, TrialJob
from medtune.language import Text, msg
from medtune.plugins import resolve
from medtune.recipe import Recipe, diff_settings, dump_recipe, load_recipe
from medtune.runs import atomic_write
from medtune.types import Event, Listener

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["MAX_ATTEMPTS", "Sweep"]

MAX_ATTEMPTS = 3
"""How often a trial is begun whose worker process dies. A trial that kills three is not the machine's bad luck."""

_LOCK_SECONDS = 150.0
"""How long to wait for the workers of an earlier sweep in the folder, which end after their step."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep and its folder.

    ::

        folder/
          recipe.yaml  space.yaml   what is varied, and how; fixed by the first call
          study.db                  the store
          trials/0003/seed-0/       run folders
          workers/worker-0.log      what worker processes print
          sweep.json  report.html  plots/  best.yaml

    Attributes:
        recipe: Its own settings are trial 0.
        space: What is varied.
        folder: Where everything goes.
        keep_checkpoints: Leave the checkpoints of finished runs.
    """

    recipe: Recipe
    space: Space
    folder: Path
    keep_checkpoints: bool = False

    def run(self, *, num_workers: int | None = None, gpus_per_trial: int = 1, listener: Listener | None = None) -> SweepReport:
        """Do all trials that are not done yet, and write the report. The same call goes on with a sweep that was cut off.

        Args:
            num_workers: Processes that train at the same time. Default: one for each GPU (or group of GPUs), one on a CPU.
            gpus_per_trial: More than one for recipes with ``distributed``.

        Raises:
            RecipeError: The folder holds a sweep with other settings, or the recipe measures no validation loss.
            DataError: There are no validation rows, or the data set has errors or has changed.
            RunError: Another process works on the folder.
            TrainingError: Every trial failed.
            MissingDependencyError: Optuna is not installed.
            KeyboardInterrupt: Ctrl-C; the trials that ran have saved checkpoints.
        """
        direction = _direction(self.recipe, self.space)
        assembly.check_startable(self.recipe, in_this_process=False)
        dataset = assembly.make_dataset(self.recipe, listener)
        assembly.refuse_errors(dataset, self.recipe, listener)
        data = _describe(dataset)
        self.folder.mkdir(parents=True, exist_ok=True)
        with _held(self.folder, listener) as lock:
            self._settle(data)
            store = Store(self.folder / "study.db", self.space, self.recipe, higher_is_better=direction == "higher")
            self._do_trials(store, data, direction, lock, num_workers, gpus_per_trial, listener)
            report = self._write(store, data, direction)
            self._finish(report)
        return report

    # ---------------------------------------------------------------------------------------------------------- folder

    def _settle(self, data: SweptData) -> None:
        """Write down what the sweep is about; refuse to go on with another one."""
        recipe_file, space_file = self.folder / "recipe.yaml", self.folder / "space.yaml"
        if not recipe_file.is_file() or not space_file.is_file():
            atomic_write(space_file, _document(self.space))
            atomic_write(recipe_file, dump_recipe(self.recipe))
            return
        remedy = msg("Begin another sweep with --folder, or give the settings that this one began with.")
        before = load_recipe(recipe_file)
        # Where the validation loss is the objective nothing is generated or scored.
        sides = ("run.", "generation.", "evaluation.") if self.space.objective == "validation-loss" else ("run.",)
        changed = [
            (entry.key, msg("The sweep began with {first}, now it is {second}.", first=str(entry.first), second=str(entry.second)))
            for entry in diff_settings(before, self.recipe)
            if not entry.key.startswith(sides) and entry.key not in ("title", "train.num_workers", "data.num_workers")
        ]
        old = load_space(space_file, before)
        # More trials may be asked for; anything else would mix two sweeps in one store.
        if old.model_copy(update={"trials": self.space.trials}) != self.space:
            changed.append(("space", msg("The search space has changed since the sweep began.")))
        if changed:
            raise RecipeError(
                msg("This folder holds a sweep with other settings."), faults=changed, file=self.folder, remedy=remedy
            )
        if (self.folder / REPORT_FILE).is_file() and read_report(self.folder).data.hash != data.hash:
            raise DataError(msg("The data set has changed since the sweep began."), file=self.folder, remedy=remedy)

    def _write(self, store: Store, data: SweptData, direction: Literal["lower", "higher"], *, final: bool = True) -> SweepReport:
        report = summarize(
            store.trials(),
            recipe=self.recipe.name,
            base_model=self.recipe.model.base,
            data=data,
            space=self.space,
            own={key: own_choice(self.recipe, key, parameter) for key, parameter in self.space.parameters.items()},
            direction=direction,
            num_planned=store.num_trials,
            importance=store.importance() if final else {},
            versions=_versions(),
        )
        atomic_write(self.folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
        return report

    def _finish(self, report: SweepReport) -> None:
        """Draw what was found, and write the recipe of the best."""
        if report.best is None:
            reason = next((trial.error for trial in report.trials if trial.error is not None), None)
            raise TrainingError(
                msg("No trial of the sweep was completed. The first reason: {reason}", reason=reason or "-"),
                file=self.folder,
                remedy=msg("`medtune train` with the same recipe shows more; then begin the sweep in another folder."),
            )
        best = report.trial(report.best)
        recipe = with_changes(self.recipe, [*best.overrides, f"run.name={self.recipe.name}-best", "run.folder=null"])
        head = [
            f"# The best of {len(report.complete)} complete trials by {report.objective}: trial {best.number} of a sweep.",
            f"# Its settings: {' '.join(best.overrides) or '(the recipe as it was)'}",
            "# Picked on the validation split; medtune evaluate measures it on the test split.",
        ]
        atomic_write(self.folder / "best.yaml", "\n".join(head) + "\n\n" + dump_recipe(recipe))
        draw_all(report, self.folder / "plots")
        write_page(report, self.folder)

    # ---------------------------------------------------------------------------------------------------------- trials

    def _do_trials(
        self,
        store: Store,
        data: SweptData,
        direction: Literal["lower", "higher"],
        lock: int,
        num_workers: int | None,
        gpus_per_trial: int,
        listener: Listener | None,
    ) -> None:
        again = store.unfinished()
        done = sum(trial.state in ("complete", "pruned", "failed") for trial in store.trials())
        if done >= store.num_trials and not again:
            assembly.say(listener, Event("note", msg("All {count} trials are done already.", count=done)))
            return
        if done or again:
            note = msg("Going on with the sweep: {done} trials are done, {again} are begun again.", done=done, again=len(again))
            assembly.say(listener, Event("note", note))
        places = devices(num_workers, gpus_per_trial)[: store.num_trials - done]
        phase = msg("Sweep: {trials} trials, {workers} at a time.", trials=store.num_trials, workers=len(places))
        assembly.say(listener, Event("phase", phase, done, store.num_trials))
        pool = Pool(places, self.folder / "workers", lock)
        try:
            self._feed(pool, store, again)
            for worker, message in pool.messages():
                ended = self._hear(pool, worker, message, store)
                if ended is not None:
                    report = self._write(store, data, direction, final=False)
                    trial = report.trial(ended.number)
                    sentence = _ended(trial, report) if trial.state != "running" else _again(trial.number)
                    assembly.say(listener, Event("note", sentence, values={"trial": trial.number}))
                    assembly.say(listener, Event("progress", done=report.num_finished, total=store.num_trials))
                    again += [ended] if trial.state == "running" else []
                    self._feed(pool, store, again)
        finally:
            pool.close()

    def _feed(self, pool: Pool, store: Store, again: list[Trial]) -> None:
        """Give every free worker a trial: first those that were cut off, then new ones."""
        for worker in pool.workers:
            while worker.job is None:
                trial = again.pop(0) if again else store.next()
                if trial is None:
                    return
                twin = next((other for other in store.trials() if other.state == "complete" and _same(other, trial)), None)
                if twin is not None:  # a sampler over choices draws a point twice; training repeats it to the digit
                    store.finish(trial.number, "complete", twin.runs, None)
                    continue
                store.begin(trial.number)
                worker.begin(
                    TrialJob(
                        number=trial.number,
                        recipe=self.folder / "recipe.yaml",
                        overrides=trial.overrides,
                        seeds=self.space.seeds,
                        folder=self.folder / "trials" / f"{trial.number:04d}",
                        objective=self.space.objective,
                        keep_checkpoints=self.keep_checkpoints,
                    )
                )

    def _hear(self, pool: Pool, worker: Worker, message: Message, store: Store) -> Trial | None:
        """Act on what a worker said; the trial, when it has ended or must be begun again."""
        if worker.job is None:
            return None
        number = worker.job.number
        if message is None:
            status = worker.exit_status()
            if store.trials()[number].attempts >= MAX_ATTEMPTS:
                error = msg(
                    "The worker process ended {count} times, the last time with status {status}; {log} may say why.",
                    count=MAX_ATTEMPTS,
                    status=status,
                    log=worker.log.relative_to(self.folder).as_posix(),
                )
                store.finish(number, "failed", (), error)
            pool.replace(worker)
            return store.trials()[number]
        if "loss" in message:
            worker.answer(stop=store.prune(number, int(message["percent"]), float(message["loss"])))
            return None
        if "outcome" not in message:
            return None
        outcome = Outcome.model_validate(message["outcome"])
        store.finish(number, outcome.state, outcome.runs, outcome.error)
        worker.job = None
        if outcome.state == "failed":
            pool.replace(worker)
        return store.trials()[number]


def _document(space: Space) -> str:
    """A search space as a YAML file."""
    import yaml

    return yaml.safe_dump(space.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True, width=120)


@contextlib.contextmanager
def _held(folder: Path, listener: Listener | None) -> Iterator[int]:
    """Hold the sweep's folder; the descriptor of the lock. The workers get it too, so the lock outlives a sweep that was killed
    until the last of them has ended."""
    with (folder / ".lock").open("a+") as file:
        began, told = time.monotonic(), False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() - began > _LOCK_SECONDS:
                    raise RunError(
                        msg("Another process works on this sweep."), file=folder, remedy=msg("Wait until it ends, or end it.")
                    ) from error
                if not told:
                    told = True
                    assembly.say(listener, Event("note", msg("Waiting for the processes of an earlier sweep in this folder.")))
                time.sleep(0.2)
        yield file.fileno()


def _direction(recipe: Recipe, space: Space) -> Literal["lower", "higher"]:
    """Which way the objective is better.

    Raises:
        PluginError: There is no such metric.
        RecipeError: The recipe measures no validation loss.
    """
    if recipe.train.evaluate_every == "never":
        raise RecipeError(
            msg("A sweep needs validation losses, but evaluate_every is never."),
            key="train.evaluate_every",
            remedy=msg("Write epoch, or a number of steps."),
        )
    if space.objective == VALIDATION_LOSS:
        return "lower"
    metric = resolve("metric", space.objective.partition("/")[0])
    for value in metric.values:
        if value.name == space.objective:
            found: Literal["lower", "higher"] = value.direction
            return found
    raise PluginError(
        msg("There is no metric value {name}.", name=space.objective),
        key="objective",
        remedy=msg("Known: {known}.", known=", ".join(value.name for value in metric.values)),
    )


def _describe(dataset: Dataset) -> SweptData:
    manifest = dataset.manifest
    num_validation = manifest.num_samples.get("validation", 0)
    if not num_validation:
        raise DataError(
            msg("A sweep needs validation rows, and there are none."),
            file=dataset.folder,
            remedy=msg("Give the data set a validation split: data.split.fractions."),
        )
    return SweptData(
        name=manifest.name,
        hash=manifest.hash,
        synthetic=manifest.synthetic,
        num_train_rows=manifest.num_samples.get("train", 0),
        num_validation_rows=num_validation,
    )


def _same(first: Trial, second: Trial) -> bool:
    return set(first.overrides) == set(second.overrides)


def _again(number: int) -> Text:
    return msg("Trial {number}: its process ended; it goes on in a new one.", number=number)


def _ended(trial: Any, report: SweepReport) -> Text:
    settings = ", ".join(trial.overrides)
    fields = {"number": trial.number, "settings": settings if settings else msg("the recipe's own settings")}
    if trial.state == "failed":
        return msg("Trial {number} ({settings}) failed: {error}", error=trial.error or "?", **fields)
    if trial.state == "pruned":
        return msg("Trial {number} ({settings}) was stopped early.", **fields)
    return msg(
        "Trial {number} ({settings}): {objective} {value}",
        objective=objective_title(report),
        value=f"{trial.value.mean:.4f}",
        **fields,
    )


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "optuna")}
    return {"medtune": __version__, **found}
