"""What medtune knows of a study, in sentences: for the model card and the checklists. What it does not know is not in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medtune.errors import MedtuneError
from medtune.evaluation import overlaps
from medtune.evaluation.kinds import in_short
from medtune.evaluation.table import format_interval, format_share, format_value, headline_rows, main_pair
from medtune.evaluation.wording import (
    AGREEMENTS,
    GROUPS,
    condition_title,
    control_title,
    field_title,
    listed,
    metric_title,
    model_name,
    split_kind_title,
    split_title,
    task_title,
)
from medtune.language import Text, msg
from medtune.runs import Run
from medtune.types import Abstention, Manifest, Report, RunRecord

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["Known", "facts", "known_of"]


@dataclass(frozen=True, slots=True)
class Known:
    """A report with what lies beside it. ``recipe`` is the resolved recipe as read from its file; empty where there is none."""

    report: Report
    record: RunRecord | None
    manifest: Manifest | None
    recipe: Mapping[str, Any]

    def setting(self, key: str) -> Any:
        """A setting of the recipe by its dotted key; None where it is not there."""
        value: Any = self.recipe
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def known_of(report: Report, folder: Path, dataset: Dataset | None) -> Known:
    """Read the run folder of a report. What is missing or damaged is not known."""
    try:
        record: RunRecord | None = Run.open(folder).record
    except MedtuneError:
        record = None
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        recipe = {}
    return Known(report, record, None if dataset is None else dataset.manifest, recipe if isinstance(recipe, dict) else {})


def facts(known: Known) -> dict[str, list[Text]]:
    """Subject -> sentences. A subject of which nothing is known has none."""
    found = {**_data(known), **_model(known), **_measured(known)}
    return {subject: sentences for subject, sentences in found.items() if sentences}


def _data(known: Known) -> dict[str, list[Text]]:
    manifest, report = known.manifest, known.report
    found: dict[str, list[Text]] = {
        "dataset": [msg("Data set {name}, hash {hash}.", name=report.dataset, hash=report.dataset_hash)],
        "disjoint": in_short(text for text in report.alerts if overlaps.is_overlap(text))
        or [msg("Splits share no group; a group is one of: {kind}.", kind=GROUPS[report.group_kind])],
    }
    if report.synthetic:
        found["dataset"].append(msg("The data set is synthetic: its numbers say nothing about patients."))
    if report.group_kind != "patient":
        found["disjoint"].append(msg("The data have no patient ids, so splits may share patients."))
    if manifest is None:
        return found
    for source in manifest.sources:
        card = source.card
        revision = msg(", revision {revision}", revision=card.revision) if card.revision else Text("")
        found["dataset"].append(
            msg(
                "Source: {title} ({name}{revision}), licence {licence}, {count} samples.",
                title=card.title,
                name=card.name,
                revision=revision,
                licence=card.licence,
                count=source.num_samples,
            )
        )
    left_out: dict[str, int] = {}
    for source in manifest.sources:
        for reason, count in source.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(left_out.items()))
    found["left_out"] = (
        [msg("Records left out, by reason: {reasons}.", reasons=reasons)]
        if left_out
        else [msg("No record was left out in preparation.")]
    )
    transforms = [entry.name for entry in manifest.transforms]
    found["preprocessing"] = [
        msg("Picture transforms: {names}.", names=", ".join(transforms)) if transforms else msg("Pictures were not transformed.")
    ]
    if manifest.displays:
        found["preprocessing"].append(msg("Measured values became pictures by: {displays}.", displays="; ".join(manifest.displays)))
    found["split"] = [
        msg(
            "Split: {kind} ({settings}).",
            kind=split_kind_title(str(manifest.split.get("kind"))),
            settings=", ".join(f"{key}={value}" for key, value in manifest.split.items() if value is not None and key != "kind"),
        )
    ]
    sizes = _counted(split_title, manifest.num_samples)
    groups = _counted(split_title, manifest.num_groups)
    kind = GROUPS[manifest.group_kind]
    found["sizes"] = [msg("Samples: {sizes}. Groups ({kind}): {groups}.", sizes=sizes, groups=groups, kind=kind)]
    found["tasks"] = [msg("Tasks: {tasks}.", tasks=_counted(task_title, manifest.tasks))]
    return found


def _counted(title: Callable[[str], Text], counts: Mapping[str, int]) -> Text:
    return listed(msg("{name} {count}", name=title(name), count=count) for name, count in counts.items())


def _model(known: Known) -> dict[str, list[Text]]:
    record, found = known.record, dict[str, list[Text]]()
    base = known.setting("model.base") or (record.base_model if record else None)
    if base:
        revision = (record.base_revision if record else None) or known.setting("model.revision")
        found["model"] = [msg("Base model {base}, revision {revision}.", base=str(base), revision=revision or msg("not pinned"))]
        found["initialization"] = [msg("Starts from the weights of {base}.", base=str(base))]
    if kind := known.setting("adapter.kind"):
        found["method"] = [msg("Adapter: {kind}, rank {rank}.", kind=str(kind), rank=str(known.setting("adapter.rank") or "-"))]
    if train := known.setting("train"):
        keys = ("learning_rate", "batch_size", "max_steps", "num_epochs", "warmup_steps", "max_tokens")
        settings = ", ".join(f"{key}={train[key]}" for key in keys if isinstance(train, Mapping) and train.get(key) is not None)
        found["training"] = [msg("Supervised fine-tuning with {settings}; all settings are in recipe.yaml.", settings=settings)]
    if record is not None:
        if record.trainable.get("total"):
            found.setdefault("model", []).append(
                msg(
                    "{trainable} of {total} parameters were trained.",
                    trainable=record.trainable["trainable"],
                    total=record.trainable["total"],
                )
            )
        if record.num_steps is not None:
            found.setdefault("training", []).append(msg("{steps} steps, seed {seed}.", steps=record.num_steps, seed=record.seed))
        if record.kept is not None and len(record.validation_losses) > 1:
            found["selection"] = [msg("Weights kept: {kept}, by validation loss.", kept=record.kept)]
        if record.measured is not None:
            found["compute"] = [
                msg(
                    "Training: {seconds} s on {count} x {device}, at most {memory} GiB on each.",
                    seconds=f"{record.measured.seconds:.0f}",
                    count=record.measured.num_devices,
                    device=record.measured.device,
                    memory=f"{record.measured.peak_gib:.1f}",
                )
            ]
    for condition in known.report.conditions:
        if condition.control == "none" and condition.seconds:
            found.setdefault("compute", []).append(
                msg(
                    "Answers of {label}: {seconds} s for {count} samples.",
                    label=model_name(condition.label),
                    seconds=f"{condition.seconds:.0f}",
                    count=condition.num_predictions,
                )
            )
    versions = ", ".join(f"{name} {version}" for name, version in known.report.versions.items())
    found["libraries"] = [msg("Versions: {versions}.", versions=versions)] if versions else []
    sampling = known.report.settings.get("sampling")
    if isinstance(sampling, dict):
        settings = ", ".join(f"{key}={value}" for key, value in sampling.items())
        found["generation"] = [msg("Text was generated with {settings}.", settings=settings)]
    found["prompting"] = [msg("The words of every prompt are stored with the data set; the report shows them for its cases.")]
    return found


def _measured(known: Known) -> dict[str, list[Text]]:
    report = known.report
    base, tuned = main_pair(report)
    looked = tuned or base
    found: dict[str, list[Text]] = {
        "metrics": [msg("Metrics: {metrics}.", metrics=listed(map(metric_title, report.metrics)))],
        "uncertainty": [_uncertainty(known)],
        "internal": [msg("Evaluated on the {split} of the same data set.", split=split_title(report.split))],
        "evaluated": [
            msg("{samples} samples of {groups} groups were evaluated.", samples=report.num_samples, groups=report.num_groups)
        ],
        "results": [],
        "output": [msg("The raw text is stored; each task reads it, and what cannot be read is counted.")],
        "limits": in_short(report.warnings),
        "failures": [msg("report.html shows the worst answers and those that tuning changed, with their pictures.")],
    }
    if looked is not None:
        found["output"].append(
            msg(
                "{unread} of {count} answers of {label} could not be read.",
                unread=looked.num_unparsed,
                count=looked.num_predictions,
                label=model_name(looked.label),
            )
        )
    for row in headline_rows(report):
        entry = row.tuned or row.base
        if entry is not None and entry.value is not None:
            title = Text(row.metric.title)
            value = format_value(entry.value, row.metric)
            interval = format_interval(entry.low, entry.high, row.metric) or "-"
            found["results"].append(
                msg(
                    "{title}: {value} (95 % interval {interval}; n = {count}, unscored {unscored}).",
                    title=title,
                    value=value,
                    interval=interval,
                    count=entry.num_scored,
                    unscored=entry.num_unscored,
                )
            )
    controls = list(dict.fromkeys(entry.control for entry in report.conditions if entry.control != "none"))
    if controls:
        found["robustness"] = [msg("Control: {control}.", control=control_title(control)) for control in controls]
    if base is not None and tuned is not None:
        found["comparison"] = [msg("The tuned model is compared with its base model on the same samples, paired.")]
    if report.subgroups:
        found["subgroups"] = [msg("Results by subgroup: {fields}.", fields=listed(map(field_title, report.subgroups)))]
    found["abstention"] = [text for entry in report.abstention for text in _abstention(entry)]
    if report.review is not None:
        reading = report.review
        found["readers"] = [
            msg(
                "{readers} blinded readers compared {cases} pairs of answers of {first} and {second}.",
                readers=reading.num_readers,
                cases=reading.num_cases,
                first=reading.first,
                second=reading.second,
            ),
            *(
                msg("{measure} of their preferences: {number}.", measure=AGREEMENTS[name], number=f"{number:.2f}")
                for name, number in reading.agreement.items()
            ),
        ]
    return found


def _abstention(entry: Abstention) -> list[Text]:
    """Where the threshold comes from, and what it does to the evaluated split."""
    allowed = format_share(entry.max_risk, 1)
    if entry.threshold is None:
        return [
            msg(
                "{label}: no threshold keeps the share of wrong answers at {allowed} or less on the validation split ({count}"
                " questions).",
                label=condition_title(entry.label),
                allowed=allowed,
                count=entry.num_validation,
            )
        ]
    found = [
        msg(
            "{label}: answers are kept from a probability of {threshold} on, the lowest at which at most {allowed} of them were"
            " wrong on the validation split ({count} questions).",
            label=condition_title(entry.label),
            threshold=f"{entry.threshold:.3f}",
            allowed=allowed,
            count=entry.num_validation,
        )
    ]
    if entry.coverage is None:
        return found
    kept: dict[str, str | int] = {
        "kept": entry.num_kept,
        "count": entry.num_test,
        "coverage": _share(entry.coverage, entry.coverage_interval),
    }
    if entry.accuracy is None or entry.accuracy_of_all is None:
        return [*found, msg("Here it keeps {kept} of {count} answers, {coverage}.", **kept)]
    return [
        *found,
        msg(
            "Here it keeps {kept} of {count} answers, {coverage}; of these {accuracy} are right, and of all {all}. 95 % intervals,"
            " with the threshold as it is.",
            **kept,
            accuracy=_share(entry.accuracy, entry.accuracy_interval),
            all=_share(entry.accuracy_of_all, entry.accuracy_of_all_interval),
        ),
    ]


def _share(share: float, interval: tuple[float, float] | None) -> str:
    ends = "" if interval is None else f" ({format_share(interval[0], 1)} … {format_share(interval[1], 1)})"
    return format_share(share, 1) + ends


def _uncertainty(known: Known) -> Text:
    statistics = known.report.settings.get("evaluation")
    count = statistics.get("num_resamples") if isinstance(statistics, dict) else None
    return msg(
        "95 % intervals by bootstrap over whole groups ({kind}), {count} resamples; differences are paired.",
        kind=GROUPS[known.report.group_kind],
        count=str(count or "-"),
    )
