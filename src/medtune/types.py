"""The nouns of medtune, and the Protocols that plug-ins follow.

What touches disk is a frozen pydantic model; what lives in the hot path is a slotted dataclass. Nothing here imports torch,
transformers or numpy at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from medtune.language import Text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

IMAGE_MARK = "<image>"
"""Stands in a message where a picture belongs. The same mark as LLaMA-Factory's."""

IGNORE_INDEX = -100
"""The label of a token that carries no loss (PyTorch's ``cross_entropy`` default)."""


class Settings(BaseModel):
    """Base of every recipe section: frozen, unknown keys refused, a docstring under each field is its description.

    Not pydantic-strict on purpose: PyYAML reads ``2e-4`` as a string, and lax mode turns it into the number meant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Document(BaseModel):
    """Base of everything medtune writes to disk: frozen; an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# ---------------------------------------------------------------------------------------------------------------- data

Role = Literal["system", "user", "assistant"]
SplitName = Literal["train", "validation", "test"]
GroupKind = Literal["patient", "study", "volume", "image", "row"]
"""What a group is. ``image`` and ``row`` mean that the source has no patient ids: every later report says so."""


class Message(Document):
    """One turn. ``content`` is plain text with one :data:`IMAGE_MARK` for each picture."""

    role: Role
    content: str


class TransformRecord(Document):
    """One picture transform that was applied: its registered name and its parameters, in order of application."""

    name: str
    parameters: dict[str, JsonValue] = {}


class InShard(Document):
    """Where a picture lies that has no file of its own: ``num_bytes`` bytes from ``offset`` of a tar file of the data set."""

    file: str
    """POSIX path relative to the data set folder."""
    offset: Annotated[int, Field(ge=0)]
    num_bytes: Annotated[int, Field(gt=0)]


class ImageRef(Document):
    """A picture of a data set.

    Attributes:
        path: POSIX path relative to the data set folder.
        sha256: Of the stored file's bytes, 64 hexadecimal digits.
        width: Pixels, upright (after the EXIF turn).
        height: Pixels, upright.
        modality: DICOM modality code (CT, MR, DX, US, ...) when the source knows it.
        transforms: What was done to the source picture.
        shard: Where its bytes lie, when the data set keeps its pictures in shards.
    """

    path: str
    sha256: str
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    modality: str | None = None
    transforms: tuple[TransformRecord, ...] = ()
    shard: InShard | None = None


Axis = Literal["sagittal", "coronal", "axial"]


