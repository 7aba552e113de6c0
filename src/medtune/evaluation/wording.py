"""The words of reports: titles of tasks, fields and controls, and the sentences of the page."""

from __future__ import annotations

from collections.abc import Iterable

from medtune.language import Text, msg
from medtune.types import GroupKind, MetricValue

__all__ = [
    "ABOUT",
    "AGREEMENTS",
    "CONSISTENCY",
    "CONTROLS",
    "FATES",
    "GROUPS",
    "PAGE",
    "TAGS",
    "USES",
    "VERDICTS",
    "condition_title",
    "control_title",
    "field_title",
    "listed",
    "metric_title",
    "model_name",
    "num_groups",
    "sex_title",
    "split_kind_title",
    "split_title",
    "task_title",
    "unit_title",
    "value_title",
]

CONTROLS: dict[str, Text] = {
    "none": msg("own picture"),
    "shuffled": msg("shuffled pictures"),
    "blank": msg("blank pictures"),
    "question-only": msg("no picture"),
    "majority": msg("most frequent training answer"),
    "nearest": msg("answer of the nearest training sample"),
}

ABOUT: dict[str, Text] = {
    "picture": msg("What the picture shows"),
    "certainty": msg("Whether its probabilities are right"),
    "form": msg("The form that was asked for"),
    "wording": msg("Nearness to the reference's wording"),
    "protocol": msg("Published protocols, with their defects"),
}

VERDICTS: dict[str, Text] = {
    "better": msg("better"),
    "worse": msg("worse"),
    "unclear": msg("no clear change"),
}

USES: dict[str, Text] = {
    "better": msg("the picture is used"),
    "worse": msg("better without the picture"),
    "unclear": msg("nothing shows that it is used"),
}

CONSISTENCY: dict[str, Text] = {
    "paraphrase": msg("The question in other words"),
    "mirrored": msg("The picture mirrored, and the side with it"),
    "repeated": msg("Drawn again"),
    "diagnoses": msg("Final diagnoses of one picture"),
}

GROUPS: dict[str, Text] = {
    "patient": msg("patients"),
    "study": msg("studies"),
    "volume": msg("volumes"),
    "image": msg("pictures"),
    "row": msg("rows"),
}

TAGS: dict[str, Text] = {
    "worst": msg("Worst"),
    "to-wrong": msg("Right to wrong"),
    "worsened": msg("Got worse"),
    "to-right": msg("Wrong to right"),
    "improved": msg("Got better"),
    "best": msg("Best"),
    "finding": msg("Wrong about a finding"),
    "unread": msg("Not readable"),
    "random": msg("Drawn at random"),
}

FATES: dict[str, Text] = {
    "missed": msg("Missed"),
    "invented": msg("Hallucinated"),
    "wrong-side": msg("Wrong side"),
    "coarser": msg("In a broader word"),
    "found": msg("Found"),
}
"""What an answer made of a finding."""

AGREEMENTS: dict[str, Text] = {
    "cohen-kappa": msg("Cohen's kappa"),
    "fleiss-kappa": msg("Fleiss' kappa"),
    "gwet-ac1": msg("Gwet's AC1"),
}

_TASKS: dict[str, Text] = {
    "caption": msg("Short description"),
    "caption-details": msg("Detailed description"),
    "report": msg("Report"),
    "region": msg("Region of interest"),
    "region-description": msg("Description by region"),
    "detection": msg("Detection"),
    "json-record": msg("JSON record"),
    "closed-vqa": msg("Closed questions"),
    "open-vqa": msg("Open questions"),
    "text-qa": msg("Questions without a picture"),
    "conversation": msg("Conversation"),
}

_SPLITS: dict[str, Text] = {
    "train": msg("training split"),
    "validation": msg("validation split"),
    "test": msg("test split"),
}

_SPLIT_KINDS: dict[str, Text] = {
    "group-hash": msg("whole groups, drawn by a hash"),
    "official": msg("the split that the source names"),
}

_FIELDS: dict[str, Text] = {
    "task": msg("Task"),
    "site": msg("Site"),
    "sex": msg("Sex"),
    "age": msg("Age"),
    "kind": msg("Finding"),
    "side": msg("Side of the patient"),
    "area_percent": msg("Share of the picture's area, %"),
    "density": msg("Density"),
    "normal": msg("Without a finding"),
    "modality": msg("Modality"),
    "answer_type": msg("Type of answer"),
    "question_type": msg("Type of question"),
    "organ": msg("Organ"),
    "horizontal": msg("Position from left to right"),
    "vertical": msg("Position from top to bottom"),
    "provenance": msg("Origin of the label"),
}

