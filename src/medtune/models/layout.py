"""What a chat template puts around contents, found by rendering it with marks in their place.

A template is rendered once for each shape of conversation (roles, and the order of texts and pictures), never with real
contents. So a template cannot change a text on its way (strip a thought, trim a space), an answer's place is known exactly,
and nothing that stands in a row can pass for a special token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medtune.errors import DataError, ModelError
from medtune.language import msg
from medtune.types import IMAGE_MARK, Message

_MARK = re.compile(r"MEDTUNEPART(\d{4})")
PartKind = Literal["text", "image"]
Shape = tuple[tuple[str, tuple[PartKind, ...]], ...]
"""(role, kinds of the parts) of each message."""


@dataclass(frozen=True, slots=True)
class Words:
    """Plain text that the template itself brings."""

    text: str


@dataclass(frozen=True, slots=True)
class Special:
    """A special token that the template brings. ``ends_answer``: the first after an assistant's answer."""

    id: int
    ends_answer: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """Where the text part number ``index`` of the conversation stands. ``answer``: in an assistant turn."""

    index: int
    answer: bool


@dataclass(frozen=True, slots=True)
class PictureSlot:
    """Where a picture's tokens stand."""


Piece = Words | Special | Content | PictureSlot


def split_parts(messages: Sequence[Message], *, sample_id: str) -> tuple[Shape, list[str]]:
    """The shape of a conversation and its text parts in order. Empty texts beside a picture are no parts.

    Raises:
        DataError: An answer holds an image mark.
    """
    shape: list[tuple[str, tuple[PartKind, ...]]] = []
    texts: list[str] = []
    for message in messages:
        pieces = message.content.split(IMAGE_MARK)
        if len(pieces) > 1 and message.role != "user":
            raise DataError(
                msg("A message of the {role} holds {mark}; only the user shows pictures.", role=message.role, mark=IMAGE_MARK),
                sample=sample_id or None,
                remedy=msg("Move the mark into the user's message."),
            )
        kinds: list[PartKind] = []
        for index, text in enumerate(pieces):
            if index:
                kinds.append("image")
            if text or len(pieces) == 1:
                kinds.append("text")
                texts.append(text)
        shape.append((message.role, tuple(kinds)))
    return tuple(shape), texts


class Layouts:
    """The layouts of one chat template with one tokenizer.

    Args:
        tokenizer: A Hugging Face tokenizer; its special tokens are the ones that no content may become.
        template: Jinja source.
        image_token: Rendered by the template once for each picture; None for a text model, whose contents are plain strings.
        options: Given to the template.
    """

    def __init__(self, tokenizer: Any, template: str, *, image_token: str | None, options: dict[str, bool]) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.image_token = image_token
        self.options = options
        special = {tokenizer.convert_ids_to_tokens(token): token for token in tokenizer.all_special_ids}
        special |= {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_ids: dict[str, int] = special
        tokens = [*special, image_token] if image_token is not None else [*special]
        longest_first = sorted(tokens, key=len, reverse=True)
        self._split = re.compile("|".join([r"MEDTUNEPART\d{4}", *map(re.escape, longest_first)]))
        self._known: dict[Shape, tuple[Piece, ...]] = {}

    def of(self, shape: Shape) -> tuple[Piece, ...]:
        """The pieces of a conversation of this shape; one that ends with a user turn ends with the generation prompt.

        Raises:
            ModelError: The template loses or repeats a part, or the prompt is not the beginning of the conversation.
        """
        if shape not in self._known:
            self._known[shape] = self._lay_out(shape)
        return self._known[shape]

    def render(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        """The template's text.

        Raises:
            ModelError: The template refuses the conversation.
        """
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self.options,
            )
        except (TemplateError, TypeError) as error:
            raise ModelError(
                msg("The model's chat template refuses this conversation: {error}", error=str(error)),
                remedy=msg("Many templates take no system message, or want user and assistant to alternate."),
            ) from error
        return text

    def with_contents(self, shape: Shape, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Messages as chat templates take them, with ``texts`` in their places."""
        remaining = iter(texts)
        messages: list[dict[str, Any]] = []
        for role, kinds in shape:
            if self.image_token is None:
                messages.append({"role": role, "content": next(remaining)})
                continue
            parts = [{"type": "image"} if kind == "image" else {"type": "text", "text": next(remaining)} for kind in kinds]
            messages.append({"role": role, "content": parts})
        return messages

    def _lay_out(self, shape: Shape) -> tuple[Piece, ...]:
        answers: set[int] = set()
        num_texts = 0
        for role, kinds in shape:
            for kind in kinds:
                if kind == "text":
                    if role == "assistant":
                        answers.add(num_texts)
                    num_texts += 1
        num_images = sum(kinds.count("image") for _, kinds in shape)
        marks = [f"MEDTUNEPART{index:04d}" for index in range(num_texts)]
        is_prompt = shape[-1][0] != "assistant"
        text = self.render(self.with_contents(shape, marks), add_generation_prompt=is_prompt)
        pieces = self._cut(text, answers)
        found = [piece.index for piece in pieces if isinstance(piece, Content)]
        if sorted(found) != list(range(num_texts)):
            raise ModelError(
                msg("The model's chat template loses or repeats a part of the conversation."),
                remedy=msg("This template cannot be trained with; use the instruction-tuned model's own chat template."),
            )
        slots = sum(isinstance(piece, PictureSlot) for piece in pieces)
        if slots != num_images:
            raise ModelError(
                msg("The model's chat template shows {found} pictures where there are {wanted}.", found=slots, wanted=num_images),
                remedy=msg("This template cannot be trained with; use the instruction-tuned model's own chat template."),
            )
        if not is_prompt:
            before = next(index for index, piece in enumerate(pieces) if piece == Content(num_texts - 1, True))
            if self.of(shape[:-1]) != tuple(pieces[:before]):
                raise ModelError(
                    msg("With this chat template the prompt is not the beginning of the conversation."),
                    remedy=msg("A model trained so would never meet what it was trained on. Use another chat template."),
                )
        return tuple(pieces)

    def _cut(self, text: str, answers: set[int]) -> list[Piece]:
        pieces: list[Piece] = []
        place = 0
        for match in self._split.finditer(text):
            self._append(pieces, text[place : match.start()])
            token = match.group()
            mark = _MARK.fullmatch(token)
            if mark:
                self._close_answer(pieces)
                pieces.append(Content(int(mark.group(1)), int(mark.group(1)) in answers))
            elif token == self.image_token:
                pieces.append(PictureSlot())
            else:
                after_answer = bool(pieces) and isinstance(pieces[-1], Content) and pieces[-1].answer
                pieces.append(Special(self.special_ids[token], ends_answer=after_answer))
            place = match.end()
        self._append(pieces, text[place:])
        self._close_answer(pieces)
        return pieces

    def _append(self, pieces: list[Piece], text: str) -> None:
        if text:
            self._close_answer(pieces)
            pieces.append(Words(text))

    def _close_answer(self, pieces: list[Piece]) -> None:
        """Where a template closes an answer with none of its special tokens, put the tokenizer's end token there: a model that
        is never shown an end would never stop."""
        if not pieces or not isinstance(pieces[-1], Content) or not pieces[-1].answer:
            return
        eos = self.tokenizer.eos_token_id
        if eos is None:
            raise ModelError(msg("Neither the chat template nor the tokenizer has a token that ends an answer."))
        pieces.append(Special(int(eos), ends_answer=True))
