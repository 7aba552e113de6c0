"""The warnings of a report: what a reader must know before believing its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from medtune.evaluation.bootstrap import effective_number
from medtune.evaluation.table import verdict
from medtune.evaluation.wording import control_title, field_title, listed, metric_title, model_name, split_title
from medtune.language import Text, msg
from medtune.types import (
    Condition,
    Consistency,
    ControlName,
    Difference,
    Forgetting,
    MetricValue,
    Prediction,
)

__all__ = ["FEW_GROUPS", "MANY_UNPARSED", "WITHOUT_PICTURE"]

FEW_GROUPS = 30
"""Below so many groups, by their effective number, the bootstrap's intervals may be too narrow, so the report says it: with 10 they
held the truth of an accuracy of 0.9 in 93 of 100 simulated data sets (docs/statistics.md). The usual rule of thumb for
cluster-robust inference puts "few" at 20 to 50 clusters (Cameron, Gelbach and Miller 2008, doi:10.1162/rest.90.3.414)."""

TOO_FEW_TO_TEST = 5
"""With so many groups, all 2 ** 5 exchanges tried, no p-value is below 2 / 32 = 0.0625."""

WITHOUT_PICTURE = frozenset({"shuffled", "blank", "question-only"})
"""Controls that take the picture away from the model itself."""

MANY_UNPARSED = 0.1
"""Share of answers that could not be read from which on the report says it."""


def synthetic_data() -> Text:
    return msg("The data set is synthetic: its numbers say nothing about patients.")


def few_groups(num_groups: int) -> Text:
    return msg("Only {count} groups were evaluated: intervals from so few may be too narrow.", count=num_groups)


def uneven_groups(num_groups: int, effective: float) -> Text:
    return msg(
        "The {count} evaluated groups are of very different size: they tell no more than {effective} of one size, and intervals"
        " from so few may be too narrow.",
        count=num_groups,
        effective=f"{effective:.0f}",
    )


def untestable(num_groups: int) -> Text:
    return msg(
        "With {count} groups no difference can be told from luck at 5 %: more patients are needed, not more questions about the"
        " same ones.",
        count=num_groups,
    )


def too_few_groups(groups: Iterable[str]) -> list[Text]:
    """What the number of groups, by that of their samples, means for intervals and tests.

    Args:
        groups: Of every evaluated sample.
    """
    sizes = list(Counter(groups).values())
    effective = effective_number(sizes)
    found = []
    if len(sizes) < FEW_GROUPS:
        found.append(few_groups(len(sizes)))
    elif effective < FEW_GROUPS:
        found.append(uneven_groups(len(sizes), effective))
    if len(sizes) <= TOO_FEW_TO_TEST:
        found.append(untestable(len(sizes)))
    return found


def no_control() -> Text:
    return msg(
        "No control without the right picture was asked: nothing in this report shows that a model looks at its pictures."
        " evaluation.controls asks for them."
    )


def many_unparsed(condition: Condition) -> Text:
    return msg(
        "{unparsed} of the {count} answers of {label} could not be read in the form that their task asks for.",
        label=model_name(condition.label),
        unparsed=condition.num_unparsed,
        count=condition.num_predictions,
    )


def cut_off(label: str, num_cut: int, count: int) -> Text:
    return msg(
        "{cut} of the {count} answers of {label} reached the token limit and were cut off.",
        cut=num_cut,
        count=count,
        label=model_name(label),
    )


def same_answers(first: str, second: str) -> Text:
    return msg(
        "Every question got the same answer from {first} and {second}: is the adapter in use?",
        first=model_name(first),
        second=model_name(second),
    )


def picture_unused(label: str, control: ControlName, metrics: Iterable[MetricValue]) -> Text:
    fields = {"label": model_name(label), "metrics": listed(metric_title(metric) for metric in metrics)}
    if control == "shuffled":
        return msg(
            "With pictures of other groups {label} is not measurably worse on {metrics}: nothing shows that it looks at them.",
            **fields,
        )
    if control == "blank":
        return msg(
            "With blank pictures {label} is not measurably worse on {metrics}: nothing shows that it looks at them.",
            **fields,
        )
    if control == "majority":
        return msg("On {metrics}, {label} is not measurably better than the most frequent training answer.", **fields)
    if control == "nearest":
        return msg("On {metrics}, {label} is not measurably better than the answer to the nearest training question.", **fields)
    return msg("Without any picture {label} is not measurably worse on {metrics}: nothing shows that it looks at them.", **fields)


def control_not_asked(control: ControlName, num_left_out: int, count: int) -> Text:
    return msg(
        "The control “{control}” leaves out {left_out} of {count} samples: no picture, or none of another group for their task.",
        control=control_title(control),
        left_out=num_left_out,
        count=count,
    )


def no_change(first: str, second: str) -> Text:
    return msg(
        "No measure of the short table shows that {second} is better or worse than {first}: what differs may be luck.",
        first=model_name(first),
        second=model_name(second),
    )


def inconsistent(entries: Iterable[Consistency]) -> list[Text]:
    """What models say differently of the same thing, one sentence for each that was caught."""
    found = []
    for entry in entries:
        if entry.value is None or not entry.contradicting:
            continue
        read = entry.num_questions - entry.num_unread
        fields: dict[str, Text | int] = {"label": model_name(entry.label), "count": round((1 - entry.value) * read), "total": read}
        if entry.kind == "diagnoses":
            found.append(
                msg(
                    "For {count} of {total} pictures that it was asked about more than once, such as that of {sample}, {label}"
                    " names different final diagnoses.",
                    sample=entry.contradicting[0],
                    **fields,
                )
            )
        elif entry.kind == "mirrored" and (entry.high is None or entry.high < 1):
            found.append(
                msg(
                    "The side that {label} names does not turn with the picture in {count} of {total} mirrored pictures, such as"
                    " that of {sample}.",
                    sample=entry.contradicting[0],
                    **fields,
                )
            )
    return found


def forgotten(forgetting: Forgetting | None) -> list[Text]:
    """Whether tuning cost general skill, when the interval says so."""
    return [
        msg(
            "Fewer general questions are answered rightly by {second} than by {first} ({after} against {before} of {count}): tuning"
            " made it forget.",
            first=model_name(first),
            second=model_name(second),
            before=round((entry.first or 0) * entry.num_samples),
            after=round((entry.second or 0) * entry.num_samples),
            count=entry.num_samples,
        )
        for first, second, entry in (forgetting.differences if forgetting is not None else ())
        if entry.high is not None and entry.high < 0
    ]


def one_run_each() -> Text:
    return msg(
        "One run on either side: the intervals cover other patients, not other training seeds. Give several runs of each recipe to"
        " tell the recipes apart."
    )


def one_run(title: str) -> Text:
    return msg("There is one run only of {run}: how much its seed matters is not known, and not in the intervals.", run=title)


def same_run(title: str) -> Text:
    return msg("Both sides of this comparison are the answers of {run}: they are compared with themselves.", run=title)


def same_weights(title: str) -> Text:
    return msg("Runs of {run} hold the same weights: they are one run and not several.", run=title)


def small_subgroups(field: str, count: int, minimum: int, groups: int) -> Text:
    return msg(
        "Subgroups ({field}) with fewer than {minimum} samples or {groups} groups, not shown: {count}.",
        field=field_title(field),
        count=count,
        minimum=minimum,
        groups=groups,
    )


def unused_pictures(
    label: str, control: ControlName, differences: Iterable[Difference], metrics: Mapping[str, MetricValue]
) -> Text | None:
    """The warning that real pictures are not measurably better than the control's.

    Args:
        differences: Control minus real, overall, on the metrics that should need the picture.
        metrics: Those, by name.
    """
    told = [(entry, verdict(entry, metrics[entry.metric])) for entry in differences]
    unused = [metrics[entry.metric] for entry, said in told if said in ("better", "unclear")]
    return picture_unused(label, control, unused) if unused else None


def no_threshold(label: str) -> Text:
    return msg(
        "The probabilities of {label} can be judged, but no threshold for abstaining was chosen: there are no predictions for the "
        "validation split. evaluation.abstain asks for them.",
        label=model_name(label),
    )


def threshold_on_its_own_split() -> Text:
    return msg(
        "evaluation.abstain was set, but no threshold for abstaining was chosen: it would be chosen on the split validation, and"
        " that is the one that is evaluated here."
    )


def few_to_choose(label: str, count: int, num_groups: int) -> Text:
    return msg(
        "The threshold of {label} for abstaining was chosen by {count} questions of only {groups} groups: other patients"
        " might have given quite another.",
        label=model_name(label),
        count=count,
        groups=num_groups,
    )


def no_probabilities(label: str) -> Text:
    return msg(
        "evaluation.abstain was set, but no answer of {label} came with probabilities of yes and no: there is no threshold. The"
        " generator hf tells them.",
        label=model_name(label),
    )


def nothing_closed(split: str) -> Text:
    return msg(
        "evaluation.abstain was set, but no threshold for abstaining was chosen: the {split} has no questions with the answer"
        " yes or no whose task asks for probabilities.",
        split=split_title(split),
    )


def num_cut_off(predictions: Iterable[Prediction]) -> int:
    return sum(prediction.generation.finish_reason == "length" for prediction in predictions)
