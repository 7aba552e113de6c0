"""Student's t distribution (Student 1908, doi:10.1093/biomet/6.1.1), for any positive number of degrees of freedom.

medtune has no dependency that offers it. The tail is an incomplete beta function (Abramowitz & Stegun 1964, 26.7.1 with 26.5.2),
and that a continued fraction (NIST Digital Library of Mathematical Functions, 8.17.22).
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

__all__ = ["t_quantile", "t_two_sided"]

_LARGE = 1e8
"""Degrees of freedom above which the distribution is the normal one to eight digits."""


def t_two_sided(t: float, degrees: float) -> float:
    """P(|T| > |t|).

    Raises:
        ValueError: ``degrees`` is not positive.
    """
    if not degrees > 0:
        raise ValueError(f"no t distribution has {degrees} degrees of freedom")
    if degrees > _LARGE:
        return math.erfc(abs(t) / math.sqrt(2))
    return _incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5)


@lru_cache(maxsize=1024)
def t_quantile(probability: float, degrees: float) -> float:
    """The t with P(T < t) = ``probability``, to about 1e-9 of its size.

    Raises:
        ValueError: ``probability`` is not between 0.5 and 1, or ``degrees`` not positive.
    """
    if not 0.5 < probability < 1:
        raise ValueError(f"no quantile for the probability {probability}")
    # Newton from the normal quantile, which is smaller. The tail is convex, so every step falls short of the root, and the first
    # that gains nothing is the last. Halving an interval asks for the tail ten times as often.
    tail = 2 * (1 - probability)
    t = NormalDist().inv_cdf(probability)
    if degrees > _LARGE:
        return t
    density = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    while True:
        slope = 2 * density * (1 + t * t / degrees) ** (-(degrees + 1) / 2)
        step = (t_two_sided(t, degrees) - tail) / slope
        if not step > 1e-13 * t:
            return t
        t += step


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction would converge slowly
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    # From the inside out: how many terms are needed grows like the root of the larger parameter.
    value = 1.0
    for m in range(int(50 + 2 * math.sqrt(max(a, b))), 0, -1):
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        value = 1 + odd / (1 + even / value)
    return front / value
