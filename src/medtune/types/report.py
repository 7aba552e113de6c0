"""What a report and a comparison hold."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from medtune.language import Text
from medtune.types.base import Document
from medtune.types.data import GroupKind, SplitName
from medtune.types.measurement import Condition, Consistency, Difference, Forgetting, Measurement, MetricValue, PictureShare


class FindingCount(Document):
    """One finding (``pneumothorax``) in all reference and answer texts of a condition, counted by sample."""

    finding: str
    title: str
    """For a table, in English."""
    num_reference: int
    """Samples whose reference states it as present."""
    num_found: int
    """Of these, those whose answer states it too."""
    num_missed: int
    num_invented: int
    """Samples whose answer states it and whose reference does not."""
    num_coarser: int = 0
    """Of the missed ones, those whose answer names it by a broader word ("a hemorrhage" for a subdural hematoma)."""
    title_zh: str = ""
    body_part: str = ""
    """In English; ``body_part_zh`` in Chinese."""
    body_part_zh: str = ""
    precision: Measurement | None = None
    """Of the samples whose answer states it, those whose reference does; ``num_scored`` counts the samples where either does."""
    recall: Measurement | None = None
    f1: Measurement | None = None


class ReliabilityBin(Document):
    """Answers whose stated probability lies between ``low`` and ``high`` (0 to 1)."""

    low: float
    high: float
    num_samples: int
    probability: float | None
    """Mean of the probabilities; None in an empty bin."""
    share: float | None
    """Of them, how many were true."""


class Abstention(Document):
    """Answering only where the model is confident enough. The threshold is chosen on validation and applied on test.

    Attributes:
        max_risk: Share of wrong answers that was allowed when the threshold was chosen.
        threshold: Lowest confidence max(p, 1 - p) of an answer that is kept; None where no threshold keeps the risk.
        num_validation: Yes/no questions of the validation split with probabilities.
        num_test: The same of the evaluated split, of ``num_groups`` groups.
        num_kept: Of these, the answers that reach the threshold.
        validation_coverage: Share of the validation split's answers that reach the threshold.
        validation_accuracy: Share of right ones among these.
        coverage: Share of the evaluated split's answers that reach the threshold.
        accuracy: Share of right ones among these, which is 1 - risk; None where none is kept.
        accuracy_of_all: Share of right ones where every question is answered.
        coverage_interval: 95 % interval, by resampling whole groups of the evaluated split with the threshold as it is: the choice
            of the threshold is not in it. None where it is not defined.
        accuracy_interval: The same of ``accuracy``.
        accuracy_of_all_interval: The same of ``accuracy_of_all``.
        curve: (coverage, risk) of the evaluated split for falling thresholds, 200 points at most, for the risk-coverage plot. No
            threshold may be chosen from it.
    """

    label: str
    max_risk: float
    threshold: float | None
    num_validation: int
    num_test: int
    validation_coverage: float | None = None
    validation_accuracy: float | None = None
    coverage: float | None = None
    accuracy: float | None = None
    accuracy_of_all: float | None = None
    num_groups: int = 0
    num_kept: int = 0
    coverage_interval: tuple[float, float] | None = None
    accuracy_interval: tuple[float, float] | None = None
    accuracy_of_all_interval: tuple[float, float] | None = None
    curve: tuple[tuple[float, float], ...] = ()


class ReaderReview(Document):
    """What readers who did not know the models preferred, and how far they agree (:mod:`medtune.evaluation.reading`).

    Attributes:
        first: The model whose answer counts 0, as ``run/label``.
        second: The model whose answer counts 1.
        num_readers: Readers whose marks were imported.
        num_cases: Cases that at least one reader judged.
        num_judgements: Preferences, all readers together.
        num_identical: Pairs that were not shown because both models wrote the same.
        num_first: Judgements that prefer the first model.
        num_ties: Judgements without a preference.
        num_second: Judgements that prefer the second model.
        preference: Share of judgements that prefer the second, a tie as half; its interval resamples groups, not readers.
        agreement: Of the preferences: ``cohen-kappa`` (two readers), ``fleiss-kappa``, ``gwet-ac1``, as far as defined.
        errors: Kind of error -> (marked in answers of the first, of the second), summed over readers.
        severity: Level -> (answers of the first, of the second), summed over readers.
        error_agreement: Kind of error -> Gwet's AC1 of its marks.
    """

    first: str
    second: str
    num_readers: int
    num_cases: int
    num_judgements: int
    num_identical: int
    num_first: int
    num_ties: int
    num_second: int
    preference: float | None
    low: float | None = None
    high: float | None = None
    num_groups: int
    agreement: dict[str, float] = {}
    errors: dict[str, tuple[int, int]] = {}
    severity: dict[str, tuple[int, int]] = {}
    error_agreement: dict[str, float] = {}


class Report(Document):
    """``report.json``: what a run became, on one split of one data set."""

    format_version: Literal[1] = 1
    run: str
    dataset: str
    dataset_hash: str
    split: SplitName
    group_kind: GroupKind
    synthetic: bool
    num_samples: int
    num_groups: int
    metrics: tuple[MetricValue, ...]
    conditions: tuple[Condition, ...]
    differences: tuple[tuple[str, str, tuple[Difference, ...]], ...] = ()
    """(first label, second label, differences)."""
    subgroups: dict[str, dict[str, tuple[Measurement, ...]]] = {}
    """Field -> value -> measurements of the tuned (or only) condition without a control."""
    picture_share: tuple[PictureShare, ...] = ()
    """Of every model that was asked with real pictures, against each of its controls, for the metrics that should need them."""
    consistency: tuple[Consistency, ...] = ()
    forgetting: Forgetting | None = None
    headline: tuple[str, ...] = ()
    """Metric names for the short table, most telling first."""
    alerts: tuple[Text, ...] = ()
    """What makes the numbers unfit to be believed as they stand: shown in red, before anything else. Each is also one of
    ``warnings``, so that a reader of either misses nothing."""
    warnings: tuple[Text, ...] = ()
    findings: dict[str, tuple[FindingCount, ...]] = {}
    """Condition label -> findings of its texts."""
    calibration: dict[str, tuple[ReliabilityBin, ...]] = {}
    """Condition label -> bins of the probability of its closed answers, from 0 to 1."""
    abstention: tuple[Abstention, ...] = ()
    """Of each model with real pictures, where the validation split was asked too (``evaluation.abstain``)."""
    review: ReaderReview | None = None
    """Of readers, where their marks were imported."""
    versions: dict[str, str] = {}
    settings: dict[str, JsonValue] = {}
    """Generation and statistics settings: sampling, seeds, number of bootstrap resamples."""


class Comparison(Document):
    """``compare``: two evaluations on the same samples, paired."""

    first: str
    second: str
    dataset_hash: str
    split: SplitName
    num_samples: int
    num_groups: int
    metrics: tuple[MetricValue, ...]
    differences: tuple[Difference, ...]
    alerts: tuple[Text, ...] = ()
    """As in :class:`Report`: those of ``warnings`` to be shown first, in red."""
    warnings: tuple[Text, ...] = ()
    runs: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """``run/label`` of every run of the two arms: several are runs of one recipe, which are averaged."""
