"""Report metrics that are models themselves, through the ``radeval`` package (MIT; Xu et al. 2025, EMNLP demos 40).

Each is asked for by its name in ``evaluation.metrics``. The package brings the code and not the weights: those come from the
Hugging Face hub and are looked for on this machine only, since an evaluation opens no network connection by itself. What is missing
is named. They know English reports, most of them chest X-rays; a sample whose reference holds Chinese characters is unscored.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from medtune.errors import EvaluationError, MissingDependencyError
from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, unscored
from medtune.language import Text, msg
from medtune.types import Direction, MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CheXbert", "Green", "RaTEScore", "RadBertCt", "RadCliQ", "RadGraph", "SrrBert"]

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


class _RadEval:
    """One scorer of the package. The run's number is the mean over samples; an empty reference is unscored.

    Attributes:
        scorer: Its name in the package (version 2.2).
        weights: What it needs from the hub.
    """

    name: str
    values: tuple[MetricValue, ...]
    scorer: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    """The package's names of the values for single samples, in the order of ``values``."""
    weights: ClassVar[tuple[str, ...]]

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        wanted, written = reference(sample).strip(), prediction.generation.text.strip()
        if not wanted or _HAN.search(wanted) or prediction.generation.finish_reason == "error":
            return tuple(unscored(sample, value.name) for value in self.values)
        found = _loaded(self.scorer, self.name, self.weights)(refs=[wanted], hyps=[written])
        scores = []
        for key, value in zip(self.keys, self.values, strict=True):
            number = float(found[key][0])
            scores.append(mean_score(sample, value.name, number) if math.isfinite(number) else unscored(sample, value.name))
        return tuple(scores)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


def _value(name: str, title: Text, low: float = 0.0, high: float = 1.0, direction: Direction = "higher") -> MetricValue:
    return MetricValue(name=name, title=title.template, direction=direction, low=low, high=high)


class RadGraph(_RadEval):
    """F1 of RadGraph-XL's entities and relations (Jain et al. 2021, arXiv:2106.14463; Delbrouck et al. 2022 and 2024), 0 to 1.

    ``simple``: entities with their type; ``partial``: and whether they have a relation; ``complete``: and the relation. Types tell
    present from absent and uncertain, so a negation costs the entity.
    """

    name = "radgraph"
    scorer = "radgraph"
    keys = ("radgraph_simple", "radgraph_partial", "radgraph_complete")
    weights = ("StanfordAIMI/RRG_scorers (radgraph-xl)",)
    values = (
        _value("radgraph/simple", msg("RadGraph F1, entities")),
        _value("radgraph/partial", msg("RadGraph F1, entities with a relation")),
        _value("radgraph/complete", msg("RadGraph F1, entities and relations")),
    )


class CheXbert(_RadEval):
    """Share of reports whose labels agree, all of them, by CheXbert (Smit et al. 2020, arXiv:2004.09167), chest X-ray, 0 to 1.

    Over 14 labels of CheXpert and over the five of its competition. The weights are a pickle, which the package loads with torch's
    restricted unpickler.
    """

    name = "chexbert"
    scorer = "f1chexbert"
    keys = ("f1chexbert_sample_acc_all", "f1chexbert_sample_acc_5")
    weights = ("StanfordAIMI/RRG_scorers (chexbert.pth)", "bert-base-uncased")
    values = (
        _value("chexbert/all-14", msg("CheXbert, all 14 labels agree")),
        _value("chexbert/all-5", msg("CheXbert, all 5 main labels agree")),
    )


class RadBertCt(_RadEval):
    """Share of CT reports whose finding labels agree, all of them, by RadBERT-CT, 0 to 1."""

    name = "radbert-ct"
    scorer = "f1radbert_ct"
    keys = ("f1radbert_ct_sample_acc",)
    weights = ("IAMJB/RadBERT-CT",)
    values = (_value("radbert-ct/all", msg("RadBERT-CT, all labels agree")),)


class Green(_RadEval):
    """GREEN (Ostmeier et al. 2024, arXiv:2405.03595): matched findings / (matched + significant errors), as a language model of 7
    billion parameters counts them; chest X-ray, 0 to 1. The package lets the weights' own code run (``trust_remote_code``)."""

    name = "green"
    scorer = "green"
    keys = ("green",)
    weights = ("StanfordAIMI/GREEN-radllama2-7b",)
    values = (_value("green/score", msg("GREEN")),)


class RaTEScore(_RadEval):
    """RaTEScore (Zhao et al. 2024, arXiv:2406.16845): entities compared by type, negation and synonym vectors, 0 to 1."""

    name = "ratescore"
    scorer = "ratescore"
    keys = ("ratescore",)
    weights = ("Angelakeke/RaTE-NER-Deberta", "FremyCompany/BioLORD-2023-C")
    values = (_value("ratescore/score", msg("RaTEScore")),)


class RadCliQ(_RadEval):
    """RadCliQ-v1 (Yu et al. 2023, doi:10.1016/j.patter.2023.100802): errors a radiologist would count, predicted from four other
    metrics; lower is better. It has no fixed range; values lie about -1 to 5."""

    name = "radcliq"
    scorer = "radcliq"
    keys = ("radcliq_v1",)
    weights = ("distilroberta-base", "StanfordAIMI/RRG_scorers (radgraph, chexbert.pth)", "bert-base-uncased")
    values = (_value("radcliq/v1", msg("RadCliQ-v1"), -10.0, 10.0, "lower"),)


class SrrBert(_RadEval):
    """F1 of the labels of a structured report by SRR-BERT (Delbrouck et al. 2025, ACL long 1301), chest X-ray, 0 to 1."""

    name = "srrbert"
    scorer = "srrbert"
    keys = ("srrbert_weighted_f1",)
    weights = ("StanfordAIMI/SRR-BERT-Leaves", "microsoft/BiomedVLP-CXR-BERT-general")
    values = (_value("srrbert/f1", msg("SRR-BERT F1")),)


@cache
def _loaded(scorer: str, name: str, weights: tuple[str, ...]) -> Any:
    """The package's scorer with weights that are on this machine.

    Raises:
        MissingDependencyError: The package is not installed.
        EvaluationError: Its weights cannot be loaded; they are named.
    """
    if importlib.util.find_spec("radeval") is None:
        raise MissingDependencyError("radeval", needed_for=msg("The metric {name}", name=name), pip="'medtune[radeval]'")
    try:
        with _offline(), warnings.catch_warnings():  # the package silences all warnings of the process
            from radeval import RadEval

            return RadEval(metrics=[scorer], per_sample=True, show_progress=False)
    except Exception as error:  # whatever its many dependencies raise
        raise EvaluationError(
            msg(
                "The metric {name} cannot load its weights: {error}", name=name, error=(str(error).splitlines() or [repr(error)])[0]
            ),
            key="evaluation.metrics",
            remedy=msg(
                "It needs {weights} of the Hugging Face hub in this machine's cache; `hf download` fetches them.",
                weights=", ".join(weights),
            ),
        ) from error


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The hub's client looks at this machine only. It reads the variable when it is imported, so its constant is set too."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
