"""Measurements of the answer against those of the reference, in one unit and with a tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medtune.evaluation.metrics.additive import check_name, mean_of, reference, share, unscored
from medtune.language import msg
from medtune.tasks.reading.quantities import Quantity, QuantityKind, read_quantities
from medtune.tasks.reading.sections import about_this_study
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Measurements", "pair_quantities"]

TOLERANCE: dict[QuantityKind, float] = {
    "length": 1.0,
    "share": 1.0,
    "volume": 1.0,
    "density": 5.0,
    "angle": 2.0,
    "uptake": 0.2,
}
"""Absolute tolerance in the kind's unit (mm, percentage points, ml, HU, degrees, SUV). A convention of medtune, not a standard."""
RELATIVE_TOLERANCE = 0.1
"""Of the reference's value; the larger of the two tolerances holds. Also a convention."""


class Measurements:
    """Numbers with a unit (:func:`medtune.tasks.reading.quantities.read_quantities`), converted to one unit for each kind.

    Measurements of one kind are paired one to one where they differ by at most 10 % of the reference or by :data:`TOLERANCE` (1 mm,
    1 percentage point, ...), whichever is more, both conventions of medtune; no pairing has more pairs. Precision, recall and F1
    (van Rijsbergen 1979, Information Retrieval, chapter 7) of sums over samples: *found* pairs, *written* and *wanted* ones.

    - ``precision`` (0 to 1, higher is better): found / written.
    - ``recall`` (0 to 1, higher is better): found / wanted.
    - ``f1`` (0 to 1, higher is better): 2 found / (written + wanted).
    - ``exact-f1`` (0 to 1, higher is better): the same for values that are equal after conversion (to 1e-6 of themselves).
    - ``error`` (0 to 10, lower is better): mean over pairs of abs(written - wanted) / wanted, so at most 0.1 but for small values.

    It is not asked *what* is measured: two sizes that change places are not noticed. A sample without a measurement on either side
    has no score; one whose reference is empty is unscored.
    """

    name = "measurements"
    values: tuple[MetricValue, ...] = (
        share("measurements/f1", msg("Measurements, F1")),
        share("measurements/precision", msg("Measurements, precision")),
        share("measurements/recall", msg("Measurements, recall")),
        share("measurements/exact-f1", msg("Measurements, F1 of equal values")),
        MetricValue(
            name="measurements/error",
            title=msg("Relative error of paired measurements").template,
            direction="lower",
            low=0.0,
            high=10.0,
        ),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        target = reference(sample)
        if not target.strip():
            return tuple(unscored(sample, value.name) for value in self.values)
        wanted = read_quantities(about_this_study(target))
        written = read_quantities(about_this_study(prediction.generation.text))
        if not wanted and not written:
            return ()
        pairs = pair_quantities(wanted, written)
        exact = len(pair_quantities(wanted, written, exact=True))
        both, found = float(len(wanted) + len(written)), float(len(pairs))
        # A share of nothing is nothing: no pair, and no length of 0 mm, has a relative error.
        errors = [min(abs(one.value - other.value) / abs(one.value), 10.0) for one, other in pairs if one.value]
        explanation = f"{len(pairs)} / {len(wanted)}, +{len(written) - len(pairs)}"
        return (
            _ratio(sample, "measurements/f1", 2 * found, both, explanation),
            _ratio(sample, "measurements/precision", found, float(len(written))),
            _ratio(sample, "measurements/recall", found, float(len(wanted))),
            _ratio(sample, "measurements/exact-f1", 2.0 * exact, both),
            _ratio(sample, "measurements/error", sum(errors), float(len(errors))),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


def pair_quantities(
    wanted: Sequence[Quantity], written: Sequence[Quantity], *, exact: bool = False
) -> list[tuple[Quantity, Quantity]]:
    """As many one-to-one pairs of one kind as can be made within the tolerance.

    Both sides are passed through in ascending order: the ends of the intervals around the wanted values ascend with these, so
    taking the first that fits leaves the most for the rest.
    """
    pairs: list[tuple[Quantity, Quantity]] = []
    left, right = sorted(wanted), sorted(written)
    row = column = 0
    while row < len(left) and column < len(right):
        one, other = left[row], right[column]
        slack = 1e-6 * abs(one.value) if exact else max(RELATIVE_TOLERANCE * abs(one.value), TOLERANCE[one.kind])
        # Rounding of a conversion (1.1 cm is 11.000000000000002 mm) must not decide.
        slack += 1e-9
        if one.kind != other.kind:
            row, column = (row + 1, column) if one.kind < other.kind else (row, column + 1)
        elif abs(one.value - other.value) <= slack:
            pairs.append((one, other))
            row, column = row + 1, column + 1
        elif one.value < other.value:
            row += 1
        else:
            column += 1
    return pairs


def _ratio(sample: Sample, name: str, part: float, whole: float, explanation: str = "") -> Score:
    if not whole:
        return unscored(sample, name)
    return Score(sample_id=sample.id, metric=name, value=part / whole, statistics=(part, whole), explanation=explanation)
