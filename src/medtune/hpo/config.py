"""The search space of a sweep: a YAML file of its own beside the recipe. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from medtune.language import msg
from medtune.types import Settings

__all__ = ["HyperbandPruning", "MedianPruning", "NoPruning", "Parameter", "Space"]

MAX_DESIGN = 10_000
"""Trials of a grid. More than this is a slip of the pen: at a minute each it would take a week."""


class Parameter(Settings):
    """The values of one setting: ``choices``, or numbers from ``low`` to ``high``."""

    choices: Annotated[tuple[JsonValue, ...], Field(min_length=1)] | None = None
    """Values that are tried as they stand, in no order; all different."""
    times: str | None = None
    """Another key of the recipe that holds a number: the setting is the choice times that number, rounded to a whole one. With
    ``times: adapter.rank``, ``adapter.alpha`` is searched as a multiple of the rank."""
    low: int | float | None = None
    """Smallest value. The values are whole numbers where ``low``, ``high`` and ``step`` are written without a point."""
    high: int | float | None = None
    """Largest value."""
    log: bool = False
    """Spread evenly over the orders of magnitude, as for learning rates. Not with ``step``."""
    step: Annotated[int | float, Field(gt=0)] | None = None
    """Only ``low``, ``low + step``, ``low + 2 step`` and so on."""

    @field_validator("low", "high", "step", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return _as_number(value)

    @field_validator("choices", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return tuple(_as_number(entry) for entry in value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_meaning(self) -> Parameter:
        if self.choices is not None:
            if (self.low, self.high, self.step) != (None, None, None) or self.log:
                raise ValueError(msg("choices and a range (low, high, log, step) exclude each other; remove one"))
            if any(self.choices.index(value) != index for index, value in enumerate(self.choices)):
                raise ValueError(msg("A choice is named twice."))
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.choices)
            if self.times is not None and not numbers:
                raise ValueError(msg("With times the choices are numbers."))
            return self
        if self.low is None or self.high is None:
            raise ValueError(msg("Write choices: [...], or low and high."))
        if self.times is not None:
            raise ValueError(msg("times needs choices."))
        if self.low >= self.high:
            raise ValueError(msg("low ({low}) is not below high ({high}).", low=self.low, high=self.high))
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(msg("A logarithmic range begins above zero and has no step."))
        return self

    @property
    def whole(self) -> bool:
        """Whether a range is one of whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 0))


class NoPruning(Settings):
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"


class MedianPruning(Settings):
    """Stop a trial whose best validation loss so far is worse than the median of the finished trials at the same point of
    their training (Golovin et al. 2017, doi:10.1145/3097983.3098043, section 3.2.2; Optuna's ``MedianPruner``)."""

    kind: Literal["median"]
    startup_trials: Annotated[int, Field(ge=1)] = 4
    """Trials that must have finished before one is stopped."""
    warmup_percent: Annotated[int, Field(ge=0, lt=100)] = 20
    """No trial is stopped before this share of its training."""


class HyperbandPruning(Settings):
    """Successive halving in several brackets (Li et al. 2018, arXiv:1603.06560; Optuna's ``HyperbandPruner``)."""

    kind: Literal["hyperband"]
    min_percent: Annotated[int, Field(ge=1, lt=100)] = 10
    """Share of its training that every trial gets."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One of so many trials goes on at each halving."""


Pruning = Annotated[NoPruning | MedianPruning | HyperbandPruning, Field(discriminator="kind")]


class Space(Settings):
    """What a sweep varies, how it looks for the best, and what best means."""

    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    """Recipe key -> ``{choices: [...]}`` or ``{low: ..., high: ...}``."""
    sampler: Literal["tpe", "random", "grid", "one-at-a-time"] = "tpe"
    """How settings are picked. ``tpe``: tree-structured Parzen estimator (Bergstra et al. 2011, NeurIPS 24), which learns from
    earlier trials. ``grid``: every combination of the choices. ``one-at-a-time``: each choice with everything else as the recipe
    has it, which answers what one setting does."""
    trials: Annotated[int, Field(ge=1)] | None = None
    """How many settings are tried, the recipe's own not counted. Default: 20; the whole design for ``grid`` and
    ``one-at-a-time``."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Each setting is trained once with each ``train.seed``; a number n stands for the seeds 0 to n-1. Intervals need two."""
    objective: str = "validation-loss"
    """``validation-loss``, or a number of ``medtune evaluate`` such as ``closed/accuracy``, measured on the validation split."""
    pruning: Pruning | None = None
    """Which trials are stopped early, judged by the validation losses of the first seed. Default: ``median`` for ``tpe`` and
    ``random``; none for ``grid`` and ``one-at-a-time``, whose comparisons need whole runs."""
    seed: int = 0
    """Of the sampler."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        return tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(msg("A seed is named twice."))
        return seeds

    @model_validator(mode="after")
    def _countable(self) -> Space:
        if self.sampler in ("grid", "one-at-a-time"):
            for key, parameter in self.parameters.items():
                if parameter.choices is None:
                    raise ValueError(msg("{key} needs choices: a {sampler} design has no ranges.", key=key, sampler=self.sampler))
            if self.sampler == "grid" and self.num_combinations > MAX_DESIGN:
                raise ValueError(
                    msg("The grid has {count} combinations; the limit is {limit}.", count=self.num_combinations, limit=MAX_DESIGN)
                )
        return self

    @property
    def num_combinations(self) -> int:
        """Points of the grid."""
        count = 1
        for parameter in self.parameters.values():
            count *= len(parameter.choices or (None,))
        return count

    @property
    def prunes(self) -> NoPruning | MedianPruning | HyperbandPruning:
        """``pruning``, the default filled in."""
        if self.pruning is not None:
            return self.pruning
        return MedianPruning(kind="median") if self.sampler in ("tpe", "random") else NoPruning()


def _as_number(value: Any) -> Any:
    """PyYAML reads ``1e-4``, which has no point, as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
