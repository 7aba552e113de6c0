"""A conversation about pictures, in memory: the state that a terminal, a server or a notebook shows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator as Pieces
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medtune import __version__
from medtune.errors import GenerationError, UnreadableImageError, system_reason
from medtune.imaging.display import windows_of
from medtune.imaging.nifti_header import HEAD_BYTES, is_nifti
from medtune.imaging.untrusted import open_untrusted
from medtune.language import Text, msg
from medtune.plugins import resolve_stored
from medtune.runs import atomic_write, now
from medtune.types import IMAGE_MARK, Document, FinishReason, Generator, Message, Request, Sampling, TransformRecord, View

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["INTENDED_USE", "ChatSession", "ShownPicture", "Transcript", "Turn"]

INTENDED_USE = msg("For research only. Not a medical device. Not for diagnosis or treatment decisions.")


class ShownPicture(Document):
    """A picture of the conversation: which file, and how large. Its folder is left out: it often tells the patient's name.

    ``sha256`` is of the file as it was read; ``width`` and ``height`` are upright pixels as the model is shown them, after the
    transforms that the adapter was trained with.
    """

    name: str
    sha256: str
    width: int
    height: int


class Turn(Document):
    """One question and what was answered.

    ``finish_reason`` is ``interrupted`` when the reader stopped the answer. Times are seconds from the question.
    """

    question: str
    pictures: tuple[ShownPicture, ...] = ()
    answer: str
    finish_reason: FinishReason | Literal["interrupted"]
    asked: str
    """ISO 8601, UTC."""
    seconds_to_first_text: float
    seconds: float


class Transcript(Document):
    """A saved conversation (``.json``)."""

    format_version: Literal[1] = 1
    intended_use: str
    medtune_version: str
    base_model: str
    adapter: str | None
    server: str | None = None
    system_prompt: str | None
    sampling: Sampling
    transforms: tuple[TransformRecord, ...]
    started: str
    saved: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class _Attached:
    shown: ShownPicture
    image: Image


class ChatSession:
    """A conversation with one generator. Not for use from several threads at once.

    Args:
        generator: Who answers; it stays the caller's.
        base_model: Name of the base model, for the reader and the transcript.
        adapter: Name of the adapter; None = the base model alone.
        server: Who answers in place of both, where that is not a model in this process.
        system_prompt: Put first; None = what the model's encoder puts there.
        sampling: How answers are drawn.
        transforms: What the adapter's contract says was done to the training pictures; done to every picture shown here.
        displays: How the contract says that measured values were shown; DICOM and NIfTI files are shown so here, where that is
            one way only.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        base_model: str,
        adapter: str | None = None,
        server: str | None = None,
        system_prompt: str | None = None,
        sampling: Sampling | None = None,
        transforms: Sequence[TransformRecord] = (),
        displays: Sequence[str] = (),
    ) -> None:
        self.base_model = base_model
        self.adapter = adapter
        self.server = server
        self.system_prompt = system_prompt
        self.sampling = sampling or Sampling()
        self.transforms = tuple(transforms)
        self._windows = _only_windows(displays)
        self._generator = generator
        self._apply = [resolve_stored("transform", record.name)(**record.parameters) for record in transforms]
        self._pending: list[_Attached] = []
        self._images: list[Image] = []
        self._turns: list[Turn] = []
        self._num_asked = 0
        self._saved: set[Path] = set()
        self.started = now()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far."""
        return tuple(self._turns)

    @property
    def pending(self) -> tuple[ShownPicture, ...]:
        """Pictures that the next question will carry."""
        return tuple(attached.shown for attached in self._pending)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as the model is given it, image marks included."""
        system = [Message(role="system", content=self.system_prompt)] if self.system_prompt else []
        turns = []
        for turn in self._turns:
            turns.append(Message(role="user", content=_marked(turn.question, len(turn.pictures))))
            turns.append(Message(role="assistant", content=turn.answer))
        return (*system, *turns)

    def add_image(self, path: Path) -> ShownPicture:
        """Open a picture and keep it for the next question. It is read now: what happens to the file later changes nothing.

        Raises:
            UnreadableImageError: It is missing, damaged, or not a picture within the limits.
        """
        return self.add_images([path])[0]

    def add_images(self, paths: Sequence[Path]) -> tuple[ShownPicture, ...]:
        """Several at once: all of them, or none when one cannot be read."""
        attached = [self._open(path) for path in paths]
        self._pending += attached
        return tuple(picture.shown for picture in attached)

    def _open(self, path: Path) -> _Attached:
        try:
            image = open_untrusted(path, name=str(path), view=self._view(path))
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UnreadableImageError(
                msg("The picture cannot be read: {error}", error=str(system_reason(error))), file=path
            ) from error
        for transform in self._apply:
            image = transform(image)
        shown = ShownPicture(name=path.name, sha256=sha256, width=image.width, height=image.height)
        return _Attached(shown, image)

    def _view(self, path: Path) -> View | None:
        """DICOM and NIfTI files are shown through the windows of the training pictures."""
        if not self._windows:
            return None
        with path.open("rb") as file:
            if is_nifti(file.read(HEAD_BYTES)):
                from medtune.imaging.nifti import middle_slice

                return middle_slice(path, self._windows)
        return View(windows=self._windows)

    def ask(self, text: str) -> Pieces[str, None, None]:
        """Ask, with all pending pictures; the answer comes in pieces and joins the history as it was seen.

        Close the iterator to stop the answer. What was seen by then stays in the history; when nothing was, the question is
        forgotten and its pictures wait for the next one.

        Raises:
            GenerationError: The question is empty or holds an image mark (at once); the conversation does not fit into the
                model's context, or the generator fails (with the first piece). The history is then as it was before.
        """
        question = text.strip()
        if not question:
            raise GenerationError(msg("There is no question."), remedy=msg("Write what you want to know about the picture."))
        if IMAGE_MARK in question:
            raise GenerationError(
                msg("A question cannot hold the mark <image> itself."),
                remedy=msg("Add the picture with /image PATH, or paste its path."),
            )
        return self._answer(question)

    def _answer(self, question: str) -> Pieces[str, None, None]:
        attached = list(self._pending)
        self._num_asked += 1
        request = Request(
            id=f"turn-{self._num_asked}",
            messages=(*self.messages, Message(role="user", content=_marked(question, len(attached)))),
            images=(*self._images, *(picture.image for picture in attached)),
            sampling=self.sampling,
        )
        asked, started = now(), time.perf_counter()
        seconds_to_first_text = 0.0
        pieces: list[str] = []
        finish_reason: FinishReason | Literal["interrupted"] = "interrupted"
        stream = self._generator.stream(request)
        try:
            # Not `yield from`: the pieces are kept. Not `for`: the return value is the finish reason, where a generator has one.
            while True:
                try:
                    piece = next(stream)
                except StopIteration as end:
                    finish_reason = end.value or "stop"
                    break
                if not pieces:
                    seconds_to_first_text = time.perf_counter() - started
                pieces.append(piece)
                yield piece
        finally:
            if hasattr(stream, "close"):
                stream.close()
            if pieces or finish_reason != "interrupted":
                turn = Turn(
                    question=question,
                    pictures=tuple(picture.shown for picture in attached),
                    answer="".join(pieces),
                    finish_reason=finish_reason,
                    asked=asked,
                    seconds_to_first_text=seconds_to_first_text,
                    seconds=time.perf_counter() - started,
                )
                self._turns.append(turn)
                self._images += [picture.image for picture in attached]
                del self._pending[: len(attached)]

    def clear(self) -> None:
        """Forget the conversation and all pictures; the system prompt stays."""
        self._turns.clear()
        self._pending.clear()
        self._images.clear()
        self.started = now()

    def transcript(self) -> Transcript:
        """The conversation as it would be saved now."""
        return Transcript(
            intended_use=INTENDED_USE.render("en"),
            medtune_version=__version__,
            base_model=self.base_model,
            adapter=self.adapter,
            server=self.server,
            system_prompt=self.system_prompt,
            sampling=self.sampling,
            transforms=self.transforms,
            started=self.started,
            saved=now(),
            turns=self.turns,
        )

    def save(self, path: Path) -> tuple[Path, Path]:
        """Write the conversation as JSON and as Markdown; ``path`` names both, with or without one of the suffixes.

        Raises:
            GenerationError: One of the files exists and is not from this session.
            RunError: They cannot be written there.
        """
        stem = path.name[: -len(path.suffix)] if path.suffix in (".json", ".md") else path.name
        files = (path.with_name(f"{stem}.json"), path.with_name(f"{stem}.md"))
        for file in files:
            if file.exists() and file.resolve() not in self._saved:
                raise GenerationError(msg("The file exists already."), file=file, remedy=msg("Give another name: /save PATH."))
        transcript = self.transcript()
        for file, text in zip(files, (transcript.model_dump_json(indent=2) + "\n", _markdown(transcript)), strict=True):
            atomic_write(file, text)
            self._saved.add(file.resolve())
        return files


