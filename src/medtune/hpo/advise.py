"""The rules of others held against a recipe, and against what a sweep measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medtune import assembly
from medtune.errors import MedtuneError
from medtune.hpo.facts import Facts, facts_of
from medtune.hpo.report import Interval, SweepReport, TrialReport, read_report
from medtune.hpo.rules import RULES, Rule
from medtune.hpo.space import with_changes
from medtune.hpo.statistics import mean_with_interval
from medtune.language import Text, msg
from medtune.recipe import Recipe, diff_settings, load_recipe
from medtune.types import Document, Event, Listener

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["VERDICTS", "Advice", "RuleAdvice", "advise", "judge_rule"]

Verdict = Literal["confirmed", "contradicted", "cannot-tell", "not-tried"]

VERDICTS: dict[Verdict, Text] = {
    "confirmed": msg("confirmed"),
    "contradicted": msg("contradicted"),
    "cannot-tell": msg("cannot tell"),
    "not-tried": msg("not tried"),
}

_COUNTED_ROWS = 400
"""Rows whose tokens are counted, spread evenly over the data set; the mean of more would not change the third digit."""


class RuleAdvice(Document):
    """One rule on one recipe.

    Attributes:
        follows: Whether the recipe does as the rule says; None = the rule says nothing of this case.
        verdict: What the sweep says; None without one.
        difference: Of the objective, so that below zero the rule is right: the best that follows it minus the best that does
            not, paired by seed, at the level that holds for all pairs looked at.
        num_trials: Trials that were compared.
    """

    name: str
    keys: tuple[str, ...]
    says: Text
    source: Text
    wanted: Text
    has: str
    follows: bool | None
    verdict: Verdict | None = None
    difference: Interval | None = None
    num_trials: int = 0


class Advice(Document):
    """What is stated of settings, and what was measured of it.

    Attributes:
        num_tokens: Of an epoch, pictures included; estimated from a part of the rows. None where the model cannot be read.
        sweep: The folder of the sweep that was asked.
    """

    recipe: str
    base_model: str
    num_train_rows: int
    num_validation_rows: int
    num_tokens: int | None
    epochs: float
    num_steps: int
    rows_per_step: int
    rules: tuple[RuleAdvice, ...]
    sweep: str | None = None
    notes: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True)
class _Tested:
    verdict: Verdict
    difference: Interval | None = None
    num_trials: int = 0


def advise(recipe: Recipe, *, sweep: Path | None = None, listener: Listener | None = None) -> Advice:
    """Every rule with its source, what it asks for on this data set, and what a sweep says of it.

    Args:
        sweep: A sweep folder.

    Raises:
        DataError: The data set cannot be made.
        RunError: ``sweep`` is not a sweep folder.
    """
    measured = None if sweep is None else (read_report(sweep), load_recipe(sweep / "recipe.yaml"))
    dataset = assembly.make_dataset(recipe, listener)
    counts = dataset.manifest.num_samples
    num_rows = counts.get("train", 0)
    facts = facts_of(recipe, max(1, num_rows))
    tokens = _count_tokens(recipe, dataset, listener)
    rules = []
    for rule in RULES:
        tested = None if measured is None else judge_rule(rule, *measured)
        rules.append(_advice(rule, facts, tested))
    return Advice(
        recipe=recipe.name,
        base_model=recipe.model.base,
        num_train_rows=num_rows,
        num_validation_rows=counts.get("validation", 0),
        num_tokens=tokens,
        epochs=round(facts.epochs, 3),
        num_steps=facts.num_steps,
        rows_per_step=facts.rows_per_step,
        rules=tuple(rules),
        sweep=None if sweep is None else sweep.as_posix(),
        notes=tuple(_notes(recipe, dataset, measured)),
    )


def judge_rule(rule: Rule, report: SweepReport, recipe: Recipe) -> _Tested:
    """What the trials of a sweep say of a rule.

    Compared are trials that differ in nothing but the rule's keys; of those that follow it and those that do not, the best by
    mean. Where several such groups exist, as in a grid, their differences are averaged for each seed. The interval counts every
    pair that could have been the best two (Bonferroni).
    """
    groups = [group for group in _groups(rule, report, recipe) if group[0] and group[1]]
    if not groups:
        return _Tested("not-tried")
    sign = -1.0 if report.direction == "higher" else 1.0
    by_seed: dict[int, list[float]] = {}
    for following, others in groups:
        first, second = (min(side, key=lambda trial: sign * _mean(trial)) for side in (following, others))
        after = {run.seed: run.value for run in second.runs}
        for run in first.runs:
            if run.seed in after:
                by_seed.setdefault(run.seed, []).append(sign * (run.value - after[run.seed]))
    num_trials = sum(len(following) + len(others) for following, others in groups)
    differences = [sum(values) / len(values) for values in by_seed.values()]
    if not differences:
        return _Tested("cannot-tell", None, num_trials)
    num_pairs = max(len(following) * len(others) for following, others in groups)
    estimate = mean_with_interval(differences, num_comparisons=num_pairs)
    interval = Interval(mean=estimate.mean, low=estimate.low, high=estimate.high)
    if estimate.low is None or estimate.high is None:
        return _Tested("cannot-tell", interval, num_trials)
    if estimate.low > 0:
        return _Tested("contradicted", interval, num_trials)
    return _Tested("confirmed" if estimate.high < 0 and not rule.only_refutable else "cannot-tell", interval, num_trials)


def _groups(rule: Rule, report: SweepReport, recipe: Recipe) -> list[tuple[list[TrialReport], list[TrialReport]]]:
    """Trials alike in all but the rule's keys: (those that follow it, those that do not)."""
    alike: dict[str, list[tuple[TrialReport, Facts]]] = {}
    for trial in report.complete:
        changed = with_changes(recipe, trial.overrides)
        settings = changed.model_dump(mode="json")
        for key in rule.keys:
            section, _, name = key.partition(".")
            settings[section].pop(name, None)
        alike.setdefault(repr(settings), []).append((trial, facts_of(changed, report.data.num_train_rows)))
    return [_sides(rule, group) for group in alike.values()]


