"""Probabilities and truths -> reliability bins, the risk-coverage curve and a threshold for abstaining.

All functions take arrays of one length: ``probability`` of yes (0 to 1) and ``truth`` (1 = yes, 0 = no), or ``confidence`` (0.5
to 1) and ``wrong`` (0 to 1; 1 = wrong, 1/2 where a probability of exactly 1/2 prefers neither answer:
:func:`medtune.evaluation.metrics.calibration.chance_of_error`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtune.evaluation.bootstrap import cluster_bootstrap
from medtune.evaluation.metrics.additive import mean_of, reference
from medtune.evaluation.metrics.calibration import chance_of_error, probability_of_yes
from medtune.evaluation.picked import PickedSamples
from medtune.evaluation.score import score_tokens
from medtune.tasks.reading.yes_no import read_yes_no
from medtune.types import Abstention, Prediction, ReliabilityBin, Sample

__all__ = [
    "VALIDATION",
    "Told",
    "abstention",
    "choose_threshold",
    "closed_questions",
    "probabilities",
    "reliability_bins",
    "risk_coverage",
    "with_yes_or_no",
]

Numbers = NDArray[np.float64]

MOST_POINTS = 200
"""Of a risk-coverage curve that is kept for its plot."""

VALIDATION = "validation"
"""The variant of a condition that holds the answers to the validation split's questions."""


def with_yes_or_no(samples: Sequence[Sample]) -> PickedSamples:
    """Those whose reference is yes or no."""
    return PickedSamples(samples, (place for place, sample in enumerate(samples) if read_yes_no(reference(sample)) is not None))


def closed_questions(samples: Iterable[Sample]) -> list[Sample]:
    """Those whose reference is yes or no and whose task asks for probabilities of first tokens."""
    return [sample for sample in samples if score_tokens(sample.task) and read_yes_no(reference(sample)) is not None]


class Told(NamedTuple):
    """The yes/no questions whose answers came with probabilities of both words: arrays of one length."""

    probability: Numbers
    """Of yes, 0 to 1."""
    truth: Numbers
    """1 = yes, 0 = no."""
    groups: tuple[str, ...]
    """What is drawn together for an interval."""


def probabilities(samples: Iterable[Sample], predictions: Mapping[str, Prediction]) -> Told:
    """What the answers to the yes/no questions among ``samples`` told; those without probabilities of both words are left out."""
    found: list[tuple[float, float]] = []
    groups: list[str] = []
    for sample in samples:
        truth = read_yes_no(reference(sample))
        prediction = predictions.get(sample.id)
        if truth is None or prediction is None or prediction.generation.first_token_logprobs is None:
            continue
        if (probability := probability_of_yes(prediction.generation.first_token_logprobs)) is not None:
            found.append((probability, float(truth == "yes")))
            groups.append(sample.group)
    pairs = np.array(found, dtype=np.float64).reshape(-1, 2)
    return Told(pairs[:, 0], pairs[:, 1], tuple(groups))


