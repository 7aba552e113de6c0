from __future__ import annotations

import re

from medtune.evaluation.plots import WIDTH, axis_of, interval_bar, range_strip
from medtune.types import Measurement, MetricValue

SHARE = MetricValue(name="closed/accuracy", title="Accuracy", direction="higher", low=0, high=1)
CORRELATION = MetricValue(name="closed/mcc", title="MCC", direction="higher", low=-1, high=1)
COUNT = MetricValue(name="findings/coarser", title="Coarser", direction="neither", low=0, high=1000)
ERROR = MetricValue(name="region/area-error", title="Error", direction="lower", low=0, high=100)


def measured(value: float | None, low: float | None = None, high: float | None = None) -> Measurement:
    return Measurement(metric="m", value=value, low=low, high=high, num_scored=1, num_unscored=0, num_groups=2)


def test_a_dot_stands_where_its_value_is() -> None:
    middle = re.search(r'cx="([\d.]+)"', interval_bar(measured(0.0, -0.5, 0.5), -1, 1))
    assert middle is not None
    assert float(middle.group(1)) == WIDTH / 2
    ends = re.search(r'x1="([\d.]+)" x2="([\d.]+)" y1="9" y2="9"/><circle', interval_bar(measured(0.0, -1, 1), -1, 1))
    assert ends is not None
    assert [float(end) for end in ends.groups()] == [7, WIDTH - 7]


def test_nothing_is_drawn_of_what_was_not_measured() -> None:
    assert "circle" not in interval_bar(measured(None), 0, 1)
    strip = range_strip(SHARE, base=measured(0.2), tuned=None, control=measured(None))
    assert strip.count("<circle") == 1
    assert "control" not in strip


def test_an_error_s_axis_ends_where_the_errors_do() -> None:
    assert axis_of(SHARE, [measured(0.1)]) == (0, 1)
    assert axis_of(CORRELATION, [measured(0.1)]) == (-1, 1)
    assert axis_of(ERROR, [measured(2.0, 1.0, 5.0), None]) == (0, 6.0)
    assert axis_of(ERROR, [measured(99.0)]) == (0, 100)
    assert axis_of(ERROR, [measured(0.0)]) == (0, 1.0)
    assert axis_of(COUNT, [measured(0.5, 0.2, 1.0)]) == (0, 1.2), "a count is no share of the most that is allowed"
