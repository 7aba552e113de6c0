"""Ask a model every question of a split, with and without the right picture, and say with intervals what it became."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from medtune.errors import EvaluationError
from medtune.evaluation.asking import Model, Source, ask, ids_of
from medtune.evaluation.calibration import VALIDATION, closed_questions
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.controls import Presented, present
from medtune.evaluation.general import general_samples, present_general
from medtune.evaluation.guesses import guess
from medtune.evaluation.picked import PickedSamples
from medtune.evaluation.predictions import (
    Asked,
    read_asked,
    write_asked,
)
from medtune.evaluation.report import build_report
from medtune.evaluation.score import parse_generation
from medtune.evaluation.variants import present_variant, variant_names, variant_samples, variant_sampling
from medtune.evaluation.wording import condition_title
from medtune.language import msg
from medtune.runs import atomic_write
from medtune.schema import read_fault
from medtune.types import (
    ControlName,
    Event,
    Generation,
    Listener,
    Report,
    Sample,
    Sampling,
    SplitName,
)

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["evaluate", "read_report", "rescore"]


def evaluate(
    dataset: Dataset,
    *,
    generators: Mapping[str, Model],
    settings: EvaluationSettings,
    folder: Path,
    split: SplitName | None = None,
    controls: Sequence[ControlName] | None = None,
    sampling: Sampling | None = None,
    identities: Mapping[str, str] | None = None,
    provenance: Mapping[str, JsonValue] | None = None,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Report:
    """Generate, parse and score, and write ``evaluations/<label>[-control]/`` and ``report.json`` into a run folder.

    What was generated already is kept: an evaluation that was cut off goes on where it stopped.

    Args:
        dataset: Its split is asked.
        generators: Label -> model. The label names the folder.
        settings: Statistics, controls, subgroups.
        folder: The run folder.
        split: In place of ``settings.split``.
        controls: In place of ``settings.controls``. ``none``, the real pictures, is always asked.
        sampling: How text is drawn; greedy when not given.
        identities: Label -> what names its weights, for example a hash of the adapter. Predictions of other weights are
            then refused.
        provenance: Further entries for ``Report.settings``, such as the command.
        overwrite: Throw earlier predictions away.
        listener: Hears of progress.

    Raises:
        EvaluationError: The split is empty, or ``folder`` holds predictions of other data, weights or sampling.
        GenerationError: A generator left a request without an answer.
    """
    split = split or settings.split
    wanted: tuple[ControlName, ...] = tuple(dict.fromkeys(("none", *(settings.controls if controls is None else controls))))
    sampling = sampling or Sampling()
    pool, samples = read_samples(dataset, split, settings)
    known, order = ids_of(pool, samples)
    hear = listener or _nobody
    asked: list[Asked] = []
    plain = Asked(
        label="",
        model="none",
        control="none",
        dataset=dataset.manifest.name,
        dataset_hash=dataset.manifest.hash,
        split=split,
        seed=settings.seed,
        sampling=sampling.model_dump(mode="json"),
    )
    for label, (model, generator) in generators.items():
        source = Source(generator)
        own = plain.model_copy(update={"label": label, "model": model, "identity": (identities or {}).get(label, "")})
        try:
            for control in (name for name in wanted if name not in ("majority", "nearest")):
                asked.append(own.model_copy(update={"control": control}))
                # Bound to this turn of the loop.
                show = partial(_show_control, control, samples, pool, dataset, settings.seed)
                ask(asked[-1], known, order, show, source, folder=folder, sampling=sampling, overwrite=overwrite, hear=hear)
            for variant in (*variant_names(settings), *(("general",) if settings.general else ())):
                drawn = variant_sampling(variant, sampling, settings)
                asked.append(own.model_copy(update={"variant": variant, "sampling": drawn.model_dump(mode="json")}))
                again = (
                    general_samples(pictures=any(sample.images for sample in pool))
                    if variant == "general"
                    else variant_samples(variant, samples, settings)
                )
                show = partial(_show_variant, variant, again, dataset)
                ask(asked[-1], *ids_of(again), show, source, folder=folder, sampling=drawn, overwrite=overwrite, hear=hear)
            if settings.abstain and split != "validation" and (others := closed_questions(dataset.rows("validation"))):
                asked.append(own.model_copy(update={"variant": VALIDATION}))
                show = partial(_show_control, "none", others, others, dataset, settings.seed)
                ask(asked[-1], *ids_of(others), show, source, folder=folder, sampling=sampling, overwrite=overwrite, hear=hear)
        finally:
            source.close()
    for guesser in (name for name in wanted if name in ("majority", "nearest")):
        asked.append(plain.model_copy(update={"label": guesser, "control": guesser, "sampling": {}}))
        _write_guesses(asked[-1], samples, dataset, folder, hear)
    return _finish(dataset, samples, pool, asked, settings, folder, provenance or {}, hear)


def rescore(
    folder: Path, dataset: Dataset, settings: EvaluationSettings | None = None, *, listener: Listener | None = None
) -> Report:
    """Score the stored predictions of a run folder again, without a model, and write its scores and report anew.

    The conditions are those of the report that is there; all that are stored when there is none.

    Args:
        settings: Of the statistics; when not given, those of the report that is there.

    Raises:
        EvaluationError: There are no predictions, or they were made from other data.
    """
    found = sorted(path.parent for path in (folder / "evaluations").glob("*/asked.json"))
    if not found:
        raise EvaluationError(
            msg("The run folder has no predictions."), file=folder / "evaluations", remedy=msg("Run `medtune evaluate` first.")
        )
    kept: dict[str, JsonValue] = {}
    reported: set[str] = set()
    if (folder / "report.json").exists():
        before = read_report(folder)
        kept = before.settings
        reported = {condition.label for condition in before.conditions}
    everything = [(path, read_asked(path)) for path in found]
    if reported:
        # Variants are no conditions of their own: they go with the model that was asked.
        everything = [
            (path, entry) for path, entry in everything if (entry.label if entry.variant else path.name) in reported
        ] or everything
    found, asked = [path for path, _ in everything], [entry for _, entry in everything]
    for path, entry in zip(found, asked, strict=True):
        # Scores are written where the label says: a folder that came from elsewhere must not say another place.
        if entry.folder != path.name:
            raise EvaluationError(
                msg("asked.json names the condition {label!r}, which is not its folder.", label=entry.label),
                file=path / "asked.json",
            )
    # The order of the first evaluation, base before tuned and real pictures before controls, not that of the alphabet.
    asked.sort(key=lambda entry: (entry.model == "none", entry.model, entry.label, entry.control != "none", entry.variant != ""))
    for entry in asked:
        if entry.dataset_hash != dataset.manifest.hash:
            raise EvaluationError(
                msg(
                    "The predictions were made from the data set {old} ({old_hash}), not from {new} ({new_hash}).",
                    old=entry.dataset,
                    old_hash=entry.dataset_hash,
                    new=dataset.manifest.name,
                    new_hash=dataset.manifest.hash,
                ),
                file=folder / "evaluations" / entry.folder / "predictions.jsonl",
                remedy=msg("Give the data set that the predictions were made from."),
            )
    splits = {entry.split for entry in asked}
    if len(splits) > 1:
        raise EvaluationError(
            msg("The stored predictions belong to several splits: {splits}.", splits=", ".join(sorted(splits))),
            file=folder / "evaluations",
            remedy=msg("Evaluate again, with the old predictions overwritten."),
        )
    if settings is None:
        settings = EvaluationSettings.model_validate(kept.get("evaluation", {}))
    settings = settings.model_copy(update={"seed": next((e.seed for e in asked if e.control == "shuffled"), settings.seed)})
    pool, samples = read_samples(dataset, asked[0].split, settings)
    hear = listener or _nobody
    return _finish(dataset, samples, pool, asked, settings, folder, kept, hear)


def read_report(folder: Path) -> Report:
    """``report.json`` of a run folder.

    Raises:
        EvaluationError: It is absent or damaged.
    """
    path = folder / "report.json"
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EvaluationError(
            msg("This run has not been evaluated."), file=path, remedy=msg("Run `medtune evaluate {run}` first.", run=folder)
        ) from error
    except (OSError, ValueError) as error:
        raise EvaluationError(
            msg("The report cannot be read: {error}", error=read_fault(error)),
            file=path,
            remedy=msg("Run `medtune evaluate` first."),
        ) from error


def read_samples(dataset: Dataset, split: SplitName, settings: EvaluationSettings) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """All samples of a split, and those that are evaluated, in the split's order. They are read when gone through: 100,000 of them
    would take half a gigabyte.

    Raises:
        EvaluationError: The split is empty.
    """
    pool = dataset.sequence(split) if dataset.split_file(split).is_file() else ()
    if not pool:
        raise EvaluationError(
            msg("The split {split} of the data set {name} is empty.", split=split, name=dataset.manifest.name),
            remedy=msg("Choose another split with evaluation.split=..., or prepare the data with one."),
        )
    if settings.max_samples is None or settings.max_samples >= len(pool):
        return pool, pool
    lots = {sample.id: random.Random(f"{settings.seed}/{sample.id}").random() for sample in pool}
    drawn = set(sorted(lots, key=lambda name: (lots[name], name))[: settings.max_samples])
    return pool, PickedSamples(pool, (number for number, sample in enumerate(pool) if sample.id in drawn))


def _show_control(
    control: ControlName, samples: Sequence[Sample], pool: Sequence[Sample], dataset: Dataset, seed: int, folder: Path
) -> Presented:
    return present(control, samples, pool=pool, picture=dataset.stored_picture, seed=seed, blank_folder=folder)


def _show_variant(variant: str, samples: Sequence[Sample], dataset: Dataset, folder: Path) -> Presented:
    if variant == "general":
        shown = present_general(samples, folder)
    else:
        shown = present_variant(variant, samples, picture=dataset.stored_picture, folder=folder)
    return Presented.of(samples, lambda sample: shown[sample.id], lambda sample: sample.id in shown)


def _write_guesses(condition: Asked, samples: Sequence[Sample], dataset: Dataset, folder: Path, hear: Listener) -> None:
    """Store the answers of a control that needs no model as predictions, anew each time: they cost next to nothing."""
    hear(Event("phase", msg("Asking: {condition}", condition=condition_title(condition.folder))))
    place = folder / "evaluations" / condition.folder
    found = guess("majority" if condition.control == "majority" else "nearest", samples, dataset.rows("train"))
    write_asked(place, condition)
    lines = []
    for sample in samples:
        if sample.id in found:
            answer = Generation(id=sample.id, text=found[sample.id], finish_reason="stop")
            lines.append(parse_generation(answer, sample).model_dump_json() + "\n")
    atomic_write(place / "predictions.jsonl", "".join(lines))


def _finish(
    dataset: Dataset,
    samples: Sequence[Sample],
    pool: Sequence[Sample],
    asked: Sequence[Asked],
    settings: EvaluationSettings,
    folder: Path,
    provenance: Mapping[str, JsonValue],
    hear: Listener,
) -> Report:
    used: dict[str, JsonValue] = {
        "evaluation": settings.model_dump(mode="json"),
        "sampling": dict(next((entry.sampling for entry in asked if entry.sampling and not entry.variant), {})),
        "weights": {entry.label: entry.identity for entry in asked if entry.identity},
    }
    hear(Event("phase", msg("Scoring")))
    report = build_report(dataset, samples, pool, asked, settings=settings, folder=folder, provenance={**provenance, **used})
    hear(
        Event("finished", msg("Evaluated {count} samples of {groups} groups.", count=report.num_samples, groups=report.num_groups))
    )
    return report


def _nobody(event: Event, /) -> None:
    """Hears nothing."""
