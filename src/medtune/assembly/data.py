"""The data set of a recipe: made, checked, and what was found in it shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.assembly.listener import say
from medtune.errors import DataError, RunError
from medtune.language import msg
from medtune.recipe import Recipe, dataset_folder
from medtune.types import Event, Listener, ValidationReport

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset
    from medtune.data.fix import Faults


def make_dataset(recipe: Recipe, listener: Listener | None, *, overwrite: bool = False) -> Dataset:
    """The recipe's data set; one that was made with the same settings is used again.

    Raises:
        DataError: The folder holds another data set, or a source cannot be read.
    """
    from medtune.data.dataset import Dataset
    from medtune.data.prepare import prepare

    folder = dataset_folder(recipe)
    if overwrite or not folder.exists():
        say(listener, Event("phase", msg("Preparing the data set {folder}", folder=folder)))
    prepare(recipe.data, name=recipe.name, folder=folder, listener=listener, overwrite=overwrite)
    return Dataset.open(folder)


def refuse_errors(dataset: Dataset, recipe: Recipe, listener: Listener | None) -> None:
    """Check what can be checked without a model.

    Raises:
        DataError: The data set has errors; the first is told.
    """
    from medtune.data.validation_file import validated

    say(listener, Event("phase", msg("Checking the data set")))
    report = validated(
        dataset,
        faulty_records=recipe.data.faulty_records,
        limits=recipe.data.limits,
        num_workers=recipe.data.num_workers,
        listener=listener,
    )
    first = next((issue for issue in report.issues if issue.severity == "error"), None)
    command = msg("`medtune validate {folder}` lists them all.", folder=dataset.folder)
    if first is not None:
        raise DataError(
            msg("The data set has {count} errors, the first: {first}", count=report.num_errors, first=str(first.message)),
            file=first.file or dataset.folder,
            sample=first.sample,
            remedy=msg("{remedy} {command}", remedy=str(first.remedy), command=str(command)) if first.remedy else command,
        )
    left_out = sum(sum(source.left_out.values()) for source in dataset.manifest.sources)
    if left_out:
        say(listener, Event("note", msg("{count} records were left out; left_out.jsonl says why.", count=left_out)))
    if report.num_warnings:
        say(listener, Event("note", msg("{count} warnings. {command}", count=report.num_warnings, command=str(command))))


def show_findings(
    dataset: Dataset,
    report: ValidationReport,
    faults: Sequence[Faults],
    *,
    html: Path | bool,
    fix: Path | None,
    fix_terms: bool,
    listener: Listener | None,
) -> None:
    """Write the page of a validation and the cleaned copy, as far as they were asked for; the listener hears where they are.

    Raises:
        DataError: The copy cannot be made.
        RunError: The page was asked for in a place that cannot be written; beside the data it is only left out.
    """
    from medtune.data.fix import write_fixed
    from medtune.data.validation_page import write_page

    if html:
        try:
            page = write_page(report, dataset, html if isinstance(html, Path) else None)
            say(listener, Event("note", msg("The findings as a page: {page}", page=page)))
        except RunError:
            if isinstance(html, Path):
                raise
            say(listener, Event("note", msg("The data set folder cannot be written: no page. --html FILE puts it elsewhere.")))
    if fix is None:
        return
    if not faults:
        raise DataError(msg("images.jsonl cannot be read."), file=dataset.folder, remedy=msg("Prepare the data set again."))
    fixed = write_fixed(dataset, faults[0], fix, terms=fix_terms)
    if not fixed.num_changed and not fixed.num_left_out:
        say(listener, Event("note", msg("Nothing to put right: no copy was written.")))
        return
    note = msg(
        "{changed} rows were put right, {left_out} left out: {folder}; fixes.jsonl lists them.",
        changed=fixed.num_changed,
        left_out=fixed.num_left_out,
        folder=fix,
    )
    say(listener, Event("note", note))