_VALUES: dict[str, Text] = {
    "yes": msg("yes"),
    "no": msg("no"),
    "left": msg("left"),
    "right": msg("right"),
    "midline": msg("midline"),
    "center": msg("center"),
    "upper": msg("upper"),
    "middle": msg("middle"),
    "lower": msg("lower"),
    "hyperdense": msg("hyperdense"),
    "hypodense": msg("hypodense"),
    "isodense": msg("isodense"),
    "closed": msg("closed"),
    "open": msg("open"),
}

_SEXES: dict[str, Text] = {
    "f": msg("female"),
    "female": msg("female"),
    "m": msg("male"),
    "male": msg("male"),
    "o": msg("other"),
    "other": msg("other"),
}

_UNITS: dict[str, Text] = {
    "percentage points": msg("percentage points"),
    "of the diagonal": msg("of the diagonal"),
    "per report": msg("per report"),
}

PAGE: dict[str, Text] = {
    "intended_use": msg("For research only. Not a medical device; not for diagnosis or treatment."),
    "skip": msg("Skip to the results"),
    "synthetic": msg("Synthetic data: computed pictures of nobody."),
    "local_only": msg("This file holds pictures and texts of a data set that may not leave this machine. Do not pass it on."),
    "warnings": msg("Read this first"),
    "severe": msg("serious"),
    "of_this_kind": msg("more of this kind"),
    "caution": msg("caution"),
    "results": msg("Results"),
    "measure": msg("Measure"),
    "base": msg("Base model"),
    "tuned": msg("Tuned model"),
    "difference": msg("Difference"),
    "interval": msg("95 % interval"),
    "range": msg("On its range"),
    "scored": msg("Scored"),
    "unscored": msg("unscored"),
    "nothing_scored": msg("On no sample could be scored:"),
    "higher": msg("higher is better"),
    "lower": msg("lower is better"),
    "neither": msg("neither end is better"),
    "how_to_read": msg("How to read this table"),
    "read_interval": msg(
        "Small figures are 95 % intervals from resampling whole groups (BCa bootstrap, widened for few groups); a difference is"
        " called better or worse only when its interval excludes zero and its p-value, adjusted for all measures that were tried,"
        " is at most 0.05."
    ),
    "read_paired": msg(
        "A difference is taken on the samples that both models were scored on (n where they are fewer), so it need not be that"
        " of the two columns."
    ),
    "read_control": msg(
        "Under shuffled pictures the model gets the same questions with the pictures of somebody else. What it still scores"
        " there, it scores without looking at the patient's picture."
    ),
    "read_wording": msg(
        "Wording scores compare words with the reference. A fluent answer about the wrong side of the head can score well."
    ),
    "read_unscored": msg("Unscored samples are counted apart and never taken as zero."),
    "all_measures": msg("All measures"),
    "by_task": msg("By task"),
    "by_subgroup": msg("By subgroup"),
    "subgroup_note": msg(
        "The tuned model (or the only one) with the right pictures; bars are 95 % intervals, each for itself. Of many subgroups"
        " some differ by chance: whether two really do is not tested here."
    ),
    "samples": msg("samples"),
    "training": msg("Training"),
    "loss": msg("Loss during training"),
    "loss_legend": msg(
        "Loss (nats per answer token) over the optimizer steps. Blue: training, smoothed, and pale as measured. Red: validation."
    ),
    "steps": msg("Steps"),
    "epochs": msg("Epochs"),
    "train_loss": msg("Training loss"),
    "eval_loss": msg("Validation loss"),
    "parameters": msg("Trained parameters"),
    "cases": msg("Cases"),
    "cases_note": msg(
        "A choice from all tasks: the worst and the best of the tuned model, those that tuning changed most, and some drawn at"
        " random. Only the latter stand for all; the numbers above are of all cases."
    ),
    "of_samples": msg("evaluated samples in all"),
    "finding": msg("Finding"),
    "all_findings": msg("All findings"),
    "in_answer": msg("In the answer"),
    "any_fate": msg("Any"),
    "too_large": msg("Left out to keep the page small."),
    "raw": msg("Prompt and raw text"),
    "adjusted_p": msg("adjusted p"),
    "tokens": msg("tokens"),
    "letters_hidden": msg("letters more are not shown"),
    "picture_title": msg("What depends on the picture"),
    "picture_note": msg(
        "The same questions without the right picture. What is gained by the right picture is owed to looking at it; the rest of"
        " the score needs no picture. Bars are 95 % intervals of the gain, the upright line is none. Guessing scores too: of yes/no"
        " questions with as many yes as no, even a perfect model owes only half of its score to the picture."
    ),
    "real_picture": msg("Right picture"),
    "without_picture": msg("Without it"),
    "gain": msg("Gain by the picture"),
    "picture_share": msg("Part of the score"),
    "consistency_title": msg("Does it say the same of the same?"),
    "agreeing": msg("Share that agrees"),
    "contradicting": msg("That do not agree, such as"),
    "forgetting_title": msg("What was forgotten"),
    "forgetting_note": msg(
        "Questions that have nothing to do with medicine, before and after tuning. They are few and easy: no clear loss here does"
        " not show that nothing was lost."
    ),
    "right_answers": msg("Right answers"),
    "holm": msg("adjusted (Holm)"),
    "discordant": msg("Right in one only (first : second)"),
    "control": msg("Control"),
    "overall": msg("all samples (dashed line)"),
    "few_scored": msg("Too few scored samples, not shown"),
    "findings_title": msg("Findings one by one"),
    "findings_note": msg(
        "Counted from the words of reference and answer, with negation; a rib fracture is counted as a fracture, too. Sensitivity"
        " is found among those of the reference;"
        " precision is found among those that the answers state."
    ),
    "in_reference": msg("In the reference"),
    "found": msg("Found"),
    "missed": msg("Missed"),
    "of_them_coarser": msg("in a broader word:"),
    "invented": msg("Hallucinated"),
    "sensitivity": msg("Sensitivity"),
    "precision": msg("Precision"),
    "calibration_title": msg("Does its probability mean what it says?"),
    "calibration_note": msg(
        "Upright: how often the answer was true. Across: the probability that the model gave it. On the diagonal both agree;"
        " a larger dot stands for more answers. Few answers stray from it by chance, so that the expected calibration error is"
        " above zero even for a model whose probabilities are right."
    ),
    "abstention_title": msg("What if it kept silent when it is unsure?"),
    "abstention_note": msg(
        "An answer is kept when the model's probability of it reaches the threshold; the others are left to a person. The threshold"
        " was chosen on the split validation, as the lowest at which no more than the allowed share of the kept answers was wrong"
        " there, and applied here as it is. Intervals resample whole groups of this split and do not cover the choice of the"
        " threshold. What holds on these patients need not hold on those of another hospital."
    ),
    "abstention_plot": msg(
        "Upright: share of wrong answers among those kept. Across: share of the questions that is answered. Dashed: the share of"
        " wrong answers that was allowed. The dot is the threshold from validation. Choose no threshold from this curve: it is made"
        " of the answers that it would be judged on."
    ),
    "threshold": msg("Threshold"),
    "on_validation": msg("Where it was chosen: validation"),
    "kept": msg("Kept (coverage)"),
    "right_kept": msg("Right among the kept (selective accuracy)"),
    "wrong_kept": msg("Wrong among the kept (risk)"),
    "right_all": msg("Right if all are answered"),
    "no_threshold": msg("none keeps the risk"),
    "applied_here": msg("As it is, applied to the split"),
    "above_allowed": msg("more than allowed"),
    "review_title": msg("What readers preferred"),
    "review_note": msg(
        "Readers saw both answers in random order and did not know the models. A tie counts half; the interval resamples whole"
        " groups of patients and does not cover the choice of readers."
    ),
    "prefer_first": msg("Prefer the first"),
    "tie": msg("No preference"),
    "prefer_second": msg("Prefer the second"),
    "preference": msg("Preference for the second"),
    "readers": msg("readers"),
    "reviewed_cases": msg("cases"),
    "judgements": msg("judgements"),
    "identical": msg("pairs were not shown, because both answers were the same"),
    "agreement": msg("Agreement of the readers"),
    "error_kind": msg("Marked error"),
    "severity": msg("Severity"),
    "first_model": msg("First"),
    "second_model": msg("Second"),
    "first_answer": msg("First answers"),
    "second_answer": msg("Second answers"),
    "first_box": msg("first one's box"),
    "second_box": msg("second one's box"),
    "pair": msg("Comparison"),
    "all_pairs": msg("All comparisons"),
    "compared_cases_note": msg(
        "A choice of the samples that both answered: where the second does worst and best, where right became wrong and wrong"
        " became right, and some drawn at random. Only the latter stand for all."
    ),
    "read_compared": msg(
        "Differences are the second minus the first, on the samples that both were scored on, with 95 % intervals from"
        " resampling whole groups; the upright line is no difference. A difference is called better or worse only when its"
        " interval excludes zero and its p-value, adjusted for all measures that were tried, is at most 0.05. McNemar's p takes"
        " answers for independent and is not adjusted: where a patient has several questions it is too small."
    ),
    "all": msg("All"),
    "all_tasks": msg("All tasks"),
    "show": msg("Show"),
    "task": msg("Task"),
    "shown": msg("cases shown"),
    "none_match": msg("No case matches."),
    "question": msg("Question"),
    "reference": msg("Reference"),
    "base_answer": msg("Base model answers"),
    "tuned_answer": msg("Tuned model answers"),
    "no_answer": msg("(no answer)"),
    "no_picture": msg("The picture cannot be shown."),
    "text_only": msg("No picture belongs to this question."),
    "extra": msg("not in the reference"),
    "missing": msg("missing from the answer"),
    "cut": msg("cut off at the token limit"),
    "not_read": msg("could not be read:"),
    "true_box": msg("true box"),
    "base_box": msg("base model's box"),
    "tuned_box": msg("tuned model's box"),
    "provenance": msg("Where these numbers come from"),
    "run": msg("Run"),
    "base_model": msg("Base model"),
    "data": msg("Data set"),
    "data_hash": msg("Data hash"),
    "split": msg("Split"),
    "conditions": msg("Conditions"),
    "condition": msg("Condition"),
    "answers": msg("Answers"),
    "unread": msg("not readable"),
    "seconds": msg("Seconds"),
    "timing": msg("Timing"),
    "versions": msg("Versions"),
    "made_by": msg("Made by medtune. All of this page is in this file; it loads nothing."),
}


