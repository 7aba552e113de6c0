"""The verbs: prepare, validate, train, evaluate, compare, chat, and what is known of recipes, runs and the machine.

A verb takes a recipe (a path, the name of a shipped one, or a :class:`~medtune.recipe.Recipe`) with overrides, or a run (a
folder, the name of a folder in ``runs``, or a :class:`~medtune.runs.Run`). It returns typed objects, prints nothing, and
tells a ``listener`` of its progress. Faults that a user can put right are :class:`~medtune.errors.MedtuneError`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from medtune import assembly, runs
from medtune.environment import Finding, examine
from medtune.errors import DataError, RecipeError
from medtune.language import language, msg
from medtune.recipe import (
    Recipe,
    Setting,
    SettingDifference,
    dataset_folder,
    diff_settings,
    dump_recipe,
    explain,
    find_recipe,
    load_recipe,
    make_recipe,
    read_head,
    recipe_schema,
    rename,
    run_folder,
    shipped_recipes,
)
from medtune.runs import Run, atomic_write, is_run
from medtune.types import Comparison, Event, Generator, Listener, ReaderReview, Report, RunRecord, Sample, ValidationReport

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset
    from medtune.data.export.export import Exported
    from medtune.generation.chat import ChatSession
    from medtune.hpo.advise import Advice
    from medtune.hpo.report import SweepReport
    from medtune.imaging.deidentify.run import Deidentified
    from medtune.imaging.deidentify.settings import DeidentifySettings
    from medtune.training.forecast import Forecast

__all__ = [
    "DemoResult",
    "RunView",
    "ShownRecipe",
    "SweepResult",
    "advise",
    "compare",
    "compare_page",
    "copy_recipe",
    "deidentify",
    "demo",
    "diff_recipes",
    "doctor",
    "evaluate",
    "export_dataset",
    "find_run",
    "import_review",
    "list_recipes",
    "list_runs",
    "open_chat",
    "plan",
    "prepare",
    "recipe_schema",
    "rescore",
    "review",
    "show_recipe",
    "show_run",
    "sweep",
    "train",
    "validate",
]

RecipeLike = str | Path | Recipe
RunLike = str | Path | Run


@dataclass(frozen=True, slots=True)
class ShownRecipe:
    """A recipe for readers.

    Attributes:
        recipe: As it would be used.
        head: The comments at the head of its file.
        text: The file as it stands.
        resolved: Head and every setting, defaults written out.
        settings: Every setting with its default and its meaning.
    """

    recipe: Recipe
    head: str
    text: str
    resolved: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class RunView:
    """A run for readers. ``report`` is None before the run was evaluated, ``evaluations`` are the conditions asked so far."""

    folder: Path
    record: RunRecord
    evaluations: tuple[str, ...]
    report: Report | None
    next_command: str


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What ``demo`` made, and the command that goes on from there."""

    run: RunView
    report: Report
    next_command: str


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What ``sweep`` found, the page that shows it, the recipe of the best, and the command that goes on from there."""

    folder: Path
    report: SweepReport
    page: Path
    best: Path
    next_command: str


# ---------------------------------------------------------------------------------------------------------------- recipes


def list_recipes() -> dict[str, Recipe]:
    """The shipped recipes by name."""
    return {name: load_recipe(path) for name, path in shipped_recipes().items()}


def show_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> ShownRecipe:
    """A recipe with its comments, its resolved form and what its settings mean.

    Raises:
        RecipeError: It cannot be found, or is wrong.
    """
    path = find_recipe(recipe)
    loaded = load_recipe(path, overrides)
    head = read_head(path)
    resolved = f"{head}\n\n{dump_recipe(loaded)}" if head else dump_recipe(loaded)
    return ShownRecipe(loaded, head, path.read_text(encoding="utf-8"), resolved, tuple(explain(loaded)))


def copy_recipe(recipe: str | Path, target: Path) -> Path:
    """Copy a recipe, comments and all, under the name of its new file; returns the file.

    Raises:
        RecipeError: The recipe cannot be found, ``target`` exists, or its name cannot be a recipe's.
    """
    path = find_recipe(recipe)
    load_recipe(path)
    target = target if target.suffix in (".yaml", ".yml") else target.with_name(f"{target.name}.yaml")
    if target.exists():
        raise RecipeError(msg("The file exists already."), file=target, remedy=msg("Give another name."))
    text = rename(path.read_text(encoding="utf-8"), target.stem)
    atomic_write(target, text)
    try:
        load_recipe(target)
    except RecipeError:
        target.unlink()
        raise
    return target


def diff_recipes(first: str | Path, second: str | Path) -> list[SettingDifference]:
    """The settings in which two recipes (files, names or run folders) differ."""
    return diff_settings(load_recipe(first), load_recipe(second))


# ------------------------------------------------------------------------------------------------------------------- data


def prepare(
    recipe: RecipeLike, overrides: Sequence[str] = (), *, overwrite: bool = False, listener: Listener | None = None
) -> Dataset:
    """Make the data set of a recipe; one that was made with the same settings is used again.

    Args:
        overwrite: Make it anew where the folder exists.

    Raises:
        DataError: The folder holds a data set made with other settings, or a source cannot be read.
    """
    return assembly.make_dataset(_recipe(recipe, overrides), listener, overwrite=overwrite)


def export_dataset(
    folder: str | Path, out: str | Path, *, to: str, max_shard_bytes: int | None = None, listener: Listener | None = None
) -> Exported:
    """Write a data set folder in another form, into a new folder of this machine.

    Args:
        to: ``llamafactory``, ``webdataset`` or ``parquet``.
        max_shard_bytes: Of a tar or Parquet file; 1 GB when left out.

    Raises:
        DataError: ``folder`` is not a data set, ``out`` is in use, the form is unknown, or a picture has changed.
    """
    from medtune.data.dataset import Dataset
    from medtune.data.export.export import EXPORT_FORMATS, MAX_SHARD_BYTES
    from medtune.data.export.export import export_dataset as export

    form = next((known for known in EXPORT_FORMATS if known == to), None)
    if form is None:
        raise DataError(
            msg("Data sets are not written as {form!r}.", form=to), remedy=msg("Known: {known}.", known=", ".join(EXPORT_FORMATS))
        )
    dataset = Dataset.open(Path(folder))
    return export(dataset, Path(out), form, max_shard_bytes=max_shard_bytes or MAX_SHARD_BYTES, listener=listener)


def validate(
    target: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    html: Path | bool = False,
    ocr: bool = False,
    fix: Path | None = None,
    fix_terms: bool = False,
    listener: Listener | None = None,
) -> ValidationReport:
    """Check a data set and list every finding; what was found is kept in its ``validation.json``, which ``train`` reads.

    Args:
        target: The folder of a data set; or a recipe, whose data set is made first when it is missing, and whose model says
            how many tokens each row takes (its configuration is read, its weights are not).
        html: Write the findings as a page to browse; True = ``validation.html`` in the data set folder, if that can be written.
        ocr: Look for text in the pictures too (extra ``ocr``); takes long.
        fix: Write a cleaned copy of the data set here, with ``fixes.jsonl``; no folder appears where there is nothing to do.
        fix_terms: Replace phrases that have one standard term in that copy.

    Raises:
        DataError: The folder is not a data set, or ``fix`` exists already.
        MissingDependencyError: ``ocr`` without its packages.
    """
    from medtune.data.dataset import Dataset
    from medtune.data.fix import Faults, check_target
    from medtune.data.validate import validate as check
    from medtune.data.validation_file import keep

    faults: list[Faults] = []
    extra = (lambda context: Faults(context, into=faults),) if fix is not None else ()
    if isinstance(target, (str, Path)) and _is_data(Path(target)):
        dataset = Dataset.open(Path(target))
        if fix is not None:
            check_target(dataset, fix)
        report = check(dataset, ocr=ocr, extra=extra, listener=listener)
        keep(dataset, report)
        assembly.show_findings(dataset, report, faults, html=html, fix=fix, fix_terms=fix_terms, listener=listener)
        return report
    from medtune.models.encoder import load_encoder

    loaded = _recipe(target, overrides)
    encoder = load_encoder(loaded.model)  # cheap, so its faults come first
    dataset = assembly.make_dataset(loaded, listener)
    if fix is not None:
        check_target(dataset, fix)

    def count_tokens(sample: Sample) -> int:
        return encoder.count_tokens(sample.messages, [(image.width, image.height) for image in sample.images], sample_id=sample.id)

    assembly.say(listener, Event("phase", msg("Checking the data set")))
    report = check(
        dataset,
        count_tokens=count_tokens,
        max_tokens=loaded.train.max_tokens,
        context=encoder.max_tokens,
        too_long=loaded.train.too_long,
        faulty_records=loaded.data.faulty_records,
        limits=loaded.data.limits,
        num_workers=loaded.data.num_workers,
        ocr=ocr,
        extra=extra,
        listener=listener,
    )
    keep(dataset, report, faulty_records=loaded.data.faulty_records, limits=loaded.data.limits)
    assembly.show_findings(dataset, report, faults, html=html, fix=fix, fix_terms=fix_terms, listener=listener)
    return report


def deidentify(
    source: str | Path,
    target: str | Path,
    *,
    settings: DeidentifySettings | None = None,
    key_file: Path | None = None,
    num_workers: int = 1,
    listener: Listener | None = None,
) -> Deidentified:
    """De-identify a DICOM file or a folder of them (PS3.15, Annex E) into another folder; see docs/deidentify.md.

    Args:
        source: Only read.
        target: New, or of an earlier call with the same key and settings, which goes on.
        settings: What is kept, and how hard text in pixels is looked for.
        key_file: Of the pseudonyms; by default ``pseudonym.key`` in the user's configuration folder, made when it is missing.
        num_workers: Processes.

    Raises:
        DataError: There is no ``source``; one of source, target and key lies in another; ``target`` holds something else, or
            was made with another key or other settings.
        RunError: Another process works on ``target``, or nothing can be written there.
    """
    from medtune.imaging.deidentify.run import deidentify as run

    return run(
        Path(source).expanduser(),
        Path(target).expanduser(),
        settings=settings,
        key_file=key_file,
        num_workers=num_workers,
        listener=listener,
    )


# --------------------------------------------------------------------------------------------------------------- training


def plan(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    gpu: str | None = None,
    num_gpus: int | None = None,
    price: float | None = None,
    listener: Listener | None = None,
) -> Forecast:
    """What training a recipe will need, and what the engine chose, from the headers of data set and model.

    No picture is opened and no weight is read; the model's folder needs its small files only (config, tokenizer, processor).

    Args:
        gpu: A name such as ``H100``, or ``cpu``; the first GPU of this machine, or its CPU, when left out.
        num_gpus: As many as the recipe says, when left out.
        price: Of one of them for an hour, in any currency.

    Raises:
        DataError: The data set is not prepared yet.
        TrainingError: The run cannot fit, and what can is named; or the GPU is not known.
        ModelError: The model's size or its tokenizer cannot be read.
    """
    from medtune.data.dataset import Dataset
    from medtune.data.jobs import settings_hash
    from medtune.training.forecast import plan_dataset

    loaded = _recipe(recipe, overrides)
    folder = dataset_folder(loaded)
    if not folder.exists():
        name = recipe if isinstance(recipe, (str, Path)) else loaded.name
        raise DataError(
            msg("The data set is not prepared yet, so its rows cannot be counted."),
            file=folder,
            remedy=msg("Prepare it with `medtune prepare {recipe}`.", recipe=name),
        )
    dataset = Dataset.open(folder)
    remarks = []
    if dataset.manifest.settings_hash != settings_hash(loaded.data):
        remarks.append(msg("This data set was made with other settings than the recipe has now: `medtune train` will refuse it."))
    assembly.say(listener, Event("phase", msg("Counting the tokens of {folder}", folder=folder)))
    return plan_dataset(
        dataset,
        model=loaded.model,
        adapter=loaded.adapter,
        settings=loaded.train,
        distributed=loaded.distributed,
        gpu=gpu,
        num_gpus=num_gpus,
        folder=run_folder(loaded),
        price=price,
        remarks=remarks,
    )


def train(recipe: RecipeLike, overrides: Sequence[str] = (), *, resume: bool = False, listener: Listener | None = None) -> RunView:
    """Tune the model of a recipe; the data set is made first when it is missing.

    A run that fails before its first step leaves no folder behind, so that the same command can be given again.

    Args:
        resume: Continue the interrupted run from its last checkpoint. The settings must be those it began with.

    Raises:
        DataError: The data set has errors.
        RunError: The run folder exists (without ``resume``), or there is none (with it), or another process holds it.
        RecipeError: A resumed run began with other settings, or settings do not fit the model.
        TrainingError: The training cannot start or go on.
    """
    loaded = _recipe(recipe, overrides)
    folder = run_folder(loaded)
    if resume and isinstance(recipe, (str, Path)) and is_run(recipe):
        folder = Path(recipe)  # a run folder may have been moved since its recipe was written
    return show_run(assembly.train(loaded, folder, resume=resume, listener=listener))


def sweep(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    space: str | Path | None = None,
    folder: str | Path | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    num_workers: int | None = None,
    gpus_per_trial: int = 1,
    keep_checkpoints: bool = False,
    listener: Listener | None = None,
) -> SweepResult:
    """Train a recipe with other settings, many times, and say which were best and whether that is more than chance.

    The same call goes on with a sweep that was cut off. See docs/sweeps.md.

    Args:
        overrides: Of the recipe; what results are "the recipe's own settings", the first trial.
        space: The search space; ``<name>.sweep.yaml`` beside the recipe when left out. A :class:`~medtune.recipe.Recipe` has no
            place, so it needs one.
        folder: ``sweeps/<name of the recipe>`` when left out.
        trials: Instead of the search space's.
        seeds: How many, instead of the search space's.
        num_workers: Trainings at the same time; one for each GPU when left out, one on a CPU.
        gpus_per_trial: More than one for a recipe with ``distributed``.
        keep_checkpoints: Leave the checkpoints of finished runs.

    Raises:
        RecipeError: The search space is wrong, or the folder holds another sweep.
        DataError: The data set has errors or no validation rows.
        TrainingError: Every trial failed.
        MissingDependencyError: Optuna is not installed.
    """
    from medtune.hpo.page import PAGE_NAME
    from medtune.hpo.space import find_space, load_space
    from medtune.hpo.sweep import Sweep

    loaded = _recipe(recipe, overrides)
    file = find_space(recipe if isinstance(recipe, (str, Path)) else loaded.name, space)
    changes = {key: value for key, value in (("trials", trials), ("seeds", seeds)) if value is not None}
    searched = load_space(file, loaded, changes)
    place = Path(folder) if folder is not None else Path("sweeps") / loaded.name
    run = Sweep(loaded, searched, place, keep_checkpoints=keep_checkpoints)
    report = run.run(num_workers=num_workers, gpus_per_trial=gpus_per_trial, listener=listener)
    best = place / "best.yaml"
    return SweepResult(place, report, place / PAGE_NAME, best, f"medtune train {best}")


def advise(
    recipe: RecipeLike, overrides: Sequence[str] = (), *, sweep: str | Path | None = None, listener: Listener | None = None
) -> Advice:
    """What others say of good settings, each rule with its source, held against a recipe and its data set.

    The data set is made first when it is missing. Nothing is recommended: a rule is a claim until a sweep has tested it.

    Args:
        sweep: The folder of a sweep, which says of each rule whether it was confirmed, contradicted, or cannot be told.

    Raises:
        DataError: The data set cannot be made.
        RunError: ``sweep`` is not a sweep folder.
    """
    from medtune.hpo.advise import advise as hold_against

    return hold_against(_recipe(recipe, overrides), sweep=None if sweep is None else Path(sweep), listener=listener)


# ------------------------------------------------------------------------------------------------------------- evaluation


def evaluate(run: RunLike, overrides: Sequence[str] = (), *, overwrite: bool = False, listener: Listener | None = None) -> Report:
    """Ask base and tuned model every question of the split, with the right pictures and with the controls, and report.

    The run's own recipe says what is measured. Answers that are there already are kept: an evaluation that was cut off
    goes on where it stopped. Writes ``evaluations/``, ``report.json``, ``report.html``, ``report.md``, ``claim_2024.md`` and
    ``tripod_llm.md`` into the run folder.

    Args:
        overrides: Of the run's recipe, for example ``evaluation.max_samples=200``.
        overwrite: Throw earlier answers away.

    Raises:
        RunError: There is no such run, or it has not been trained.
        ModelError: The data set's pictures went through other transforms than those that the model was trained on.
        EvaluationError: The split is empty, or the run folder holds answers to other questions.
    """
    from medtune.data.dataset import Dataset
    from medtune.evaluation.evaluate import evaluate as measure
    from medtune.evaluation.report_files import write_report_files

    opened = find_run(run)
    recipe = load_recipe(opened.recipe_path, overrides)
    assembly.check_metrics(recipe)
    tuned = assembly.trained(opened)
    assembly.load_named_code(recipe)
    dataset = Dataset.open(dataset_folder(recipe))
    assembly.check_transforms(dataset, tuned, listener)
    assembly.tell_of_boxes(dataset, tuned, listener)
    record = opened.record
    if dataset.manifest.hash != record.dataset_hash:
        change = msg(
            "The run was trained on the data set {trained}; it is evaluated on {evaluated}.",
            trained=f"{record.dataset} ({record.dataset_hash})",
            evaluated=f"{dataset.manifest.name} ({dataset.manifest.hash})",
        )
        assembly.say(listener, Event("note", change))
    report = measure(
        dataset,
        generators=assembly.generators(
            recipe, tuned, local_only=dataset.manifest.local_only, listener=listener, logs=opened.folder / "evaluations"
        ),
        settings=recipe.evaluation,
        folder=opened.folder,
        sampling=recipe.generation.sampling,
        identities=assembly.identities(recipe, tuned),
        provenance=assembly.provenance(opened, overrides, overwrite=overwrite),
        overwrite=overwrite,
        listener=listener,
    )
    write_report_files(report, opened.folder, dataset, language())
    return report


def rescore(run: RunLike, overrides: Sequence[str] = (), *, listener: Listener | None = None) -> Report:
    """Read and score the stored answers of a run again, and write its scores and reports anew. No model is loaded.

    Args:
        overrides: Of the settings that the report was made with, for example ``evaluation.num_resamples=10000`` or
            ``evaluation.metrics=[closed, open]``.

    Raises:
        RunError: There is no such run.
        EvaluationError: It holds no answers, or they belong to other data.
    """
    from medtune.data.dataset import Dataset
    from medtune.evaluation.evaluate import read_report
    from medtune.evaluation.evaluate import rescore as score_again
    from medtune.evaluation.report_files import write_report_files

    opened = find_run(run)
    recipe = load_recipe(opened.recipe_path)
    settings = recipe.model_dump(mode="json")
    if (opened.folder / "report.json").is_file():
        settings["evaluation"] = read_report(opened.folder).settings.get("evaluation", settings["evaluation"])
    recipe = make_recipe(settings, overrides, file=opened.recipe_path)
    assembly.load_named_code(recipe)
    dataset = Dataset.open(dataset_folder(recipe))
    report = score_again(opened.folder, dataset, recipe.evaluation, listener=listener)
    write_report_files(report, opened.folder, dataset, language())
    return report


def compare(
    first: RunLike, second: RunLike, *, first_also: Sequence[RunLike] = (), second_also: Sequence[RunLike] = ()
) -> Comparison:
    """Two evaluated runs on the samples that both answered, paired; differences are ``second`` minus ``first``.

    Args:
        first_also: Further runs of ``first``'s recipe, with other seeds: the runs of a side are averaged, never pooled.
        second_also: The same of ``second``.

    Raises:
        EvaluationError: A report is missing, or the runs were made from different data.
    """
    from medtune.evaluation.compare import compare as paired

    arms = [[find_run(run) for run in arm] for arm in ((first, *first_also), (second, *second_also))]
    for run in (run for arm in arms for run in arm):
        if run.recipe_path.is_file():
            assembly.load_named_code(load_recipe(run.recipe_path))
    return paired([run.folder for run in arms[0]], [run.folder for run in arms[1]])


def compare_page(
    first: RunLike,
    others: Sequence[RunLike],
    *,
    first_also: Sequence[RunLike] = (),
    second_also: Sequence[RunLike] = (),
    html: Path | None = None,
) -> tuple[tuple[Comparison, ...], Path]:
    """Each of ``others`` against ``first``, as :func:`compare` does, and a page that shows all of it with the changed cases.

    Args:
        first_also: Further runs of ``first``'s recipe; of several runs of a side, the cases are those of the first.
        second_also: Further runs of the recipe of the first of ``others``.
        html: Where the page goes; ``compare.html`` in the folder of the first of ``others`` when left out.

    Raises:
        EvaluationError: A report is missing, or two were made from different data.
    """
    from medtune.evaluation.compare_html import Pair, write_comparisons

    opened = find_run(first)
    found = [find_run(other) for other in others]
    comparisons = tuple(
        compare(opened, other, first_also=first_also, second_also=second_also if place == 0 else ())
        for place, other in enumerate(found)
    )
    pairs = [Pair(comparison, opened.folder, other.folder) for comparison, other in zip(comparisons, found, strict=True)]
    page = html or found[0].folder / "compare.html"
    return comparisons, write_comparisons(pairs, page, _evaluated_dataset(opened), language())


def review(run: RunLike, *, against: RunLike | None = None, num_cases: int = 50, seed: int = 0, overwrite: bool = False) -> Path:
    """Make the page on which readers compare two models without knowing which is which; returns it.

    Args:
        run: Its tuned model is the second; a preference for it counts.
        against: The tuned model of this run is the first; without it, the base model of ``run``.
        num_cases: At most, drawn at random.
        seed: Of the draw and of the order of the answers.
        overwrite: Throw away what readers have marked.

    Raises:
        EvaluationError: A report or the data set is missing, no answers differ, or readers have marked the review already.
    """
    from medtune.evaluation.evaluate import read_report
    from medtune.evaluation.review import make_review, sides_of

    opened, other = find_run(run), None if against is None else find_run(against)
    first, second, names = sides_of(opened.folder, None if other is None else other.folder)
    dataset = _evaluated_dataset(opened)
    if dataset is None:
        raise DataError(
            msg("The data set that the run was evaluated on is not there: the review needs its pictures."),
            file=opened.folder,
            remedy=msg("Prepare it again with `medtune prepare {recipe}`.", recipe=opened.recipe_path),
        )
    return make_review(
        first,
        second,
        names=names,
        report=read_report(opened.folder),
        dataset=dataset,
        folder=opened.folder,
        num_cases=num_cases,
        seed=seed,
        overwrite=overwrite,
        in_language=language(),
    )


def import_review(run: RunLike, files: Sequence[Path]) -> ReaderReview:
    """Join what readers sent back with the report of a run: preference, errors, agreement.

    Raises:
        EvaluationError: A file is not of this run's review, or the answers have changed since.
    """
    from medtune.evaluation.evaluate import read_report
    from medtune.evaluation.reading import import_marks
    from medtune.evaluation.report_files import write_report_files

    opened = find_run(run)
    report = read_report(opened.folder)
    result = import_marks(opened.folder, files)
    report = report.model_copy(update={"review": result})
    atomic_write(opened.folder / "report.json", report.model_dump_json(indent=2) + "\n")
    write_report_files(report, opened.folder, _evaluated_dataset(opened), language())
    return result


def _evaluated_dataset(run: Run) -> Dataset | None:
    """The data set of a run's report; None where it is gone, or is another one now."""
    from medtune.data.dataset import Dataset
    from medtune.evaluation.evaluate import read_report

    try:
        dataset = Dataset.open(dataset_folder(load_recipe(run.recipe_path)))
    except DataError:
        return None
    return dataset if dataset.manifest.hash == read_report(run.folder).dataset_hash else None


