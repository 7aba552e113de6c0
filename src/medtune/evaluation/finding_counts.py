"""One row for each finding: how often it was found, missed and invented, with intervals."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.bootstrap import cluster_bootstrap
from medtune.evaluation.measure import ScoreTable
from medtune.evaluation.metrics.findings import CELLS, coarser_outcomes, finding_outcomes
from medtune.tasks.reading.assertions import findings
from medtune.types import FindingCount, Measurement, Score

__all__ = ["count_findings"]

_METRIC = "findings/macro-f1"
_PARTS = {"precision": (0, 2), "recall": (0, 1), "f1": (0, 1, 2)}
"""Which of :data:`CELLS` stand under the line; above it is what was found."""


def count_findings(table: ScoreTable) -> tuple[FindingCount, ...]:
    """The findings that a reference or an answer of the condition claims, in the order of the tables.

    A row's intervals resample the groups in which the finding occurs; with few of them they are wide, and with one there is none.
    """
    # Numbers of groups and cells: one of some ten findings of each of 100,000 reports takes 12 bytes.
    rows: dict[str, tuple[array[int], array[int]]] = {}
    coarser = Counter[str]()
    column: Mapping[str, Score] = table.scores.get(_METRIC, {})
    for group, score in zip(table.groups_of(list(column)).tolist(), column.values(), strict=True):
        if score.value is not None:
            outcomes = finding_outcomes(score)
            for name, outcome in outcomes.items():
                groups, cells = rows.setdefault(name, (array("q"), array("i")))
                groups.append(group)
                cells.append(CELLS.index(outcome))
            coarser.update(coarser_outcomes(outcomes))
    return tuple(_row(name, *rows[name], coarser[name], table) for name in findings() if name in rows)


def _row(name: str, of_groups: array[int], cells: array[int], num_coarser: int, table: ScoreTable) -> FindingCount:
    groups, counts = np.array(of_groups), np.eye(len(CELLS))[np.array(cells)]
    found, missed, invented = (int(number) for number in counts.sum(axis=0))
    finding = findings()[name]
    return FindingCount(
        finding=name,
        title=name[:1].upper() + name[1:],
        title_zh=finding.chinese,
        body_part=finding.body_part,
        body_part_zh=finding.body_part_chinese,
        num_reference=found + missed,
        num_found=found,
        num_missed=missed,
        num_coarser=num_coarser,
        num_invented=invented,
        **{part: _measure(part, under, counts, groups, table) for part, under in _PARTS.items()},
    )


def _measure(
    part: str, under: tuple[int, ...], counts: NDArray[np.float64], groups: NDArray[np.int64], table: ScoreTable
) -> Measurement:
    doubled = 2.0 if part == "f1" else 1.0
    # Groups in which it was only invented tell nothing of how often it is found: they must not count among those that do.
    told = counts[:, list(under)].any(axis=1)
    among = groups[told]

    def aggregate(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        above = doubled * totals[..., 0]
        ratio: NDArray[np.float64] = above / (above + totals[..., list(under[1:])].sum(axis=-1))
        return ratio

    if not len(among):
        return Measurement(metric=f"findings/{part}", value=None, num_scored=0, num_unscored=0, num_groups=0)
    number = cluster_bootstrap(
        counts[told], among, aggregate, num_resamples=table.num_resamples, seed=table.seed, limits=(0.0, 1.0)
    )
    return Measurement(
        metric=f"findings/{part}",
        value=number[0],
        low=number[1],
        high=number[2],
        num_scored=len(among),
        num_unscored=0,
        num_groups=len(np.unique(among)),
    )
