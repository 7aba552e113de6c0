"""The durable store of a sweep: an Optuna study in an SQLite file.

SQLite and not Optuna's journal file: a transaction that a ``kill -9`` or a power cut interrupts is rolled back when the file is
opened again, and its locks go with the process, while a journal may keep a torn line and a lock file of a process that is gone
(Optuna waits 30 s for such a lock). What SQLite is bad at, several writers, does not occur: workers talk to the sweep over a pipe,
and the sweep alone writes (:mod:`medtune.hpo.pool`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtune.errors import MissingDependencyError, RunError
from medtune.hpo.config import HyperbandPruning, MedianPruning, Parameter, Space
from medtune.hpo.design import num_trials, planned
from medtune.hpo.space import overrides_of, own_choice, yaml_text
from medtune.hpo.trial import SeedRun
from medtune.language import Text, msg
from medtune.recipe import Recipe

if TYPE_CHECKING:
    import optuna

__all__ = ["Store", "Trial"]

_NAME = "sweep"
_STATES: dict[str, Literal["complete", "pruned", "failed", "running", "waiting"]] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as the store has it.

    Attributes:
        number: From 0, which are the recipe's own settings.
        settings: Key -> value as the search space writes it; empty for trial 0.
        overrides: The same as overrides of the recipe.
        runs: Finished trainings.
        attempts: How often a worker began it.
        losses: Percent of the training -> validation loss of the first seed.
    """

    number: int
    state: Literal["complete", "pruned", "failed", "running", "waiting"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    runs: tuple[SeedRun, ...] = ()
    error: Text | None = None
    attempts: int = 0
    losses: Mapping[int, float] = field(default_factory=dict)


class Store:
    """The trials of a sweep on disk.

    Args:
        file: The SQLite file; made when it is missing.
        higher_is_better: Of the objective.

    Raises:
        MissingDependencyError: Optuna is not installed.
        RunError: The file is damaged.
    """

    def __init__(self, file: Path, space: Space, recipe: Recipe, *, higher_is_better: bool = False) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingDependencyError("optuna", needed_for=msg("medtune sweep"), pip='"medtune[sweep]"') from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._recipe = space, recipe
        self._sign = -1.0 if higher_is_better else 1.0
        self._design = planned(space, recipe)
        self.num_trials = num_trials(space, recipe)
        try:
            self._study = optuna.create_study(
                study_name=_NAME,
                storage=f"sqlite:///{file}",
                direction="maximize" if higher_is_better else "minimize",
                pruner=_pruner(space),
                load_if_exists=True,
            )
        except Exception as error:  # sqlalchemy's and alembic's, of many kinds
            raise RunError(
                msg("The store of the sweep cannot be opened: {error}", error=str(error).splitlines()[0]),
                file=file,
                remedy=msg("Begin the sweep in another folder with --folder."),
            ) from error

    def trials(self) -> list[Trial]:
        """All trials by number, those that wait included."""
        return [_as_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def unfinished(self) -> list[Trial]:
        """Trials that an earlier process of this sweep had begun."""
        return [self._ready(number) for number in self._numbers("running")]

    def next(self) -> Trial | None:
        """Begin another trial; None when all have begun."""
        begun = len(self._numbers("complete", "pruned", "failed", "running"))
        if begun >= self.num_trials:
            return None
        self._enqueue()
        return self._ready(self._study.ask().number)

    def begin(self, number: int) -> None:
        """Count a worker's attempt at a trial."""
        trial = self._open(number)
        trial.set_user_attr("attempts", int(trial.user_attrs.get("attempts", 0)) + 1)

    def prune(self, number: int, percent: int, loss: float) -> bool:
        """Note a validation loss, and say whether the trial is to be stopped. Trial 0 never is: all are held against it."""
        trial = self._open(number)
        frozen = self._study.get_trials(deepcopy=False)[number]
        if percent not in frozen.intermediate_values:  # told already by a worker that died since
            trial.report(self._sign * loss, percent)
        return number > 0 and bool(trial.should_prune())  # pruners answer with numpy's own bool, which JSON does not know

    def finish(
        self, number: int, state: Literal["complete", "pruned", "failed"], runs: tuple[SeedRun, ...], error: Text | None
    ) -> None:
        """Note how a trial ended. The value of a complete one is the mean over its seeds."""
        import optuna

        trial = self._open(number)
        trial.set_user_attr("runs", [run.model_dump() for run in runs])
        if error is not None:
            trial.set_user_attr("error", _plain(error))
        if state == "complete":
            self._study.tell(number, sum(run.value for run in runs) / len(runs))
        else:
            self._study.tell(number, state=optuna.trial.TrialState.PRUNED if state == "pruned" else optuna.trial.TrialState.FAIL)

    def importance(self) -> dict[str, float]:
        """Share of each setting in what tells good trials from others (PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255).

        Empty where that means nothing: fewer than ten complete trials, one setting, or a one-at-a-time design.
        """
        import optuna

        keys = list(self._space.parameters)
        trials = [
            frozen
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.state == optuna.trial.TrialState.COMPLETE and set(frozen.params) == set(keys)
        ]
        if self._space.sampler == "one-at-a-time" or len(keys) < 2 or len(trials) < 10:
            return {}
        study = optuna.create_study(direction=self._study.direction)
        study.add_trials(trials)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

    def _numbers(self, *states: str) -> list[int]:
        return [trial.number for trial in self._study.get_trials(deepcopy=False) if _STATES[trial.state.name] in states]

    def _open(self, number: int) -> optuna.Trial:
        """A handle on a trial that runs, also on one that another process began: Optuna offers none by number."""
        import optuna

        return optuna.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)

    def _enqueue(self) -> None:
        """Put what is planned into the store; what a killed process had put there already stays."""
        known = len(self._study.get_trials(deepcopy=False))
        points: list[dict[str, Any]] = [{}, *self._design]
        for point in points[known:]:
            within = {}
            for key, parameter in self._space.parameters.items():
                value = point.get(key, own_choice(self._recipe, key, parameter))
                if _holds(parameter, value):
                    within[key] = yaml_text(value) if parameter.choices is not None else value
            self._study.enqueue_trial(within, user_attrs={"point": point, "within": list(within)})

    def _ready(self, number: int) -> Trial:
        """Settle the settings of a trial that has begun; doing so again changes nothing."""
        # A sampler of its own for each trial: were one seeded when the sweep begins, a resumed sweep would draw the first
        # numbers once more.
        self._study.sampler = _sampler(self._space, self._space.seed + number)
        trial = self._open(number)
        attributes = trial.user_attrs
        if "overrides" not in attributes:
            within = attributes.get("within", self._space.parameters)
            drawn = {key: _suggest(trial, key, parameter) for key, parameter in self._space.parameters.items() if key in within}
            settings = attributes.get("point", drawn)
            trial.set_user_attr("settings", settings)
            trial.set_user_attr("overrides", list(overrides_of(settings, self._space, self._recipe)))
        return _as_trial(self._study.get_trials(deepcopy=False)[number])


def _as_trial(frozen: Any) -> Trial:
    attributes = frozen.user_attrs
    error = attributes.get("error")
    return Trial(
        number=frozen.number,
        state=_STATES[frozen.state.name],
        settings=attributes.get("settings", {}),
        overrides=tuple(attributes.get("overrides", ())),
        runs=tuple(SeedRun.model_validate(run) for run in attributes.get("runs", ())),
        error=None if error is None else _sentence(error),
        attempts=int(attributes.get("attempts", 0)),
        # Kept with the sign of the objective; a loss itself is never negative.
        losses={int(step): abs(float(loss)) for step, loss in frozen.intermediate_values.items()},
    )


def _plain(text: Text) -> list[Any]:
    return [text.template, {name: _plain(value) if isinstance(value, Text) else value for name, value in text.fields.items()}]


def _sentence(stored: list[Any]) -> Text:
    template, fields = stored
    return Text(template, {name: _sentence(value) if isinstance(value, list) else value for name, value in fields.items()})


def _labels(parameter: Parameter) -> Iterator[tuple[str, Any]]:
    # Optuna's categories are plain values; as text, a list such as [language, projector] can be one too.
    for choice in parameter.choices or ():
        yield yaml_text(choice), choice


def _suggest(trial: optuna.Trial, key: str, parameter: Parameter) -> Any:
    """The value of a setting: drawn by the sampler, or what was put into the store for this trial."""
    if parameter.choices is not None:
        choices = dict(_labels(parameter))
        return choices[trial.suggest_categorical(key, list(choices))]
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.whole:
        return trial.suggest_int(key, int(parameter.low), int(parameter.high), log=parameter.log, step=int(parameter.step or 1))
    value = trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    # Four digits are more than any setting needs, and a recipe that a person can read is worth more than the others.
    return float(f"{value:.4g}")


def _holds(parameter: Parameter, value: Any) -> bool:
    """Whether the space has this value, so that the store may keep it as a parameter of the trial."""
    if parameter.choices is not None:
        return yaml_text(value) in dict(_labels(parameter))
    if not isinstance(value, int | float) or parameter.low is None or parameter.high is None:
        return False
    on_step = parameter.step is None or abs((value - parameter.low) / parameter.step % 1) < 1e-9
    return parameter.low <= value <= parameter.high and on_step


def _sampler(space: Space, seed: int) -> optuna.samplers.BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    return TPESampler(seed=seed) if space.sampler == "tpe" else RandomSampler(seed=seed)


def _pruner(space: Space) -> optuna.pruners.BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    pruning = space.prunes
    if isinstance(pruning, MedianPruning):
        return MedianPruner(n_startup_trials=pruning.startup_trials, n_warmup_steps=pruning.warmup_percent)
    if isinstance(pruning, HyperbandPruning):
        return HyperbandPruner(min_resource=pruning.min_percent, max_resource=100, reduction_factor=pruning.reduction_factor)
    return NopPruner()
