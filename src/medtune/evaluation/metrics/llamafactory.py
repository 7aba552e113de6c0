"""LLaMA-Factory's ``predict_*`` numbers, digit for digit, so that published ones can be compared.

From its ``src/llamafactory/train/sft/metric.py`` (``ComputeSimilarity``), the same from v0.9.0 to the snapshot of 2026-08. They
are not good numbers for medicine: BLEU-4 is a mean of sentence scores over *characters*, ROUGE-N is over *sets* of jieba's words,
and a perfect answer "yes" gets BLEU-4 84 and ROUGE-2 0. Read them beside an accuracy or an F1.

Since v0.9.2 the Qwen templates end the reference with a newline that a generation never has. It costs BLEU-4 a little on long
answers and a third on short ones ("yes": 84.1 -> 60.3); ROUGE does not see it. Both are reported: ``bleu-4`` without the newline
(v0.9.0 and v0.9.1, and other templates) and ``bleu-4-newline`` with it (v0.9.2 and later with Qwen templates).
"""

from __future__ import annotations

import logging
import math
import tempfile
import threading
import warnings
from collections import Counter
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference
from medtune.evaluation.metrics.lcs import lcs_length
from medtune.language import msg
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LlamaFactoryMetric", "bleu_4", "predict_timing", "rouge"]


class LlamaFactoryMetric:
    """BLEU-4 (both newline modes) and ROUGE-1/2/L as LLaMA-Factory computes them: 0 to 100, each sample rounded to four decimals,
    the run's number the mean of those.

    The prediction is the raw generation. As there, every sample counts: an empty prediction or reference is 0, never unscored.
    """

    name = "llamafactory"
    values: tuple[MetricValue, ...] = tuple(
        MetricValue(name=f"llamafactory/{value}", title=title.template, direction="higher", low=0.0, high=100.0)
        for value, title in (
            ("bleu-4", msg("BLEU-4 (LLaMA-Factory)")),
            ("rouge-1", msg("ROUGE-1 (LLaMA-Factory)")),
            ("rouge-2", msg("ROUGE-2 (LLaMA-Factory)")),
            ("rouge-l", msg("ROUGE-L (LLaMA-Factory)")),
            ("bleu-4-newline", msg("BLEU-4 with newline (LLaMA-Factory)")),
        )
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        text, label = prediction.generation.text, reference(sample).rstrip("\n")
        numbers = {"bleu-4": bleu_4(text, label), "bleu-4-newline": bleu_4(text, label + "\n"), **rouge(text, label)}
        return tuple(mean_score(sample, f"llamafactory/{value}", number) for value, number in numbers.items())

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


def bleu_4(prediction: str, label: str) -> float:
    """Sentence BLEU-4 over characters with nltk's smoothing method 3, 0 to 100, four decimals. The label is taken as it is.

    nltk's ``sentence_bleu`` step for step, in the same order of floating-point operations: the same double, several times
    faster. Without a common character it is 0. The k-th order without a match has the precision 1 / (2^k * n-grams) (Chen &
    Cherry 2014, method 3).
    """
    precisions: list[float] = []
    empty = 0
    for order in range(1, 5):
        written = _ngrams(prediction, order)
        matched, possible = (written & _ngrams(label, order)).total(), max(written.total(), 1)
        if matched:
            precisions.append(matched / possible)
        elif order == 1:
            return 0.0
        else:
            empty += 1
            precisions.append(1 / (2**empty * possible))
    brevity = 1.0 if len(prediction) > len(label) else math.exp(1 - len(label) / len(prediction))
    return round(100 * (brevity * math.exp(math.fsum(0.25 * math.log(precision) for precision in precisions))), 4)


@lru_cache(maxsize=4096)
def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def rouge(prediction: str, label: str) -> dict[str, float]:
    """``rouge-1``, ``rouge-2`` and ``rouge-l``: the F of the rouge-chinese package over jieba's words, 0 to 100, four decimals."""
    hypothesis, target = _cut(prediction), _cut(label)
    if not " ".join(hypothesis).split() or not " ".join(target).split():
        return {"rouge-1": 0.0, "rouge-2": 0.0, "rouge-l": 0.0}
    scorer, ngrams = _rouge()
    # The package's own splitting and n-grams: they hold the oddities (a blank sentence is one empty word). Its LCS is a table
    # in a dict, slow for long texts, and is the only part replaced.
    sides = [
        [" ".join(sentence.split()) for sentence in scorer.cut_sent(" ".join(side)) if sentence] for side in (hypothesis, target)
    ]
    flat = [[word for sentence in side for word in sentence.split(" ")] for side in sides]
    common = lcs_length(flat[1], flat[0])
    precision, recall = common / len(flat[0]), common / len(flat[1])
    found = {
        "rouge-1": ngrams(sides[0], sides[1], 1)["f"],
        "rouge-2": ngrams(sides[0], sides[1], 2)["f"],
        "rouge-l": 2.0 * ((precision * recall) / (precision + recall + 1e-8)),
    }
    return {name: round(100 * value, 4) for name, value in found.items()}


def predict_timing(
    num_samples: int, seconds: float, batch_size: int, *, world_size: int = 1, preparation_seconds: float | None = None
) -> dict[str, float]:
    """The ``predict_*`` time fields with the rounding of ``transformers.trainer_utils.speed_metrics``.

    Args:
        num_samples: Samples of the data set, without padding.
        seconds: Wall time of loading, generation and scoring; includes ``preparation_seconds`` where that is given.
        batch_size: Samples a device generates for at once.
        world_size: Devices.
        preparation_seconds: Time to place the model on its devices (not to load it), None when it was placed already.

    Returns:
        ``predict_runtime`` (s, 4 decimals), ``predict_samples_per_second`` and ``predict_steps_per_second`` (3 decimals), and
        ``predict_model_preparation_time`` (s, 4 decimals) where it is known. No rates for a runtime of 0.
    """
    fields: dict[str, float] = {}
    if preparation_seconds is not None:
        fields["predict_model_preparation_time"] = round(preparation_seconds, 4)
        seconds -= preparation_seconds
    fields["predict_runtime"] = round(seconds, 4)
    if seconds > 0:
        fields["predict_samples_per_second"] = round(num_samples / seconds, 3)
        fields["predict_steps_per_second"] = round(math.ceil(num_samples / (batch_size * world_size)) / seconds, 3)
    return fields


# ------------------------------------------------------------------------------------------------- the packages underneath

_JIEBA_LOCK = threading.Lock()


@cache
def _rouge() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        # Its regular expressions are in plain strings: a SyntaxWarning when Python compiles the module.
        warnings.simplefilter("ignore")
        from rouge_chinese import Rouge
        from rouge_chinese.rouge_score import rouge_n
    return Rouge(), rouge_n


@cache
def _jieba() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba
    # A tokenizer of our own: jieba's shared one can be changed by other code (user dictionaries), and would change the numbers.
    tokenizer = jieba.Tokenizer()
    log = logging.getLogger("jieba")
    level = log.level
    log.setLevel(logging.WARNING)
    # It keeps its dictionary as a marshal file of fixed name in the shared temporary folder, and loads whatever lies there.
    with tempfile.TemporaryDirectory(prefix="medtune-jieba-") as private:
        tokenizer.tmp_dir = private
        try:
            tokenizer.initialize()
        finally:
            log.setLevel(level)
    return tokenizer


@lru_cache(maxsize=16384)
def _cut(text: str) -> tuple[str, ...]:
    # The same references are cut again for the base model, the tuned one and every control.
    with _JIEBA_LOCK:
        tokenizer = _jieba()
    return tuple(tokenizer.cut(text))
