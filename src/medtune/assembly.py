"""How the rooms' pieces are put together for one recipe: the data set, the training, the generators, who answers in a chat.

The verbs of :mod:`medtune.api` call these; a room never sees a recipe, only its own section or plain arguments.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import JsonValue

from medtune.errors import DataError, GenerationError, MedtuneError, PluginError, RecipeError, RunError
from medtune.language import msg
from medtune.models.config import QloraSettings
from medtune.plugins import Kind, resolve, resolve_stored
from medtune.recipe import Recipe, dataset_folder, diff_settings, dump_recipe, find_recipe, load_recipe, make_recipe, run_folder
from medtune.runs import Run, find_run, is_run, list_runs, now
from medtune.training.config import FREE_ON_RESUME
from medtune.types import Event, Generator, Listener, RunRecord, ValidationReport

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset
    from medtune.data.fix import Faults
    from medtune.evaluation.evaluate import Model
    from medtune.models.encoder import Encoder

__all__ = [
    "chat_source",
    "check_metrics",
    "check_startable",
    "discard_unstarted",
    "generators",
    "load",
    "make_dataset",
    "may_leave",
    "other_generator",
    "provenance",
    "refuse_errors",
    "resumable",
    "say",
    "show_findings",
    "tell_of_boxes",
    "train",
    "trained",
    "tune",
    "weights_hash",
]


def say(listener: Listener | None, event: Event) -> None:
    """Tell the listener, when there is one."""
    if listener is not None:
        listener(event)


# ------------------------------------------------------------------------------------------------------------------- data


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


# --------------------------------------------------------------------------------------------------------------- training

_FREE_ON_RESUME = (
    "name",
    "title",
    "data.folder",
    "data.num_workers",
    "data.faulty_records",
    *(f"train.{name}" for name in sorted(FREE_ON_RESUME)),
)
"""Settings that may differ when a run is resumed: they change no weight."""


def train(recipe: Recipe, folder: Path, *, resume: bool = False, listener: Listener | None = None) -> Run:
    """Tune the model of a recipe in the run folder ``folder``; the data set is made first when it is missing.

    A run that fails before its first step leaves no folder behind.

    Raises:
        MedtuneError: As :func:`medtune.api.train`.
    """
    from medtune.training.launch import follow
    from medtune.training.locality import locked_by, refuse_sending
    from medtune.training.outer import follows

    if follows():
        return follow(folder)
    run = resumable(folder, recipe) if resume else None
    if run is None and folder.exists():
        raise RunError(
            msg("The run folder exists already."),
            file=folder,
            remedy=msg("Choose another name with run.name=..., continue it with --resume, or delete the folder."),
        )
    check_startable(recipe)
    dataset = make_dataset(recipe, listener)
    refuse_sending(recipe.train, locked_by(dataset, recipe.adapter))
    refuse_errors(dataset, recipe, listener)
    record = RunRecord(
        name=folder.name,
        status="created",
        created=now(),
        updated=now(),
        recipe=recipe.name,
        base_model=recipe.model.base,
        base_revision=recipe.model.revision,
        dataset=dataset.manifest.name,
        dataset_hash=dataset.manifest.hash,
        seed=recipe.train.seed,
    )
    begun = run or Run.create(folder, recipe_text=dump_recipe(recipe), record=record)
    try:
        tune(begun, recipe, dataset, resume=resume, listener=listener)
    except MedtuneError:
        if run is None:
            discard_unstarted(begun)
        raise
    return begun


def resumable(folder: Path, recipe: Recipe) -> Run:
    """The run to be resumed, if it began with the settings of ``recipe``.

    Raises:
        RunError: There is no run in ``folder``.
        RecipeError: It began with other settings; each is named.
    """
    run = Run.open(folder)
    changed = [
        (entry.key, msg("The run began with {first}, now it is {second}.", first=str(entry.first), second=str(entry.second)))
        for entry in diff_settings(load_recipe(run.recipe_path), recipe)
        if entry.key not in _FREE_ON_RESUME and not entry.key.startswith(("run.", "generation.", "evaluation."))
    ]
    if changed:
        raise RecipeError(
            msg("A resumed run keeps the settings that it began with."),
            faults=changed,
            file=run.recipe_path,
            remedy=msg("Resume with `medtune train {folder} --resume`, or start another run with run.name=...", folder=folder),
        )
    return run


def check_startable(recipe: Recipe, *, in_this_process: bool = True) -> None:
    """Look for the model, and at what this machine may refuse, before an hour goes into preparing data.

    Args:
        in_this_process: The training will be here. Else its worker asks for the device: looking makes a process hold a GPU.

    Raises:
        ModelError: There is no such model.
        RecipeError: ``train.hf`` holds an unknown name.
        TrainingError: There is no device for the precision.
    """
    from medtune.models.hub import base_folder
    from medtune.training.arguments import check_hf, use_bf16
    from medtune.training.trackers import check_trackers

    is_folder = Path(recipe.model.base).expanduser().is_dir()
    base_folder(recipe.model, weights=is_folder)  # from a hub, only the small files
    check_hf(recipe.train)
    check_trackers(recipe.train)
    if in_this_process and recipe.distributed.kind == "none":
        use_bf16(recipe.train)


def discard_unstarted(run: Run) -> None:
    """Take a run folder away in which no step was made, unless it says more of the failure than the error does."""
    stepped = any(event["kind"] == "log" for event in run.events())
    if not stepped and not (run.folder / "worker.log").exists():
        shutil.rmtree(run.folder)


def tune(run: Run, recipe: Recipe, dataset: Dataset, *, resume: bool, listener: Listener | None) -> None:
    """Train on one device or many, as the recipe says; see :func:`medtune.training.launch.launch`."""
    from medtune.training.job import TrainJob
    from medtune.training.launch import launch

    say(listener, Event("phase", msg("Loading {model}", model=recipe.model.base)))
    job = TrainJob(
        dataset=dataset.folder,
        model=recipe.model,
        adapter=recipe.adapter,
        train=recipe.train,
        distributed=recipe.distributed,
        # A data set writes boxes in thousandths of the picture, whatever the base model was taught.
        box_convention="relative-1000" if "detection" in dataset.manifest.tasks else None,
        resume=resume,
    )
    launch(run, job, listener=listener)


def trained(run: Run) -> Path:
    """The adapter of a run, or the tuned model of a full fine-tune.

    Raises:
        RunError: The run has not been trained to its end.
    """
    if run.adapter is None:
        raise RunError(
            msg("This run has not been trained: it has no adapter."),
            file=run.folder,
            remedy=msg("Go on with `medtune train {folder} --resume`.", folder=run.folder),
        )
    return run.adapter


def check_metrics(recipe: Recipe) -> None:
    """Look for the metrics that the recipe names before the questions are asked.

    Raises:
        PluginError: There is no such metric.
    """
    for name in recipe.evaluation.metrics or ():
        try:
            resolve("metric", name)
        except PluginError as error:
            error.key = "evaluation.metrics"
            raise


def provenance(run: Run, overrides: Sequence[str], *, overwrite: bool) -> dict[str, JsonValue]:
    """What a report says about where its numbers come from: the command, and what the tuned model was made with."""
    record = run.record
    # A folder given in full may name a person; the run's name says enough for a report that is handed on.
    place = run.folder.name if run.folder.is_absolute() else str(run.folder)
    words = ["medtune", "evaluate", place, *overrides, *(["--overwrite"] if overwrite else [])]
    base = record.base_model if record.base_revision is None else f"{record.base_model} ({record.base_revision})"
    return {"command": shlex.join(words), "base_model": base, "trained_with": dict(record.versions)}


def identities(recipe: Recipe, tuned: Path) -> dict[str, str]:
    """What names the weights behind each label of :func:`generators`, so that answers of two models are never mixed."""
    generator = recipe.generation.generator
    if generator.kind == "hf":
        return {"tuned": weights_hash(tuned)}
    if generator.kind == "vllm":  # its kernels round otherwise, so its answers do not stand beside those of hf
        return {"base": "vllm", "tuned": f"vllm: {weights_hash(tuned)}"}
    return {"tuned": f"openai: {generator.model}" if generator.kind == "openai" else generator.kind}


def check_transforms(dataset: Dataset, tuned: Path, listener: Listener | None = None) -> None:
    """Pictures that a model is asked about must have gone through what its training pictures went through.

    Raises:
        ModelError: The data set was prepared with other transforms, or shows measured values in other colours.
    """
    from medtune.imaging.display import compare_displays
    from medtune.models.contract import check_contract, read_contract

    contract, manifest = read_contract(tuned), dataset.manifest
    now = contract.model_copy(update={"transforms": manifest.transforms, "displays": manifest.displays})
    check_contract(contract, now, tuned)
    if compare_displays(contract.displays, manifest.displays) == "greys":
        shown = {"trained": ", ".join(contract.displays), "asked": ", ".join(manifest.displays)}
        say(
            listener,
            Event("note", msg("The model was trained on pictures shown as {trained}; these are shown as {asked}.", **shown)),
        )


def tell_of_boxes(dataset: Dataset, tuned: Path, listener: Listener | None) -> None:
    """Say when the base model was taught to write boxes in another unit than the questions ask for."""
    from medtune.models.contract import read_contract

    family = resolve_stored("family", read_contract(tuned).family)
    if "detection" in dataset.manifest.tasks and family.box_convention == "pixels":
        what = msg(
            "{family} was taught boxes in pixels of the resized picture, and is asked for 0 to 1000: low box scores of the base "
            "model may be its unit, not its eyes.",
            family=family.name,
        )
        say(listener, Event("note", what))


def load_named_code(recipe: Recipe) -> None:
    """Import what the recipe names as ``package.module:object``; see :func:`medtune.plugins.resolve_stored`.

    Raises:
        PluginError: It cannot be imported.
    """
    named: list[tuple[Kind, str | None]] = [("family", recipe.model.family)]
    for source in recipe.data.sources:
        named += [("source", source.source), ("task", source.task)]
    named += [("task", task) for task in recipe.data.task_options]
    named += [("transform", transform.transform) for transform in recipe.data.transforms]
    named += [("metric", metric) for metric in recipe.evaluation.metrics or ()]
    for kind, name in named:
        if name is not None and ":" in name:
            resolve(kind, name)


def weights_hash(folder: Path) -> str:
    """First 16 hexadecimal digits of a sha256 over the weight files of an adapter or a model."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------------- generation


