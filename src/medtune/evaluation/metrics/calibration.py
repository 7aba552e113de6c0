"""Whether the probability that a model gives to yes means what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.language import msg
from medtune.tasks.reading.yes_no import read_yes_no
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NUM_BINS", "Calibration", "chance_of_error", "probability_of_yes"]

NUM_BINS = 15
"""Bins of equal width from 0 to 1: the number of Guo et al. 2017 (arXiv:1706.04599)."""
_STEPS = 100
"""Steps of confidence from 0.5 to 1 by which answers are ranked: two that differ by less than 0.005 rank alike."""


class Calibration:
    """Closed yes/no questions whose answer came with probabilities of its first token.

    p is the probability of yes, of yes and no alone: the probabilities of the words that say yes, summed, divided by those of all
    that say yes or no (:func:`probability_of_yes`); y is 1 where the reference is yes. The confidence is max(p, 1 - p), and an
    answer is wrong where p is on the other side of one half than y, and half wrong at one half (:func:`chance_of_error`).

    - ``brier`` (0 to 1, lower is better): mean of (p - y)² (Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2); 0.25
      for a model that always says one half.
    - ``ece`` (0 to 1, lower is better): expected calibration error (Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602) of p over 15
      bins of *equal width*: the sum over bins of abs(sum of p - sum of y) / n. It is biased: upwards in small samples, where even
      true probabilities leave a gap of about sqrt(2 p (1 - p) / (pi m)) in a bin of m answers, and downwards where p too high and p
      too low share a bin (Kumar, Liang & Ma 2019, arXiv:1909.10155). No interval of it holds 0: compare models by it.
    - ``aurc`` (0 to 1, lower is better): area under the risk-coverage curve (Geifman & El-Yaniv 2017, arXiv:1705.08500): the share
      of wrong answers among the k most confident, averaged over k; answers of one step of confidence (0.005) come in random order,
      in expectation.

    Additive statistics: sums per bin, so that intervals come from the bootstrap as everywhere. A sample whose generator told no
    probabilities has no score; one of which yes or no was not told is unscored.
    """

    name = "calibration"
    values: tuple[MetricValue, ...] = (
        share("calibration/brier", msg("Brier score of the probability of yes"), direction="lower"),
        share("calibration/ece", msg("Expected calibration error (15 bins of equal width)"), direction="lower"),
        share("calibration/aurc", msg("Area under the risk-coverage curve"), direction="lower"),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        truth = read_yes_no(reference(sample))
        told = prediction.generation.first_token_logprobs
        if not reference(sample).strip() or (truth is not None and told is not None and probability_of_yes(told) is None):
            return tuple(unscored(sample, value.name) for value in self.values)
        if truth is None or told is None:
            return ()
        p = probability_of_yes(told)
        assert p is not None
        y = float(truth == "yes")
        ece = [0.0] * (3 * NUM_BINS)
        place = 3 * min(int(p * NUM_BINS), NUM_BINS - 1)
        ece[place : place + 3] = [1.0, p, y]
        risk = [0.0] * (2 * _STEPS)
        wrong = chance_of_error(p, truth == "yes")
        step = 2 * min(int((max(p, 1 - p) - 0.5) * 2 * _STEPS), _STEPS - 1)
        risk[step : step + 2] = [1.0, wrong]
        return (
            mean_score(sample, "calibration/brier", (p - y) ** 2, f"p(yes) = {p:.3f}"),
            Score(sample_id=sample.id, metric="calibration/ece", value=abs(p - y), statistics=tuple(ece)),
            Score(sample_id=sample.id, metric="calibration/aurc", value=wrong, statistics=tuple(risk)),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 2), (..., 3 x bins) or (..., 2 x steps) -> (...)."""
        import numpy as np

        check_name(name, self.values)
        totals = np.asarray(totals, dtype=np.float64)
        if name == "calibration/brier":
            return mean_of(totals)
        if name == "calibration/ece":
            count, probability, true = np.moveaxis(totals.reshape((*totals.shape[:-1], NUM_BINS, 3)), -1, 0)
            return mean_of(np.stack([np.abs(probability - true).sum(axis=-1), count.sum(axis=-1)], axis=-1))
        return _area(totals.reshape((*totals.shape[:-1], _STEPS, 2)))


def _area(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., steps, 2) of (answers, wrong ones), confidence rising -> the mean over k of the share of wrong among the first k.

    Within a step of m answers, e of them wrong, behind n answers with w wrong: the expected number of wrong ones after i more is
    w + e i / m, so the step adds the sum over i = 1..m of (w + e i / m) / (n + i), which harmonic numbers give.
    """
    import numpy as np

    count, wrong = np.moveaxis(steps[..., ::-1, :], -1, 0)
    behind = np.cumsum(count, axis=-1) - count
    wrong_behind = np.cumsum(wrong, axis=-1) - wrong
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(count > 0, wrong / count, 0.0)
        # (w + r i) / (n + i) = r + (w - r n) / (n + i)
        added = rate * count + (wrong_behind - rate * behind) * (_harmonic(behind + count) - _harmonic(behind))
        total = count.sum(axis=-1)
        return np.where(total > 0, added.sum(axis=-1) / total, np.nan)


def _harmonic(number: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 + 1/2 + ... + 1/n of whole numbers: by a table."""
    import numpy as np

    table = np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, int(number.max(initial=0)) + 2))))
    found: NDArray[np.float64] = table[np.rint(number).astype(np.int64)]
    return found


def chance_of_error(p: float, truth: bool) -> float:
    """How likely the more probable of yes and no is wrong: 0 or 1, and 1/2 where p is exactly 1/2.

    At 1/2 the model prefers neither, and whichever word is taken is a coin's: its expected 0/1 loss is 1/2, as ties count one half
    in the area under the ROC curve (Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747). A model that always says 1/2 so
    has the risk of chance, not one worse than chance. Every measure of risk here goes by this rule: the area under the
    risk-coverage curve, the curve itself, and the threshold for abstaining.

    Args:
        p: Probability of yes, 0 to 1.
        truth: Whether the reference is yes.
    """
    return 0.5 if p == 0.5 else float((p > 0.5) != truth)


def probability_of_yes(logprobs: Mapping[str, float]) -> float | None:
    """p(yes) / (p(yes) + p(no)) of :attr:`medtune.types.Generation.first_token_logprobs`, 0 to 1.

    Words are read by :func:`medtune.tasks.reading.yes_no.read_yes_no` and summed ("Yes" and "yes"; 是 and 有). None where no word
    of one of the two sides was told: a server names the most probable words only, and what it leaves out is not zero.
    """
    sums: dict[str, float] = {}
    for word, logprob in logprobs.items():
        if (says := read_yes_no(word)) is not None:
            sums[says] = sums.get(says, 0.0) + math.exp(logprob)
    if len(sums) < 2 or not sum(sums.values()):
        return None
    return sums["yes"] / (sums["yes"] + sums["no"])
