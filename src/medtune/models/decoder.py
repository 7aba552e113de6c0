"""The decoder of the Qwen families for generation: its own modules and weights, with keys and values in fixed slots.

transformers' forward passes grow a cache by a token each step, and launch some sixty kernels a layer for it. Here the cache is
as large from the start as it will be, so that a step has the same shapes every time and a CUDA graph can repeat it; and what
lies between the matrix products is few operations (:mod:`medtune.models.step_operations`), on a GPU few kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medtune.models.compiler import missing_for_compiling
from medtune.models.packed_forward import causal_model
from medtune.models.packing import attend_rows, can_pack
from medtune.models.projections import Projections
from medtune.models.step_operations import StepOperations, TorchOperations

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Decoder", "SlotCache", "can_decode"]

_ROPE_TYPES = ("default", "mrope", "linear", "yarn", "llama3")
"""Rotary positions whose frequencies do not depend on how long the text has become."""


def can_decode(model: nn.Module) -> bool:
    """Whether :class:`Decoder` can take ``model``, with or without an adapter: a Qwen model on one device, CUDA or CPU, whose
    attention is torch's or FlashAttention's, and whose blocks are its own: an adapter that stands in a whole block's place would
    not be called, since the decoder calls what is in the block."""
    causal = causal_model(model)
    if not can_pack(causal) or getattr(causal, "lm_head", None) is None or any(map(_adapts, _opened(causal))):
        return False
    devices = {parameter.device for parameter in causal.parameters()}
    if len(devices) != 1 or devices.pop().type not in ("cuda", "cpu"):
        return False
    rope = getattr(causal.config.get_text_config(), "rope_parameters", None) or {}
    return rope.get("rope_type", "default") in _ROPE_TYPES


@dataclass(frozen=True, slots=True)
class SlotCache:
    """Keys and values of every layer: (rows, key heads, slots, head_dim) each, allocated once.

    A row's token with number t sits in slot t. What lies behind a row's last token is anything.
    """

    keys: list[Tensor]
    values: list[Tensor]

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Copy whole rows ``sources`` (n,) to the places ``targets`` (n,), of which none is a source."""
        for states in (*self.keys, *self.values):
            states[targets] = states[sources]


