"""The verb chat: who answers, and whether a second model answers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from medtune import assembly
from medtune.api.given import RunLike
from medtune.language import msg
from medtune.types import Event, Generator, Listener

if TYPE_CHECKING:
    from medtune.generation.chat import ChatSession


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
