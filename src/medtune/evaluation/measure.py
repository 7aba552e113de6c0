"""Scores -> numbers with intervals: measurements, paired differences, subgroups.

Every number is a function of summed statistics (see :class:`medtune.types.Score`), and every interval comes from resampling
whole groups: slices of one patient are not independent (Yagis et al. 2021, doi:10.1038/s41598-021-01681-w).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.bootstrap import apart, bootstrap_sums
from medtune.evaluation.permutation import mcnemar_exact, permutation_of_sums
from medtune.evaluation.score_columns import ScoreColumn, ScoreColumns, sums_together
from medtune.types import Difference, Measurement, Metric, Score

__all__ = [
    "ScoreTable",
    "by_task",
    "common_samples",
    "cut_into_thirds",
    "difference",
    "limits_of_difference",
    "measure",
    "no_difference",
]

Measured = TypeVar("Measured", Measurement, Difference)


@dataclass(frozen=True)
class ScoreTable:
    """The scores of one condition.

    Attributes:
        scores: Metric value -> sample id -> score.
        tasks: Sample id -> task.
        groups: Sample id -> group.
        metrics: Metric value -> the metric that aggregates it.
    """

    scores: ScoreColumns
    tasks: Mapping[str, str]
    groups: Mapping[str, str]
    metrics: Mapping[str, Metric]
    num_resamples: int = 2000
    seed: int = 0

    @classmethod
    def build(
        cls,
        scores: Iterable[Score],
        tasks: Mapping[str, str],
        groups: Mapping[str, str],
        metrics: Mapping[str, Metric],
        *,
        num_resamples: int,
        seed: int,
    ) -> ScoreTable:
        return cls(ScoreColumns.of(scores), tasks, groups, metrics, num_resamples, seed)

    def tasks_of(self, metric: str) -> list[str]:
        """The tasks that have scores on ``metric``, in the order of the samples."""
        return list(dict.fromkeys(self.tasks[sample] for sample in self.scores.get(metric, {})))

    def select(self, metric: str, *, task: str | None = None, among: Sequence[str] | None = None) -> list[str]:
        """Ids with a score (or an unscored mark) on ``metric``."""
        have = self.scores.get(metric)
        if have is None:
            return []
        ids = list(have) if among is None else [name for name, row in zip(among, have.rows(among), strict=True) if row >= 0]
        return ids if task is None else [sample for sample in ids if self.tasks[sample] == task]

    def is_scored(self, metric: str, sample_ids: Sequence[str]) -> NDArray[np.bool_]:
        """(n,) whether each sample has a number on ``metric``."""
        have = self.scores.get(metric)
        return np.zeros(len(sample_ids), dtype=bool) if have is None else ~np.isnan(have.values_of(sample_ids))

    def groups_of(self, sample_ids: Sequence[str]) -> NDArray[np.int64]:
        """(n,) the group of each sample as a number, in the order of the groups' names."""
        numbers = self._group_numbers
        return np.fromiter((numbers[self.groups[name]] for name in sample_ids), dtype=np.int64, count=len(sample_ids))

    @cached_property
    def _group_numbers(self) -> dict[str, int]:
        # As numpy sorts them, by code points: numbers and names then give the same draws.
        return {group: number for number, group in enumerate(sorted(set(self.groups.values())))}


def by_task(table: ScoreTable, metrics: Iterable[str], number: Callable[[str, str | None], Measured]) -> list[Measured]:
    """``number`` of every metric over all samples (task None) and over each of its tasks, metric by metric.

    They are worked out task by task: what is over the same groups comes one after the other and shares their draws, of which only
    so many are kept.
    """
    tasks: dict[str, list[str]] = {metric: table.tasks_of(metric) for metric in metrics}
    several: list[str | None] = [None, *dict.fromkeys(task for known in tasks.values() if len(known) > 1 for task in known)]
    done: dict[tuple[str, str | None], Measured] = {
        (metric, task): number(metric, task)
        for task in several
        for metric, known in tasks.items()
        if known and (task is None or (len(known) > 1 and task in known))
    }
    found: list[Measured] = []
    for metric, known in tasks.items():
        if known:
            overall = done[metric, None]
            found.append(overall)
            of_tasks = [done[metric, task] for task in known] if len(known) > 1 else [overall.model_copy(update={"task": known[0]})]
            found.extend(of_tasks)
    return found


def _number(value: float | None) -> float | None:
    """None for the NaN of a number that is not defined: JSON has none."""
    return None if value is None or not np.isfinite(value) else float(value)


def measure(table: ScoreTable, metric: str, task: str | None = None, *, among: Sequence[str] | None = None) -> Measurement:
    """One metric over the samples of ``task`` (None = all) and ``among`` (None = all), with its 95 % interval.

    With one group only there is no interval: nothing is known of how groups differ.
    """
    ids = table.select(metric, task=task, among=among)
    scored = [sample for sample, known in zip(ids, table.is_scored(metric, ids), strict=True) if known]
    if not scored:
        return Measurement(metric=metric, task=task, value=None, num_scored=0, num_unscored=len(ids), num_groups=0)
    sums = sums_together([table.scores[metric]], scored, table.groups_of(scored))
    aggregate = partial(table.metrics[metric].aggregate, metric)
    limits = _limits(table, metric)
    value, low, high = bootstrap_sums(sums, aggregate, num_resamples=table.num_resamples, seed=table.seed, limits=limits)
    return Measurement(
        metric=metric,
        task=task,
        value=_number(value),
        low=_number(low),
        high=_number(high),
        num_scored=len(scored),
        num_unscored=len(ids) - len(scored),
        num_groups=len(sums.sizes),
    )


