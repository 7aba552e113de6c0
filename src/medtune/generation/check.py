"""What generators ask of requests, and of an adapter, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medtune.errors import GenerationError, MedtuneError
from medtune.imaging.read import read_size
from medtune.language import msg
from medtune.types import IMAGE_MARK, Request, StoredPicture

if TYPE_CHECKING:
    from medtune.models.encoder import Encoder

__all__ = ["check_adapter", "check_requests", "checked_length", "named_error"]


def check_requests(requests: Sequence[Request]) -> None:
    """The form of requests.

    Raises:
        GenerationError: A conversation does not end with a question, or its marks and pictures differ in number.
        ValueError: Two requests have one id: their answers could not be told apart.
    """
    known: set[str] = set()
    for request in requests:
        if request.id in known:
            raise ValueError(f"request ids must be unique; repeated: {request.id}")
        known.add(request.id)
        if not request.messages or request.messages[-1].role != "user":
            raise GenerationError(msg("A conversation to go on with must end with a question."), sample=request.id)
        num_marks = sum(message.content.count(IMAGE_MARK) for message in request.messages)
        if num_marks != len(request.images):
            raise GenerationError(
                msg(
                    "The messages have {marks} <image> marks for {pictures} pictures.",
                    marks=num_marks,
                    pictures=len(request.images),
                ),
                sample=request.id,
                remedy=msg("Put one <image> into the user's text for each picture, in their order."),
            )


def checked_length(request: Request, encoder: Encoder, context: int | None) -> int:
    """Prompt tokens, from the headers of the pictures alone.

    Args:
        context: Tokens of prompt and answer together that the model can hold; None = not known.

    Raises:
        GenerationError: A picture is missing or is none, or the request is longer than allowed.
    """
    try:
        sizes = [read_size(image) if isinstance(image, StoredPicture) else image.size for image in request.images]
        num_tokens = encoder.count_tokens(request.messages, sizes)
    except MedtuneError as error:
        raise named_error(error, request.id) from error
    remedy = msg(
        "Start a new conversation (/clear in the chat), ask less at once, or lower model.max_pixels "
        "or generation.sampling.max_new_tokens."
    )
    if encoder.max_tokens is not None and num_tokens > encoder.max_tokens:
        what = msg("The prompt has {tokens} tokens; model.max_tokens allows {limit}.", tokens=num_tokens, limit=encoder.max_tokens)
        raise GenerationError(what, sample=request.id, remedy=remedy)
    if context is not None and num_tokens + request.sampling.max_new_tokens > context:
        what = msg(
            "The prompt has {tokens} tokens; with up to {new} of the answer it exceeds the model's context of {context}.",
            tokens=num_tokens,
            new=request.sampling.max_new_tokens,
            context=context,
        )
        raise GenerationError(what, sample=request.id, remedy=remedy)
    return num_tokens


def named_error(error: MedtuneError, name: str) -> GenerationError:
    """The same fault, with the request it belongs to."""
    return GenerationError(error.what, file=error.file, sample=name, key=error.key, remedy=error.remedy)


def check_adapter(config: Any, *, use_adapter: bool) -> None:
    """Refuse what would be answered by another model than the one that is asked for.

    Args:
        config: Of the active adapter, PEFT's.
        use_adapter: False = the base model is asked.

    Raises:
        GenerationError: The adapter acts in PEFT's own ``forward`` or ``generate``, which are not called: virtual tokens before the
            prompt, and LoRA that begins at an invocation in it (Greenewald et al. 2025, arXiv:2504.12397). Or the base model is
            asked and is no more what it was: its biases are trained, or a part of its weights has been moved into the adapter
            (PEFT's ``LoraConfig``, ``bias`` and ``init_lora_weights``).
    """
    if use_adapter and (config.is_prompt_learning or getattr(config, "alora_invocation_tokens", None)):
        raise GenerationError(
            msg("This adapter acts outside of the model's modules, where generation would not see it."),
            key="adapter",
            remedy=msg("Use LoRA, or another kind of adapter that PEFT puts into the model's modules."),
        )
    begun = str(getattr(config, "init_lora_weights", True)).lower()
    moved = begun.startswith(("pissa", "olora", "corda", "lora_ga", "loftq"))
    if not use_adapter and (moved or getattr(config, "bias", "none") != "none"):
        raise GenerationError(
            msg("This adapter has changed weights of the model itself, so the base model cannot be asked beside it."),
            key="adapter",
            remedy=msg("Load the base model without the adapter."),
        )
