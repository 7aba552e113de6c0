"""Differences of averaged runs keep the rules of a difference of two: what is not known is not claimed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from medtune.evaluation.bootstrap import bound_without_exceptions
from medtune.evaluation.measure import ScoreTable, difference
from medtune.evaluation.metrics.vqa import ClosedAccuracy
from medtune.evaluation.several_runs import averaged_difference
from medtune.types import Score

METRIC = ClosedAccuracy()


def table(statistics: Sequence[tuple[float, ...]], metric: str) -> ScoreTable:
    """One sample a group."""
    scores = [Score(sample_id=f"s{place}", metric=metric, value=0.0, statistics=row) for place, row in enumerate(statistics)]
    names = [score.sample_id for score in scores]
    known = {value.name: METRIC for value in METRIC.values}
    return ScoreTable.build(
        scores, dict.fromkeys(names, "closed-vqa"), {name: name for name in names}, known, num_resamples=500, seed=0
    )


def test_where_nothing_differs_the_interval_is_as_wide_as_that_of_two_runs() -> None:
    right = [(1.0, 1.0)] * 20
    runs = [table(right, "closed/accuracy") for _ in range(4)]
    found = averaged_difference(runs[:2], runs[2:], "closed/accuracy")
    alone = difference(runs[0], runs[2], "closed/accuracy")
    assert (found.difference, alone.difference) == (0, 0)
    reach = bound_without_exceptions(20)
    assert (found.low, found.high) == (alone.low, alone.high) == (pytest.approx(-reach), pytest.approx(reach))
    assert found.p_value == 1


def test_a_number_that_is_often_undefined_has_no_interval() -> None:
    """Of 40 patients one has an abnormal picture: four resamples of ten do not draw it, and have no correlation."""
    rows = [(1.0, 0.0, 0.0, 0.0), *[(0.0, 0.0, 1.0, 0.0)] * 38, (0.0, 1.0, 0.0, 0.0)]
    other = [(1.0, 0.0, 0.0, 0.0), *[(0.0, 0.0, 1.0, 0.0)] * 39]
    found = averaged_difference([table(rows, "closed/mcc")] * 2, [table(other, "closed/mcc")] * 2, "closed/mcc")
    assert found.difference is not None
    assert found.difference > 0
    assert (found.low, found.high, found.p_value) == (None, None, None)


def test_groups_that_add_nothing_do_not_count() -> None:
    """A rate among few groups is no surer for a hundred groups that have nothing of it."""

    def spread(padding: int) -> float:
        first = [(float(place % 2), 1.0) for place in range(10)] + [(0.0, 0.0)] * padding
        second = [(float(place % 3 == 0), 1.0) for place in range(10)] + [(0.0, 0.0)] * padding
        found = averaged_difference(
            [table(first, "closed/accuracy")] * 2, [table(second, "closed/accuracy")] * 2, "closed/accuracy"
        )
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert spread(200) >= spread(0)
