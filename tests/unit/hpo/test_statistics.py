"""Intervals against published tables and values worked by hand."""

from __future__ import annotations

import pytest

from medtune.hpo.statistics import mean_with_interval, paired_difference, t_quantile


@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, upper critical values of Student's t.
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 3, 3.182),
        (0.975, 4, 2.776),
        (0.975, 10, 2.228),
        (0.975, 100, 1.984),
        (0.95, 7, 1.895),
        (0.999, 5, 5.893),
    ],
)
def test_quantiles_are_those_of_the_table(probability: float, degrees: int, value: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(value, abs=5e-4)


def test_an_interval_worked_by_hand() -> None:
    # 1, 2, 3: mean 2, variance 1, standard error 1/sqrt(3), t(2) = 4.3027.
    found = mean_with_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)
    assert found.low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4)


def test_one_value_has_no_interval() -> None:
    assert (mean_with_interval([0.5]).low, mean_with_interval([0.5]).high) == (None, None)


def test_pairing_takes_out_what_seeds_do_to_both() -> None:
    first, second = [1.0, 5.0, 9.0], [0.9, 4.9, 8.91]
    paired = paired_difference(first, second)
    assert paired.high is not None
    assert paired.high < 0, "a constant gain is seen"
    alone = mean_with_interval(second)
    assert alone.low is not None
    assert alone.high is not None
    assert alone.low < 5 < alone.high, "although the spread over seeds is far larger"


def test_more_comparisons_widen_the_interval() -> None:
    one, ten = (mean_with_interval([1.0, 1.2, 0.9, 1.1], num_comparisons=count) for count in (1, 10))
    assert one.low is not None
    assert ten.low is not None
    assert ten.low < one.low


def test_pairs_need_partners() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0])
