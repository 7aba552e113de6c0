"""Who answers, as a recipe says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtune.assembly.listener import say
from medtune.errors import GenerationError
from medtune.language import msg
from medtune.models.config import QloraSettings
from medtune.plugins import Kind, resolve
from medtune.recipe import Recipe, dataset_folder
from medtune.types import Event, Generator, Listener

if TYPE_CHECKING:
    from medtune.evaluation.asking import Model
    from medtune.models.encoder import Encoder


def load(recipe: Recipe, adapter: Path | None) -> tuple[Any, Encoder]:
    """(model, encoder), both under the contract of the adapter."""
    from medtune.models.encoder import load_encoder
    from medtune.models.load import load_model

    encoder = load_encoder(recipe.model, adapter=adapter)  # cheap, so its faults come first
    return load_model(recipe.model, adapter=adapter, quantization=_quantization(recipe)), encoder


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
