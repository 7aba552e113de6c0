"""The Qwen-VL families. Module names as in transformers 5: ``model.visual`` and ``model.language_model``."""

from __future__ import annotations

from medtune.models.family import Family

# Qwen2-VL technical report (arXiv:2409.12191, section 2.3.1): boxes are relative to the picture, 0 to 1000.
# Qwen2.5-VL technical report (arXiv:2502.13923, section 2.1.1): boxes are absolute, in pixels of the picture as resized.
# Qwen3-VL technical report (arXiv:2511.21631): back to relative coordinates, 0 to 1000.

_LANGUAGE = r"model\.language_model\.|lm_head\b"
_VISION = r"model\.visual\."
_PROJECTOR = r"model\.visual\.merger\b"
_PROJECTOR_DEEPSTACK = r"model\.visual\.(merger|deepstack_merger_list)\b"

QWEN2_VL = Family(
    name="qwen2-vl",
    model_types=("qwen2_vl",),
    auto_class="AutoModelForImageTextToText",
    scopes={"projector": _PROJECTOR, "vision": _VISION, "language": _LANGUAGE},
    box_convention="relative-1000",
    pictures="patches",
    image_token="<|image_pad|>",
    notes=("The chat template puts 'You are a helpful assistant.' before a conversation without a system message.",),
)

QWEN2_5_VL = Family(
    name="qwen2.5-vl",
    model_types=("qwen2_5_vl",),
    auto_class="AutoModelForImageTextToText",
    scopes={"projector": _PROJECTOR, "vision": _VISION, "language": _LANGUAGE},
    box_convention="pixels",
    pictures="patches",
    image_token="<|image_pad|>",
    notes=("The base model writes boxes in pixels of the resized picture; medtune's data sets write 0 to 1000.",),
)

QWEN3_VL = Family(
    name="qwen3-vl",
    model_types=("qwen3_vl",),
    auto_class="AutoModelForImageTextToText",
    scopes={"projector": _PROJECTOR_DEEPSTACK, "vision": _VISION, "language": _LANGUAGE},
    box_convention="relative-1000",
    pictures="patches",
    image_token="<|image_pad|>",
)

QWEN3_VL_MOE = Family(
    name="qwen3-vl-moe",
    model_types=("qwen3_vl_moe",),
    auto_class="AutoModelForImageTextToText",
    scopes={
        "projector": _PROJECTOR_DEEPSTACK,
        "vision": _VISION,
        "experts": r"model\.language_model\.layers\.\d+\.mlp\.experts\b",
        "language": _LANGUAGE,
    },
    box_convention="relative-1000",
    pictures="patches",
    image_token="<|image_pad|>",
    notes=("The router (mlp.gate) is neither a linear layer nor an expert: LoRA leaves it as it is.",),
)
