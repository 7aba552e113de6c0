"""Tiny random models of every family, as folders that ``from_pretrained`` reads: safetensors, tokenizer, chat template.

Nothing is downloaded and nothing outside the repository is needed: the tokenizer is a byte-level BPE trained here in a
fraction of a second, with Qwen's special tokens. ``tokenizer=`` takes a folder with a real tokenizer instead.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

FAMILIES = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3-vl-moe", "qwen3", "llava")
"""``llava`` stands for what the ``auto`` family serves."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
THINK_TOKENS = ("<think>", "</think>")

_CORPUS = [
    "What does this image show? Is there a lesion in the left hemisphere? Answer yes or no.",
    "The CT slice shows a hyperdense region in the upper right of the brain, about 4.5 percent of the picture.",
    "No acute abnormality. Describe the findings and give an impression. You are a helpful assistant.",
    '{"bbox_2d": [120, 340, 560, 780], "label": "lesion"}',
    "user\nassistant\nsystem\n0123456789",
    "右肺上叶可见结节，边界清。未见异常。请描述这张图片。",
]

# Contents may be plain text or a list of parts; a picture is a part of type "image".
_PART = (
    "{%- macro words(content) -%}"
    "{%- if content is string -%}{{ content }}"
    "{%- else -%}{%- for part in content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
)
_TURNS = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\\n' }}{{ words(message.content) }}"
    "{{ '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
_DEFAULT_SYSTEM = (
    "{%- if messages[0].role != 'system' -%}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif -%}"
)
# Like Qwen3's text template: the last answer gets an empty thought, earlier ones none, and the prompt ends with the same
# empty thought when thinking is off.
_THINKING = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' and loop.last -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}"
    "{{ message.content }}{{ '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}"
    "{%- endif -%}"
)
_LLAVA = (
    "{%- for message in messages -%}{{ message.role.upper() + ': ' }}"
    "{%- for part in message.content if part.type == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}"
    "{%- for part in message.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}"
    "{%- if message.role == 'assistant' -%}{{ eos_token }}{%- else -%}{{ ' ' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'ASSISTANT: ' }}{%- endif -%}"
)
CHAT_TEMPLATES = {
    "qwen2-vl": _PART + _DEFAULT_SYSTEM + _TURNS,
    "qwen2.5-vl": _PART + _DEFAULT_SYSTEM + _TURNS,
    "qwen3-vl": _PART + _TURNS,
    "qwen3-vl-moe": _PART + _TURNS,
    "qwen3": _THINKING,
    "llava": _LLAVA,
}


def tiny_model(folder: Path, family: str, *, tokenizer: Path | None = None, seed: int = 0, wide: bool = False) -> Path:
    """Save a tiny random float32 model of ``family`` (one of :data:`FAMILIES`) into ``folder`` and return it.

    ``tokenizer`` is a folder with a real ``tokenizer.json``; the vocabulary is then its own (151,936 rows), and the folder
    grows to some 20 MB. ``wide`` gives heads of 32 numbers, the narrowest that vLLM's kernels take.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(folder, family, tokenizer)
    config_class, model_class, config = _config(family, ids)
    if wide:
        _widen(config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config_class(**config))
    model.generation_config.eos_token_id = ids.get("<|im_end|>")
    model.generation_config.pad_token_id = ids.get("<|endoftext|>")
    model.to(torch.float32).save_pretrained(folder, safe_serialization=True)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATES[family], encoding="utf-8")
    preprocessor = _preprocessor(family)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    if family == "llava":
        processor = {
            "processor_class": "LlavaProcessor",
            "patch_size": 14,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
            "image_token": "<image>",
        }
        (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


def _widen(config: dict[str, Any]) -> None:
    text = config.get("text_config", config)
    text |= {"hidden_size": 128, "intermediate_size": 128}
    if "head_dim" in text:
        text["head_dim"] = 32
    if "vision_config" in config:
        text["rope_parameters"]["mrope_section"] = [4, 6, 6]
        vision = config["vision_config"]
        vision |= {"embed_dim": 64, "hidden_size": 128} if "embed_dim" in vision else {"hidden_size": 64, "out_hidden_size": 128}


def _write_tokenizer(folder: Path, family: str, real: Path | None) -> dict[str, int]:
    """Put a tokenizer into ``folder``; returns the ids of its added tokens, and ``vocab_size``."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if real is not None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(real / name, folder / name)
        loaded = AutoTokenizer.from_pretrained(folder)
    else:
        loaded = PreTrainedTokenizerFast(
            tokenizer_object=_train_bpe(family),
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            additional_special_tokens=[*SPECIAL_TOKENS[3:], "<|im_start|>", *(["<image>"] if family == "llava" else [])],
            clean_up_tokenization_spaces=False,
        )
        loaded.save_pretrained(folder)
    return {**loaded.get_added_vocab(), "vocab_size": len(loaded)}


