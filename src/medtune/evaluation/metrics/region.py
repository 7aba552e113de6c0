"""What an answer says of the region of interest, against the truth: position, patient's side, size, density, finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import JsonValue

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.evaluation.metrics.box import centre_distance, source_extent, true_boxes
from medtune.evaluation.metrics.words import answer_words, holds_run
from medtune.imaging.boxes import SCALE, from_relative, out_of_extent
from medtune.language import msg
from medtune.tasks.reading.finding import canonical_finding, is_kind_of
from medtune.tasks.region import REGION_FIELDS, read_region
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RegionError"]

_ACCURACIES = {
    "horizontal": "region/horizontal-accuracy",
    "vertical": "region/vertical-accuracy",
    "side": "region/side-accuracy",
    "density": "region/density-accuracy",
    "kind": "region/kind-accuracy",
}
_ACROSS = {"left": SCALE / 6, "center": SCALE / 2, "right": SCALE * 5 / 6}
_ALONG = {"upper": SCALE / 6, "middle": SCALE / 2, "lower": SCALE * 5 / 6}


class RegionError:
    """The facts of ``metadata`` against what the answer says (:func:`medtune.tasks.region.read_region`): the fields of
    MedTrinity-25M's captions (Xie et al. 2024, arXiv:2408.02900, section 3.2). The numbers are conventions of medtune, means over
    judged samples.

    - ``horizontal-accuracy``, ``vertical-accuracy`` (0 to 1, higher is better): share of answers that name the right third of the
      picture's width, and of its height.
    - ``position-accuracy`` (0 to 1, higher is better): share with both right.
    - ``side-accuracy`` (0 to 1, higher is better): share with the right side of the *patient*: the picture's left is no answer to
      it.
    - ``kind-accuracy`` (0 to 1, higher is better): share that name the finding, by a synonym, or a kind of it (a subdural haematoma
      where a haemorrhage is true, not the other way round).
    - ``density-accuracy`` (0 to 1, higher is better): share that name the density.
    - ``area-error`` (0 to 100 percentage points, lower is better): mean of abs(stated - true) share of the picture's area.
    - ``area-stated`` (0 to 1, higher is better): share of answers that state an area.
    - ``centre-error`` (0 to 1 of the diagonal, lower is better): mean distance from the true box's centre to the middle of the
      ninth of the picture that the words name; even the right ninth leaves some distance.

    The picture is the source's throughout, without borders that a transform has added: that is the one that the references speak
    of. A fact is judged where the data know it *and* the reference answer states it: a caption that was never meant to give a size
    is not wrong for leaving it out. A judged fact that the answer does not state is 0 for accuracies. For the two errors it is
    unscored, since they have no worst value; ``area-stated`` and the counts say how often that is. A sample whose data know nothing
    of a region has no scores here.
    """

    name = "region"
    values: tuple[MetricValue, ...] = (
        share("region/position-accuracy", msg("Position in the image (both axes)")),
        MetricValue(
            name="region/area-error",
            title=msg("Error of the area share").template,
            direction="lower",
            low=0.0,
            high=100.0,
            unit="percentage points",
        ),
        share("region/side-accuracy", msg("Side of the patient")),
        share("region/kind-accuracy", msg("Finding named")),
        share("region/density-accuracy", msg("Density named")),
        share("region/horizontal-accuracy", msg("Position, left to right")),
        share("region/vertical-accuracy", msg("Position, top to bottom")),
        share("region/area-stated", msg("Area share stated")),
        MetricValue(
            name="region/centre-error",
            title=msg("Distance of the position from the box centre").template,
            direction="lower",
            low=0.0,
            high=1.0,
            unit="of the diagonal",
        ),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        known = {field: sample.metadata.get(field) for field in REGION_FIELDS}
        if all(value is None for value in known.values()):
            return ()
        stated = read_region(reference(sample))
        if isinstance(known["kind"], str) and canonical_finding(known["kind"]) is None:
            stated["kind"] = known["kind"] if _names(reference(sample), known["kind"]) else None
        truth = {field: known[field] if stated[field] is not None else None for field in REGION_FIELDS}
        answer = _answer(prediction)
        text = prediction.generation.text

        right: dict[str, bool] = {}
        scores: list[Score] = []
        for field, name in _ACCURACIES.items():
            value = truth[field]
            if value is None:
                scores.append(unscored(sample, name))
                continue
            right[field] = _is_finding(answer["kind"], str(value), text) if field == "kind" else answer[field] == value
            scores.append(mean_score(sample, name, right[field], _compare(answer[field], value, right[field])))
        if "horizontal" in right and "vertical" in right:
            scores.append(mean_score(sample, "region/position-accuracy", right["horizontal"] and right["vertical"]))
        else:
            scores.append(unscored(sample, "region/position-accuracy"))
        scores.extend(_area(sample, truth["area_percent"], answer["area_percent"]))
        scores.append(_centre(sample, truth, answer))
        order = [value.name for value in self.values]
        return tuple(sorted(scores, key=lambda score: order.index(score.metric)))

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


def _answer(prediction: Prediction) -> dict[str, JsonValue]:
    """The region as the task has read it; for tasks whose answer is plain text, read here."""
    answer = prediction.answer
    if isinstance(answer, dict) and all(field in answer for field in REGION_FIELDS):
        return answer
    return read_region(prediction.generation.text)


def _area(sample: Sample, truth: JsonValue, answer: JsonValue) -> tuple[Score, Score]:
    if not isinstance(truth, int | float):
        return unscored(sample, "region/area-error"), unscored(sample, "region/area-stated")
    if not isinstance(answer, int | float):
        return unscored(sample, "region/area-error", f"∅ ≠ {truth}"), mean_score(sample, "region/area-stated", 0.0)
    error = abs(float(answer) - float(truth))
    return mean_score(sample, "region/area-error", error, f"{answer} ~ {truth}"), mean_score(sample, "region/area-stated", 1.0)


def _centre(sample: Sample, truth: dict[str, JsonValue], answer: dict[str, JsonValue]) -> Score:
    name = "region/centre-error"
    boxes = true_boxes(sample)
    across, along = _ACROSS.get(str(answer["horizontal"])), _ALONG.get(str(answer["vertical"]))
    if len(boxes) != 1 or truth["horizontal"] is None or truth["vertical"] is None:
        return unscored(sample, name)
    if across is None or along is None:
        return unscored(sample, name, "∅")
    image = sample.images[0]
    extent = source_extent(sample)
    x1, y1, x2, y2 = out_of_extent(from_relative(boxes[0], image.width, image.height), extent)
    centre = ((x1 + x2) / 2, (y1 + y2) / 2)
    # Transforms scale both axes alike, so the extent has the source picture's shape.
    return mean_score(
        sample, name, centre_distance(centre, (across, along), round(extent[2] - extent[0]), round(extent[3] - extent[1]))
    )


def _is_finding(answer: JsonValue, truth: str, text: str) -> bool:
    canonical = canonical_finding(truth)
    if canonical is None:
        return _names(text, truth)
    return isinstance(answer, str) and is_kind_of(answer, canonical)


def _names(text: str, finding: str) -> bool:
    """For a finding outside the vocabulary: its own words, one after the other."""
    return holds_run(answer_words(text), answer_words(finding))


def _compare(answer: JsonValue, truth: JsonValue, right: bool) -> str:
    return f"{'∅' if answer is None else answer} {'=' if right else '≠'} {truth}"
