"""Calibration: numbers worked by hand, and the threshold that is chosen on one split and applied to another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from medtune.evaluation.bootstrap import bound_without_exceptions
from medtune.evaluation.calibration import (
    Told,
    abstention,
    choose_threshold,
    reliability_bins,
    risk_coverage,
)
from medtune.evaluation.cautions import few_to_choose
from medtune.evaluation.metrics.calibration import Calibration, probability_of_yes
from medtune.types import Generation, Message, Prediction, Sample, Score

METRIC = Calibration()


def scores(p: float, target: str, *, told: bool = True) -> tuple[Score, ...]:
    turns = (Message(role="user", content="Is it?"), Message(role="assistant", content=target))
    sample = Sample(id="s", task="closed-vqa", messages=turns, target=target, group="g", source="t")
    # Some of the probability goes to words that are neither.
    logprobs = {"yes": math.log(0.8 * p), "No": math.log(0.8 * (1 - p))} if told else None
    generation = Generation(id="s", text="yes", finish_reason="stop", first_token_logprobs=logprobs)
    return METRIC.score(Prediction(sample_id="s", generation=generation), sample)


def number(name: str, answers: list[tuple[float, str]]) -> float:
    totals = [score.statistics for p, target in answers for score in scores(p, target) if score.metric == f"calibration/{name}"]
    return float(METRIC.aggregate(f"calibration/{name}", np.sum(totals, axis=0)))


def test_the_probability_of_yes_is_among_yes_and_no_alone() -> None:
    told = {"Yes": math.log(0.3), "yes": math.log(0.1), "no": math.log(0.1), "maybe": math.log(0.4)}
    assert probability_of_yes(told) == pytest.approx(0.8)
    assert probability_of_yes({"是": math.log(0.1), "否": math.log(0.3)}) == pytest.approx(0.25)
    assert probability_of_yes({"yes": math.log(0.9)}) is None, "what a server leaves out is not zero"
    assert probability_of_yes({}) is None


def test_brier_and_expected_calibration_error_by_hand() -> None:
    answers = [(0.9, "yes"), (0.9, "no"), (0.2, "no"), (0.7, "yes")]
    assert number("brier", answers) == pytest.approx((0.01 + 0.81 + 0.04 + 0.09) / 4)
    # Bins: 0.9 twice (|1.8 - 1|), 0.2 (0.2), 0.7 (0.3).
    assert number("ece", answers) == pytest.approx((0.8 + 0.2 + 0.3) / 4)


def test_risk_and_coverage_by_hand() -> None:
    confidence, wrong = [0.9, 0.8, 0.8, 0.6], [0, 1, 0, 1]
    coverage, risk = risk_coverage(confidence, wrong)
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0.0, 1 / 3, 0.5])
    # The two of 0.8 in random order: 0/1, 0.5/2, 1/3, 2/4.
    assert area_by_ranks(confidence, wrong) == pytest.approx((0 + 0.25 + 1 / 3 + 0.5) / 4)


def area_by_ranks(confidence: Sequence[float], wrong: Sequence[float]) -> float:
    """The mean over k of the share of wrong answers among the k most confident, those of equal confidence in random order, in
    expectation: answer by answer, where the metric goes step by step."""
    levels, places = np.unique(-np.asarray(confidence), return_inverse=True)
    rates = np.bincount(places, weights=wrong, minlength=len(levels)) / np.bincount(places, minlength=len(levels))
    return float(np.mean(np.cumsum(rates[np.sort(places)]) / np.arange(1, len(confidence) + 1)))


def test_the_additive_area_is_that_of_the_curve() -> None:
    draw = np.random.default_rng(0)
    answers = [(float(p), "yes" if draw.random() < p else "no") for p in draw.choice(np.arange(0.0225, 1, 0.01), size=200)]
    confidence = [max(p, 1 - p) for p, _ in answers]
    wrong = [float((p > 0.5) != (target == "yes")) for p, target in answers]
    steps = [round(math.floor((c - 0.5) * 200 + 1e-9)) for c in confidence]
    assert number("aurc", answers) == pytest.approx(area_by_ranks(steps, wrong), abs=1e-9)
    assert 0.05 < number("aurc", answers) < np.mean(wrong), "confidence that means something beats a random order"


def test_reliability_bins() -> None:
    bins = reliability_bins([0.05, 1.0, 0.95], [0, 1, 0])
    assert [entry.num_samples for entry in bins] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (bins[9].probability, bins[9].share) == (pytest.approx(0.975), 0.5)
    assert bins[1].share is None


def test_the_threshold_keeps_the_most_answers_that_the_risk_allows() -> None:
    confidence, wrong = [0.95, 0.9, 0.8, 0.7, 0.6], [0, 0, 1, 0, 0]
    assert choose_threshold(confidence, wrong, max_risk=0.1) == 0.9
    assert choose_threshold(confidence, wrong, max_risk=0.25) == 0.6, "one of five is wrong: all may stay"
    assert choose_threshold([0.9], [1], max_risk=0.1) is None


def test_the_threshold_is_chosen_on_validation_and_applied_to_test() -> None:
    validation = Told(np.array([0.95, 0.05, 0.6, 0.6]), np.array([1.0, 0.0, 0.0, 1.0]), ("a", "b", "c", "d"))
    test = Told(np.array([0.97, 0.02, 0.7, 0.5]), np.array([1.0, 1.0, 0.0, 1.0]), ("p", "q", "r", "s"))
    found = abstention("tuned", validation, test, max_risk=0.1)
    assert found.threshold == 0.95
    assert (found.validation_coverage, found.validation_accuracy) == (0.5, 1.0)
    assert (found.coverage, found.accuracy) == (0.5, 0.5), "what held on validation need not hold on test"
    assert found.accuracy_of_all == 1.5 / 4, "one half is neither right nor wrong"


def test_one_half_counts_half_in_the_area_and_in_the_curve_alike() -> None:
    answers = [(0.9, "yes"), (0.5, "yes"), (0.5, "no")]
    told = Told(np.array([p for p, _ in answers]), np.array([float(target == "yes") for _, target in answers]), ("a", "b", "c"))
    found = abstention("tuned", told, told, max_risk=0.4)
    assert np.asarray(found.curve) == pytest.approx(np.array([[1 / 3, 0.0], [1.0, 1 / 3]]))
    assert found.threshold == 0.5, "a third is wrong: all may stay"
    assert found.accuracy_of_all == pytest.approx(2 / 3)
    # Ranks 1 to 3 in expectation: 0/1, 0.5/2, 1/3.
    assert number("aurc", answers) == pytest.approx((0 + 0.25 + 1 / 3) / 3)
    assert number("aurc", [(0.5, "yes"), (0.5, "no")]) == 0.5, "no worse than chance"


def test_the_accuracy_of_what_is_kept_is_as_uncertain_as_the_groups_it_is_kept_from() -> None:
    """Of 40 patients three have sure answers, all right: nothing is known of the others' sure answers."""
    groups = tuple(f"p{patient}" for patient in range(40) for _ in range(5))
    sure = np.array([patient < 3 for patient in range(40) for _ in range(5)])
    told = Told(np.where(sure, 0.99, 0.55), np.where(sure, 1.0, 0.0), groups)
    found = abstention("tuned", told, told, max_risk=0.1)
    assert (found.num_kept, found.accuracy) == (15, 1.0)
    assert found.accuracy_interval is not None
    assert found.accuracy_interval[0] == pytest.approx(1 - bound_without_exceptions(3))
    one = Told(np.array([0.99, 0.55]), np.array([1.0, 0.0]), ("a", "b"))
    assert abstention("tuned", one, one, max_risk=0.1).accuracy_interval is None, "one patient tells nothing of others"


def test_a_threshold_from_few_groups_says_how_many() -> None:
    said = few_to_choose("tuned", 5000, 12).render("en")
    assert "5000 questions of only 12 groups" in said, "5000 questions are not few"


def test_without_probabilities_there_is_no_score() -> None:
    assert scores(0.5, "yes", told=False) == ()
    assert scores(0.9, "left lung") == (), "not a yes/no question"
