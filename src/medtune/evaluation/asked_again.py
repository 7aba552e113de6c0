"""What the further questions of an evaluation tell, from the stored answers: consistency and forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.consistency import state_consistency
from medtune.evaluation.general import general_samples, state_forgetting
from medtune.evaluation.predictions import Asked, read_predictions
from medtune.evaluation.variants import is_variant
from medtune.types import Consistency, Forgetting, ModelName, Prediction, Sample

__all__ = ["Plain", "tell_of_again"]


@dataclass(frozen=True, slots=True)
class Plain:
    """A model that was asked the plain questions.

    Attributes:
        label: Of its condition.
        predictions: By sample id; they may stand in a file.
    """

    label: str
    model: ModelName
    predictions: Mapping[str, Prediction]


def tell_of_again(
    plain: Sequence[Plain],
    asked: Sequence[Asked],
    samples: Sequence[Sample],
    pool: Sequence[Sample],
    folder: Path,
    settings: EvaluationSettings,
) -> tuple[tuple[Consistency, ...], Forgetting | None]:
    """Read what each model answered to variants and general questions, and measure it.

    Args:
        asked: Every condition of the evaluation; those without a variant are passed over.
        samples: Those that are evaluated.
        pool: All of the split.
        folder: The run folder.

    Raises:
        EvaluationError: A predictions file is missing or belongs to other samples.
    """
    again = _read(asked, samples, pool, folder)
    consistency: list[Consistency] = []
    for one in plain:
        variants = {name: answers for name, answers in again.get(one.label, {}).items() if name != "general"}
        consistency += state_consistency(
            one.label, one.predictions, variants, samples, num_resamples=settings.num_resamples, seed=settings.seed
        )
    answers = {one.label: again[one.label]["general"] for one in plain if "general" in again.get(one.label, {})}
    pairs = [(one.label, other.label) for one in plain if one.model == "base" for other in plain if other.model == "tuned"]
    return tuple(consistency), state_forgetting(answers, pairs, num_resamples=settings.num_resamples, seed=settings.seed)


def _read(
    asked: Sequence[Asked], samples: Sequence[Sample], pool: Sequence[Sample], folder: Path
) -> dict[str, dict[str, Mapping[str, Prediction]]]:
    """Label of the plain condition -> variant -> sample id -> prediction, as far as it was answered."""
    found: dict[str, dict[str, Mapping[str, Prediction]]] = {}
    variants = [entry for entry in asked if is_variant(entry.variant)]
    if not variants:
        return found
    evaluated, known = {sample.id for sample in samples}, {sample.id for sample in pool}
    for entry in variants:
        general = entry.variant == "general"
        ids = {sample.id for sample in general_samples()} if general else known
        stored = read_predictions(folder / "evaluations" / entry.folder / "predictions.jsonl", ids)
        found.setdefault(entry.label, {})[entry.variant] = {
            name: prediction
            for name, prediction in stored.predictions.items()
            if prediction.generation.finish_reason != "error" and (general or name in evaluated)
        }
    return found
