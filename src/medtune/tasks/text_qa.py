"""Questions without a picture."""

from __future__ import annotations

from typing import ClassVar

from medtune.tasks.asking import Instructions, QuestionTask

__all__ = ["TextQa"]


class TextQa(QuestionTask):
    """The question as it stands; ``system_prompt`` says who answers, where the recipe wants that."""

    name = "text-qa"
    metrics = ("rouge", "bleu", "chrf", "llamafactory")
    instructions: ClassVar[Instructions] = {"en": "", "zh": ""}
