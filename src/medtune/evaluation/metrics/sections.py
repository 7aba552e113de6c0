"""Whether a report has the sections that its reference has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.language import msg
from medtune.tasks.reading.sections import read_sections
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ReportSections"]


class ReportSections:
    """Headed sections of the answer against those of the reference (:func:`medtune.tasks.reading.sections.read_sections`).

    - ``f1`` (0 to 1, higher is better): 2 c / (a + r) of the sections that have words under them, c in both, a in the answers, r in
      the references, summed over samples (van Rijsbergen 1979, Information Retrieval, chapter 7).
    - ``complete`` (0 to 1, higher is better): answers with findings and impression wherever the reference has them / answers, a
      convention of medtune after ACR's practice parameter for communication of diagnostic imaging findings, whose sections these
      are.

    What stands in the sections is not looked at. A reference without a headed section is unscored.
    """

    name = "sections"
    values: tuple[MetricValue, ...] = (
        share("sections/complete", msg("Findings and impression both there")),
        share("sections/f1", msg("Sections, F1")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        wanted = {name for name, words in read_sections(reference(sample))[1].items() if words}
        if not wanted:
            return tuple(unscored(sample, value.name) for value in self.values)
        written = {name for name, words in read_sections(prediction.generation.text)[1].items() if words}
        main = wanted & {"findings", "impression"} or wanted
        common, both = 2.0 * len(wanted & written), float(len(wanted) + len(written))
        missing, extra = sorted(wanted - written), sorted(written - wanted)
        return (
            mean_score(sample, "sections/complete", main <= written),
            Score(
                sample_id=sample.id,
                metric="sections/f1",
                value=common / both,
                statistics=(common, both),
                explanation=" ".join([f"−{name}" for name in missing] + [f"+{name}" for name in extra]),
            ),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)