def _train_bpe(family: str) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # Newlines end a word and digits stand alone, as in Qwen's own pre-tokenizer.
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), min_frequency=1
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    if family == "llava":
        tokenizer.add_special_tokens([AddedToken("<image>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in THINK_TOKENS])
    return tokenizer


def _preprocessor(family: str) -> dict[str, Any] | None:
    if family in ("qwen2-vl", "qwen2.5-vl"):
        return {
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor" if family == "qwen2-vl" else "Qwen2_5_VLProcessor",
        }
    if family in ("qwen3-vl", "qwen3-vl-moe"):
        # shortest_edge is 65,536 in the real file; a sixteenth of it keeps test pictures small.
        return {
            "size": {"longest_edge": 16777216, "shortest_edge": 4096},
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "processor_class": "Qwen3VLProcessor",
        }
    if family == "llava":
        return {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "LlavaProcessor",
            "size": {"shortest_edge": 56},
            "crop_size": {"height": 56, "width": 56},
        }
    return None


def _config(family: str, ids: dict[str, int]) -> tuple[Any, Any, dict[str, Any]]:
    """(config class, model class, keyword arguments of the config)."""
    import transformers

    vocab_size = -(-ids["vocab_size"] // 8) * 8
    text: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": ids.get("<|im_end|>"),
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    if family == "qwen3":
        return transformers.Qwen3Config, transformers.Qwen3ForCausalLM, {**text, "head_dim": 8}
    if family == "llava":
        vision = {
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "projection_dim": 16,
        }
        config = {
            "text_config": {"model_type": "qwen2", **text},
            "vision_config": vision,
            "image_token_index": ids["<image>"],
            "vision_feature_layer": -1,
            "tie_word_embeddings": False,
        }
        return transformers.LlavaConfig, transformers.LlavaForConditionalGeneration, config

    special = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    if family in ("qwen2-vl", "qwen2.5-vl"):
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
        vision = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
        if family == "qwen2-vl":
            vision |= {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2, "in_channels": 3}
            return (
                transformers.Qwen2VLConfig,
                transformers.Qwen2VLForConditionalGeneration,
                {**special, "text_config": text, "vision_config": vision},
            )
        vision |= {
            "hidden_size": 16,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "in_channels": 3,
        }
        return (
            transformers.Qwen2_5_VLConfig,
            transformers.Qwen2_5_VLForConditionalGeneration,
            {**special, "text_config": text, "vision_config": vision},
        )
    text |= {
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True},
    }
    vision = {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
        "in_channels": 3,
    }
    if family == "qwen3-vl":
        return (
            transformers.Qwen3VLConfig,
            transformers.Qwen3VLForConditionalGeneration,
            {**special, "text_config": text, "vision_config": vision},
        )
    if family == "qwen3-vl-moe":
        text |= {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
        return (
            transformers.Qwen3VLMoeConfig,
            transformers.Qwen3VLMoeForConditionalGeneration,
            {**special, "text_config": text, "vision_config": vision},
        )
    raise ValueError(f"no tiny model of family {family!r}; known: {', '.join(FAMILIES)}")
