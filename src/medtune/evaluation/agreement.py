"""How far several readers agree, beyond what chance alone would give.

All take a table of ratings, one row for each subject and one column for each category, with the number of readers who chose it.
A subject that fewer than two readers rated says nothing about agreement; it counts only where the shares of the categories are
estimated. All are 1 for readers who always agree and about 0 for readers who agree as often as chance.

Kappa is low, against intuition, where nearly all subjects are of one category, however often readers agree (Feinstein and Cicchetti
1990, doi:10.1016/0895-4356(90)90158-L). Errors in answers are such a case; AC1 does not suffer from it, so both are given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["cohen_kappa", "fleiss_kappa", "gwet_ac1", "rating_table"]


def rating_table(ratings: Sequence[Sequence[str]], categories: Sequence[str]) -> NDArray[np.float64]:
    """(subjects, categories) counts of readers.

    Args:
        ratings: For each subject the categories that its readers chose, one for each reader, in any order.

    Raises:
        ValueError: A rating is none of ``categories``.
    """
    places = {category: place for place, category in enumerate(categories)}
    table = np.zeros((len(ratings), len(categories)))
    for row, chosen in enumerate(ratings):
        for category in chosen:
            if category not in places:
                raise ValueError(f"{category!r} is no category")
            table[row, places[category]] += 1
    return table


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Cohen's kappa of two readers: ``(p_o - p_e) / (1 - p_e)``, where ``p_e`` comes from each reader's own shares.

    Cohen 1960, doi:10.1177/001316446002000104. From -1 to 1. None where it is not defined: no subject, or chance agreement is 1
    (both readers used one and the same category only).

    Args:
        first: The category of each subject by one reader; ``second`` by the other, in the same order.

    Raises:
        ValueError: The lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} ratings cannot be paired")
    if not first:
        return None
    count = len(first)
    observed = sum(one == other for one, other in zip(first, second, strict=True)) / count
    chance = sum(first.count(category) * second.count(category) for category in set(first)) / count**2
    return None if chance >= 1 else (observed - chance) / (1 - chance)


def fleiss_kappa(table: NDArray[np.float64]) -> float | None:
    """Fleiss' kappa of any number of readers: ``p_e`` is the sum of the squared shares of the categories.

    Fleiss 1971, doi:10.1037/h0031619, equations 1 to 7. With different numbers of readers for each subject, shares and agreement
    are means over subjects (Gwet 2014, Handbook of Inter-Rater Reliability, 4th edition, chapter 2), which is the same where
    the numbers are equal. None where it is not defined, as for :func:`cohen_kappa`.
    """
    observed, shares = _agreement(table)
    if observed is None:
        return None
    chance = float((shares**2).sum())
    return None if chance > 1 - 1e-12 else (observed - chance) / (1 - chance)


def gwet_ac1(table: NDArray[np.float64]) -> float | None:
    """Gwet's AC1: ``p_e = sum(s * (1 - s)) / (q - 1)`` over the shares ``s`` of the ``q`` categories.

    Gwet 2008, doi:10.1348/000711006X126600, equations 8 and 9; for several readers and missing ratings as in
    :func:`fleiss_kappa`. Columns of the table count as categories whether they were used or not. None where no subject was
    rated by two.
    """
    observed, shares = _agreement(table)
    if observed is None:
        return None
    chance = float((shares * (1 - shares)).sum()) / float(table.shape[1] - 1)
    return (observed - chance) / (1 - chance)


def _agreement(table: NDArray[np.float64]) -> tuple[float | None, NDArray[np.float64]]:
    """Mean share of agreeing pairs of readers, over subjects with two or more; and the categories' mean shares."""
    readers = table.sum(axis=1)
    rated = readers > 0
    shares = (table[rated] / readers[rated, None]).mean(axis=0) if rated.any() else np.zeros(table.shape[1])
    several = readers > 1
    if not several.any():
        return None, shares
    pairs = (table[several] * (table[several] - 1)).sum(axis=1) / (readers[several] * (readers[several] - 1))
    return float(pairs.mean()), shares