class Decoder:
    """Prefill and decoding steps. Made anew for each call of a generator, because it keeps casts of the adapter's weights
    and copies of others.

    Args:
        model: A model that :func:`can_decode`; in eval mode while this is used.
        use_adapter: False leaves adapters of the language model's linear layers out. What else they are in is the caller's to
            switch.

    Attributes:
        calls_adapters: They are in something else, or are called by this: in experts, the vision tower, embeddings or the head,
            of a kind other than LoRA, beside weights of 4 bits, or merged.
    """

    def __init__(self, model: Any, *, use_adapter: bool = True) -> None:
        causal = causal_model(model)
        config = causal.config.get_text_config()
        self._inner = causal.model
        self._text = _language_model(causal)
        self._head = causal.lm_head
        self.device: torch.device = self._text.norm.weight.device
        self.dtype: torch.dtype = self._text.norm.weight.dtype
        self.num_heads = int(config.num_attention_heads)
        self.num_key_heads = int(config.num_key_value_heads)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self.vocab_size: int = int(causal.lm_head.weight.shape[0]) if hasattr(causal.lm_head, "weight") else config.vocab_size
        self.reads_pictures = hasattr(self._inner, "visual")
        copied = _room_for_copies(self._text.layers)
        self._layers = [_Layer.of(layer, use_adapter=use_adapter, copied=copied) for layer in self._text.layers]
        self.operations: StepOperations = self._step_operations()
        own = {id(adapter) for layer in self._layers for part in layer.projections for adapter in part.adapters}
        self.calls_adapters = any(_adapts(module) and id(module) not in own for module in causal.modules())

    @property
    def bytes_per_slot(self) -> int:
        """Of one token's keys and values in all layers."""
        return 2 * len(self._layers) * self.num_key_heads * self.head_dim * self.dtype.itemsize

    @property
    def bytes_per_prompt_token(self) -> int:
        """Activations of a token while a prompt is read, at most: the residual stream with what a layer adds to it (8 numbers of
        the hidden size), queries, keys and values twice, the two halves of a gated MLP and their product; and the vision tower's,
        which are of the same order for the patches of one token."""
        config = self._text.config
        wide = int(getattr(config, "moe_intermediate_size", 0)) * int(getattr(config, "num_experts_per_tok", 0))
        heads = (self.num_heads + 2 * self.num_key_heads) * self.head_dim
        numbers = 8 * int(config.hidden_size) + 2 * heads + 3 * max(wide, int(config.intermediate_size))
        return 2 * numbers * self.dtype.itemsize

    def cache(self, rows: int, slots: int) -> SlotCache:
        """Empty; zeros, because a value that is not a number would survive its weight of zero."""
        shape = (rows, self.num_key_heads, slots, self.head_dim)
        keys, values = (
            [torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in self._layers] for _ in ("keys", "values")
        )
        return SlotCache(keys, values)

    def prefill(
        self,
        cache: SlotCache,
        *,
        input_ids: Tensor,
        position_ids: Tensor,
        borders: Tensor,
        longest: int,
        rows: Tensor,
        slots: Tensor,
        features: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Read whole prompts that lie one behind the other, and keep their keys and values.

        Args:
            cache: Written at ``rows`` and ``slots``.
            input_ids: (1, T).
            position_ids: (1, T), or (3, 1, T) where the model reads pictures.
            borders: (prompts + 1,) int32, where each prompt begins, and T.
            longest: Tokens of the longest prompt.
            rows: (T,) the cache row of each token; likewise ``slots``.
            features: (N, 1 + levels, hidden) of the pictures' tokens, see
                :func:`medtune.models.packed_forward.picture_features`.
            places: (N,) where those stand.

        Returns:
            (prompts, vocabulary) float32: the scores of the first token of each answer.
        """

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attend_rows(query, key, value, borders, longest, scaling=self._layers[layer].scaling, causal=True)

        hidden: Tensor = self._text.embed_tokens(input_ids)
        levels: list[Tensor] = []
        if features is not None and places is not None and places.numel():
            features = features.to(hidden.dtype)
            hidden = hidden.index_copy(1, places, features[None, :, 0])
            levels = list(features[:, 1:].unbind(1))
        hidden = self._pass(hidden, position_ids, attend, cache, rows, slots, levels, places)
        return self._scores(hidden[0, borders[1:].long() - 1])

    def step(self, cache: SlotCache, tokens: Tensor, slots: Tensor, positions: Tensor, num_slots: int) -> Tensor:
        """Read one token of each row.

        Args:
            cache: Written at ``slots``; its first B rows are used.
            tokens: (B,), the last ones of the texts.
            slots: (B,), how many tokens of its row come before each.
            positions: (B,), their places as the rotary embedding counts them.
            num_slots: More than any of ``slots``; only so many are looked at.

        Returns:
            (B, vocabulary) float32: the scores of the tokens that follow.
        """
        count = len(tokens)
        each = torch.arange(count, device=self.device)
        seen = self.operations.seen(slots, num_slots, self.dtype)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ARG001
            return self.operations.attend(query, cache.keys[layer], cache.values[layer], seen, self._layers[layer].scaling)

        hidden = self._text.embed_tokens(tokens[:, None])
        position_ids = positions[:, None]
        if self.reads_pictures:
            position_ids = position_ids.expand(3, count, 1)
        return self._scores(self._pass(hidden, position_ids, attend, cache, each, slots)[:, 0])

    def _pass(
        self,
        hidden: Tensor,
        position_ids: Tensor,
        attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
        cache: SlotCache,
        rows: Tensor,
        slots: Tensor,
        levels: Sequence[Tensor] = (),
        places: Tensor | None = None,
    ) -> Tensor:
        """The layers and the last norm: (B, T, hidden) -> the same. ``attend`` sees its tokens one behind the other."""
        operations = self.operations
        cos, sin = (part.reshape(-1, self.head_dim).contiguous() for part in self._text.rotary_emb(hidden, position_ids))
        added: Tensor | None = None
        for number, layer in enumerate(self._layers):
            hidden, normed = operations.add_norm(hidden, added, layer.attention_norm)
            query, key, value = (part.view(len(cos), -1, self.head_dim) for part in operations.product(layer.qkv, normed))
            keys, values = cache.keys[number], cache.values[number]
            query, key = operations.rotate_and_keep(query, key, value, layer.head_norms, cos, sin, keys, values, rows, slots)
            attended = attend(number, query, key, value).view(*hidden.shape[:2], -1)
            (added,) = operations.product(layer.output, attended, apart=True)
            hidden, normed = operations.add_norm(hidden, added, layer.mlp_norm)
            added = layer.mlp(normed, operations, apart=places is None)
            if places is not None and number < len(levels):
                # DeepStack (Meng et al. 2024, arXiv:2406.04334).
                added = added.index_add(1, places, levels[number][None])
        return operations.add_norm(hidden, added, self._text.norm)[1]

    def _scores(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self._head(hidden)
        return scores.float()

    def _step_operations(self) -> StepOperations:
        """Triton's kernels where they can be built and do what the model's layers do."""
        # Triton starts its kernels on the current GPU, wherever their arguments lie.
        here = self.device.type == "cuda" and self.device.index in (None, torch.cuda.current_device())
        if here and missing_for_compiling() is None:
            from medtune.models import step_kernels

            widths = {"heads": self.num_heads, "key_heads": self.num_key_heads, "head_dim": self.head_dim}
            if step_kernels.serves(self._text, head_dim=self.head_dim, dtype=self.dtype) and step_kernels.can_run(
                self.device, self.dtype, **widths
            ):
                return step_kernels.TritonOperations(self.device, self.dtype)
        return TorchOperations()


def _language_model(causal: Any) -> Any:
    return getattr(causal.model, "language_model", causal.model)


def _opened(causal: Any) -> Iterator[nn.Module]:
    """The modules that are not called as a whole."""
    text = _language_model(causal)
    yield from (causal.model, text, text.layers)
    for layer in text.layers:
        yield from (layer, layer.self_attn, layer.mlp)


_LEFT_BY_COPIES = 8
"""Copies may take one in so many of the bytes that a GPU has left: more would cost more rows than it saves time."""


def _room_for_copies(layers: Any) -> bool:
    """Whether queries, keys and values of every layer may be one product, of copied weights. Measured on an H100, the three
    apart take half as long again at 16 rows: two of them are too small to keep the card's memory busy."""
    if layers[0].self_attn.q_proj.weight.device.type != "cuda":
        return False
    names = ("q_proj", "k_proj", "v_proj")
    weights = [getattr(layer.self_attn, name).weight for layer in layers for name in names]
    free, _ = torch.cuda.mem_get_info(weights[0].device)
    free += torch.cuda.memory_reserved(weights[0].device) - torch.cuda.memory_allocated(weights[0].device)
    copies: int = sum(weight.numel() * weight.element_size() for weight in weights)
    return _LEFT_BY_COPIES * copies <= free


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Any
    qkv: Projections
    head_norms: tuple[Any, Any]
    scaling: float
    output: Projections
    mlp_norm: Any
    mlp: _Gated | _Experts

    @property
    def projections(self) -> list[Projections]:
        return [self.qkv, self.output, *self.mlp.projections]

    @classmethod
    def of(cls, layer: Any, *, use_adapter: bool, copied: bool) -> _Layer:
        attention = layer.self_attn
        return cls(
            attention_norm=layer.input_layernorm,
            qkv=Projections([attention.q_proj, attention.k_proj, attention.v_proj], use_adapter=use_adapter, copied=copied),
            head_norms=(getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)),
            scaling=float(attention.scaling),
            output=Projections([attention.o_proj], use_adapter=use_adapter),
            mlp_norm=layer.post_attention_layernorm,
            mlp=_Gated(layer.mlp, use_adapter=use_adapter) if hasattr(layer.mlp, "gate_proj") else _Experts(layer.mlp),
        )


def _adapts(module: nn.Module) -> bool:
    """Whether PEFT has put it around a layer or a module of the model."""
    return hasattr(module, "base_layer") or hasattr(module, "original_module")


class _Gated:
    """act(gate(x)) * up(x), then down (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, mlp: Any, *, use_adapter: bool) -> None:
        self._act = mlp.act_fn
        self._in = Projections([mlp.gate_proj, mlp.up_proj], use_adapter=use_adapter)
        self._out = Projections([mlp.down_proj], use_adapter=use_adapter)
        self.projections = [self._in, self._out]

    def __call__(self, x: Tensor, operations: StepOperations, *, apart: bool) -> Tensor:
        """``apart`` as of :meth:`medtune.models.step_operations.StepOperations.product`."""
        (result,) = operations.product(self._out, operations.gated_product(self._in, x, self._act), apart=apart)
        return result


class _Experts:
    """A mixture of experts, by its own forward pass."""

    projections: tuple[Projections, ...] = ()

    def __init__(self, mlp: Any) -> None:
        self._mlp = mlp

    def __call__(self, x: Tensor, operations: StepOperations, *, apart: bool) -> Tensor:  # noqa: ARG002
        mixed: Tensor = self._mlp(x)
        return mixed
