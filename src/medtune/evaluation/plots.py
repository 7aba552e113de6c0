"""The small drawings of the page, as SVG text.

Drawn by hand and not with matplotlib: its SVG carries its own fonts and colours, while these take the page's, follow it into
the dark, the printer and the other language, and are a few hundred bytes each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from markupsafe import Markup

from medtune.types import Abstention, Measurement, MetricValue, ReliabilityBin

__all__ = ["axis_of", "difference_bar", "interval_bar", "range_strip", "reliability_diagram", "risk_coverage_plot"]

WIDTH = 220
"""Of a drawing, in its own units; the page scales it."""

_PAD = 7


class Interval(Protocol):
    """Anything with the ends of an interval."""

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...


def axis_of(metric: MetricValue, measurements: list[Measurement | None]) -> tuple[float, float]:
    """Where a drawing of ``metric`` begins and ends: its range, or what was measured when the range has no end."""
    seen = [
        number
        for entry in measurements
        if entry is not None
        for number in (entry.value, entry.low, entry.high)
        if number is not None
    ]
    low = metric.low if abs(metric.low) < 1e6 else min(seen, default=0.0)
    high = metric.high if abs(metric.high) < 1e6 else max(seen, default=low + 1.0)
    if seen and (metric.direction == "lower" or metric.high > 100):
        # An error or a count has no natural end: on 0 to 100 points of area, everything real lies within the first.
        high = min(high, max(seen) * 1.2)
    return (low, high) if high > low else (low, low + 1.0)


def range_strip(metric: MetricValue, *, base: Measurement | None, tuned: Measurement | None, control: Measurement | None) -> Markup:
    """Base (ring), tuned (dot) and control (cross) on one line over the metric's range, each with its interval."""
    low, high = axis_of(metric, [base, tuned, control])
    parts = [f'<line class="axis" x1="{_PAD}" x2="{WIDTH - _PAD}" y1="18" y2="18"/>']
    for kind, entry, height in (("control", control, 27), ("base", base, 18), ("tuned", tuned, 9)):
        if entry is None or entry.value is None:
            continue
        x = _place(entry.value, low, high)
        if entry.low is not None and entry.high is not None:
            left, right = _place(entry.low, low, high), _place(entry.high, low, high)
            parts.append(f'<line class="{kind} whisker" x1="{left:.1f}" x2="{right:.1f}" y1="{height}" y2="{height}"/>')
        if kind == "control":
            parts.append(f'<path class="control mark" d="M{x - 3.5:.1f} {height - 3.5}l7 7m0-7l-7 7"/>')
        else:
            parts.append(f'<circle class="{kind} mark" cx="{x:.1f}" cy="{height}" r="4"/>')
    ends = f'<text x="{_PAD}" y="45">{low:.3g}</text>'
    ends += f'<text x="{WIDTH - _PAD}" y="45" text-anchor="end">{high:.3g}</text>'
    parts.append(ends)
    return _svg("strip", WIDTH, 48, parts)


def interval_bar(entry: Measurement, low: float, high: float, overall: float | None = None) -> Markup:
    """One measurement as a dot with its interval, between ``low`` and ``high``: a row of a forest plot.

    Args:
        overall: The number of all samples, drawn as an upright dashed line.
    """
    parts = [f'<line class="axis" x1="{_PAD}" x2="{WIDTH - _PAD}" y1="9" y2="9"/>']
    if overall is not None:
        x = _place(overall, low, high)
        parts.append(f'<line class="overall" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="18"/>')
    if entry.value is not None:
        if entry.low is not None and entry.high is not None:
            left, right = _place(entry.low, low, high), _place(entry.high, low, high)
            parts.append(f'<line class="tuned whisker" x1="{left:.1f}" x2="{right:.1f}" y1="9" y2="9"/>')
        parts.append(f'<circle class="tuned mark" cx="{_place(entry.value, low, high):.1f}" cy="9" r="4"/>')
    return _svg("bar", WIDTH, 18, parts)


def difference_bar(value: float | None, interval: Interval, reach: float) -> Markup:
    """A difference with its interval's ``low`` and ``high``, from ``-reach`` to ``reach``; the upright line is no difference."""
    zero = _place(0, -reach, reach)
    parts = [
        f'<line class="axis" x1="{_PAD}" x2="{WIDTH - _PAD}" y1="9" y2="9"/>',
        f'<line class="overall" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="18"/>',
    ]
    if value is not None:
        if interval.low is not None and interval.high is not None:
            left, right = _place(interval.low, -reach, reach), _place(interval.high, -reach, reach)
            parts.append(f'<line class="tuned whisker" x1="{left:.1f}" x2="{right:.1f}" y1="9" y2="9"/>')
        parts.append(f'<circle class="tuned mark" cx="{_place(value, -reach, reach):.1f}" cy="9" r="4"/>')
    return _svg("bar", WIDTH, 18, parts)