def load(recipe: Recipe, adapter: Path | None) -> tuple[Any, Encoder]:
    """(model, encoder), both under the contract of the adapter."""
    from medtune.models.encoder import load_encoder
    from medtune.models.load import load_model

    encoder = load_encoder(recipe.model, adapter=adapter)  # cheap, so its faults come first
    return load_model(recipe.model, adapter=adapter, quantization=_quantization(recipe)), encoder


def generators(
    recipe: Recipe, tuned: Path, *, local_only: bool, listener: Listener | None, logs: Path | None = None
) -> dict[str, Model]:
    """Who is asked, by label: base and tuned model, loaded when the first answer is needed.

    An adapter's base is the tuned model with the adapter off, so the weights are loaded once. A server or ``echo`` is one
    model, called tuned.

    Args:
        logs: Where processes that share the questions write what they print; None = one process answers.
    """
    settings = recipe.generation
    if settings.generator.kind == "hf":
        makers: dict[Literal["base", "tuned"], Callable[[], Generator]] = {**_hf_models(recipe, tuned, listener)}
        gpus_each = 1
    elif settings.generator.kind == "vllm":
        from medtune.generation.vllm_models import vllm_models

        makers = {**vllm_models(recipe.model, settings.generator, tuned, load=partial(load, recipe), listener=listener)}
        gpus_each = settings.generator.tensor_parallel_size
    else:
        return {"tuned": ("tuned", lambda: other_generator(recipe, local_only=local_only))}
    if logs is None:
        return {label: (label, make) for label, make in makers.items()}
    from medtune.generation.several import SeveralProcesses, Workers, places

    workers = Workers(
        places(settings.num_processes, gpus_each),
        "medtune.assembly:worker_generators",
        {"recipe": recipe.model_dump(mode="json"), "tuned": str(tuned), "local_only": local_only},
        logs=logs,
        listener=listener,
        min_share=_MIN_SHARE if settings.num_processes is None else 1,
    )

    def shared(label: Literal["base", "tuned"], make: Callable[[], Generator]) -> SeveralProcesses:
        return SeveralProcesses(workers, label, make, last=label == "tuned")

    return {label: (label, partial(shared, label, make)) for label, make in makers.items()}


