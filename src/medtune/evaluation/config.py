"""The ``evaluation`` section of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medtune.language import msg
from medtune.types import Settings, SplitName

__all__ = ["EvaluationSettings"]


class EvaluationSettings(Settings):
    """What is asked of a model, on which samples, and how the numbers are computed."""

    split: SplitName = "test"
    """The samples that are asked. ``train`` is allowed and warned of: a model has seen those answers."""
    metrics: tuple[str, ...] | None = None
    """Registered metrics for every task, in place of each task's own."""
    controls: tuple[Literal["shuffled", "blank", "question-only", "majority", "nearest"], ...] = ("shuffled",)
    """The same questions once more without the right picture: with another group's (``shuffled``), with mid grey (``blank``),
    with none (``question-only``). What is scored then owes nothing to the picture. Two need no model and cost next to nothing: the
    most frequent training answer to such questions (``majority``) and the answer to the nearest training question (``nearest``)."""
    consistency: tuple[Literal["paraphrase", "mirrored", "repeated"], ...] = ()
    """The same once more, where the answer should be the same: in other words (``paraphrase``), of the picture turned left to right
    with left and right exchanged in the question (``mirrored``), drawn several times at a temperature (``repeated``)."""
    consistency_samples: Annotated[int, Field(gt=0)] = 100
    """At most so many samples are asked again for each of them, drawn by ``seed``."""
    consistency_draws: Annotated[int, Field(ge=2, le=20)] = 3
    """Answers that ``repeated`` draws to each question."""
    consistency_temperature: Annotated[float, Field(gt=0.0)] = 0.7
    """Temperature of ``repeated``."""
    general: bool = False
    """Also ask short questions that have nothing to do with medicine, of base and tuned model: what did tuning make it forget?"""
    abstain: bool = False
    """Also ask the yes/no questions of the split ``validation``, to choose there how probable an answer has to be to be kept. The
    generator has to tell probabilities of first tokens; ``hf`` does."""
    abstain_max_risk: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of wrong answers that is allowed among those kept on ``validation``."""
    max_samples: Annotated[int, Field(gt=0)] | None = None
    """At most so many samples of the split, drawn by ``seed``; the draw for a smaller number lies within that for a larger."""
    num_resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Bootstrap resamples of the groups for each 95 % interval."""
    seed: int = 0
    """Of the draw of samples, of the shuffled pictures and of the bootstrap."""
    subgroups: tuple[str, ...] = (
        "task",
        "modality",
        "organ",
        "question_type",
        "answer_type",
        "site",
        "sex",
        "age",
        "kind",
        "side",
        "area_percent",
        "density",
        "normal",
    )
    """Metadata fields by which the results are told apart; ``task``, and ``modality`` of the first picture, too. Ages are binned
    (under 18, 18 to 39, 40 to 64, 65 and over), other numbers are cut into thirds."""
    min_subgroup_samples: Annotated[int, Field(ge=1)] = 20
    """A subgroup with fewer samples, or of fewer than five groups, is not reported: its interval would say nothing."""

    @model_validator(mode="after")
    def _check(self) -> EvaluationSettings:
        for name in ("metrics", "controls", "consistency", "subgroups"):
            values = getattr(self, name) or ()
            if len(set(values)) != len(values):
                raise ValueError(msg("{name} names something twice.", name=name))
        return self