def reliability_diagram(bins: Sequence[ReliabilityBin], model: Literal["base", "tuned"] = "tuned") -> Markup:
    """How often answers were true, over the probability that the model gave them; the diagonal is honest.

    A dot's area grows with the bin's number of samples (DeGroot and Fienberg 1983, doi:10.2307/2987588).
    """
    parts, x, y = _square(1.0)
    parts.append(f'<line class="overall" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    most = max((entry.num_samples for entry in bins), default=0)
    seen = [(entry.probability, entry.share, entry.num_samples) for entry in bins]
    dots = [(p, s, n) for p, s, n in seen if p is not None and s is not None and n]
    if len(dots) > 1:
        path = " ".join(f"{x(p):.1f},{y(s):.1f}" for p, s, _ in dots)
        parts.append(f'<polyline class="{model} curve" points="{path}"/>')
    for p, s, n in dots:
        parts.append(f'<circle class="{model} mark" cx="{x(p):.1f}" cy="{y(s):.1f}" r="{2.5 + 4.5 * (n / most) ** 0.5:.1f}"/>')
    return _svg("square", _SIDE, _SIDE, parts)


def risk_coverage_plot(entry: Abstention) -> Markup:
    """Share of wrong answers among those kept, over the share that is kept, for every threshold (Geifman and El-Yaniv 2017,
    arXiv:1705.08500). The dashed line is the risk that was allowed; the dot is the threshold from validation, with the 95 %
    intervals of both shares."""
    model = "base" if entry.label == "base" else "tuned"
    risks = [risk for _, risk in entry.curve]
    kept = (entry.coverage, entry.accuracy)
    ends = [1 - entry.accuracy_interval[0]] if entry.accuracy_interval else []
    top = next(step for step in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if step >= min(max([*risks, *ends, entry.max_risk]), 1.0))
    parts, x, y = _square(top)
    parts.append(f'<line class="overall" x1="{x(0)}" y1="{y(entry.max_risk):.1f}" x2="{x(1)}" y2="{y(entry.max_risk):.1f}"/>')
    if entry.curve:
        path = " ".join(f"{x(coverage):.1f},{y(risk):.1f}" for coverage, risk in entry.curve)
        parts.append(f'<polyline class="{model} curve" points="{path}"/>')
    if kept[0] is not None and kept[1] is not None:
        across, up = x(kept[0]), y(1 - kept[1])
        if entry.coverage_interval is not None:
            left, right = (x(end) for end in entry.coverage_interval)
            parts.append(f'<line class="{model} whisker" x1="{left:.1f}" x2="{right:.1f}" y1="{up:.1f}" y2="{up:.1f}"/>')
        if entry.accuracy_interval is not None:
            low, high = (y(1 - end) for end in entry.accuracy_interval)
            parts.append(f'<line class="{model} whisker" x1="{across:.1f}" x2="{across:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(f'<circle class="{model} mark" cx="{across:.1f}" cy="{up:.1f}" r="4"/>')
    return _svg("square", _SIDE, _SIDE, parts)


_SIDE = 220
"""Of a square drawing."""


def _square(top: float) -> tuple[list[str], Callable[[float], float], Callable[[float], float]]:
    """A frame with ticks, and where a share from 0 to 1 lies across and one from 0 to ``top`` upwards."""
    pad = 26
    span = _SIDE - 2 * pad

    def x(share: float) -> float:
        return pad + share * span

    def y(share: float) -> float:
        return _SIDE - pad - share / top * span

    parts = [f'<rect class="frame" x="{pad}" y="{pad}" width="{span}" height="{span}"/>']
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{x(tick):.0f}" y="{_SIDE - pad + 13}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{pad - 5}" y="{y(tick * top) + 3:.0f}" text-anchor="end">{tick * top:g}</text>')
    return parts, x, y


def _svg(name: str, width: int, height: int, parts: Sequence[str]) -> Markup:
    return Markup(f'<svg class="{name}" viewBox="0 0 {width} {height}" aria-hidden="true" focusable="false">{"".join(parts)}</svg>')


def _place(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low)
    return _PAD + min(max(share, 0.0), 1.0) * (WIDTH - 2 * _PAD)