# ------------------------------------------------------------------------------------------------------------------- chat


def open_chat(
    run: RunLike | None = None,
    overrides: Sequence[str] = (),
    *,
    adapter: Path | None = None,
    base_only: bool = False,
    side_by_side: bool = False,
    images: Sequence[Path] = (),
    listener: Listener | None = None,
) -> tuple[ChatSession, ChatSession | None]:
    """A conversation with a tuned model, and a second one with its base model where ``side_by_side`` asks for it.

    A server (``generation.generator.kind=openai``) is one model: there is no second conversation then.

    Args:
        run: A run, or a recipe (its run; with ``base_only``, ``adapter`` or a server it need not have been trained); the
            latest trained run when left out.
        overrides: Of the run's recipe, for example ``generation.sampling.temperature=0.6``.
        adapter: An adapter folder instead of the run's.
        base_only: Talk with the base model; the adapter is not loaded.
        images: Pictures that the first question carries.

    Raises:
        RunError: There is no such run, or it has not been trained.
        ModelError: The adapter does not fit the base model.
        UnreadableImageError: A picture cannot be read.
    """
    from medtune.generation.chat import ChatSession
    from medtune.generation.config import EchoSettings, OpenAiSettings
    from medtune.imaging.read import read_size
    from medtune.models.contract import read_contract

    recipe, tuned = assembly.chat_source(run, adapter, overrides, base_only=base_only)
    for image in images:
        read_size(image)  # before minutes go into loading weights
    assembly.load_named_code(recipe)
    contract = read_contract(tuned) if tuned is not None else None
    generator_settings = recipe.generation.generator
    server = generator_settings if isinstance(generator_settings, OpenAiSettings | EchoSettings) else None

    def session(generator: Generator, adapter: Path | None) -> ChatSession:
        made = ChatSession(
            generator,
            base_model=recipe.model.base,
            adapter=None if adapter is None else str(adapter),
            server=None if server is None else server.label,
            sampling=recipe.generation.sampling,
            transforms=contract.transforms if contract is not None else (),
            displays=contract.displays if contract is not None else (),
        )
        made.add_images(images)
        return made

    if server is not None:
        if side_by_side:
            assembly.say(listener, Event("note", msg("A server is one model: there is no second one to show beside it.")))
        return session(assembly.other_generator(recipe, local_only=not assembly.may_leave(recipe, tuned)), tuned), None
    if generator_settings.kind == "vllm":
        from medtune.generation.vllm_models import vllm_models

        made = vllm_models(recipe.model, generator_settings, tuned, load=partial(assembly.load, recipe), listener=listener)
        second = session(made["base"](), None) if side_by_side and tuned is not None else None
        return session(made["base" if tuned is None else "tuned"](), tuned), second
    from medtune.generation.hf import HfGenerator
    from medtune.models.load import is_peft

    options = {**assembly.hf_options(recipe), "batch_size": 1}
    assembly.say(listener, Event("phase", msg("Loading {model}", model=recipe.model.base)))
    model, encoder = assembly.load(recipe, tuned)
    answers = session(HfGenerator(model, encoder, **options, listener=listener), tuned)
    if not side_by_side or tuned is None:
        return answers, None
    # An adapter can be switched off; a full fine-tune needs the base weights beside its own.
    base = model if is_peft(tuned) else assembly.load(recipe, None)[0]
    return answers, session(HfGenerator(base, encoder, **options, use_adapter=False, listener=listener), None)