@dataclass(frozen=True, slots=True)
class View:
    """Which part of a file of measured values (DICOM, NIfTI) is shown, and through which windows.

    Attributes:
        index: From 0: the frame of a DICOM file, or the slice of a volume along ``axis`` in canonical orientation.
        axis: Of a volume; DICOM files are shown as they were acquired.
        volume: From 0: the volume of a file with a fourth dimension (time, echo, direction).
        windows: (center, width) in the units after the modality LUT. One is shown in grey, three in red, green and blue; none:
            the window that the file itself states first, or all its values.
    """

    index: int = 0
    axis: Axis = "axial"
    volume: int = 0
    windows: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if len(self.windows) not in (0, 1, 3):
            raise ValueError("a View has no window, one or three")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a source holds it: a file, or encoded bytes with a name for messages. Exactly one of the two.

    ``modality`` is a DICOM modality code. ``name`` never holds a patient identifier. ``view`` is for DICOM and NIfTI.
    ``private``: the path may hold one, so what is written down calls the picture by its name.
    """

    path: Path | None = None
    data: bytes | None = None
    name: str = ""
    modality: str | None = None
    view: View | None = None
    private: bool = False

    @property
    def called(self) -> str:
        """What messages about it say: its path, where that is not private, else its name."""
        return self.name if self.path is None or self.private else str(self.path)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise ValueError("a Picture has either a path or data")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record cannot become a row. ``reason`` is stable (kebab-case); ``message`` and ``remedy`` are for people."""

    reason: str
    message: Text
    remedy: Text | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What a dataset source yields: one question about zero or more pictures, before a task puts it into words.

    Attributes:
        id: Unique within the source, stable between runs.
        task: Registered name of the task that asks it.
        pictures: In the order of the image marks.
        target: The reference answer; for structured tasks the text that the model should write.
        group: The unit that a split may not cut (patient > study > volume > image).
        question: The question's words, where the record has its own; a task with fixed instructions ignores it.
        messages: A whole conversation with the final assistant turn, where the source has one; a task leaves it as it is.
        metadata: Truths and tags for metrics and subgroups (``box`` is [x1, y1, x2, y2] in pixels of the source picture, upright).
        split: Where the source itself assigns one.
        fault: Set when the source could not read the record; ``prepare`` lists it among the left out.
        place: ``file:line`` (or ``file:number``) of the record in the source, for messages.
    """

    id: str
    task: str
    pictures: tuple[Picture, ...]
    target: str
    group: str
    question: str = ""
    messages: tuple[Message, ...] = ()
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    split: SplitName | None = None
    fault: Fault | None = None
    place: str = ""


class Sample(Document):
    """One row of a data set: a conversation that ends with the reference answer, its pictures, and what is known about it.

    Raises:
        ValueError: The marks and the pictures differ in number, the roles do not alternate, or the last turn is not the
            assistant's.
    """

    id: Annotated[str, Field(min_length=1)]
    task: str
    images: tuple[ImageRef, ...] = ()
    messages: tuple[Message, ...]
    target: str
    group: str
    source: str
    metadata: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _check(self) -> Sample:
        marks = sum(message.content.count(IMAGE_MARK) for message in self.messages)
        if marks != len(self.images):
            raise ValueError(f"{marks} {IMAGE_MARK} marks, but {len(self.images)} pictures")
        turns = [message.role for message in self.messages]
        if turns[:1] == ["system"]:
            turns = turns[1:]
        if not turns or len(turns) % 2 or any(role != ("user", "assistant")[index % 2] for index, role in enumerate(turns)):
            raise ValueError("after an optional system message the roles must be user, assistant, user, ... and end with assistant")
        return self

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages without the final reference answer."""
        return self.messages[:-1]


class SourceCard(Document):
    """What a dataset source says of itself."""

    name: str
    title: str
    licence: str
    """SPDX identifier where there is one."""
    citation: str
    url: str = ""
    group_kind: GroupKind
    synthetic: bool = False
    local_only: bool = False
    """The data may not be sent to another machine."""
    revision: str = ""
    """The commit that the data are read at, where they lie on a hub."""
    notes: tuple[str, ...] = ()
    """Known problems, one sentence each, in English; ``Text(note)`` renders it for the reader."""


Severity = Literal["error", "warning", "info"]


class Issue(Document):
    """One finding of ``validate``. ``code`` is stable (kebab-case); ``message`` is for people."""

    code: str
    severity: Severity
    message: Text
    remedy: Text | None = None
    split: SplitName | None = None
    sample: str | None = None
    file: str | None = None
    count: int = 1
    """How many samples the finding stands for, when it is about many at once."""


class ValidationReport(Document):
    """Everything ``validate`` found, in file order. ``num_rows`` counts the rows read, sound or not."""

    dataset: str
    num_rows: dict[str, int]
    issues: tuple[Issue, ...]
    checks: tuple[str, ...]
    """The names of the checks that ran."""
    skipped: dict[str, Text] = {}
    """Checks that did not run, and why."""

    @property
    def num_errors(self) -> int:
        return sum(issue.count for issue in self.issues if issue.severity == "error")

    @property
    def num_warnings(self) -> int:
        return sum(issue.count for issue in self.issues if issue.severity == "warning")


class SourceRecord(Document):
    """One source of a data set as the manifest keeps it."""

    card: SourceCard
    options: dict[str, JsonValue] = {}
    num_samples: int
    left_out: dict[str, int] = {}
    """Records that did not become rows: reason -> count. Each is also a line of ``left_out.jsonl``."""


