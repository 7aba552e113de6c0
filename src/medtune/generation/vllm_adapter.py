"""Whether vLLM uses an adapter as transformers does: what its files say, and a prompt on which both are asked.

vLLM leaves out, without an error, what it cannot adapt: LoRA on the experts of some models, on the vision tower of others. Such
an adapter answers nearly as its base model does, and its scores are believed. So adapters on these parts are used only after both
engines have been seen to agree on what each part does, and others are looked at all the same where there is memory for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtune.errors import GenerationError, ModelError
from medtune.language import Text, msg
from medtune.types import Message, Request

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtune.generation.vllm import VllmGenerator
    from medtune.models.encoder import Encoder
    from medtune.models.family import Family

__all__ = ["AdapterFacts", "Reference", "check_adapter", "make_reference", "refuse_unchecked"]

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What ``max_lora_rank`` may be (vLLM 0.32, ``vllm.config.lora.MaxLoRARanks``)."""
_DROPPED_SILENTLY = ("vision", "projector", "experts")
_NUM_TOKENS = 16
"""Of each model's most probable first tokens: those that decide what is written."""
_NOISE_FACTOR = 3.0
"""The tuned models may differ by so many times what the base models differ by, which is rounding."""
_LEAST_NOISE = 1e-5
"""What float32 leaves of a logarithm of a probability, where two engines agree on the base model by chance to the last bit."""
_SHARE = 0.1
"""And by this part of what the adapter (or its part) changes: LoRA itself is computed in 16 bits by one and in 32 by the other."""


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter's files say.

    Attributes:
        scopes: Parts of the model that it adapts, such as ``language``, ``vision``, ``experts``.
        rank: The largest of its ranks.
    """

    folder: Path
    scopes: frozenset[str]
    rank: int

    @classmethod
    def read(cls, folder: Path, family: Family) -> AdapterFacts:
        """Read the names in an adapter folder; no weights.

        Raises:
            ModelError: vLLM has no way to use such an adapter.
        """
        from safetensors import safe_open

        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        unknown = [name for name in ("use_dora", "modules_to_save", "lora_bias") if config.get(name)]
        if unknown:
            raise ModelError(
                msg("vLLM cannot use an adapter with {feature}.", feature=unknown[0]),
                file=folder,
                key="generation.generator.kind",
                remedy=msg("Use generator kind hf."),
            )
        with safe_open(folder / "adapter_model.safetensors", framework="np") as weights:
            names = [name.removeprefix("base_model.model.") for name in weights.keys()]  # noqa: SIM118
        scopes = frozenset(scope for name in names if (scope := family.scope_of(name)) is not None)
        rank = max([int(config["r"]), *(config.get("rank_pattern") or {}).values()])
        if rank > _RANKS[-1]:
            raise ModelError(
                msg("vLLM takes adapters of rank {limit} at most; this one has {rank}.", limit=_RANKS[-1], rank=rank),
                file=folder,
                key="generation.generator.kind",
                remedy=msg("Use generator kind hf."),
            )
        return cls(folder, scopes, rank)

    @property
    def vllm_rank(self) -> int:
        """The smallest ``max_lora_rank`` that holds it."""
        return next(rank for rank in _RANKS if rank >= self.rank)

    @cached_property
    def doubtful(self) -> tuple[str, ...]:
        """Its parts that vLLM may leave out in silence."""
        return tuple(scope for scope in _DROPPED_SILENTLY if scope in self.scopes)


@dataclass(frozen=True)
class Reference:
    """What transformers says to fixed prompts. Arrays are log-probabilities, one for each of a prompt's ``ids``.

    Attributes:
        base: Of the base model.
        tuned: With the adapter.
        without: Part -> with the adapter except on that part.
    """

    requests: tuple[Request, ...]
    ids: tuple[tuple[int, ...], ...]
    base: tuple[NDArray[np.float64], ...]
    tuned: tuple[NDArray[np.float64], ...]
    without: Mapping[str, tuple[NDArray[np.float64], ...]]


def fixed_requests(encoder: Encoder) -> tuple[Request, ...]:
    """One prompt; with a drawn picture where the model reads pictures."""
    if encoder.family.pictures == "none":
        return (Request("guard", (Message(role="user", content="Which organs lie in the upper abdomen?"),)),)
    from PIL import Image

    rows, columns = np.mgrid[0:224, 0:224]
    grey = (rows + columns) / 446 * 160
    grey[(rows - 90) ** 2 + (columns - 130) ** 2 < 45**2] += 80  # a bright disc on a slope
    picture = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return (Request("guard", (Message(role="user", content="<image>What does this picture show?"),), (picture,)),)


def make_reference(model: Any, encoder: Encoder, facts: AdapterFacts) -> Reference:
    """Ask the model of transformers, a PEFT model with the adapter on."""
    requests = fixed_requests(encoder)
    base: list[NDArray[np.float64]] = []
    with model.disable_adapter():
        base += [_first_logprobs(model, encoder, request) for request in requests]
    tuned = [_first_logprobs(model, encoder, request) for request in requests]
    without = {}
    for scope in facts.doubtful:
        with _switched_off(model, encoder.family, scope):
            without[scope] = [_first_logprobs(model, encoder, request) for request in requests]
    ids = [_most_probable(*pair) for pair in zip(base, tuned, strict=True)]

    def at(found: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], ...]:
        return tuple(logprobs[list(chosen)] for logprobs, chosen in zip(found, ids, strict=True))

    return Reference(requests, tuple(ids), at(base), at(tuned), {scope: at(found) for scope, found in without.items()})


def check_adapter(facts: AdapterFacts, reference: Reference, base: VllmGenerator, tuned: VllmGenerator) -> Text | None:
    """Compare vLLM's answers to the fixed prompts with the reference.

    Root mean squares over the tokens looked at: what the two engines differ by on the base model is rounding. The tuned models may
    differ by three times that, or by a tenth of what the adapter changes, whichever is more. Had a part been left out, they would
    differ by about what that part changes: so each part that vLLM may leave out must change at least twice what they differ by, and
    six times the rounding.

    Returns:
        A sentence of doubt where the adapter changes too little on these prompts to tell; None where it acts as it should.

    Raises:
        GenerationError: vLLM does not use the adapter as transformers does, or a part that vLLM may leave out changes too little
            to tell.
    """
    served_base = [base.first_logprobs(*pair) for pair in zip(reference.requests, reference.ids, strict=True)]
    served_tuned = [tuned.first_logprobs(*pair) for pair in zip(reference.requests, reference.ids, strict=True)]
    noise = max(_distance(served_base, reference.base), _LEAST_NOISE)
    off = _distance(served_tuned, reference.tuned)
    shift = _distance(reference.tuned, reference.base)
    numbers = {"off": f"{off:.2g}", "shift": f"{shift:.2g}", "noise": f"{noise:.2g}"}
    if off > max(_NOISE_FACTOR * noise, _SHARE * shift):
        raise _refused(
            facts,
            msg(
                "vLLM does not use this adapter as transformers does: on a fixed prompt the log-probabilities of the first word"
                " are {off} apart, where the adapter changes them by {shift} and rounding by {noise}.",
                **numbers,
            ),
        )
    least = max(2 * _NOISE_FACTOR * noise, 2 * off)
    for scope, others in reference.without.items():
        if _distance(reference.tuned, others) < least:
            raise _refused(
                facts,
                msg(
                    "vLLM may leave out this adapter's part on {scope} without a word, and what that part changes on a fixed"
                    " prompt is too little to tell.",
                    scope=scope,
                ),
            )
    if shift < least:
        return msg(
            "Whether vLLM uses the adapter could not be told: on a fixed prompt it changes the log-probabilities of the first"
            " word by {shift}, and rounding by {noise}.",
            **numbers,
        )
    return None


def refuse_unchecked(facts: AdapterFacts) -> None:
    """Where no reference can be made.

    Raises:
        GenerationError: The adapter is on parts that vLLM may leave out.
    """
    if facts.doubtful:
        raise _refused(
            facts,
            msg(
                "vLLM may leave out this adapter's part on {scope} without a word, and it was not compared with transformers.",
                scope=facts.doubtful[0],
            ),
        )


def _refused(facts: AdapterFacts, what: Text) -> GenerationError:
    return GenerationError(
        what,
        file=facts.folder,
        key="generation.generator.kind",
        remedy=msg("Use generator kind hf."),
    )


def _distance(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Root mean square over all tokens of all prompts."""
    return float(np.sqrt(np.mean(np.square(np.concatenate(list(first)) - np.concatenate(list(second))))))


