"""Conversations that the data set has already put into words."""

from __future__ import annotations

from typing import ClassVar

from medtune.tasks.asking import Instructions, QuestionTask

__all__ = ["Conversation"]


class Conversation(QuestionTask):
    """Keeps the record's messages as they are. A record with only a question becomes a conversation of one turn."""

    name = "conversation"
    metrics = ("rouge", "bleu", "chrf", "llamafactory")
    instructions: ClassVar[Instructions] = {"en": "", "zh": ""}
