"""The recipe sections ``model`` and ``adapter``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from medtune.language import msg
from medtune.types import Settings

Hub = Literal["auto", "local", "huggingface", "modelscope"]
Scope = Literal["language", "vision", "projector", "experts"]
ResizeBackend = Literal["pil", "torchvision"]
SCOPES: tuple[Scope, ...] = ("language", "vision", "projector", "experts")
HELD = frozenset({"rank", "alpha", "dropout", "rslora", "dora", "targets", "exclude", "extra", "train_router"})
"""Settings of a LoRA adapter that the earlier one decides under ``init_from``."""


class ModelSettings(Settings):
    """Which base model, and how it sees text and pictures."""

    base: Annotated[str, Field(min_length=1)]
    """A folder, a Hugging Face id, a ModelScope id, or ``medtune-nano`` for the small model that ships with medtune."""
    revision: str | None = None
    """Branch, tag or commit on the hub. Quote it when it is all digits."""
    hub: Hub = "auto"
    """Where ``base`` is looked up. ``auto``: the folder when there is one, else Hugging Face."""
    family: str | None = None
    """The model family; found from the model's own config when not given."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the base weights. ``auto``: as they are stored on an accelerator, float32 on the CPU."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention implementation; ``auto`` leaves the choice to transformers."""
    min_pixels: Annotated[int, Field(gt=0)] | None = None
    """Pictures with fewer pixels are enlarged. Not given: the adapter's value, else the model's own."""
    max_pixels: Annotated[int, Field(gt=0)] | None = None
    """Pictures with more pixels are shrunk; never exceeded by rounding. Not given: the adapter's value, else the model's own."""
    resize_backend: ResizeBackend | None = None
    """Who resizes pictures. They do not round alike. Not given: the adapter's, else ``pil``, which is the same on every machine."""
    system_prompt: str | None = None
    """Put before conversations that bring no system message of their own. Not given: the adapter's, else the chat template's."""
    supervise: Literal["all", "last"] = "all"
    """Which assistant turns of a conversation carry loss."""
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """A row with more tokens (text and picture together) is refused, never cut. Not given: the model's context."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless written here."""

    @model_validator(mode="after")
    def _limits_in_order(self) -> ModelSettings:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(
                msg("min_pixels ({low}) is larger than max_pixels ({high}).", low=self.min_pixels, high=self.max_pixels)
            )
        return self


class LoraSettings(Settings):
    """Low-rank adapters beside frozen weights (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    """Tag of this choice."""
    rank: Annotated[int, Field(gt=0)] = 8
    """Inner dimension r of each adapter."""
    alpha: Annotated[int, Field(gt=0)] | None = None
    """The update is scaled by alpha / rank (alpha / sqrt(rank) with ``rslora``). Not given: twice the rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of the adapter's input, while training. Must be 0 with ``experts``."""
    rslora: bool = False
    """Scale by 1 / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)."""
    dora: bool = False
    """Train magnitude and direction apart (Liu et al. 2024, arXiv:2402.09353). Not with ``experts``."""
    targets: Annotated[tuple[Scope, ...], Field(min_length=1)] = ("language",)
    """Parts of the model whose linear layers get an adapter. ``experts``: the fused weights of a mixture of experts."""
    exclude: tuple[str, ...] = ()
    """Regular expressions; a module of ``targets`` whose full name contains a match gets no adapter."""
    extra: tuple[str, ...] = ()
    """Regular expressions; linear modules outside ``targets`` whose full name contains a match get one."""
    train_router: bool = False
    """Adapt what chooses among the experts of a mixture too (the weight of each router, by LoRA of the same rank). Not with
    dropout or DoRA. ``train.router_aux_loss`` keeps the experts evenly used."""
    init_from: Path | None = None
    """An earlier adapter folder to continue from. Its rank, alpha, dropout, variant and modules hold: what is set beside it
    must agree with them."""

    @model_serializer(mode="wrap")
    def _leave_open(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Written out, a default that nobody set would contradict the earlier adapter when the recipe is read again.
        written: dict[str, Any] = write(self)
        if self.init_from is None:
            return written
        return {name: value for name, value in written.items() if name not in HELD or name in self.model_fields_set}

    @field_validator("exclude", "extra")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    msg("{pattern!r} is not a regular expression: {error}", pattern=pattern, error=str(error))
                ) from error
        return patterns


class QloraSettings(LoraSettings):
    """LoRA beside 4-bit base weights (Dettmers et al. 2023, arXiv:2305.14314). Needs bitsandbytes.

    Packed are the linear layers of the language model and the fused weights of experts. Embeddings, output layer, routers and
    vision tower stay as they are stored."""

    kind: Literal["qlora"] = "qlora"  # type: ignore[assignment]
    """Tag of this choice."""
    quantization: Literal["nf4", "fp4"] = "nf4"
    """Number format of the base weights."""
    double_quantization: bool = True
    """Quantize the quantization constants too."""


class FullSettings(Settings):
    """Train the weights themselves."""

    kind: Literal["full"] = "full"
    """Tag of this choice."""
    freeze: tuple[Scope, ...] = ("vision", "projector")
    """Parts of the model that stay as they are."""


AdapterSettings = Annotated[LoraSettings | QloraSettings | FullSettings, Field(discriminator="kind")]
