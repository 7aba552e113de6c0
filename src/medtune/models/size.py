"""How large a model is, by part and by layer, and how much it computes: from its config, before any weight is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medtune.errors import ModelError
from medtune.language import msg
from medtune.models.family import find_family
from medtune.models.hub import read_config
from medtune.models.weights import BYTES, KNOWN, Part, Weight, head_dim, is_sparse, is_tied, num_experts, read_headers, weights_of

__all__ = ["ModelSize", "VisionSize", "read_size", "size_of"]

_TYPES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class VisionSize:
    """Shapes of a vision tower.

    Attributes:
        hidden: Width of its blocks.
        intermediate: Width inside their feed-forward part.
        depth: Blocks.
        merge: Patches that become one token of the language model.
        out_hidden: Width of what the language model is given.
        levels: Feature maps it is given for each token: 1, and the DeepStack levels (Meng et al. 2024, arXiv:2406.04334).
        patch_values: Values of one patch of pixels.
        patches_per_picture: Where every picture has the same number (CLIP towers); None = it depends on the picture's size.
        window: Patches that see each other in the blocks with windowed attention; 0 = all blocks see the whole picture.
        full_blocks: Blocks that see the whole picture.
    """

    hidden: int
    intermediate: int
    depth: int
    merge: int
    out_hidden: int
    levels: int
    patch_values: int
    patches_per_picture: int | None
    window: int
    full_blocks: int

    def attention_flops(self, patches: float) -> float:
        """Of one picture, forward: two matrix products over every pair of patches that see each other."""
        seen = min(self.window, patches) if self.window else patches
        return 4.0 * self.hidden * patches * (self.full_blocks * patches + (self.depth - self.full_blocks) * seen)


@dataclass(frozen=True)
class ModelSize:
    """Shapes and counts of a model.

    Attributes:
        model_type: Of its config.
        weights: Every weight by name; tied ones once.
        hidden: Width of the language model.
        layers: Its decoder layers.
        query_width: All query heads together.
        kv_width: All key heads together; the values are as wide.
        head_dim: Of one head.
        intermediate: Width inside the feed-forward part of a dense layer.
        vocabulary: Rows of embedding and head.
        sparse_layers: Layers with a mixture of experts.
        experts: In each of them.
        top_k: Experts that a token goes through.
        expert_intermediate: Width inside an expert.
        tied: The head's weight is the embedding's.
        stored_bytes: Of one weight on disk, on average.
        vision: None for a text model.
    """

    model_type: str
    weights: tuple[Weight, ...]
    hidden: int
    layers: int
    query_width: int
    kv_width: int
    head_dim: int
    intermediate: int
    vocabulary: int
    sparse_layers: int
    experts: int
    top_k: int
    expert_intermediate: int
    tied: bool
    stored_bytes: float
    vision: VisionSize | None

    @cached_property
    def parts(self) -> dict[Part, int]:
        """Parameters of each part. The embedding of a tied head counts as embedding."""
        found: dict[Part, int] = {}
        for weight in self.weights:
            found[weight.part] = found.get(weight.part, 0) + weight.size
        return found

    @cached_property
    def num_parameters(self) -> int:
        return sum(weight.size for weight in self.weights)

    @cached_property
    def flops_per_token(self) -> float:
        """Matrix products of the decoder layers for one token, forward; of the experts those that a token goes through. Without
        attention's own products and without the head."""
        total = 0.0
        for weight in self.weights:
            if weight.part == "experts":
                total += weight.size * self.top_k / max(1, self.experts)
            elif weight.part == "language" and len(weight.shape) == 2:
                total += weight.size
        return 2.0 * total

    @property
    def expert_flops_per_token(self) -> float:
        """The experts' share of :attr:`flops_per_token`."""
        return 2.0 * self.parts.get("experts", 0) * self.top_k / max(1, self.experts)

    def attention_flops(self, length: float) -> float:
        """Of one row of ``length`` tokens in all layers, forward: two products over half of all pairs (causal)."""
        return 2.0 * self.query_width * length * length * self.layers

    @property
    def head_flops_per_token(self) -> float:
        """Of one token whose loss is computed, forward."""
        return 2.0 * self.vocabulary * self.hidden

    @cached_property
    def vision_flops_per_patch(self) -> float:
        """Matrix products of tower and projector for one patch, forward, without attention's own."""
        if self.vision is None:
            return 0.0
        total = 0.0
        for weight in self.weights:
            if weight.part == "vision" and (weight.is_linear or len(weight.shape) > 2):
                total += weight.size
            elif weight.part == "projector" and len(weight.shape) == 2:
                total += weight.size / self.vision.merge
        return 2.0 * total

    def cache_bytes(self, patches: float, bytes_per_value: int = 2) -> float:
        """What a feature cache keeps of a picture: every level of its merged patches."""
        if self.vision is None:
            return 0.0
        return patches / self.vision.merge * self.vision.levels * self.vision.out_hidden * bytes_per_value


def read_size(folder: Path, family: str | None = None) -> ModelSize:
    """The size of the model in ``folder``. Its ``config.json`` is enough for the Qwen families; of any other the headers of its
    safetensors files are read.

    Args:
        family: ``model.family`` of the recipe.

    Raises:
        ModelError: The folder is no model, its config lacks a size, or the model is of another kind and has no weights here.
    """
    return size_of(read_config(folder), read_headers(folder), folder=folder, family=family)


