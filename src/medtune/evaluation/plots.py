"""The small drawings of the page, as SVG text.

Drawn by hand and not with matplotlib: its SVG carries its own fonts and colours, while these take the page's, follow it into
the dark, the printer and the other language, and are a few hundred bytes each.
"""

from __future__ import annotations

from markupsafe import Markup

from medtune.types import Measurement, MetricValue

__all__ = ["axis_of", "interval_bar", "range_strip"]

WIDTH = 220
"""Of a drawing, in its own units; the page scales it."""

_PAD = 7


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
    if seen and metric.direction == "lower":
        # An error has no natural end: on 0 to 100 points of area, everything real lies within the first.
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
    return Markup(f'<svg class="strip" viewBox="0 0 {WIDTH} 48" aria-hidden="true" focusable="false">{"".join(parts)}</svg>')


def interval_bar(entry: Measurement, low: float, high: float) -> Markup:
    """One measurement as a dot with its interval, between ``low`` and ``high``."""
    parts = [f'<line class="axis" x1="{_PAD}" x2="{WIDTH - _PAD}" y1="9" y2="9"/>']
    if entry.value is not None:
        if entry.low is not None and entry.high is not None:
            left, right = _place(entry.low, low, high), _place(entry.high, low, high)
            parts.append(f'<line class="tuned whisker" x1="{left:.1f}" x2="{right:.1f}" y1="9" y2="9"/>')
        parts.append(f'<circle class="tuned mark" cx="{_place(entry.value, low, high):.1f}" cy="9" r="4"/>')
    return Markup(f'<svg class="bar" viewBox="0 0 {WIDTH} 18" aria-hidden="true" focusable="false">{"".join(parts)}</svg>')


def _place(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low)
    return _PAD + min(max(share, 0.0), 1.0) * (WIDTH - 2 * _PAD)
