"""What the built-in tasks share: one user turn with its pictures, one assistant turn with the reference answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from pydantic import JsonValue

from medtune.errors import DataError, RecipeError
from medtune.language import Language, msg
from medtune.types import IMAGE_MARK, Message, Record, Sample

__all__ = ["InstructedTask", "Instructions", "QuestionTask", "question_of", "record_language", "stripped"]


Instructions = Mapping[Language, str]
"""A task's words in each language."""


def record_language(record: Record) -> Language:
    """The language that a record's ``metadata["language"]`` names (``zh``, ``zh-CN``, ... is Chinese); English without one."""
    return "zh" if str(record.metadata.get("language", "")).lower().startswith("zh") else "en"


class InstructedTask:
    """A task that asks with fixed words.

    A convenience, not a requirement: a task of your own only has to follow :class:`medtune.types.Task`.

    Args:
        language: Of the instruction. None = what the record's metadata says, else English.
        instruction: Replaces the built-in instruction.
        system_prompt: Put before the conversation as a system message.

    Raises:
        RecipeError: ``language`` is neither ``en`` nor ``zh``.
    """

    name: str = ""
    metrics: tuple[str, ...] = ()
    instructions: ClassVar[Instructions] = {}

    def __init__(self, *, language: str | None = None, instruction: str | None = None, system_prompt: str | None = None) -> None:
        if language not in (None, "en", "zh"):
            raise RecipeError(
                msg("The task {task} has no instruction in the language {language!r}.", task=self.name, language=str(language)),
                remedy=msg("Choose en or zh, or leave language out to follow the data."),
            )
        self.language = cast("Language | None", language)
        self.instruction = instruction
        self.system_prompt = system_prompt

    def messages(self, record: Record) -> tuple[Message, ...]:
        """The conversation, ending with the reference answer. A record that brings its own messages keeps them.

        The marks stand before the words with nothing between, as Qwen's chat template puts a picture before its text.
        A question that holds marks already keeps them where they are.

        Raises:
            DataError: The record lacks something that the task asks about.
        """
        if record.messages:
            return record.messages
        text = self.ask(record, self.instruction_for(record))
        if IMAGE_MARK not in text:
            text = IMAGE_MARK * len(record.pictures) + text
        system = () if self.system_prompt is None else (Message(role="system", content=self.system_prompt),)
        return (*system, Message(role="user", content=text), Message(role="assistant", content=self.answer(record)))

    def instruction_for(self, record: Record) -> str:
        """The instruction in the language of the recipe or, failing that, of the record."""
        if self.instruction is not None:
            return self.instruction
        return self.instructions[self.language or record_language(record)]

    def ask(self, record: Record, instruction: str) -> str:
        """The user's words."""
        del record
        return instruction

    def answer(self, record: Record) -> str:
        """The reference answer's words."""
        return record.target

    def parse(self, text: str, sample: Sample) -> JsonValue:
        """The text without surrounding white space.

        Raises:
            ValueError: Nothing is left.
        """
        del sample
        return stripped(text)


class QuestionTask(InstructedTask):
    """A task whose record brings the question; the instruction says in what form to answer.

    ``{question}`` in an instruction is where the question goes. An instruction without it follows the question on a line of
    its own, and an empty one leaves the question alone.
    """

    def ask(self, record: Record, instruction: str) -> str:
        question = record.question.strip()
        if not question:
            raise DataError(
                msg("The task {task} needs a question, and the record has none.", task=self.name),
                sample=record.id,
                remedy=msg("Give the record a question, or ask it with a task that has fixed words, such as caption."),
            )
        if "{question}" in instruction:
            return instruction.replace("{question}", question)
        return f"{question}\n{instruction}" if instruction else question


def question_of(sample: Sample) -> str:
    """What the last turn of the user asks, with its instruction; empty where no user speaks."""
    return next((turn.content for turn in reversed(sample.prompt) if turn.role == "user"), "")


def stripped(text: str) -> str:
    """``text`` without surrounding white space.

    Raises:
        ValueError: Nothing is left.
    """
    text = text.strip()
    if not text:
        raise ValueError(msg("The generated text is empty."))
    return text