def model_name(label: str) -> Text:
    """A model within a sentence, by its condition's label; one that the caller has named otherwise is called by that name."""
    return {"base": msg("the base model"), "tuned": msg("the tuned model")}.get(label, Text(label))


def condition_title(label: str) -> Text:
    """What a condition is called: its model, then the control or in which other way it was asked. Else it is called by its key."""
    model, _, asked = label.partition("-")
    if label in CONTROLS:
        return CONTROLS[label]
    if model not in ("base", "tuned"):
        return Text(label)
    how = {**CONTROLS, **CONSISTENCY, "general": msg("General questions"), "validation": msg("validation split")}
    if not asked:
        return PAGE[model]
    found = how.get(asked) or how.get(asked.partition("-")[0])
    return msg("{model}: {asked}", model=PAGE[model], asked=found) if found is not None else Text(label)


def metric_title(metric: MetricValue) -> Text:
    """What a number is called; the titles of registered metrics are in the catalogue of sentences."""
    return Text(metric.title)


def split_title(split: str) -> Text:
    """What a split is called."""
    return _SPLITS.get(split, Text(split))


def split_kind_title(kind: str) -> Text:
    """How groups came into their splits (``data.split.kind``)."""
    return _SPLIT_KINDS.get(kind, Text(kind))


