"""Intervals from a handful of seeds.

A setting is trained with several seeds; what differs between its runs is the order of the rows, the adapter's first weights and
dropout. Student's t interval (Student 1908, doi:10.1093/biomet/6.1.1) is exact for normal values from two runs on, where a
bootstrap of three to five values is far too narrow.

The intervals say how far another set of seeds would lie, on the same rows. They say nothing of other patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Estimate", "mean_with_interval", "paired_difference", "t_quantile"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the ends of its interval; both None where there are fewer than two values."""

    mean: float
    low: float | None
    high: float | None
    num_values: int


def mean_with_interval(values: Sequence[float], *, num_comparisons: int = 1) -> Estimate:
    """Mean with its two-sided 95 % t interval, n - 1 degrees of freedom.

    Args:
        values: At least one.
        num_comparisons: Of how many intervals *all* shall hold with 95 % (Bonferroni): each is taken at 1 - 0.05 / m.
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean, None, None, len(values))
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = t_quantile(1 - 0.025 / num_comparisons, len(values) - 1) * math.sqrt(variance / len(values))
    return Estimate(mean, mean - half, mean + half, len(values))


def paired_difference(first: Sequence[float], second: Sequence[float], *, num_comparisons: int = 1) -> Estimate:
    """``second`` minus ``first``, values of the same seeds side by side; see :func:`mean_with_interval`.

    Pairing takes out what a seed does to both, such as a lucky order of the rows.

    Raises:
        ValueError: They differ in number.
    """
    return mean_with_interval(
        [after - before for before, after in zip(first, second, strict=True)], num_comparisons=num_comparisons
    )


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution, to about 1e-9; ``probability`` in (0.5, 1), ``degrees`` at least 1."""
    if not 0.5 < probability < 1 or degrees < 1:
        raise ValueError(f"no quantile for probability {probability} and {degrees} degrees of freedom")
    low, high = 0.0, 1.0
    while _within(high, degrees) < 2 * probability - 1:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if _within(middle, degrees) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _within(t: float, degrees: int) -> float:
    """P(|T| < t): the finite sums of Abramowitz & Stegun (1964), 26.7.3 and 26.7.4."""
    theta = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees % 2
    term = total = cosine if odd else 1.0
    for k in range(2 if odd else 1, degrees - 1, 2):
        term *= k / (k + 1) * cosine**2
        total += term
    if not odd:
        return sine * total
    return 2 / math.pi * (theta + (sine * total if degrees > 1 else 0.0))
