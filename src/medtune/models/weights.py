"""The weights of a model by name and shape, from its ``config.json`` alone or from the headers of its safetensors files.

Names and shapes are those of ``named_parameters()`` of transformers 5 (``modeling_qwen2_vl.py``, ``modeling_qwen2_5_vl.py``,
``modeling_qwen3_vl.py``, ``modeling_qwen3_vl_moe.py``, ``modeling_qwen3.py``, ``modeling_qwen3_moe.py``, ``modeling_qwen2.py``);
the tests compare them with the real classes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medtune.errors import ModelError
from medtune.language import msg

__all__ = ["BYTES", "KNOWN", "Part", "Weight", "head_dim", "is_sparse", "is_tied", "num_experts", "read_headers", "weights_of"]

Part = Literal["language", "experts", "embedding", "head", "vision", "projector"]

_VL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
_TEXT = ("qwen2", "qwen3", "qwen3_moe")
KNOWN = frozenset((*_VL, *_TEXT))
"""Values of ``model_type`` whose weights follow from the config."""

BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of a value by its type's name in a safetensors header (https://huggingface.co/docs/safetensors, "Format")."""

_MAX_HEADER = 100_000_000
"""The format's own limit (https://github.com/huggingface/safetensors, "Format")."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter of a model.

    Attributes:
        name: Full name.
        shape: As stored; ``nn.Linear`` is (out, in), fused experts are (num_experts, out, in).
        part: Of the model.
        is_linear: The weight of an ``nn.Linear``.
    """

    name: str
    shape: tuple[int, ...]
    part: Part
    is_linear: bool = False

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def weights_of(config: Mapping[str, Any]) -> Iterator[Weight]:
    """All weights of a model of one of the :data:`KNOWN` types, tied ones once.

    Raises:
        KeyError: The config lacks a size.
    """
    model_type = config["model_type"]
    text = config.get("text_config", config)
    with_pictures = model_type in _VL
    if with_pictures:
        yield from _vision(config["vision_config"], model_type)
    yield from _text(text, model_type, "model.language_model" if with_pictures else "model")
    if not is_tied(config):
        yield Weight("lm_head.weight", (text["vocab_size"], text["hidden_size"]), "head", True)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the output layer's weight is the embedding's. The outer config decides; transformers' Qwen classes default to no."""
    return bool(config.get("tie_word_embeddings", config.get("text_config", {}).get("tie_word_embeddings", False)))


def head_dim(text: Mapping[str, Any]) -> int:
    """Width of an attention head."""
    return int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])


def num_experts(text: Mapping[str, Any]) -> int:
    """Of a sparse layer; transformers writes the number under either name."""
    return int(text.get("num_experts") or text.get("num_local_experts") or 0)


def is_sparse(text: Mapping[str, Any], layer: int) -> bool:
    """Whether a layer's feed-forward part is a mixture of experts (``Qwen3MoeDecoderLayer.__init__``)."""
    return (
        num_experts(text) > 0
        and layer not in (text.get("mlp_only_layers") or ())
        and (layer + 1) % text.get("decoder_sparse_step", 1) == 0
    )


def _linear(name: str, out: int, inner: int, part: Part, *, bias: bool) -> Iterator[Weight]:
    yield Weight(f"{name}.weight", (out, inner), part, True)
    if bias:
        yield Weight(f"{name}.bias", (out,), part)


def _norm(name: str, width: int, part: Part, *, bias: bool) -> Iterator[Weight]:
    yield Weight(f"{name}.weight", (width,), part)
    if bias:
        yield Weight(f"{name}.bias", (width,), part)


def _text(text: Mapping[str, Any], model_type: str, prefix: str) -> Iterator[Weight]:
    hidden, width = int(text["hidden_size"]), head_dim(text)
    heads = int(text["num_attention_heads"])
    kv_heads = int(text.get("num_key_value_heads") or heads)
    is_qwen2 = model_type in ("qwen2", "qwen2_vl", "qwen2_5_vl")
    bias = is_qwen2 or bool(text.get("attention_bias", False))
    part: Part = "language"
    yield Weight(f"{prefix}.embed_tokens.weight", (text["vocab_size"], hidden), "embedding")
    for layer in range(text["num_hidden_layers"]):
        here = f"{prefix}.layers.{layer}"
        attention = f"{here}.self_attn"
        yield from _linear(f"{attention}.q_proj", heads * width, hidden, part, bias=bias)
        yield from _linear(f"{attention}.k_proj", kv_heads * width, hidden, part, bias=bias)
        yield from _linear(f"{attention}.v_proj", kv_heads * width, hidden, part, bias=bias)
        yield from _linear(f"{attention}.o_proj", hidden, heads * width, part, bias=bias and not is_qwen2)
        if not is_qwen2:
            yield from _norm(f"{attention}.q_norm", width, part, bias=False)
            yield from _norm(f"{attention}.k_norm", width, part, bias=False)
        if is_sparse(text, layer):
            experts, inner = num_experts(text), text["moe_intermediate_size"]
            yield Weight(f"{here}.mlp.experts.gate_up_proj", (experts, 2 * inner, hidden), "experts")
            yield Weight(f"{here}.mlp.experts.down_proj", (experts, hidden, inner), "experts")
            yield Weight(f"{here}.mlp.gate.weight", (experts, hidden), part)
        else:
            inner = int(text["intermediate_size"])
            yield from _linear(f"{here}.mlp.gate_proj", inner, hidden, part, bias=False)
            yield from _linear(f"{here}.mlp.up_proj", inner, hidden, part, bias=False)
            yield from _linear(f"{here}.mlp.down_proj", hidden, inner, part, bias=False)
        yield from _norm(f"{here}.input_layernorm", hidden, part, bias=False)
        yield from _norm(f"{here}.post_attention_layernorm", hidden, part, bias=False)
    yield from _norm(f"{prefix}.norm", hidden, part, bias=False)