class Manifest(Document):
    """``manifest.json`` of a data set folder. Holds no time and no path, so that the same input gives the same bytes."""

    format_version: Literal[1] = 1
    name: str
    medtune_version: str
    sources: tuple[SourceRecord, ...]
    split: dict[str, JsonValue]
    """The split settings as used, seed included."""
    transforms: tuple[TransformRecord, ...] = ()
    num_samples: dict[str, int]
    """Rows per split."""
    num_groups: dict[str, int]
    num_images: int
    tasks: dict[str, int]
    """Rows per task, all splits together."""
    displays: tuple[str, ...] = ()
    """How measured values became the pictures, sorted (:mod:`medtune.imaging.display`); empty when that is not known."""
    strata: dict[str, dict[str, int]] = {}
    """``task / modality`` -> split -> groups."""
    group_kind: GroupKind
    """The weakest of the sources'."""
    synthetic: bool
    local_only: bool
    files: dict[str, str]
    """Relative path -> sha256 of the split files and ``images.jsonl``."""
    warnings: tuple[Text, ...] = ()
    settings_hash: str = ""
    """sha256 of the recipe's data settings as written: tells a data set that can be used again from one of other settings."""
    derived_from: str = ""
    """:attr:`hash` of the data set that this one is a cleaned copy of."""

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of a sha256 over ``files``: names the data a model was trained or measured on."""
        import hashlib

        text = "\n".join(f"{name} {digest}" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# -------------------------------------------------------------------------------------------------------------- tensors


@dataclass(slots=True)
class Features:
    """One encoded sample.

    Attributes:
        sample_id: The sample it was made from.
        input_ids: (T,) int64.
        labels: (T,) int64, :data:`IGNORE_INDEX` where there is no loss. For a prompt alone, all :data:`IGNORE_INDEX`.
        tensors: The family's own, e.g. ``pixel_values`` (num_patches, patch_dim), ``image_grid_thw`` (num_images, 3),
            ``mm_token_type_ids`` (T,).
    """

    sample_id: str
    input_ids: Tensor
    labels: Tensor
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Batch:
    """Collated features: ``inputs`` goes to ``model(**inputs)`` as it is.

    Attributes:
        sample_ids: B ids.
        inputs: ``input_ids``, ``attention_mask``, ``labels`` (B, T), and the family's own.
        num_target_tokens: Labels that carry loss, after the shift: the weight of this batch in the mean.
    """

    sample_ids: tuple[str, ...]
    inputs: dict[str, Tensor]
    num_target_tokens: int


# ------------------------------------------------------------------------------------------------------------ generation


class Sampling(Settings):
    """How text is drawn. The default, temperature 0, is greedy and deterministic."""

    max_new_tokens: Annotated[int, Field(gt=0)] = 256
    """Tokens after which a generation is cut (finish reason ``length``)."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """0 = greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus: the smallest set of tokens with this probability mass. Only with temperature > 0."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Only the k most probable tokens; 0 = all. Only with temperature > 0."""
    repetition_penalty: Annotated[float, Field(gt=0.0)] = 1.0
    """1 = none (Keskar et al. 2019, arXiv:1909.05858)."""
    seed: int = 0
    """Of the draw; the same seed and request give the same text on the same device and versions."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to generate: a conversation that ends with a user turn, and its pictures in the order of the marks.

    ``score_tokens`` are words whose probability of being the answer's first token is wanted, such as ``("yes", "no")``; see
    :attr:`Generation.first_token_logprobs`. They change no text.
    """

    id: str
    messages: tuple[Message, ...]
    images: tuple[Path | bytes | Image, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    score_tokens: tuple[str, ...] = ()


FinishReason = Literal["stop", "length", "error"]


class Generation(Document):
    """Raw text that a model wrote. ``text`` has no special tokens and no end token; it is never edited afterwards."""

    id: str
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int | None = None
    num_generated_tokens: int | None = None
    seconds: float | None = None
    """Wall time. ``hf`` and ``vllm``: of the rows that were decoded together, divided by their number, so that the sum is the time
    of the whole; ``openai``: of this one request, pauses and retries included."""
    error: str | None = None
    """Why there is no text, where ``finish_reason`` is ``error``."""
    first_token_logprobs: dict[str, float] | None = None
    """For each of the request's ``score_tokens`` the natural logarithm of the model's probability that the answer begins with it
    as its first token, whatever the sampling makes of it afterwards (temperature, top-k, penalties). A word that is no single
    token of the model is absent; so is one that a server does not tell (it names the 20 most probable at most). None: nothing was
    asked for, or the generator cannot tell."""


class Prediction(Document):
    """A generation that a task has read. One line of ``predictions.jsonl``.

    ``answer`` is the task's parsed form, None when the text could not be read (``error`` says why).
    ``image_sha256`` are the pictures really shown, which differ from the sample's under a control.
    """

    sample_id: str
    generation: Generation
    answer: JsonValue = None
    error: str | None = None
    image_sha256: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------------ evaluation

Direction = Literal["higher", "lower", "neither"]
"""Which end of a metric's range is better. ``neither``: a number that describes, such as the share of answers that are yes."""


class Score(Document):
    """What one metric says of one prediction. One line of ``scores.jsonl``.

    Attributes:
        metric: ``metric/value``, for example ``llamafactory/bleu-4``.
        value: In the metric's own range; None = unscored: counted apart, never as zero.
        statistics: Additive statistics. A metric's number over any set of samples is a function of their sum, which makes
            the bootstrap exact also for ratios (corpus BLEU, F1, MCC). Empty when unscored. The default is (value, 1).
        places: Where ``statistics`` stand in a vector of ``width`` numbers, all others 0: for metrics that count many things of
            which a sample has few. Empty = the statistics are the vector.
        width: Of that vector; 0 without places.
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
        num_test: The same of the evaluated split.
        validation_coverage: Share of the validation split's answers that reach the threshold.
        validation_accuracy: Share of right ones among these.
        coverage: Share of the evaluated split's answers that reach the threshold.
        accuracy: Share of right ones among these; None where none is kept.
        accuracy_of_all: Share of right ones where every question is answered.
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


# ------------------------------------------------------------------------------------------------------------------ runs

RunStatus = Literal["created", "training", "interrupted", "failed", "trained"]


class Performance(Document):
    """What a training run needs of its machine: foretold by the plan, or measured."""

    device: str
    """Of one device."""
    num_devices: int = 1
    peak_gib: float
    """Most memory in use on one device, as torch's allocator counts it; of the process where there is no GPU. GiB."""
    seconds_per_step: float
    """Of an optimizer step, on average over the run; compilation, validation and checkpoints are not counted."""
    tokens_per_second: float
    """All devices together, without padding."""
    seconds: float
    """Of the whole run."""


class RunRecord(Document):
    """``run.json``: what a run is and how far it came."""

    format_version: Literal[1] = 1
    name: str
    status: RunStatus
    created: str
    """ISO 8601, UTC."""
    updated: str
    recipe: str
    """The recipe's name."""
    base_model: str
    base_revision: str | None = None
    dataset: str | None = None
    dataset_hash: str | None = None
    seed: int
    num_steps: int | None = None
    num_steps_planned: int | None = None
    num_epochs: float | None = None
    train_loss: float | None = None
    eval_loss: float | None = None
    best_step: int | None = None
    seconds: float | None = None
    trainable: dict[str, int] = {}
    """``trainable`` and ``total`` parameters."""
    planned: Performance | None = None
    """Before the first step."""
    measured: Performance | None = None
    """After the last one."""
    versions: dict[str, str] = {}
    error: Text | None = None
    diverged_step: int | None = None
    """The last step before a loss was no number; None when the latest attempt did not diverge."""
    num_divergences: int = 0
    """Attempts in a row that diverged there."""
    engine: dict[str, JsonValue] = {}
    """What was chosen for this machine where the recipe left it open, corrected where memory ran out."""
    validation_losses: dict[str, float] = {}
    """Of the weights that could be kept: ``best``, ``last`` and ``average``, as far as they were measured."""
    kept: Literal["best", "last", "average"] | None = None
    """Which weights the result holds."""


class AdapterContract(Document):
    """``contract.json`` beside an adapter: what must be the same when the adapter is used as when it was trained."""

    format_version: Literal[1] = 1
    base_model: str
    base_revision: str | None = None
    base_config_hash: str
    """sha256 of the base model's ``config.json``."""
    family: str
    chat_template_hash: str
    min_pixels: int | None = None
    max_pixels: int | None = None
    resize_backend: str | None = None
    """``pil`` or ``torchvision``: they do not round alike."""
    transforms: tuple[TransformRecord, ...] = ()
    displays: tuple[str, ...] = ()
    """How measured values became the training pictures (:mod:`medtune.imaging.display`); empty when that is not known."""
    box_convention: Literal["relative-1000", "pixels", "none"]
    """How boxes are written in text: 0-1000 of the picture's sides, or pixels of the resized picture."""
    system_prompt: str | None = None
    local_only: bool = False
    """Trained on data that may not leave the machine: neither may what is made with it."""


# ---------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened while a verb worked. The CLI draws it, the server streams it, the run folder appends it.

    ``kind`` is one of ``phase`` (a named stage began), ``progress`` (``done`` of ``total``), ``log`` (numbers of a training
    step), ``epoch``, ``checkpoint``, ``note`` (a sentence for the reader) and ``finished``.
    """

    kind: Literal["phase", "progress", "log", "epoch", "checkpoint", "note", "finished"]
    text: Text | None = None
    done: int | None = None
    total: int | None = None
    values: Mapping[str, float | int | str | None] = field(default_factory=dict)


class Listener(Protocol):
    """Whoever wants to hear of events."""

    def __call__(self, event: Event, /) -> None: ...


# --------------------------------------------------------------------------------------------------------------- plug-ins


@runtime_checkable
class DatasetSource(Protocol):
    """Where records come from. Constructed with the options of its recipe entry as keyword arguments."""

    @property
    def card(self) -> SourceCard: ...

    def samples(self) -> Iterator[Record]:
        """All records, in a stable order, lazily. A faulty record raises nothing here: it is yielded, and found later."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``start`` to ``stop`` (exclusive, from 0; None = to the end) of a source's file, readable without the rest."""

    file: Path
    start: int = 0
    stop: int | None = None


@runtime_checkable
class PartedSource(DatasetSource, Protocol):
    """A source that several processes can read at once. The records of all parts in their order are those of ``samples()``."""

    def parts(self) -> Sequence[Part]:
        """The parts in a stable order, found without reading rows (file names, the index of a Parquet file)."""
        ...

    def samples_of(self, part: Part) -> Iterator[Record]:
        """The records of one part."""
        ...


@runtime_checkable
class RemarkingSource(DatasetSource, Protocol):
    """A source that measures its files and has something to say about them as a whole."""

    def remarks(self) -> Sequence[Text]:
        """What it found, after its records were read, by this process or by others: for the manifest's warnings. The same
        files and options give the same sentences."""
        ...


@runtime_checkable
class Task(Protocol):
    """How a record is asked, how an answer is read, which metrics judge it."""

    name: str
    metrics: tuple[str, ...]

    def messages(self, record: Record) -> tuple[Message, ...]:
        """The conversation, ending with the reference answer. Rendered once, in ``prepare``."""
        ...

    def parse(self, text: str, sample: Sample) -> JsonValue:
        """Read an answer into the task's structured form.

        Raises:
            ValueError: The text cannot be read; the message says why.
        """
        ...


@runtime_checkable
class ImageTransform(Protocol):
    """Changes pixels. A frozen pydantic model: its fields are its parameters and are recorded in the manifest."""

    name: str

    def __call__(self, image: Image) -> Image: ...

    def map_box(self, box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
        """Where a box [x1, y1, x2, y2] (pixels) of the (width, height) picture lies after the transform."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Judges predictions. See :class:`Score` for the additive statistics.

    Two pictures are spoken of. ``metadata`` (``area_percent``, ``horizontal``, ``vertical``) and the words of references and
    answers are of the *source* picture: compare words with words. Boxes, in ``metadata`` and in texts, are of the *stored*
    picture, which the model sees. They differ only where a transform such as letterbox adds borders;
    :func:`medtune.evaluation.metrics.box.source_extent` tells where the one lies in the other.
    """

    name: str
    values: tuple[MetricValue, ...]

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        """One score for each of ``values`` that applies to the sample."""
        ...

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """``totals`` (..., k) are sums of statistics; returns (...) numbers of the value ``name``, NaN where undefined."""
        ...


@runtime_checkable
class Generator(Protocol):
    """Messages in, text out."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Generations as they finish, in any order; each request is answered exactly once."""
        ...

    def stream(self, request: Request) -> Iterator[str]:
        """Pieces of the text as they come."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Retriever(Protocol):
    """Evidence for a prompt."""

    def search(self, query: str, k: int) -> Sequence[tuple[str, float]]: ...


Rows = Iterable[Sample]
Options = Mapping[str, Any]