# ------------------------------------------------------------------------------------------------------------------- runs


def list_runs(folder: Path = Path("runs")) -> list[Run]:
    """The runs in a folder, the latest change first; one whose ``run.json`` is damaged comes last."""
    return runs.list_runs(folder)


def show_run(run: RunLike) -> RunView:
    """What a run is, how far it came, what it measured, and the command that goes on.

    Raises:
        RunError: There is no such run, or its ``run.json`` is damaged.
    """
    from medtune.evaluation.evaluate import read_report

    opened = find_run(run)
    record = opened.record
    report = read_report(opened.folder) if (opened.folder / "report.json").is_file() else None
    if record.status != "trained":
        command = f"medtune train {opened.folder} --resume"
    else:
        command = f"medtune {'evaluate' if report is None else 'chat'} {opened.folder}"
    evaluations = tuple(sorted(path.parent.name for path in (opened.folder / "evaluations").glob("*/predictions.jsonl")))
    return RunView(opened.folder, record, evaluations, report, command)


def find_run(run: RunLike) -> Run:
    """A run by its folder, or by the name of a folder in ``runs``.

    Raises:
        RunError: There is none; the nearest name is given.
    """
    return run if isinstance(run, Run) else runs.find_run(run)


# ---------------------------------------------------------------------------------------------------------- machine, demo


