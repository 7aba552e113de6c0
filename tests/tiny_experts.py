"""Tiny mixtures of experts, made without a folder."""

from __future__ import annotations

from typing import Any

import torch


def text_model(model_type: str, **changes: Any) -> Any:
    """A tiny mixture of experts with a language head, random float32."""
    import transformers

    settings: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "tie_word_embeddings": False,
        "dtype": "float32",
        **changes,
    }
    torch.manual_seed(0)
    if model_type == "qwen3_moe":
        return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**settings))
    settings["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": settings["hidden_size"],
        "deepstack_visual_indexes": [],
    }
    config = transformers.Qwen3VLMoeConfig(text_config=settings, vision_config=vision, image_token_id=60, tie_word_embeddings=False)
    return transformers.Qwen3VLMoeForConditionalGeneration(config)
