"""Any other model that ``AutoModelForImageTextToText`` loads, through its own processor."""

from __future__ import annotations

from medtune.models.family import Family

AUTO = Family(
    name="auto",
    model_types=(),
    auto_class="AutoModelForImageTextToText",
    # Names that transformers 5 gives to the parts of most of its vision-language models.
    scopes={
        "projector": r".*\b(multi_modal_projector|connector|mm_projector|projector|merger|aligner)\b",
        "experts": r".*\.experts\b",
        "vision": r".*\b(vision_tower|vision_model|visual|image_encoder|vision_encoder|vision_backbone)\b",
        "language": r".*\b(language_model|text_model|lm_head)\b",
    },
    box_convention="none",
    pictures="processor",
    image_token=None,
)
