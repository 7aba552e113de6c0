"""The verbs of evaluation: evaluate, rescore, compare, review."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medtune import assembly
from medtune.api.given import RunLike, find_run
from medtune.errors import DataError
from medtune.language import language, msg
from medtune.recipe import dataset_folder, load_recipe, make_recipe
from medtune.runs import Run, atomic_write
from medtune.types import Comparison, Event, Listener, ReaderReview, Report

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset


def evaluate(run: RunLike, overrides: Sequence[str] = (), *, overwrite: bool = False, listener: Listener | None = None) -> Report:
    """Ask base and tuned model every question of the split, with the right pictures and with the controls, and report.

    The run's own recipe says what is measured. Answers that are there already are kept: an evaluation that was cut off
    goes on where it stopped. Writes ``evaluations/``, ``report.json``, ``report.html``, ``report.md``, ``claim_2024.md`` and
    ``tripod_llm.md`` into the run folder.

    Args:
        overrides: Of the run's recipe, for example ``evaluation.max_samples=200``.
        overwrite: Throw earlier answers away.

    Raises:
        RunError: There is no such run, it has not been trained, or another process works on it.
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
    with opened.hold():  # two processes that append to one file would write over each other's answers
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
        RunError: There is no such run, or another process works on it.
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
    with opened.hold():
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
        RunError: Another process works on the run.
    """
    from medtune.evaluation.evaluate import read_report
    from medtune.evaluation.reading import import_marks
    from medtune.evaluation.report_files import write_report_files

    opened = find_run(run)
    with opened.hold():
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
