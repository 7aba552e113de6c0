from __future__ import annotations

import numpy as np
import pytest

from medtune.evaluation.agreement import cohen_kappa, fleiss_kappa, gwet_ac1, rating_table


def test_cohen_s_kappa_of_a_worked_table() -> None:
    """20 both yes, 15 both no, 5 and 10 apart, of 50: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5, so 0.4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4, abs=1e-12)


def test_ac1_of_the_same_table() -> None:
    """Share of yes (25 + 30) / 100 = 0.55; p_e = 2 * 0.55 * 0.45 = 0.495; (0.7 - 0.495) / 0.505."""
    table = np.array([[2.0, 0.0]] * 20 + [[1.0, 1.0]] * 15 + [[0.0, 2.0]] * 15)
    assert gwet_ac1(table) == pytest.approx(0.205 / 0.505, abs=1e-12)


def test_kappa_falls_below_zero_where_nearly_all_are_alike_and_ac1_does_not() -> None:
    """118 both yes, 5 and 2 apart, none both no, of 125: p_o = 0.944; kappa's p_e = 0.984 * 0.96 + 0.016 * 0.04 = 0.94528."""
    first = ["yes"] * 123 + ["no"] * 2
    second = ["yes"] * 118 + ["no"] * 5 + ["yes"] * 2
    kappa = cohen_kappa(first, second)
    assert kappa == pytest.approx((0.944 - 0.94528) / (1 - 0.94528), abs=1e-9)
    table = rating_table([list(pair) for pair in zip(first, second, strict=True)], ("yes", "no"))
    assert gwet_ac1(table) == pytest.approx((0.944 - 0.054432) / (1 - 0.054432), abs=1e-9)


def test_fleiss_kappa_of_ten_subjects_and_fourteen_readers() -> None:
    """Agreement of the subjects 1, .253, .308, .440, .330, .462, .242, .176, .286, .286, mean .378; chance .213; kappa .210."""
    table = np.array(
        [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ],
        dtype=float,
    )
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)


def test_a_subject_with_one_rating_changes_the_shares_only() -> None:
    """Three subjects agree (2 yes, 2 yes, 2 no); a fourth with one no moves the shares from 2/3 to 1/2."""
    agreeing = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    assert fleiss_kappa(agreeing) == 1
    mixed = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    # p_o = (1 + 0) / 2; shares (1 + .5 + 0) / 3 = .5; p_e = .5; kappa 0. AC1: p_e = .5, 0 too.
    assert fleiss_kappa(mixed) == pytest.approx(0, abs=1e-12)
    assert gwet_ac1(mixed) == pytest.approx(0, abs=1e-12)


def test_what_is_not_defined_is_none() -> None:
    assert cohen_kappa([], []) is None
    assert cohen_kappa(["yes"] * 3, ["yes"] * 3) is None
    assert fleiss_kappa(np.array([[2.0, 0.0]])) is None
    assert fleiss_kappa(np.array([[1.0, 0.0]])) is None
    assert gwet_ac1(np.array([[1.0, 0.0]])) is None
    assert gwet_ac1(np.zeros((0, 2))) is None
    assert gwet_ac1(np.array([[2.0, 0.0]])) == 1


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        cohen_kappa(["a"], [])
    with pytest.raises(ValueError, match="is no category"):
        rating_table([["maybe"]], ("yes", "no"))


def test_readers_who_guess_agree_as_often_as_chance() -> None:
    draw = np.random.default_rng(0)
    ratings = [[("yes", "no")[choice] for choice in draw.integers(0, 2, size=3)] for _ in range(4000)]
    table = rating_table(ratings, ("yes", "no"))
    for value in (fleiss_kappa(table), gwet_ac1(table)):
        assert value is not None
        assert abs(value) < 0.03
