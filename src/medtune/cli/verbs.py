"""The main road: prepare, validate, train, evaluate, compare, chat, demo."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medtune.cli.parameters import AsJson, Overrides, RecipeName, RunName, example
from medtune.cli.plan import plan
from medtune.cli.usage import Command
from medtune.language import msg

if TYPE_CHECKING:
    from medtune.types import Comparison

__all__ = ["add_to"]


Overwrite = Annotated[bool, typer.Option("--overwrite", help=str(msg("Make it anew where it exists.")))]


def add_to(app: typer.Typer) -> None:
    """Register the commands, in the order in which they are used."""
    for command, text, shown in (
        (demo, msg("Run the whole road on embedded data and an embedded small model, in a few minutes."), "medtune demo"),
        (
            prepare,
            msg("Make the data set of a recipe: read, split by patient, write, count."),
            "medtune prepare demo data.split.seed=1",
        ),
        (
            validate,
            msg("Check a recipe's data set, or a data set folder, and list every fault."),
            "medtune validate datasets/demo --strict",
        ),
        (
            plan,
            msg("Say what training a recipe will need: memory, time and cost, and what the engine chose."),
            "medtune plan demo --gpu H100 --price 2.5",
        ),
        (
            train,
            msg("Train the adapter of a recipe; prepares the data set first when it is missing."),
            "medtune train demo adapter.rank=32",
        ),
        (
            evaluate,
            msg("Measure base and tuned model on held-out samples, with controls and intervals."),
            "medtune evaluate runs/demo",
        ),
        (compare, msg("Compare two evaluated runs on the same samples, paired."), "medtune compare runs/demo runs/demo-rank32"),
        (chat, msg("Talk with a tuned model about your pictures."), "medtune chat runs/demo --image scan.png --side-by-side"),
    ):
        app.command(cls=Command, help=str(text), short_help=str(text), epilog=example(shown))(command)


def prepare(
    recipe: RecipeName,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    engine: Annotated[
        str | None,
        typer.Option(metavar="local|ray", help=str(msg("Where the work is done: on this machine, or on a Ray cluster."))),
    ] = None,
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_manifest

    with Progress() as listener:
        chosen = [*(overrides or ()), *([] if engine is None else [f"data.engine={engine}"])]
        dataset = api.prepare(recipe, chosen, overwrite=overwrite, listener=listener)
    print_manifest(dataset.folder, dataset.manifest, next(iter(dataset.left_out()), None))


def validate(
    target: Annotated[str, typer.Argument(metavar="RECIPE|DATASET", help=str(msg("A recipe, or the folder of a data set.")))],
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option("--strict", help=str(msg("Exit with 1 on warnings too.")))] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=str(msg("Where the page of findings goes; by default validation.html in the data set folder."))
        ),
    ] = None,
    no_html: Annotated[bool, typer.Option("--no-html", help=str(msg("Write no page of findings.")))] = False,
    ocr: Annotated[bool, typer.Option("--ocr", help=str(msg("Look for text in the pictures too; takes long.")))] = False,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help=str(msg("Write a cleaned copy of the data set here, with a list of what was changed."))
        ),
    ] = None,
    fix_terms: Annotated[
        bool, typer.Option("--fix-terms", help=str(msg("With --fix: replace everyday words by standard terms in the copy.")))
    ] = False,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_json, print_validation

    if html is not None and no_html:
        raise typer.BadParameter(str(msg("--html and --no-html contradict each other.")))
    if fix_terms and fix is None:
        raise typer.BadParameter(str(msg("--fix-terms changes a copy: say where it goes with --fix FOLDER.")))
    with Progress() as listener:
        report = api.validate(
            target, overrides or (), html=html or not no_html, ocr=ocr, fix=fix, fix_terms=fix_terms, listener=listener
        )
    print_json(report) if as_json else print_validation(report)
    if report.num_errors or (strict and report.num_warnings):
        raise typer.Exit(1)


def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help=str(msg("Continue an interrupted run from its last checkpoint.")))
    ] = False,
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_run
    from medtune.recipe import load_recipe, run_folder
    from medtune.runs import is_run

    try:
        with Progress() as listener:
            run = api.train(recipe, overrides or (), resume=resume, listener=listener)
    except KeyboardInterrupt:
        # A run folder that is resumed may have been moved since its recipe was written.
        folder = Path(recipe) if resume and is_run(recipe) else run_folder(load_recipe(recipe, overrides or ()))
        if is_run(folder):
            words = ["medtune", "train", str(folder), *(overrides or () if resume else ()), "--resume"]
            typer.echo(str(msg("Go on with: {command}", command=shlex.join(words))), err=True)
        raise
    print_run(run)


def evaluate(
    run: RunName,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    rescore: Annotated[
        bool, typer.Option("--rescore", help=str(msg("Score the stored answers again; no model is loaded.")))
    ] = False,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_json, print_report

    if rescore and overwrite:
        raise typer.BadParameter(str(msg("--rescore needs the stored answers, and --overwrite throws them away.")))
    try:
        with Progress() as listener:
            if rescore:
                report = api.rescore(run, overrides or (), listener=listener)
            else:
                report = api.evaluate(run, overrides or (), overwrite=overwrite, listener=listener)
    except KeyboardInterrupt:
        # Without --overwrite: what was answered so far stays.
        words = ["medtune", "evaluate", run, *(overrides or ()), *(["--rescore"] if rescore else [])]
        typer.echo(str(msg("Go on with: {command}", command=shlex.join(words))), err=True)
        raise
    print_json(report) if as_json else print_report(report, api.find_run(run).folder)


def compare(
    first: RunName,
    second: RunName,
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", show_default=False, help=str(msg("Further runs; each is compared with the first."))),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=str(msg("Where the page goes; by default compare.html in the folder of the second run."))
        ),
    ] = None,
    no_html: Annotated[bool, typer.Option("--no-html", help=str(msg("Write no page.")))] = False,
    first_also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help=str(
                msg(
                    "Another run of the first's recipe, with another seed; may be given several times. Runs of a side are averaged."
                )
            ),
        ),
    ] = None,
    second_also: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help=str(msg("The same of the second run; only where two runs are compared."))),
    ] = None,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.tables import print_comparison, print_json

    if second_also and more:
        raise typer.BadParameter(str(msg("--second-also is for the comparison of two runs.")))
    also = {"first_also": tuple(first_also or ()), "second_also": tuple(second_also or ())}
    others = [second, *(more or ())]
    if no_html:
        if html is not None:
            raise typer.BadParameter(str(msg("--html and --no-html contradict each other.")))
        comparisons: tuple[Comparison, ...] = tuple(api.compare(first, other, **also) for other in others)
        page = None
    else:
        comparisons, page = api.compare_page(first, others, html=html, **also)
    if as_json:
        print_json(comparisons[0] if len(comparisons) == 1 else comparisons)
        return
    for comparison in comparisons:
        print_comparison(comparison)
    if page is not None:
        typer.echo(str(msg("Page: {file}", file=page)))


def chat(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=str(msg("A run; the latest trained one when left out.")))] = None,
    overrides: Overrides = None,
    adapter: Annotated[Path | None, typer.Option(help=str(msg("An adapter folder instead of the run's.")))] = None,
    base_only: Annotated[
        bool, typer.Option("--base-only", help=str(msg("Talk with the base model alone; RUN may then be a recipe.")))
    ] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help=str(msg("Base and tuned model answer the same question.")))
    ] = False,
    image: Annotated[list[Path] | None, typer.Option(help=str(msg("A picture to begin with; may be given several times.")))] = None,
) -> None:
    from medtune import api
    from medtune.cli.chat import chat_loop
    from medtune.cli.progress import Progress

    changes = list(overrides or ())
    if run is not None and "=" in run:  # `medtune chat section.key=value`: the latest run, with a change
        changes.insert(0, run)
        run = None
    if base_only and side_by_side:
        raise typer.BadParameter(str(msg("--base-only leaves no tuned model to show beside the base model.")))
    with Progress() as listener:
        session, base = api.open_chat(
            run, changes, adapter=adapter, base_only=base_only, side_by_side=side_by_side, images=image or (), listener=listener
        )
    chat_loop(session, side_by_side_session=base)


def demo(
    folder: Annotated[Path, typer.Option(help=str(msg("Where `datasets` and `runs` are made.")))] = Path(),
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_demo

    with Progress(timed=True) as listener:
        result = api.demo(folder, listener=listener)
    print_demo(result)
