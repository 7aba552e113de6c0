"""Scores with additive statistics, and the functions of their sums."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from medtune.language import Text
from medtune.types import Direction, MetricValue, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["check_name", "mean_of", "mean_score", "reference", "share", "statistics_of", "unscored"]


def reference(sample: Sample) -> str:
    """The reference answer's words: the target, or the last turn where a task has written the answer itself."""
    return sample.target or sample.messages[-1].content


def share(name: str, title: Text, *, direction: Direction = "higher") -> MetricValue:
    """A number from 0 to 1. The title is kept in English, and is the key of its translation."""
    return MetricValue(name=name, title=title.template, direction=direction, low=0.0, high=1.0)


def mean_score(sample: Sample, name: str, value: float, explanation: str = "") -> Score:
    """A score that is averaged over samples: statistics (value, 1)."""
    return Score(sample_id=sample.id, metric=name, value=float(value), statistics=(float(value), 1.0), explanation=explanation)


def unscored(sample: Sample, name: str, explanation: str = "") -> Score:
    """No number: there is no truth, or none that a number could be made of. It is counted apart, never as zero."""
    return Score(sample_id=sample.id, metric=name, value=None, explanation=explanation)


def statistics_of(scores: Sequence[Score]) -> NDArray[np.float64]:
    """(n, k) additive statistics of scored samples.

    Statistics that stand at places (:attr:`medtune.types.Score.places`) come as the blocks of :attr:`medtune.types.Score.width`
    columns in which any of ``scores`` has something, in ascending order; one block of zeros where none has.
    """
    import numpy as np

    width = max((score.width for score in scores), default=0)
    if not width:
        return np.array([score.statistics or (score.value, 1.0) for score in scores], dtype=np.float64)
    rows = np.repeat(np.arange(len(scores)), [len(score.places) for score in scores])
    places = np.fromiter(chain.from_iterable(score.places for score in scores), dtype=np.int64, count=len(rows))
    blocks, block_of = np.unique(places // width, return_inverse=True)
    vectors = np.zeros((len(scores), width * max(len(blocks), 1)), dtype=np.float64)
    numbers = np.fromiter(chain.from_iterable(score.statistics for score in scores), dtype=np.float64, count=len(rows))
    vectors[rows, block_of * width + places % width] = numbers
    return vectors


def mean_of(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """``totals`` (..., 2) of (sum, count) -> (...) means, NaN where the count is 0."""
    import numpy as np

    totals = np.asarray(totals, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(totals[..., 1] > 0, totals[..., 0] / totals[..., 1], np.nan)


def check_name(name: str, values: tuple[MetricValue, ...]) -> None:
    """Refuse a value that the metric does not have.

    Raises:
        ValueError: ``name`` is none of ``values``.
    """
    if name not in {value.name for value in values}:
        raise ValueError(f"{name!r} is not one of {[value.name for value in values]}")
