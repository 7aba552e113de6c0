"""LLaMA-Factory's ``predict_*`` numbers, digit for digit, so that published ones can be compared.

From its ``src/llamafactory/train/sft/metric.py`` (``ComputeSimilarity``), the same from v0.9.0 to the snapshot of 2026-08. They
are not good numbers for medicine: BLEU-4 is a mean of sentence scores over *characters*, ROUGE-N is over *sets* of jieba's words,
and a perfect answer "yes" gets BLEU-4 84 and ROUGE-2 0. Read them beside an accuracy or an F1.

Since v0.9.2 the Qwen templates end the reference with a newline that a generation never has. It costs BLEU-4 a little on long
answers and a third on short ones ("yes": 84.1 -> 60.3); ROUGE does not see it. Both are reported: ``bleu-4`` without the newline
(v0.9.0 and v0.9.1, and other templates) and ``bleu-4-newline`` with it (v0.9.2 and later with Qwen templates).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference
from medtune.evaluation.metrics.jieba_words import jieba_words
from medtune.evaluation.metrics.lcs import lcs_length
from medtune.evaluation.metrics.ngrams import matched_ngrams
from medtune.language import msg
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LlamaFactoryMetric", "bleu_4", "predict_timing", "rouge"]


class LlamaFactoryMetric:
    """BLEU-4 (both newline modes) and ROUGE-1/2/L as LLaMA-Factory computes them (hiyouga/LLaMA-Factory,
    ``src/llamafactory/train/sft/metric.py``, 2024 to 2026): the mean over samples of numbers that are rounded to four decimals.

    - ``bleu-4``, ``bleu-4-newline`` (0 to 100, higher is better): mean of :func:`bleu_4` over characters, without and with the
      newline that newer Qwen templates put behind the reference (smoothing: Chen & Cherry 2014, doi:10.3115/v1/W14-3346, method 3).
    - ``rouge-1``, ``rouge-2``, ``rouge-l`` (0 to 100, higher is better): mean of :func:`rouge`, F = 2 p r / (p + r + 1e-8) over
      jieba's words (rouge-chinese 1.0.3).

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
        numbers = _numbers(text, label)
        return tuple(mean_score(sample, f"llamafactory/{value}", number) for value, number in numbers.items())

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


def _numbers(text: str, label: str) -> dict[str, float]:
    """All five. Short texts, yes and no above all, come again and again."""
    return dict(_kept_numbers(text, label) if len(text) + len(label) <= _SHORT else _computed(text, label))


_SHORT = 64
"""Characters of both texts: the numbers of shorter pairs are kept."""


@lru_cache(maxsize=8192)
def _kept_numbers(text: str, label: str) -> dict[str, float]:
    return _computed(text, label)


def _computed(text: str, label: str) -> dict[str, float]:
    matched = matched_ngrams(text, label, 4)
    # A text without a newline cannot match one: only the length of the label differs.
    with_newline = matched_ngrams(text, label + "\n", 4) if "\n" in text else matched
    return {
        "bleu-4": _bleu_4(matched, len(text), len(label)),
        "bleu-4-newline": _bleu_4(with_newline, len(text), len(label) + 1),
        **rouge(text, label),
    }


def bleu_4(prediction: str, label: str) -> float:
    """Sentence BLEU-4 over characters with nltk's smoothing method 3, 0 to 100, four decimals. The label is taken as it is.

    nltk's ``sentence_bleu`` step for step, in the same order of floating-point operations: the same double, several times
    faster. Without a common character it is 0. The k-th order without a match has the precision 1 / (2^k * n-grams) (Chen &
    Cherry 2014, method 3).
    """
    return _bleu_4(matched_ngrams(prediction, label, 4), len(prediction), len(label))


def _bleu_4(matched: tuple[int, ...], length: int, label_length: int) -> float:
    if not matched[0]:
        return 0.0
    logarithms: list[float] = []
    empty = 0
    for order, count in enumerate(matched, start=1):
        possible = max(length - order + 1, 1)
        empty += not count
        logarithms.append(0.25 * math.log(count / possible if count else 1 / (2**empty * possible)))
    brevity = 1.0 if length > label_length else math.exp(1 - label_length / length)
    return round(100 * (brevity * math.exp(math.fsum(logarithms))), 4)


def rouge(prediction: str, label: str) -> dict[str, float]:
    """``rouge-1``, ``rouge-2`` and ``rouge-l``: the F of the rouge-chinese package over jieba's words, 0 to 100, four decimals.

    ROUGE-N is over *sets* of n-grams, ROUGE-L over the whole texts; F is 2pr / (p + r + 1e-8).
    """
    written, wanted = _flat_words(prediction), _flat_words(label)
    if written is None or wanted is None:
        return {"rouge-1": 0.0, "rouge-2": 0.0, "rouge-l": 0.0}
    unigrams = set(written), set(wanted)
    bigrams = set(pairwise(written)), set(pairwise(wanted))
    common = lcs_length(wanted, written)
    return {
        "rouge-1": _f(len(unigrams[0] & unigrams[1]), len(unigrams[0]), len(unigrams[1])),
        "rouge-2": _f(len(bigrams[0] & bigrams[1]), len(bigrams[0]), len(bigrams[1])),
        "rouge-l": _f(common, len(written), len(wanted)),
    }


def _f(common: int, written: int, wanted: int) -> float:
    precision = common / written if written else 0.0
    recall = common / wanted if wanted else 0.0
    return round(100 * (2.0 * ((precision * recall) / (precision + recall + 1e-8))), 4)


# Where rouge-chinese may see the end of a sentence. Without one of these the words are those between blanks.
_SENTENCE_MARK = re.compile(r"[。！？?\n]|…|\.{6}")


def _flat_words(text: str) -> list[str] | None:
    """The words that rouge-chinese compares, None for a text without any.

    It cuts the joined words into sentences, and a sentence of blanks is one empty word: the package's own cutting is used where
    there may be more than one sentence.
    """
    words = jieba_words(text)
    joined = " ".join(words)
    flat = joined.split()
    if not flat:
        return None
    if _SENTENCE_MARK.search(joined) is None:
        return flat
    return [word for sentence in _cut_sentences()(joined) if sentence for word in " ".join(sentence.split()).split(" ")]


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


@cache
def _cut_sentences() -> Callable[[str], list[str]]:
    with warnings.catch_warnings():
        # Its regular expressions are in plain strings: a SyntaxWarning when Python compiles the module.
        warnings.simplefilter("ignore")
        from rouge_chinese import Rouge
    cut: Callable[[str], list[str]] = Rouge().cut_sent
    return cut