def size_of(
    config: Mapping[str, Any],
    headers: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    *,
    folder: Path | None = None,
    family: str | None = None,
) -> ModelSize:
    """See :func:`read_size`."""
    model_type = str(config["model_type"])
    text: Mapping[str, Any] = config.get("text_config", config)
    headers = headers or {}
    if model_type not in KNOWN and not headers:
        raise ModelError(
            msg(
                "How large a model of type {model_type} is can only be read from its weights, and they are not here.",
                model_type=model_type,
            ),
            file=folder,
            key="model.base",
            remedy=msg("Fetch the whole model."),
        )
    try:
        weights = tuple(weights_of(config)) if model_type in KNOWN else _from_headers(config, headers, family)
        heads = int(text["num_attention_heads"])
        width = head_dim(text)
        sparse = sum(is_sparse(text, layer) for layer in range(text["num_hidden_layers"]))
        return ModelSize(
            model_type=model_type,
            weights=weights,
            hidden=int(text["hidden_size"]),
            layers=int(text["num_hidden_layers"]),
            query_width=heads * width,
            kv_width=int(text.get("num_key_value_heads") or heads) * width,
            head_dim=width,
            intermediate=int(text["intermediate_size"]),
            vocabulary=int(text["vocab_size"]),
            sparse_layers=sparse,
            experts=num_experts(text) if sparse else 0,
            top_k=int(text.get("num_experts_per_tok") or 0) if sparse else 0,
            expert_intermediate=int(text.get("moe_intermediate_size") or 0) if sparse else 0,
            tied=is_tied(config),
            stored_bytes=_stored_bytes(config, headers),
            vision=_vision_size(config, model_type),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            msg("The model's config does not say how large it is: {error} is missing or no number.", error=str(error)),
            file=folder,
            key="model.base",
            remedy=msg("Set train.micro_batch_tokens, train.gradient_checkpointing and train.vision_cache by hand."),
        ) from error


def _stored_bytes(config: Mapping[str, Any], headers: Mapping[str, tuple[str, tuple[int, ...]]]) -> float:
    if headers:
        values = sum(math.prod(shape) for _, shape in headers.values())
        return sum(math.prod(shape) * BYTES.get(kind, 2) for kind, shape in headers.values()) / max(1, values)
    text = config.get("text_config", config)
    named = next((place[key] for place in (config, text) for key in ("dtype", "torch_dtype") if place.get(key)), "bfloat16")
    return float(_TYPES.get(str(named), 2))


def _vision_size(config: Mapping[str, Any], model_type: str) -> VisionSize | None:
    vision: Mapping[str, Any] | None = config.get("vision_config")
    if vision is None:
        return None
    hidden = int(vision["embed_dim"] if model_type == "qwen2_vl" else vision["hidden_size"])
    depth = int(vision.get("depth") or vision["num_hidden_layers"])
    patch = int(vision["patch_size"])
    channels = int(vision.get("in_channels") or vision.get("in_chans") or vision.get("num_channels") or 3)
    if model_type not in KNOWN:
        side = int(vision["image_size"]) // patch
        out = int(config.get("text_config", config)["hidden_size"])
        values = channels * patch * patch
        return VisionSize(hidden, int(vision["intermediate_size"]), depth, 1, out, 1, values, side * side, 0, depth)
    merge = int(vision["spatial_merge_size"]) ** 2
    inner = int(hidden * vision["mlp_ratio"]) if model_type == "qwen2_vl" else int(vision["intermediate_size"])
    out = int(vision["hidden_size"] if model_type == "qwen2_vl" else vision["out_hidden_size"])
    levels = 1 + (len(vision.get("deepstack_visual_indexes") or ()) if model_type.startswith("qwen3") else 0)
    window, full = 0, depth
    if model_type == "qwen2_5_vl":
        # Qwen2.5-VL technical report (arXiv:2502.13923), section 2.1.1: windows of window_size pixels, but in these blocks.
        window = (int(vision.get("window_size", 112)) // patch) ** 2
        full = len(vision.get("fullatt_block_indexes") or ())
    values = channels * int(vision["temporal_patch_size"]) * patch * patch
    return VisionSize(hidden, inner, depth, merge, out, levels, values, None, window, full)


_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings)\.weight$")
_HEAD = re.compile(r"(^|\.)(lm_head|output|embed_out)\.weight$")


def _from_headers(
    config: Mapping[str, Any], headers: Mapping[str, tuple[str, tuple[int, ...]]], family: str | None
) -> tuple[Weight, ...]:
    """Weights under their names on disk. A 2-D weight of no embedding counts as a linear layer."""
    record = find_family(config, family)
    found = []
    for name, (_, shape) in headers.items():
        scope = record.scope_of(name)
        part: Part = "language" if scope is None else scope
        if _EMBEDDING.search(name):
            part = "embedding"
        elif _HEAD.search(name):
            part = "head"
        is_linear = len(shape) == 2 and part != "embedding" and "embed" not in name
        found.append(Weight(name, shape, part, is_linear))
    return tuple(found)
