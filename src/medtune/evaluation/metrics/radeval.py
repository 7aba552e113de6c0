"""Report metrics that are models themselves, through the ``radeval`` package (MIT; Xu et al. 2025, EMNLP demos 40).

Each is asked for by its name in ``evaluation.metrics``. The package brings the code and not the weights: those come from the
Hugging Face hub and are looked for on this machine only, since an evaluation opens no network connection by itself. What is missing
is named, with the commands that fetch it (on Linux): the package does not look for all of it in the hub's own cache. They know
English reports, most of them chest X-rays; a sample whose reference holds Chinese characters is unscored.

RadCliQ, which the package has too, is left out: its BERTScore weighs words by how rare they are among all references of a run, so
it is no function of one answer and one reference, and of single samples the package computes it with weights of 0.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import sys
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

__all__ = ["CheXbert", "Green", "RaTEScore", "RadBertCt", "RadGraph", "SrrBert"]

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


class _RadEval:
    """One scorer of the package. The run's number is the mean over samples; an empty reference is unscored.

    Attributes:
        scorer: Its name in the package (version 2.2.1).
        fetch: The commands that put what it needs where the package looks for it.
    """

    name: str
    values: tuple[MetricValue, ...]
    scorer: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    """The package's names of the values for single samples, in the order of ``values``."""
    fetch: ClassVar[tuple[str, ...]]

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        wanted, written = reference(sample).strip(), prediction.generation.text.strip()
        if not wanted or _HAN.search(wanted) or prediction.generation.finish_reason == "error":
            return tuple(unscored(sample, value.name) for value in self.values)
        found = _loaded(self.scorer, self.name, self.fetch)(refs=[wanted], hyps=[written])
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
    """Entities and relations that RadGraph-XL finds in answer and reference (Jain et al. 2021, arXiv:2106.14463; Delbrouck et al.
    2024, aclanthology.org/2024.findings-acl.765).

    - ``simple``, ``partial``, ``complete`` (0 to 1, higher is better): mean of the F1 = 2 p r / (p + r) of entities with their
      type; and whether they have a relation; and the relation (Delbrouck et al. 2022, arXiv:2210.12186).

    Types tell present from absent and uncertain, so a negation costs the entity.
    """

    name = "radgraph"
    scorer = "radgraph"
    keys = ("radgraph_simple", "radgraph_partial", "radgraph_complete")
    fetch = (
        "hf download StanfordAIMI/RRG_scorers radgraph-xl.tar.gz --cache-dir ~/.cache/radgraph/0.1.18",
        "hf download BERT  # the model_name in the config.json that is packed in radgraph-xl.tar.gz",
    )
    values: tuple[MetricValue, ...] = (
        _value("radgraph/simple", msg("RadGraph F1, entities")),
        _value("radgraph/partial", msg("RadGraph F1, entities with a relation")),
        _value("radgraph/complete", msg("RadGraph F1, entities and relations")),
    )


class CheXbert(_RadEval):
    """Labels that CheXbert gives to answer and reference, chest X-ray (Smit et al. 2020, arXiv:2004.09167).

    - ``all-14``, ``all-5`` (0 to 1, higher is better): share of reports whose labels agree, all of them: the 14 of CheXpert, and
      the five of its competition (Irvin et al. 2019, arXiv:1901.07031).

    The weights are a pickle, which the package loads with torch's restricted unpickler.
    """

    name = "chexbert"
    scorer = "f1chexbert"
    keys = ("f1chexbert_sample_acc_all", "f1chexbert_sample_acc_5")
    fetch = (
        "hf download StanfordAIMI/RRG_scorers chexbert.pth --cache-dir ~/.cache/chexbert",
        "hf download bert-base-uncased config.json tokenizer.json tokenizer_config.json vocab.txt",
    )
    values: tuple[MetricValue, ...] = (
        _value("chexbert/all-14", msg("CheXbert, all 14 labels agree")),
        _value("chexbert/all-5", msg("CheXbert, all 5 main labels agree")),
    )


class RadBertCt(_RadEval):
    """Labels that RadBERT-CT gives to answer and reference (CT-RATE: Hamamci et al. 2024, arXiv:2403.17834).

    - ``all`` (0 to 1, higher is better): share of CT reports whose finding labels agree, all of them.
    """

    name = "radbert-ct"
    scorer = "f1radbert_ct"
    keys = ("f1radbert_ct_sample_acc",)
    fetch = ("hf download IAMJB/RadBERT-CT",)
    values: tuple[MetricValue, ...] = (_value("radbert-ct/all", msg("RadBERT-CT, all labels agree")),)