def _most_probable(*found: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(sorted({int(token) for logprobs in found for token in np.argsort(-logprobs, kind="stable")[:_NUM_TOKENS]}))


def _first_logprobs(model: Any, encoder: Encoder, request: Request) -> NDArray[np.float64]:
    """(vocabulary,)"""
    import torch

    features = encoder.encode(request.messages, request.images, sample_id=request.id)  # type: ignore[arg-type]
    inner = model.get_base_model()
    inputs = {
        name: tensor.to(inner.device, inner.dtype if tensor.is_floating_point() else None)
        for name, tensor in encoder.collate([features], padding="left").inputs.items()
        if name != "labels"
    }
    with torch.inference_mode():
        scores = inner(**inputs, use_cache=False).logits[0, -1]
    found: NDArray[np.float64] = scores.float().log_softmax(-1).double().cpu().numpy()
    return found


@contextmanager
def _switched_off(model: Any, family: Family, scope: str) -> Iterator[None]:
    """The adapter without its part on ``scope``: a LoRA whose B is zero adds nothing (Hu et al. 2021, arXiv:2106.09685)."""
    import torch

    parts = [
        parameter
        for name, parameter in model.named_parameters()
        if ".lora_B." in name and family.scope_of(name.removeprefix("base_model.model.").replace(".base_layer", "")) == scope
    ]
    kept = [parameter.detach().clone() for parameter in parts]
    try:
        with torch.no_grad():
            for parameter in parts:
                parameter.zero_()
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parts, kept, strict=True):
                parameter.copy_(value)