def listed(entries: Iterable[Text]) -> Text:
    """Titles one after the other. Titles hold commas of their own."""
    first, *rest = entries
    for entry in rest:
        first = msg("{first}; {next}", first=first, next=entry)
    return first


def control_title(control: str) -> Text:
    """What a control is called; one that has no name here is called by its key."""
    return CONTROLS.get(control, Text(control))


def task_title(task: str) -> Text:
    """What a task is called on the page; a task that is not built in is called by its name."""
    return _TASKS.get(task, Text(task))


def value_title(value: str) -> Text:
    """What a value of a metadata field is called; most values stand for themselves."""
    return _VALUES.get(value, Text(value))


def num_groups(kind: GroupKind, count: int) -> Text:
    """How many groups of a kind were evaluated."""
    return {
        "patient": msg("{count} patients", count=count),
        "study": msg("{count} studies", count=count),
        "volume": msg("{count} volumes", count=count),
        "image": msg("{count} pictures", count=count),
        "row": msg("{count} rows", count=count),
    }[kind]


def sex_title(value: str) -> Text:
    """What a patient's sex is called, written out or by DICOM's code (PS3.3, C.7.1.1: Patient's Sex)."""
    return _SEXES.get(value.lower(), Text(value))


def unit_title(unit: str) -> Text:
    """What a metric's unit is called."""
    return _UNITS.get(unit, Text(unit))


def field_title(field: str) -> Text:
    """What a metadata field is called on the page."""
    return _FIELDS.get(field, Text(field))
