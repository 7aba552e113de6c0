"""What is asked of a generator, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, JsonValue

from medtune.types.base import Document, Settings
from medtune.types.data import Message, StoredPicture

if TYPE_CHECKING:
    from PIL.Image import Image


class Sampling(Settings):
    """How text is drawn. The default, temperature 0, is greedy and deterministic."""

    max_new_tokens: Annotated[int, Field(gt=0)] = 256
    """Tokens after which a generation is cut (finish reason ``length``)."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """0 = greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus: the smallest set of tokens with this probability mass. Only with temperature > 0."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Only the k most probable tokens; 0 = all. Only with temperature > 0."""
    repetition_penalty: Annotated[float, Field(gt=0.0)] = 1.0
    """1 = none (Keskar et al. 2019, arXiv:1909.05858)."""
    seed: int = 0
    """Of the draw; the same seed and request give the same text on the same device and versions."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to generate: a conversation that ends with a user turn, and its pictures in the order of the marks.

    A picture that is stored is opened when its turn comes, so that a hundred thousand requests are no hundred thousand pictures in
    memory.

    ``score_tokens`` are words whose probability of being the answer's first token is wanted, such as ``("yes", "no")``; see
    :attr:`Generation.first_token_logprobs`. They change no text.
    """

    id: str
    messages: tuple[Message, ...]
    images: tuple[StoredPicture | Image, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    score_tokens: tuple[str, ...] = ()


FinishReason = Literal["stop", "length", "error"]


class Generation(Document):
    """Raw text that a model wrote. ``text`` has no special tokens and no end token; it is never edited afterwards."""

    id: str
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int | None = None
    num_generated_tokens: int | None = None
    seconds: float | None = None
    """Wall time. ``hf`` and ``vllm``: of the rows that were decoded together, divided by their number, so that the sum is the time
    of the whole; ``openai``: of this one request, pauses and retries included."""
    error: str | None = None
    """Why there is no text, where ``finish_reason`` is ``error``."""
    first_token_logprobs: dict[str, float] | None = None
    """For each of the request's ``score_tokens`` the natural logarithm of the model's probability that the answer begins with it
    as its first token, whatever the sampling makes of it afterwards (temperature, top-k, penalties). A word that is no single
    token of the model is absent; so is one that a server does not tell (it names the 20 most probable at most). None: nothing was
    asked for, or the generator cannot tell."""


class Prediction(Document):
    """A generation that a task has read. One line of ``predictions.jsonl``.

    ``answer`` is the task's parsed form, None when the text could not be read (``error`` says why).
    ``image_sha256`` are the pictures really shown, which differ from the sample's under a control.
    """

    sample_id: str
    generation: Generation
    answer: JsonValue = None
    error: str | None = None
    image_sha256: tuple[str, ...] = ()