def doctor(*, folder: Path = Path(), network: bool = False) -> list[Finding]:
    """Look at this machine: versions, processor, memory, accelerators, optional packages, disk.

    Args:
        folder: Where data sets and runs will be written.
        network: Also try to reach the model hubs; nothing leaves the machine otherwise.
    """
    return examine(folder=folder, network=network)


def demo(folder: Path = Path(), *, listener: Listener | None = None) -> DemoResult:
    """The whole road on the embedded data and model: prepare, validate, train, evaluate.

    What an earlier demo finished is used again; one that was cut off goes on where it stopped.

    Args:
        folder: ``datasets/demo`` and ``runs/demo`` are made in it.
    """
    places = [
        f"{key}={json.dumps(str(folder / place))}" for key, place in (("data.folder", "datasets/demo"), ("run.folder", "runs/demo"))
    ]
    recipe = load_recipe("demo", places)
    run = Run(run_folder(recipe))
    if run.adapter is None:
        train(recipe, resume=is_run(run.folder), listener=listener)
    else:
        assembly.say(listener, Event("note", msg("Using the finished run {folder}.", folder=run.folder)))
    report = evaluate(run, listener=listener)
    view = show_run(run)
    return DemoResult(view, report, view.next_command)


def _is_data(target: Path) -> bool:
    return target.is_dir() and not (target / "recipe.yaml").is_file() and str(target) not in shipped_recipes()


def _recipe(recipe: RecipeLike, overrides: Sequence[str]) -> Recipe:
    if not isinstance(recipe, Recipe):
        return load_recipe(recipe, overrides)
    return make_recipe(recipe.model_dump(mode="json"), overrides) if overrides else recipe