_SCALES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 100.0))


def _limits(table: ScoreTable, metric: str) -> tuple[float, float] | None:
    """The ends of ``metric``'s range, where it is a share, a correlation or a score without a unit: what has one (letters, reports)
    has no end but on paper."""
    known = next((known for known in table.metrics[metric].values if known.name == metric), None)
    return (known.low, known.high) if known is not None and not known.unit and (known.low, known.high) in _SCALES else None


def limits_of_difference(table: ScoreTable, metric: str) -> tuple[float, float] | None:
    """The ends of the range of a difference on ``metric``; None as in :func:`_limits`."""
    ends = _limits(table, metric)
    return None if ends is None else (ends[0] - ends[1], ends[1] - ends[0])


def no_difference(metric: str, task: str | None, num_unscored: int) -> Difference:
    """Of samples none of which all that are compared have scored."""
    return Difference(
        metric=metric,
        task=task,
        first=None,
        second=None,
        difference=None,
        num_samples=0,
        num_unscored=num_unscored,
        num_groups=0,
    )


def difference(first: ScoreTable, second: ScoreTable, metric: str, task: str | None = None) -> Difference:
    """``second`` minus ``first`` on the samples that both have scored, paired; groups and tasks are ``first``'s.

    ``p_adjusted`` is left open: it depends on what else is compared (:func:`medtune.evaluation.permutation.adjust`).
    """
    ids, num_unscored = common_samples([first, second], metric, task)
    if not ids:
        return no_difference(metric, task, num_unscored)
    # Together: exchanging groups between the two needs the same columns in both.
    sums = sums_together([first.scores[metric], second.scores[metric]], ids, first.groups_of(ids))
    aggregate = partial(first.metrics[metric].aggregate, metric)
    limits = limits_of_difference(first, metric)
    value, low, high = bootstrap_sums(sums, apart(aggregate), num_resamples=first.num_resamples, seed=first.seed, limits=limits)
    p_value = permutation_of_sums(sums, aggregate, num_permutations=first.num_resamples, seed=first.seed)
    discordant = _discordant(first.scores[metric], second.scores[metric], ids)
    before, after = (aggregate(part.sum(axis=0)).item() for part in sums.of)
    return Difference(
        metric=metric,
        task=task,
        first=_number(before),
        second=_number(after),
        difference=_number(value),
        low=_number(low),
        high=_number(high),
        num_samples=len(ids),
        num_unscored=num_unscored,
        num_groups=len(sums.sizes),
        p_value=p_value,
        discordant=discordant,
        p_mcnemar=None if discordant is None else mcnemar_exact(*discordant),
    )


def common_samples(tables: Sequence[ScoreTable], metric: str, task: str | None) -> tuple[list[str], int]:
    """Ids that all ``tables`` have scored on ``metric``, in the order of the first, and how many that one at least has were not."""
    asked = dict.fromkeys(sample for table in tables for sample in table.select(metric) if sample in tables[0].tasks)
    wanted = [sample for sample in asked if task is None or tables[0].tasks[sample] == task]
    by_all = np.logical_and.reduce([table.is_scored(metric, wanted) for table in tables])
    scored = [sample for sample, known in zip(wanted, by_all, strict=True) if known]
    return scored, len(wanted) - len(scored)


def _discordant(first: ScoreColumn, second: ScoreColumn, ids: Sequence[str]) -> tuple[int, int] | None:
    """(Right in the first only, right in the second only), None where answers are not just right or wrong: a plain mean of
    (0, 1) and (1, 1)."""
    if any(column.whole.placed or column.whole.statistics.shape[1] != 2 for column in (first, second)):
        return None
    tables = [column.whole.statistics[column.rows(ids)] for column in (first, second)]
    if not all((table[:, 1] == 1).all() and np.isin(table[:, 0], (0.0, 1.0)).all() for table in tables):
        return None
    one, other = (table[:, 0] == 1 for table in tables)
    return int(np.count_nonzero(one & ~other)), int(np.count_nonzero(other & ~one))


def cut_into_thirds(values: Mapping[str, float]) -> dict[str, str]:
    """Sample id -> the third of the values it lies in, as ``< a``, ``a – b`` or ``≥ b``, in the order of the values."""
    order = sorted(values.items(), key=lambda entry: entry[1])
    low, high = np.quantile(list(values.values()), [1 / 3, 2 / 3])
    names = (f"< {low:.3g}", f"{low:.3g} – {high:.3g}", f"≥ {high:.3g}")
    return {sample: names[0] if value < low else names[1] if value < high else names[2] for sample, value in order}
