"""Two recipes, several runs of each: averaged over the runs, never pooled.

Training again with another seed gives another model. Answers of three such models to 100 questions are no 300 answers: the metric
is computed for each run and the numbers are averaged, and the runs' spread enters the interval (Bouthillier et al. 2021,
arXiv:2103.03098: variance between seeds is often as large as the differences that papers claim).

The variance of the difference is the sum of three: of the patients (cluster bootstrap of the average, every run resampled with
the same draws), and of the runs of either arm (their sample variance divided by their number). The interval is Student's, its
degrees of freedom Satterthwaite's (1946, doi:10.2307/3002019) from the three: (sum v) ** 2 / sum(v ** 2 / df). With three runs an
arm the runs have two degrees of freedom each, so a spread between them makes the interval wide, as it should. Noise that a run and
a patient have in common counts in both parts, which makes the interval a little too wide rather than too narrow. A number that is
often undefined has no interval, and one that never varies has the one that it has for two runs (:mod:`.bootstrap`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from medtune.evaluation.bootstrap import MOST_UNDEFINED, draw_counts, reach_without_exceptions
from medtune.evaluation.measure import ScoreTable, common_samples, difference, limits_of_difference, no_difference
from medtune.evaluation.score_columns import sums_together
from medtune.evaluation.student import t_quantile, t_two_sided
from medtune.types import Difference

__all__ = ["averaged_difference"]


def averaged_difference(
    first: Sequence[ScoreTable], second: Sequence[ScoreTable], metric: str, *, task: str | None = None
) -> Difference:
    """The mean of ``second``'s runs minus that of ``first``'s, on the samples that every run has scored, paired.

    With one run an arm this is :func:`medtune.evaluation.measure.difference`. With one run in one arm only, nothing is known of how
    its seed would matter, and its part of the variance is missing: the comparison says so.

    Raises:
        ValueError: An arm has no run.
    """
    if not first or not second:
        raise ValueError("an arm of a comparison has at least one run")
    if len(first) == len(second) == 1:
        return difference(first[0], second[0], metric, task=task)
    ids, num_unscored = common_samples([*first, *second], metric, task)
    if not ids:
        return no_difference(metric, task, num_unscored)
    lead = first[0]
    aggregate = partial(lead.metrics[metric].aggregate, metric)
    every = sums_together([table.scores[metric] for table in (*first, *second)], ids, lead.groups_of(ids))
    arms = [every.of[: len(first)], every.of[len(first) :]]
    runs = [[float(np.asarray(aggregate(sums.sum(axis=0)))) for sums in arm] for arm in arms]
    means = [math.fsum(values) / len(values) for values in runs]
    value = means[1] - means[0]
    num_groups = len(arms[0][0])
    low = high = p_value = None
    if num_groups > 1 and math.isfinite(value):
        draws = [
            np.mean([aggregate(counts @ sums) for sums in arms[1]], axis=0)
            - np.mean([aggregate(counts @ sums) for sums in arms[0]], axis=0)
            for counts in draw_counts(num_groups, lead.num_resamples, lead.seed)
        ]
        known = np.concatenate(draws)
        finite = known[np.isfinite(known)]
        if len(finite) >= (1 - MOST_UNDEFINED) * len(known):
            # Resamples of G groups vary less than the groups do, by (G - 1) / G, G being their effective number.
            degrees = max(every.effective_groups - 1, 0.5)
            parts = [(float(np.var(finite)) * (1 + 1 / degrees), degrees)]
            parts += [(float(np.var(values, ddof=1)) / len(values), len(values) - 1) for values in runs if len(values) > 1]
            low, high, p_value = _student(value, parts)
            if low == high and (limits := limits_of_difference(lead, metric)) is not None:
                low, high = reach_without_exceptions(value, limits, every.effective_groups)
    return Difference(
        metric=metric,
        task=task,
        first=_number(means[0]),
        second=_number(means[1]),
        difference=_number(value),
        low=low,
        high=high,
        num_samples=len(ids),
        num_unscored=num_unscored,
        num_groups=num_groups,
        p_value=p_value,
        first_runs=tuple(runs[0]) if all(map(math.isfinite, runs[0])) else (),
        second_runs=tuple(runs[1]) if all(map(math.isfinite, runs[1])) else (),
    )


def _student(value: float, parts: Sequence[tuple[float, float]]) -> tuple[float, float, float | None]:
    """(low, high, two-sided p) from parts of the variance with their degrees of freedom; no p where nothing varies."""
    variance = math.fsum(part for part, _ in parts)
    if variance <= 0:
        return value, value, 1.0 if value == 0 else None
    degrees = variance**2 / math.fsum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    half = t_quantile(0.975, degrees) * error
    return value - half, value + half, t_two_sided(value / error, degrees)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