def _sides(rule: Rule, group: Sequence[tuple[TrialReport, Facts]]) -> tuple[list[TrialReport], list[TrialReport]]:
    if rule.order is not None:
        least = min(rule.order(facts) for _, facts in group)
        followed: list[bool | None] = [rule.order(facts) == least for _, facts in group]
    else:
        followed = [rule.follows(facts) for _, facts in group]
    following = [trial for (trial, _), answer in zip(group, followed, strict=True) if answer is True]
    others = [trial for (trial, _), answer in zip(group, followed, strict=True) if answer is False]
    return following, others


def _mean(trial: TrialReport) -> float:
    assert trial.value is not None
    return trial.value.mean


def _advice(rule: Rule, facts: Facts, tested: _Tested | None) -> RuleAdvice:
    return RuleAdvice(
        name=rule.name,
        keys=rule.keys,
        says=rule.says,
        source=rule.source,
        wanted=rule.wanted(facts),
        has=rule.has(facts),
        follows=rule.follows(facts),
        verdict=None if tested is None else tested.verdict,
        difference=None if tested is None else tested.difference,
        num_trials=0 if tested is None else tested.num_trials,
    )


def _count_tokens(recipe: Recipe, dataset: Dataset, listener: Listener | None) -> int | None:
    """Tokens of an epoch; None where the base model's folder is not there."""
    from medtune.models.encoder import load_encoder

    try:
        encoder = load_encoder(recipe.model)
    except MedtuneError as error:
        assembly.say(listener, Event("note", msg("Tokens are not counted: {reason}", reason=error.what)))
        return None
    rows = dataset.sequence("train")
    if not len(rows):
        return 0
    step = max(1, len(rows) // _COUNTED_ROWS)
    counted = [
        encoder.count_tokens(row.messages, [(image.width, image.height) for image in row.images], sample_id=row.id)
        for row in (rows[index] for index in range(0, len(rows), step))
    ]
    return round(sum(counted) / len(counted) * len(rows))


def _notes(recipe: Recipe, dataset: Dataset, measured: tuple[SweepReport, Recipe] | None) -> list[Text]:
    notes = [msg("Rules are what their sources say. medtune has not measured them, and they contradict each other in part.")]
    if measured is None:
        notes.append(msg("Whether they hold on your data, a sweep says: `medtune sweep`, then `medtune advise --sweep FOLDER`."))
        return notes
    report, swept = measured
    if report.data.hash != dataset.manifest.hash:
        notes.append(
            msg(
                "The sweep was made on the data set {name} ({hash}), not on this one.", name=report.data.name, hash=report.data.hash
            )
        )
    if report.base_model != recipe.model.base:
        notes.append(msg("The sweep was made with the base model {model}, not with this one.", model=report.base_model))
    keys = set(report.space.parameters)
    other = [
        entry.key
        for entry in diff_settings(swept, recipe)
        if entry.key.startswith(("adapter.", "train.")) and entry.key not in keys
    ]
    if other:
        notes.append(msg("The sweep's recipe differs from this one in: {keys}.", keys=", ".join(other)))
    if report.data.synthetic:
        notes.append(msg("The data are synthetic: nothing here holds for patients' pictures."))
    notes.append(
        msg(
            "Below zero the rule is right. 95 % interval over {seeds} seeds, for all pairs compared.", seeds=len(report.space.seeds)
        )
    )
    return notes
