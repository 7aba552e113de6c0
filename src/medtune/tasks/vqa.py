"""Visual question answering: closed questions (yes or no, or one of few words) and open ones."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from medtune.tasks.asking import Instructions, QuestionTask, question_of, stripped
from medtune.tasks.reading.yes_no import read_yes_no
from medtune.types import Sample

__all__ = ["ClosedVqa", "OpenVqa"]


class ClosedVqa(QuestionTask):
    """A question with few possible answers. ``parse`` gives ``"yes"``, ``"no"`` or, where neither is meant, the text."""

    name = "closed-vqa"
    metrics = ("closed", "choice", "calibration", "llamafactory")
    score_tokens = ("Yes", "yes", "No", "no", "是", "否", "有", "无")
    """First words of an answer whose probabilities are kept with it, for calibration."""
    instructions: ClassVar[Instructions] = {
        "en": "{question}\nAnswer with yes or no, or with the one word or phrase that the question asks for.",
        "zh": "{question}\n请只回答“是”或“否”，或问题所问的一个词。",
    }

    def parse(self, text: str, sample: Sample) -> JsonValue:
        """See :func:`medtune.tasks.reading.yes_no.read_yes_no`.

        Raises:
            ValueError: The answer is empty.
        """
        text = stripped(text)
        return read_yes_no(text, question_of(sample)) or text


class OpenVqa(QuestionTask):
    """A question that is answered freely."""

    name = "open-vqa"
    metrics = ("open", "region", "rouge", "bleu", "chrf", "llamafactory")
    instructions: ClassVar[Instructions] = {"en": "", "zh": ""}