def _vision(vision: Mapping[str, Any], model_type: str) -> Iterator[Weight]:
    is_qwen3, is_qwen2_5 = model_type.startswith("qwen3"), model_type == "qwen2_5_vl"
    # Qwen2-VL calls the tower's own width embed_dim, and the language model's hidden_size.
    hidden = int(vision["embed_dim"] if model_type == "qwen2_vl" else vision["hidden_size"])
    out = int(vision["hidden_size"] if model_type == "qwen2_vl" else vision["out_hidden_size"])
    inner = int(hidden * vision["mlp_ratio"]) if model_type == "qwen2_vl" else int(vision["intermediate_size"])
    patch = int(vision["patch_size"])
    channels = int(vision.get("in_channels") or vision.get("in_chans") or 3)
    part: Part = "vision"
    yield Weight("model.visual.patch_embed.proj.weight", (hidden, channels, vision["temporal_patch_size"], patch, patch), part)
    if is_qwen3:
        yield Weight("model.visual.patch_embed.proj.bias", (hidden,), part)
        yield Weight("model.visual.pos_embed.weight", (vision["num_position_embeddings"], hidden), part)
    first, second = ("linear_fc1", "linear_fc2") if is_qwen3 else ("fc1", "fc2")
    for block in range(vision["depth"]):
        here = f"model.visual.blocks.{block}"
        yield from _norm(f"{here}.norm1", hidden, part, bias=not is_qwen2_5)
        yield from _norm(f"{here}.norm2", hidden, part, bias=not is_qwen2_5)
        yield from _linear(f"{here}.attn.qkv", 3 * hidden, hidden, part, bias=True)
        yield from _linear(f"{here}.attn.proj", hidden, hidden, part, bias=True)
        if is_qwen2_5:
            yield from _linear(f"{here}.mlp.gate_proj", inner, hidden, part, bias=True)
            yield from _linear(f"{here}.mlp.up_proj", inner, hidden, part, bias=True)
            yield from _linear(f"{here}.mlp.down_proj", hidden, inner, part, bias=True)
        else:
            yield from _linear(f"{here}.mlp.{first}", inner, hidden, part, bias=True)
            yield from _linear(f"{here}.mlp.{second}", hidden, inner, part, bias=True)
    merged = hidden * int(vision["spatial_merge_size"]) ** 2
    names = ("norm", "linear_fc1", "linear_fc2") if is_qwen3 else ("ln_q", "mlp.0", "mlp.2")
    yield from _merger("model.visual.merger", names, hidden, merged, out, norm_bias=not is_qwen2_5)
    for level in range(len(vision.get("deepstack_visual_indexes") or ()) if is_qwen3 else 0):
        # Its norm comes after the merge, so it is as wide as the merged patches.
        yield from _merger(f"model.visual.deepstack_merger_list.{level}", names, merged, merged, out, norm_bias=True)


def _merger(name: str, names: tuple[str, str, str], normed: int, merged: int, out: int, *, norm_bias: bool) -> Iterator[Weight]:
    norm, first, second = names
    yield from _norm(f"{name}.{norm}", normed, "projector", bias=norm_bias)
    yield from _linear(f"{name}.{first}", merged, merged, "projector", bias=True)
    yield from _linear(f"{name}.{second}", out, merged, "projector", bias=True)


def read_headers(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (type, shape) of every tensor in the folder's safetensors files; empty when there are none. No weight is read.

    Raises:
        ModelError: A file is cut off or is no safetensors file.
    """
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > _MAX_HEADER:
                    raise ValueError("header too long")
                header = json.loads(file.read(length))
            found |= {
                name: (str(entry["dtype"]), tuple(map(int, entry["shape"])))
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise ModelError(
                msg("The header of this safetensors file cannot be read."),
                file=path,
                key="model.base",
                remedy=msg("Fetch the whole model again; the download may have been cut off."),
            ) from error
    return found