def reliability_bins(probability: ArrayLike, truth: ArrayLike, *, num_bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Bins of equal width from 0 to 1, for the reliability diagram; 1 is in the last one."""
    p, y = _pairs(probability, truth)
    places = np.minimum((p * num_bins).astype(int), num_bins - 1)
    bins = []
    for place in range(num_bins):
        inside = places == place
        count = int(inside.sum())
        bins.append(
            ReliabilityBin(
                low=place / num_bins,
                high=(place + 1) / num_bins,
                num_samples=count,
                probability=float(p[inside].mean()) if count else None,
                share=float(y[inside].mean()) if count else None,
            )
        )
    return tuple(bins)


def risk_coverage(confidence: ArrayLike, wrong: ArrayLike) -> tuple[Numbers, Numbers]:
    """(coverage, risk): for every distinct confidence, from the highest down, the share of answers that reach it and the share of
    wrong ones among these (Geifman & El-Yaniv 2017, arXiv:1705.08500)."""
    c, e = _pairs(confidence, wrong)
    order = np.argsort(-c, kind="stable")
    c, e = c[order], e[order]
    last = np.flatnonzero(np.append(c[1:] != c[:-1], True)) if len(c) else np.zeros(0, dtype=int)
    return (last + 1) / max(len(c), 1), np.cumsum(e)[last] / (last + 1)


def choose_threshold(confidence: ArrayLike, wrong: ArrayLike, *, max_risk: float) -> float | None:
    """The lowest confidence from which on at most ``max_risk`` of the answers are wrong, so that the most are kept.

    Choose it on the validation split: on the test split it would be chosen by the answers that it is judged on. None where even
    the most confident answers are wrong more often.
    """
    c, _ = _pairs(confidence, wrong)
    coverage, risk = risk_coverage(confidence, wrong)
    kept = np.flatnonzero(risk <= max_risk)
    if not len(kept):
        return None
    return float(np.sort(c)[::-1][round(coverage[kept[-1]] * len(c)) - 1])


def abstention(
    label: str, validation: Told, test: Told, *, max_risk: float, num_resamples: int = 2000, seed: int = 0
) -> Abstention:
    """Choose a threshold on the one split and apply it to the other.

    Intervals are those of the cluster bootstrap over the test split's groups with the threshold as it is. That the risk stayed
    under ``max_risk`` on the validation split is no promise for the test split (for such a promise see Geifman & El-Yaniv 2017,
    section 3, and Angelopoulos et al. 2021, arXiv:2110.01052): the report shows what it became.
    """
    chosen = choose_threshold(*_confidence(validation), max_risk=max_risk)
    kept_before, wrong_before = _kept(validation, chosen)
    kept, wrong = _kept(test, chosen)
    coverage, risk = risk_coverage(*_confidence(test))
    thinned = np.unique(np.linspace(0, len(coverage) - 1, min(len(coverage), MOST_POINTS)).round().astype(int))
    groups = np.array(test.groups)

    def interval(values: Numbers, among: NDArray[np.str_]) -> tuple[float, float] | None:
        if not len(values):
            return None
        statistics = np.stack([values, np.ones_like(values)], axis=1)
        _, low, high = cluster_bootstrap(statistics, among, mean_of, num_resamples=num_resamples, seed=seed, limits=(0.0, 1.0))
        return None if low is None or high is None else (low, high)

    return Abstention(
        label=label,
        max_risk=max_risk,
        threshold=chosen,
        num_validation=len(validation.truth),
        num_test=len(test.truth),
        num_groups=len(set(test.groups)),
        num_kept=int(kept.sum()),
        validation_coverage=_mean(kept_before),
        validation_accuracy=_mean(1 - wrong_before[kept_before]),
        coverage=_mean(kept),
        accuracy=_mean(1 - wrong[kept]),
        accuracy_of_all=_mean(1 - wrong),
        coverage_interval=interval(kept.astype(np.float64), groups),
        # Groups without a sure answer tell nothing of sure answers: they must not count among those that do.
        accuracy_interval=interval(1 - wrong[kept], groups[kept]),
        accuracy_of_all_interval=interval(1 - wrong, groups),
        curve=tuple((float(coverage[place]), float(risk[place])) for place in thinned),
    )


def _kept(told: Told, threshold: float | None) -> tuple[NDArray[np.bool_], Numbers]:
    """(which answers reach the threshold, which are wrong)."""
    confidence, wrong = _confidence(told)
    return (confidence >= threshold if threshold is not None else np.zeros(len(confidence), dtype=bool)), wrong


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _confidence(told: Told) -> tuple[Numbers, Numbers]:
    """(confidence, wrong)."""
    p = told.probability
    wrong = [chance_of_error(*pair) for pair in zip(p.tolist(), (told.truth > 0.5).tolist(), strict=True)]
    return np.maximum(p, 1 - p), np.array(wrong, dtype=np.float64)


def _pairs(first: ArrayLike, second: ArrayLike) -> tuple[Numbers, Numbers]:
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"shapes {one.shape} and {other.shape} are not two arrays of one length")
    return one, other
