"""Base and tuned model of a run under vLLM, and the look at whether vLLM uses the adapter."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtune.errors import ModelError
from medtune.generation.config import VllmSettings
from medtune.generation.vllm import Engine, VllmGenerator
from medtune.generation.vllm_adapter import AdapterFacts, Reference, check_adapter, make_reference, refuse_unchecked
from medtune.language import msg
from medtune.models.config import ModelSettings
from medtune.types import Event, Listener

if TYPE_CHECKING:
    from medtune.models.encoder import Encoder

__all__ = ["vllm_models"]

Loader = Callable[[Path | None], tuple[Any, "Encoder"]]
"""(model, encoder) of transformers with an adapter."""


def vllm_models(
    model: ModelSettings, settings: VllmSettings, tuned: Path | None, *, load: Loader, listener: Listener | None = None
) -> dict[Literal["base", "tuned"], Callable[[], VllmGenerator]]:
    """Makers of both generators. They share one engine, with the adapter as a matter of the request; a full fine-tune shares no
    weights with its base, and each has an engine of its own, which ends with its generator.

    Args:
        tuned: Adapter, or folder of a full fine-tune; None = there is no tuned model to ask.
        load: For the comparison with transformers, before the engine takes the memory.

    Raises:
        GenerationError: (when called) vLLM does not use the adapter as transformers does.
        ModelError: (when called) vLLM cannot load the model, or has no way to use such an adapter.
    """
    from medtune.models.encoder import load_encoder
    from medtune.models.hub import base_folder
    from medtune.models.load import is_peft

    def tell(event: Event) -> None:
        if listener is not None:
            listener(event)

    encoder = cache(lambda: load_encoder(model, adapter=tuned))
    dtype = settings.dtype or model.dtype

    def alone(folder: Path) -> VllmGenerator:
        tell(Event("phase", msg("Loading {model} with vLLM", model=str(folder))))
        return VllmGenerator(Engine(folder, encoder(), settings, dtype=dtype), encoder(), owns_engine=True)

    @cache
    def shared(tuned: Path) -> Engine:
        facts = AdapterFacts.read(tuned, encoder().family)
        reference = _reference(facts, load, tell) if settings.check_adapter else None
        if reference is None:
            refuse_unchecked(facts)
        tell(Event("phase", msg("Loading {model} with vLLM", model=model.base)))
        engine = Engine(base_folder(model), encoder(), settings, dtype=dtype, adapter=facts)
        if reference is not None:
            pair = VllmGenerator(engine, encoder()), VllmGenerator(engine, encoder(), adapter=tuned)
            doubt = check_adapter(facts, reference, *pair)
            if doubt is not None:
                tell(Event("note", doubt))
        return engine

    if tuned is None:
        return {"base": lambda: alone(base_folder(model))}
    if not is_peft(tuned):
        return {"base": lambda: alone(base_folder(model)), "tuned": lambda: alone(tuned)}
    return {
        "base": lambda: VllmGenerator(shared(tuned), encoder()),
        "tuned": lambda: VllmGenerator(shared(tuned), encoder(), adapter=tuned),
    }


def _reference(facts: AdapterFacts, load: Loader, tell: Listener) -> Reference | None:
    import torch

    tell(Event("phase", msg("Asking transformers for a comparison with vLLM")))
    try:
        model, encoder = load(facts.folder)
        try:
            return make_reference(model, encoder, facts)
        finally:
            del model
    except (torch.OutOfMemoryError, ModelError) as error:
        reason = str(error).splitlines()[0]
        tell(
            Event(
                "note",
                msg(
                    "Whether vLLM uses the adapter could not be checked: transformers cannot load the model ({reason}).",
                    reason=reason,
                ),
            )
        )
        return None
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
