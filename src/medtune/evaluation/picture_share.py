"""Which part of a score depends on the picture: the score with the real picture minus that without it, on the same samples.

On VQA-RAD a text-only tuned model kept 81 % of its score on blank pictures (arXiv:2603.03437): a share of 0.19. The interval of
the gain is that of the paired difference. ``share`` is the gain divided by the score with the real picture; numerator and
denominator are resampled together. A score that may as well be zero has no share: where the real score is zero in more than one of
twenty resamples the quotient has no interval, and is not given.

The share of a perfect model is not 1 where guessing scores too: of yes/no questions with as many yes as no, a model that is always
right with its own pictures is right with every second of another's.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.bootstrap import bootstrap_sums
from medtune.evaluation.measure import ScoreTable, common_samples
from medtune.evaluation.score_columns import sums_together
from medtune.types import ControlName, Difference, MetricValue, PictureShare

__all__ = ["picture_share"]


def picture_share(
    label: str, control: ControlName, real: ScoreTable, without: ScoreTable, metric: MetricValue, difference: Difference
) -> PictureShare:
    """What ``metric`` owes to the picture.

    Args:
        difference: ``without`` minus ``real`` on this metric, as it stands in the report.
    """
    sign = -1.0 if metric.direction == "higher" else 1.0
    ends = sorted(sign * end for end in (difference.low, difference.high) if end is not None)
    share, share_low, share_high = _share(real, without, metric, difference.task)
    if share is not None and share_low == share_high and ends and difference.first:
        share_low, share_high = (end / difference.first for end in ends)  # no answer changed: the reach of the gain
    return PictureShare(
        label=label,
        control=control,
        metric=metric.name,
        task=difference.task,
        real=difference.first,
        without=difference.second,
        gain=None if difference.difference is None else sign * difference.difference + 0.0,
        low=ends[0] + 0.0 if ends else None,
        high=ends[1] + 0.0 if ends else None,
        share=share,
        share_low=share_low,
        share_high=share_high,
        num_samples=difference.num_samples,
        num_groups=difference.num_groups,
        p_adjusted=difference.p_adjusted,
    )


def _share(real: ScoreTable, without: ScoreTable, metric: MetricValue, task: str | None) -> tuple[float | None, ...]:
    """(value, low, high) of (real - without) / real; None where a share of it means nothing."""
    if metric.direction != "higher" or metric.low != 0:
        return None, None, None
    ids, _ = common_samples([real, without], metric.name, task)
    if not ids:
        return None, None, None
    aggregate = partial(real.metrics[metric.name].aggregate, metric.name)
    sums = sums_together([real.scores[metric.name], without.scores[metric.name]], ids, real.groups_of(ids))

    def part(totals: NDArray[np.float64], totals_without: NDArray[np.float64]) -> NDArray[np.float64]:
        own = np.asarray(aggregate(totals))
        lost = np.asarray(own - aggregate(totals_without))
        part_of_own: NDArray[np.float64] = np.divide(lost, own, out=np.full(own.shape, np.nan), where=own > 0)
        return part_of_own

    found = bootstrap_sums(sums, part, num_resamples=real.num_resamples, seed=real.seed)
    if any(number is not None and not math.isfinite(number) for number in found):
        return None, None, None
    return found