class Green(_RadEval):
    """GREEN, chest X-ray: errors and matches as a language model of 7 billion parameters counts them.

    - ``score`` (0 to 1, higher is better): mean of matched findings / (matched findings + significant errors) (Ostmeier et al.
      2024, arXiv:2405.03595).

    The package lets the weights' own code run (``trust_remote_code``).
    """

    name = "green"
    scorer = "green"
    keys = ("green",)
    fetch = ("hf download StanfordAIMI/GREEN-radllama2-7b",)
    values: tuple[MetricValue, ...] = (_value("green/score", msg("GREEN")),)


class RaTEScore(_RadEval):
    """RaTEScore: entities compared by type, negation and synonym vectors.

    - ``score`` (0 to 1, higher is better): mean of the F1 = 2 p r / (p + r) of weighted entity similarities (Zhao et al. 2024,
      arXiv:2406.16845).
    """

    name = "ratescore"
    scorer = "ratescore"
    keys = ("ratescore",)
    fetch = ("hf download Angelakeke/RaTE-NER-Deberta", "hf download FremyCompany/BioLORD-2023-C")
    values: tuple[MetricValue, ...] = (_value("ratescore/score", msg("RaTEScore")),)


class SrrBert(_RadEval):
    """Labels that SRR-BERT gives to the sentences of a structured report, chest X-ray.

    - ``f1`` (0 to 1, higher is better): mean of the weighted F1 = 2 p r / (p + r) of the labels (Delbrouck et al. 2025,
      aclanthology.org/2025.acl-long.1301).
    """

    name = "srrbert"
    scorer = "srrbert"
    keys = ("srrbert_weighted_f1",)
    fetch = (
        "hf download StanfordAIMI/SRR-BERT-Leaves-with-Statuses",
        "hf download microsoft/BiomedVLP-CXR-BERT-general",
        "python -m nltk.downloader punkt_tab",
    )
    values: tuple[MetricValue, ...] = (_value("srrbert/f1", msg("SRR-BERT F1")),)


@cache
def _loaded(scorer: str, name: str, fetch: tuple[str, ...]) -> Any:
    """The package's scorer with weights that are on this machine.

    Raises:
        MissingDependencyError: The package, or a package that it needs, is not installed.
        EvaluationError: Its weights cannot be loaded; the commands that fetch them are named.
    """
    if importlib.util.find_spec("radeval") is None:
        raise MissingDependencyError("radeval", needed_for=msg("The metric {name}", name=name), pip="'medtune[radeval]'")
    try:
        with _offline(), warnings.catch_warnings():  # the package silences all warnings of the process
            import radeval

            # RadGraph's code in 2.2.1 imports the package by its former name, which only exists where case does not matter.
            sys.modules.setdefault("RadEval", radeval)
            found = radeval.RadEval(metrics=[scorer], per_sample=True, show_progress=False)
            # Without a sentence splitter the first report would fail, hours later.
            for command in fetch:
                if command.startswith("python -m nltk.downloader "):
                    import nltk

                    nltk.data.find(f"tokenizers/{command.rpartition(' ')[2]}")
            return found
    except ImportError as error:
        raise MissingDependencyError(
            error.name or "radeval", needed_for=msg("The metric {name}", name=name), pip="'medtune[radeval]'"
        ) from error
    except Exception as error:  # whatever its many dependencies raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise EvaluationError(
            msg("The metric {name} cannot load its weights: {error}", name=name, error=lines[0] if lines else repr(error)),
            key="evaluation.metrics",
            remedy=msg("Fetch what it needs where there is a network: {commands}", commands="; ".join(fetch)),
        ) from error


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Nothing is fetched: the hub's client and NLTK's downloader look at this machine only.

    The client reads the variable when it is imported, so its constant is set too; the package calls the downloader by itself.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        with _without_downloads():
            yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _without_downloads() -> Iterator[None]:
    if importlib.util.find_spec("nltk") is None:
        yield
        return
    import nltk

    download = nltk.download
    nltk.download = lambda *_arguments, **_settings: False
    try:
        yield
    finally:
        nltk.download = download