_MIN_SHARE = 32
"""Questions that are worth a process of their own: starting one and loading a model takes the time of about as many."""


def worker_generators(recipe: dict[str, Any], tuned: str, *, local_only: bool, listener: Listener) -> dict[str, Model]:
    """What one of the processes of :class:`medtune.generation.several.Workers` answers with."""
    settings = Recipe.model_validate(recipe)
    load_named_code(settings)
    return generators(settings, Path(tuned), local_only=local_only, listener=listener)


def _hf_models(recipe: Recipe, tuned: Path, listener: Listener | None) -> dict[Literal["base", "tuned"], Callable[[], Generator]]:
    from medtune.generation.hf import HfGenerator
    from medtune.models.load import is_peft

    def loaded(adapter: Path | None) -> tuple[Any, Encoder]:
        say(listener, Event("phase", msg("Loading {model}", model=recipe.model.base)))
        return load(recipe, adapter)

    # A full fine-tune shares no weights with its base: neither is kept while the other is asked.
    keep = cache(loaded) if is_peft(tuned) else loaded

    def made(adapter: Path | None, *, use_adapter: bool) -> Generator:
        return HfGenerator(*keep(adapter), **hf_options(recipe), use_adapter=use_adapter, listener=listener)

    base = tuned if is_peft(tuned) else None
    return {"base": lambda: made(base, use_adapter=False), "tuned": lambda: made(tuned, use_adapter=True)}


