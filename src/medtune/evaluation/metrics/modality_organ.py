"""Kind of picture and organ, as a text names them, against what the data know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.language import msg
from medtune.tasks.reading.study import is_part_of, read_modality, read_organ
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ModalityOrgan"]


class ModalityOrgan:
    """The first two fields of MedTrinity-25M's captions (Xie et al. 2024, arXiv:2408.02900, section 3.2); the others, position,
    area and what is unusual, are those of ``region``.

    - ``modality-accuracy`` (0 to 1, higher is better): answers that name the true kind of picture, and no other / judged answers.
    - ``organ-accuracy`` (0 to 1, higher is better): answers whose first organ is the true one or lies in it (a liver where the
      abdomen is true) / judged answers.

    The truth is ``metadata["modality"]`` (a DICOM code or a name), else that of the first picture, and ``metadata["organ"]``. As in
    ``region``, a fact is judged where the data know it *and* the reference answer states it; a judged fact that the answer does not
    state, or of which it names several, is wrong. A sample without either fact has no score.
    """

    name = "modality-organ"
    values: tuple[MetricValue, ...] = (
        share("modality-organ/modality-accuracy", msg("Modality named")),
        share("modality-organ/organ-accuracy", msg("Organ named")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        modality = sample.metadata.get("modality") or (sample.images[0].modality if sample.images else None)
        organ = sample.metadata.get("organ")
        if not isinstance(modality, str) and not isinstance(organ, str):
            return ()
        target, text = reference(sample), prediction.generation.text
        true_modality = read_modality(modality) if isinstance(modality, str) else None
        true_organ = read_organ(organ) if isinstance(organ, str) else None
        scores = []
        for name, truth, stated, answer in (
            ("modality-organ/modality-accuracy", true_modality, read_modality(target), read_modality(text)),
            ("modality-organ/organ-accuracy", true_organ, read_organ(target), read_organ(text)),
        ):
            # A reference that contradicts what is known of the picture is no measure of an answer.
            if truth is None or not is_part_of(stated, truth):
                scores.append(unscored(sample, name))
                continue
            right = is_part_of(answer, truth)
            scores.append(mean_score(sample, name, right, f"{answer or '∅'} {'=' if right else '≠'} {truth}"))
        return tuple(scores)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)
