"""Qwen3, text only."""

from __future__ import annotations

from medtune.models.family import Family

QWEN3 = Family(
    name="qwen3",
    model_types=("qwen3", "qwen2"),
    auto_class="AutoModelForCausalLM",
    scopes={"language": r"model\.|lm_head\b"},
    box_convention="none",
    pictures="none",
    image_token=None,
    template_options={"enable_thinking": False},
    notes=(
        "Thinking is off: the empty thought that the template puts before the last answer is part of the prompt, without loss.",
        "Answers and references hold no think tags.",
    ),
)
