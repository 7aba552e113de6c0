"""Neighbouring slices of one volume where nothing says which volume a picture is from: a heuristic, and named as one.

Slice-level splits of volumes raise measured accuracy by 29 to 55 points (Yagis et al. 2021, doi:10.1038/s41598-021-01681-w).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medtune.data.checks.check import Context
from medtune.data.checks.prints import NO_ROW, Prints
from medtune.data.split import SPLITS
from medtune.language import Text, msg

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEAST", "find_slices", "runs_of_slices"]

LEAST = 0.9
"""Correlation of two thumbnails from which pictures that follow each other may be neighbouring slices. In six head volumes of
MRIcron's templates, 93 to 99 % of the slices 1 mm apart reach it, 7 to 65 % of those 5 mm apart, 0 to 12 % of those 20 mm apart."""

_SHORTEST = 3
_RANDOM_PAIRS = 4096


def runs_of_slices(prints: Prints) -> tuple[NDArray[np.intp], NDArray[np.intp], float]:
    """Runs of at least three pictures, in the order in which the sources gave them, each of which correlates with the next.

    The least correlation is :data:`LEAST`, or that which only one in a hundred random pairs of this data set reaches, if that is
    more: chest films all look alike, and one after the other is no volume.

    Returns:
        starts, stops: (R,) numbers of each run's first picture and of the one after its last.
        least: The correlation that was asked for.
    """
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, max(len(prints), 1), (2, _RANDOM_PAIRS))
    pairs = (
        pairs[:, (np.abs(pairs[0] - pairs[1]) > 1) & (prints.rows[pairs] != NO_ROW).all(axis=0)] if len(prints) else pairs[:, :0]
    )
    drawn = prints.correlations(pairs[0], pairs[1])
    least = max(LEAST, float(np.quantile(drawn, 0.99))) if len(drawn) else LEAST
    joined = np.concatenate(([False], prints.neighbours() >= least, [False]))
    joined[1:-1] &= (prints.rows[:-1] != NO_ROW) & (prints.rows[1:] != NO_ROW)
    edges = np.diff(joined.astype(np.int8))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) + 1
    long = stops - starts >= _SHORTEST
    return starts[long], stops[long], least


def find_slices(context: Context, prints: Prints) -> None:
    """Report runs whose pictures stand in several splits."""
    if not len(prints):
        return
    starts, stops, least = runs_of_slices(prints)
    affected = np.zeros(len(SPLITS), np.int64)
    examples: list[str] = []
    leaking = 0
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        masks = prints.masks[start:stop]
        if np.bitwise_count(np.bitwise_or.reduce(masks)) < 2:
            continue
        leaking += 1
        counts = [int((masks >> place & 1).sum()) for place in range(len(SPLITS))]
        affected += counts
        first, last = (context.rows.id(int(prints.rows[number])) for number in (start, stop - 1))
        if len(examples) < 3:
            examples.append(f"{first} - {last}")
        context.findings.add(
            "slice-run",
            "info",
            msg(
                "{count} pictures in a row, from {first} to {last}, look like slices of one volume: {splits}.",
                count=stop - start,
                first=first,
                last=last,
                splits=", ".join(f"{split} {count}" for split, count in zip(SPLITS, counts, strict=True) if count),
            ),
            sample=first,
        )
    for place, split in list(enumerate(SPLITS))[1:]:
        if affected[place]:
            context.findings.add(
                "adjacent-slices",
                "warning",
                _summary(int(affected[place]), int((prints.masks >> place & 1).sum()), leaking, least, examples),
                msg("Give the source what belongs together (patient, study or volume) and prepare again."),
                split=split,
                count=int(affected[place]),
            )


def _summary(count: int, total: int, runs: int, least: float, examples: list[str]) -> Text:
    return msg(
        "{count} of the {total} pictures seem to be slices of volumes that also stand in another split: {runs} runs of pictures, "
        "each correlated with the next at {least:.2f} or more, e.g. {examples}. This is a guess from the pictures' order and "
        "likeness.",
        count=count,
        total=total,
        runs=runs,
        least=least,
        examples=", ".join(examples),
    )
