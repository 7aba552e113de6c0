"""What is measured of predictions: scores, numbers with intervals, differences."""

from __future__ import annotations

from typing import Literal

from medtune.types.base import Document

Direction = Literal["higher", "lower", "neither"]
"""Which end of a metric's range is better. ``neither``: a number that describes, such as the share of answers that are yes."""


class Score(Document):
    """What one metric says of one prediction. One line of ``scores.jsonl``.

    Attributes:
        metric: ``metric/value``, for example ``llamafactory/bleu-4``.
        value: In the metric's own range; None = unscored: counted apart, never as zero.
        statistics: Additive statistics. A metric's number over any set of samples is a function of their sum, which makes
            the bootstrap exact also for ratios (corpus BLEU, F1, MCC). Empty when unscored. The default is (value, 1).
        places: Where ``statistics`` stand in a longer vector, below 2^53, all others 0: for metrics that count many things of
            which a sample has few. Empty = the statistics are the vector.
        width: Of a block of that vector, one for each thing that is counted; 0 without places. ``Metric.aggregate`` gets the blocks
            in which any sample has something, side by side, so its number must not depend on blocks of zeros.
        explanation: Why this value, in a few words, for the error browser.
    """

    sample_id: str
    metric: str
    value: float | None
    statistics: tuple[float, ...] = ()
    places: tuple[int, ...] = ()
    width: int = 0
    explanation: str = ""


class MetricValue(Document):
    """One number that a metric reports."""

    name: str
    """``metric/value``."""
    title: str
    """For a table's head, in English."""
    direction: Direction
    low: float
    high: float
    """The range of the number."""
    unit: str = ""


class Measurement(Document):
    """A metric over a set of predictions, with its 95 % cluster-bootstrap interval. None = nothing could be scored."""

    metric: str
    task: str | None = None
    """None = all tasks that have the metric."""
    value: float | None
    low: float | None = None
    high: float | None = None
    num_scored: int
    num_unscored: int
    num_groups: int


class Difference(Document):
    """``second`` minus ``first`` of a metric on the same samples, paired, with its 95 % interval.

    Attributes:
        num_samples: Samples that both were scored on: the others are no part of the difference.
        num_unscored: Samples that one of the two, or both, were not scored on.
        p_value: Of the paired cluster permutation, two-sided (:mod:`medtune.evaluation.permutation`); of the interval's t
            distribution where an arm has several runs. None with fewer than two groups.
        p_adjusted: Holm's, over the family that the difference belongs to (:func:`medtune.evaluation.permutation.adjust`).
            None where neither end of the metric is better: nothing is claimed of such a difference.
        discordant: Of answers that are right or wrong: (right in ``first`` only, right in ``second`` only).
        p_mcnemar: McNemar's exact p of these. It takes the answers for independent, which those of one patient are not.
        first_runs: The value of each run, where an arm has several (one recipe, several seeds); ``first`` is their mean.
        second_runs: The same of ``second``.
    """

    metric: str
    task: str | None = None
    first: float | None
    second: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    num_samples: int
    num_unscored: int = 0
    num_groups: int
    p_value: float | None = None
    p_adjusted: float | None = None
    discordant: tuple[int, int] | None = None
    p_mcnemar: float | None = None
    first_runs: tuple[float, ...] = ()
    second_runs: tuple[float, ...] = ()


class PictureShare(Document):
    """What a score owes to the picture: with the real picture minus under a control, on the same samples, paired.

    Attributes:
        label: The condition with the real pictures.
        control: What the pictures were replaced by, or who answered without them.
        gain: How much better the score is with the real picture, positive whichever direction is better; 95 % interval in
            ``low`` and ``high``.
        share: ``gain`` as a part of the score with the real picture, for metrics from 0 upwards of which more is better: 1 =
            nothing is left without the picture, 0 = the picture makes no difference. Its interval in ``share_low`` and
            ``share_high``.
    """

    label: str
    control: ControlName
    metric: str
    task: str | None = None
    real: float | None
    without: float | None
    gain: float | None
    low: float | None = None
    high: float | None = None
    share: float | None = None
    share_low: float | None = None
    share_high: float | None = None
    num_samples: int
    num_groups: int
    p_adjusted: float | None = None


ConsistencyName = Literal["paraphrase", "mirrored", "repeated", "diagnoses"]


class Consistency(Document):
    """How often a model says the same of the same (:mod:`medtune.evaluation.consistency`).

    Attributes:
        kind: ``paraphrase``: the question in other words. ``mirrored``: the picture turned left to right, where the answer's side
            has to turn too. ``repeated``: drawn again at a temperature. ``diagnoses``: answers to different questions about one
            picture that name final diagnoses excluding each other.
        label: Condition with the plain questions.
        value: Share that agrees, 0 to 1, higher is better, with its 95 % cluster-bootstrap interval.
        num_questions: Questions asked (``diagnoses``: pictures with at least two readable diagnoses).
        num_unread: Of what was asked, how many answers could not be read and are no part of ``value``.
        contradicting: Ids of samples (``diagnoses``: the first of each picture) that do not agree, at most 20.
    """

    kind: ConsistencyName
    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    num_questions: int
    num_unread: int = 0
    num_groups: int
    contradicting: tuple[str, ...] = ()


class GeneralScore(Document):
    """Answers to the general probe (:mod:`medtune.evaluation.general`): questions that have nothing to do with medicine.

    ``value`` is the share of right answers, 0 to 1, with its 95 % interval; an answer that cannot be read is wrong.
    """

    label: str
    language: Literal["en", "zh"] | None = None
    """None = both."""
    value: float | None
    low: float | None = None
    high: float | None = None
    num_questions: int
    num_unread: int = 0


class Forgetting(Document):
    """What tuning did to answers that have nothing to do with medicine. ``difference`` is ``second`` minus ``first``, paired."""

    scores: tuple[GeneralScore, ...]
    differences: tuple[tuple[str, str, Difference], ...] = ()
    """(first label, second label, difference); groups are the questions."""
    lost: tuple[str, ...] = ()
    """Questions that the base model answered rightly and the tuned one wrongly, at most 20."""


ModelName = Literal["base", "tuned", "none"]
"""``none``: answers that no model gave, such as the most frequent one of the training split."""

ControlName = Literal["none", "shuffled", "blank", "question-only", "majority", "nearest"]


class Condition(Document):
    """One way of asking: which model, and which control. ``label`` is also the folder name under ``evaluations/``."""

    label: str
    model: ModelName
    control: ControlName = "none"
    measurements: tuple[Measurement, ...]
    num_predictions: int
    num_unparsed: int
    seconds: float | None = None
    timing: dict[str, float] = {}
    """LLaMA-Factory's ``predict_*`` fields, with its rounding."""