def hf_options(recipe: Recipe) -> dict[str, Any]:
    """Arguments of ``HfGenerator`` that the recipe chooses."""
    settings = recipe.generation
    options = settings.generator.model_dump(exclude={"kind"}) if settings.generator.kind == "hf" else {}
    return {"batch_size": None if settings.batch_size == "auto" else settings.batch_size, **options}


def other_generator(recipe: Recipe, *, local_only: bool = False) -> Generator:
    """The recipe's generator where it is not a model in this process.

    Args:
        local_only: The data may not leave this machine.
    """
    settings = recipe.generation.generator
    options = settings.model_dump(exclude={"kind"})
    if settings.kind == "openai":
        options["local_only"] = local_only
    try:
        made: Generator = resolve("generator", settings.kind)(**options)
    except GenerationError as error:
        if local_only and error.file is None:
            error.file = str(dataset_folder(recipe))  # whose lock it is
        raise
    return made


def _quantization(recipe: Recipe) -> QloraSettings | None:
    return recipe.adapter if isinstance(recipe.adapter, QloraSettings) else None


# ------------------------------------------------------------------------------------------------------------------- chat


def chat_source(
    run: str | Path | Run | None, adapter: Path | None, overrides: Sequence[str], *, base_only: bool
) -> tuple[Recipe, Path | None]:
    """The recipe that says how to talk, and the adapter to talk with (None = the base model, or what a server serves).

    Raises:
        RunError: There is no such run, or it has not been trained.
    """
    if run is None and adapter is not None:
        file = adapter.parent / "recipe.yaml"
        recipe = load_recipe(file, overrides) if file.is_file() else _recipe_of_contract(adapter, overrides)
        return recipe, None if base_only else adapter
    known = isinstance(run, Run) or run is None or is_run(run) or is_run(Path("runs") / run)
    if not known and (recipe_file := _recipe_file(str(run))) is not None:
        recipe = load_recipe(recipe_file, overrides)
        if base_only or adapter is not None or not recipe.generation.generator.in_process:
            return recipe, None if base_only else adapter
        opened = Run(run_folder(recipe))
        if not is_run(opened.folder):
            raise RunError(
                msg("The recipe {name} has not been trained yet.", name=recipe.name),
                file=opened.folder,
                remedy=msg("Train it with `medtune train {recipe}`, or talk with the base model: --base-only.", recipe=str(run)),
            )
        return recipe, trained(opened)
    opened = run if isinstance(run, Run) else find_run(run) if run is not None else _latest_trained()
    recipe = load_recipe(opened.recipe_path, overrides)
    if base_only or adapter is not None:
        return recipe, None if base_only else adapter
    return recipe, trained(opened) if recipe.generation.generator.in_process else opened.adapter


def _recipe_file(name: str | Path) -> Path | None:
    try:
        return find_recipe(name)
    except RecipeError:
        return None


def may_leave(recipe: Recipe, adapter: Path | None) -> bool:
    """Whether what is said in a chat may go to another machine: not when data or adapter are ``local_only``.

    A data set that has not been prepared, or was left behind when a run moved, says nothing against it; its adapter still does.
    """
    from medtune.data.dataset import Dataset
    from medtune.models.contract import FILE_NAME, read_contract

    if recipe.data.local_only:
        return False
    if adapter is not None and (adapter / FILE_NAME).is_file() and read_contract(adapter).local_only:
        return False
    folder = dataset_folder(recipe)
    return not (folder / "manifest.json").is_file() or not Dataset.open(folder).manifest.local_only


def _latest_trained() -> Run:
    for run in list_runs():
        if run.adapter is not None:
            return run
    raise RunError(msg("There is no trained run in `runs`."), remedy=msg("Train one (`medtune demo`), or name a run folder."))


def _recipe_of_contract(adapter: Path, overrides: Sequence[str]) -> Recipe:
    """An adapter that was taken out of its run still names its base model."""
    from medtune.models.contract import read_contract

    contract = read_contract(adapter)
    settings = {
        "name": "adapter",
        "data": {"sources": [{"source": "none"}]},
        "model": {"base": contract.base_model, "revision": contract.base_revision},
    }
    return make_recipe(settings, overrides, file=adapter / "contract.json")