def _only_windows(displays: Sequence[str]) -> tuple[tuple[float, float], ...]:
    found = {windows for display in displays if (windows := windows_of(display))}
    return found.pop() if len(found) == 1 else ()


def _marked(question: str, num_pictures: int) -> str:
    return IMAGE_MARK * num_pictures + question


def _markdown(transcript: Transcript) -> str:
    """The transcript for readers, in their language."""

    def line(label: Text, value: str) -> str:
        return f"- {label}: {value}"

    if transcript.server is not None:
        who = [line(msg("Answered by"), transcript.server)]
    else:
        who = [line(msg("Base model"), transcript.base_model), line(msg("Adapter"), transcript.adapter or str(msg("none")))]
    parts = [
        f"# {msg('Conversation')}",
        f"**{INTENDED_USE}**",
        "\n".join(
            [
                *who,
                line(msg("Started"), transcript.started),
                line(msg("Saved"), transcript.saved),
                line(msg("Temperature"), f"{transcript.sampling.temperature:g}"),
                line(msg("medtune version"), transcript.medtune_version),
            ]
        ),
    ]
    for number, turn in enumerate(transcript.turns, 1):
        parts.append(f"## {number}")
        parts += [
            "\n".join(
                f"- {msg('Picture')}: `{picture.name}`, {picture.width} x {picture.height}, sha256 `{picture.sha256}`"
                for picture in turn.pictures
            )
        ] * bool(turn.pictures)
        parts.append(f"**{msg('Question')}:** {turn.question}")
        parts.append(f"**{msg('Answer')}:** {turn.answer}")
        if turn.finish_reason == "interrupted":
            parts.append(f"*{msg('The answer was stopped by the reader.')}*")
        elif turn.finish_reason == "length":
            parts.append(f"*{msg('The answer was cut at its longest allowed length.')}*")
    return "\n\n".join(parts) + "\n"
