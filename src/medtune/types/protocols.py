"""The Protocols that plug-ins follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import JsonValue

from medtune.language import Text
from medtune.types.data import Message, Record, Sample, SourceCard
from medtune.types.generation import Generation, Prediction, Request
from medtune.types.measurement import MetricValue, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


@runtime_checkable
class DatasetSource(Protocol):
    """Where records come from. Constructed with the options of its recipe entry as keyword arguments."""

    @property
    def card(self) -> SourceCard: ...

    def samples(self) -> Iterator[Record]:
        """All records, in a stable order, lazily. A faulty record raises nothing here: it is yielded, and found later."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``start`` to ``stop`` (exclusive, from 0; None = to the end) of a source's file, readable without the rest."""

    file: Path
    start: int = 0
    stop: int | None = None


@runtime_checkable
class PartedSource(DatasetSource, Protocol):
    """A source that several processes can read at once. The records of all parts in their order are those of ``samples()``."""

    def parts(self) -> Sequence[Part]:
        """The parts in a stable order, found without reading rows (file names, the index of a Parquet file)."""
        ...

    def samples_of(self, part: Part) -> Iterator[Record]:
        """The records of one part."""
        ...


@runtime_checkable
class RemarkingSource(DatasetSource, Protocol):
    """A source that measures its files and has something to say about them as a whole."""

    def remarks(self) -> Sequence[Text]:
        """What it found, after its records were read, by this process or by others: for the manifest's warnings. The same
        files and options give the same sentences."""
        ...


@runtime_checkable
class Task(Protocol):
    """How a record is asked, how an answer is read, which metrics judge it."""

    name: str
    metrics: tuple[str, ...]

    def messages(self, record: Record) -> tuple[Message, ...]:
        """The conversation, ending with the reference answer. Rendered once, in ``prepare``."""
        ...

    def parse(self, text: str, sample: Sample) -> JsonValue:
        """Read an answer into the task's structured form.

        Raises:
            ValueError: The text cannot be read; the message says why.
        """
        ...


@runtime_checkable
class ImageTransform(Protocol):
    """Changes pixels. A frozen pydantic model: its fields are its parameters and are recorded in the manifest."""

    name: str

    def __call__(self, image: Image) -> Image: ...

    def map_box(self, box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
        """Where a box [x1, y1, x2, y2] (pixels) of the (width, height) picture lies after the transform."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Judges predictions. See :class:`Score` for the additive statistics.

    Two pictures are spoken of. ``metadata`` (``area_percent``, ``horizontal``, ``vertical``) and the words of references and
    answers are of the *source* picture: compare words with words. Boxes, in ``metadata`` and in texts, are of the *stored*
    picture, which the model sees. They differ only where a transform such as letterbox adds borders;
    :func:`medtune.evaluation.metrics.box.source_extent` tells where the one lies in the other.
    """

    name: str
    values: tuple[MetricValue, ...]

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        """One score for each of ``values`` that applies to the sample."""
        ...

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """``totals`` (..., k) are sums of statistics; returns (...) numbers of the value ``name``, NaN where undefined."""
        ...


@runtime_checkable
class Generator(Protocol):
    """Messages in, text out."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Generations as they finish, in any order; each request is answered exactly once."""
        ...

    def stream(self, request: Request) -> Iterator[str]:
        """Pieces of the text as they come."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class LoadsAhead(Protocol):
    """A generator that loads its model when it is first asked, or before: then loading does not count as answering."""

    def load(self, num_requests: int) -> None: ...


@runtime_checkable
class Retriever(Protocol):
    """Evidence for a prompt."""

    def search(self, query: str, k: int) -> Sequence[tuple[str, float]]: ...


Rows = Iterable[Sample]
Options = Mapping[str, Any]
