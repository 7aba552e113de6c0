"""One condition asked of one model: requests are made when the generator looks at them, answers are stored as they come."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, overload

from medtune.errors import EvaluationError, GenerationError, MedtuneError
from medtune.evaluation.controls import Presentation, Presented
from medtune.evaluation.predictions import Asked, append_prediction, order_predictions, read_asked, resume_predictions, write_asked
from medtune.evaluation.score import parse_generation, score_tokens
from medtune.evaluation.wording import condition_title
from medtune.language import msg
from medtune.types import Event, Generator, Listener, LoadsAhead, Prediction, Request, Sample, Sampling

__all__ = ["Model", "Source", "ask", "ids_of"]

Model = tuple[Literal["base", "tuned"], Generator | Callable[[], Generator]]
"""A model to ask, and which of the two it is. A function is called when its first answer is needed, and the generator it
returns is closed again: so base and tuned need not be in memory together, and a finished evaluation loads neither."""


class Source:
    """A generator that is made when first needed, and closed if it was made here."""

    def __init__(self, generator: Generator | Callable[[], Generator]) -> None:
        self._given = generator
        self._made: Generator | None = None

    def get(self) -> Generator:
        if isinstance(self._given, Generator):
            return self._given
        if self._made is None:
            self._made = self._given()
        return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None


def ids_of(pool: Sequence[Sample], samples: Sequence[Sample] | None = None) -> tuple[Collection[str], list[str]]:
    """Ids of ``pool``, and those of ``samples`` (``pool`` itself when not given) in their order."""
    order = [sys.intern(sample.id) for sample in (pool if samples is None else samples)]
    return set(order) if samples is None or samples is pool else {sample.id for sample in pool}, order


def ask(
    condition: Asked,
    known: Collection[str],
    order: Sequence[str],
    show: Callable[[Path], Presented],
    source: Source,
    *,
    folder: Path,
    sampling: Sampling,
    overwrite: bool,
    hear: Listener,
) -> None:
    """Generate what is missing of one condition, appending each answer to its file as it comes.

    Args:
        known: Ids that a stored answer may have.
        order: Of the answers in their file, when all are there.
        show: Given a folder for pictures that have to be made, how the samples are shown.
    """
    place = folder / "evaluations" / condition.folder
    hear(Event("phase", msg("Asking: {condition}", condition=condition_title(condition.folder))))
    stored = resume_predictions(place, condition, known, overwrite=overwrite)
    for fault in stored.faults(()):
        hear(Event("note", fault))
    with tempfile.TemporaryDirectory(prefix="medtune-shown-") as made:
        shown = show(Path(made))
        pending = [name for name in shown if name not in stored.predictions]
        done, total = len(shown) - len(pending), len(shown)
        hear(Event("progress", done=done, total=total))
        if not pending:
            order_predictions(place / "predictions.jsonl", order)
            return
        generator = source.get()
        if isinstance(generator, LoadsAhead):
            generator.load(len(pending))
        started = time.perf_counter()

        def note_time() -> None:
            before = read_asked(place)
            seconds = round(before.seconds + time.perf_counter() - started, 4)
            batch_size = getattr(generator, "batch_size", 1)  # it may be chosen, or halved, on the way
            write_asked(place, before.model_copy(update={"batch_size": batch_size, "seconds": seconds, "scoring_seconds": None}))

        try:
            for answered in _answers(generator, shown.among(pending), sampling):
                append_prediction(place / "predictions.jsonl", answered)
                done += 1
                hear(Event("progress", done=done, total=total))
        except BaseException:
            with contextlib.suppress(MedtuneError):  # a full disk refuses this too, and is told of by the first refusal
                note_time()
            raise
        note_time()
    order_predictions(place / "predictions.jsonl", order)


class _Requests(Sequence[Request]):
    """What is asked, one request for each sample that can be shown, made when it is looked at."""

    def __init__(self, shown: Presented, sampling: Sampling) -> None:
        self._shown = shown
        self._sampling = sampling
        self.look: Callable[[int], tuple[Sample, Presentation]] = lru_cache(maxsize=_ANSWERED_SOON)(self._look)
        """By number: a sample and how it is shown."""

    def __len__(self) -> int:
        return len(self._shown)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> list[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | list[Request]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        sample, seen = self.look(range(len(self))[index])
        return Request(
            id=sample.id,
            messages=seen.messages,
            images=seen.images,
            sampling=self._sampling,
            score_tokens=score_tokens(sample.task),
        )

    def _look(self, number: int) -> tuple[Sample, Presentation]:
        sample = self._shown.samples[number]
        return sample, self._shown.show(sample)


_ANSWERED_SOON = 512
"""Samples that are kept for the answers that come shortly after their requests were made."""


def _answers(generator: Generator, shown: Presented, sampling: Sampling) -> Iterator[Prediction]:
    """Ask, and read each answer with its task.

    Raises:
        GenerationError: An answer to nothing that was asked, a second answer, or none.
    """
    requests = _Requests(shown, sampling)
    open_questions = {name: number for number, name in enumerate(shown)}
    for generation in generator.generate(requests):
        number = open_questions.pop(generation.id, None)
        if number is None:
            raise GenerationError(msg("The generator answered a request that is not open."), sample=generation.id)
        sample, seen = requests.look(number)
        image_sha256 = seen.image_sha256
        try:
            prediction = parse_generation(generation, sample, image_sha256=image_sha256)
        except EvaluationError as fault:
            # Answers cost hours and are stored whatever a task makes of them. Scoring reads them again, and names the fault.
            said = fault.what.render("en")
            prediction = Prediction(sample_id=sample.id, generation=generation, error=said, image_sha256=image_sha256)
        yield prediction
    if open_questions:
        raise GenerationError(
            msg("The generator left {count} of {total} requests without an answer.", count=len(open_questions), total=len(shown)),
            sample=next(iter(open_questions)),
        )
