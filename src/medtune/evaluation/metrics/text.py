"""Overlap of wording: corpus BLEU, chrF and ROUGE. What they measure is style and terms, not whether an answer is right."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.evaluation.metrics.lcs import lcs_length
from medtune.evaluation.metrics.ngrams import matched_ngrams, number_of_ngrams
from medtune.evaluation.metrics.sacrebleu_words import tokens_13a, tokens_zh
from medtune.evaluation.metrics.words import words
from medtune.language import msg
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ChrF", "CorpusBleu", "Rouge"]

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_ORDERS = 4


class CorpusBleu:
    """Corpus BLEU of sacrebleu 2 (Post 2018, arXiv:1804.08771).

    - ``corpus`` (0 to 100, higher is better): 100 min(1, exp(1 - r / a)) (p1 p2 p3 p4)^(1/4), p_n = matched n-grams / n-grams of
      the answers, a and r the lengths of all answers and references (Papineni et al. 2002, doi:10.3115/1073083.1073135).

    Signature: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp, ``tok:zh`` for samples whose reference holds Chinese characters.
    Statistics: matched n-grams of order 1 to 4, n-grams of order 1 to 4, prediction length, reference length. They add up over
    samples, so that the bootstrap's numbers are corpus BLEU too. A sample's own value is its sentence BLEU (effective order), for
    the list of errors only. A sample with an empty reference is unscored.
    """

    name = "bleu"
    values: tuple[MetricValue, ...] = (
        MetricValue(name="bleu/corpus", title=msg("BLEU (corpus, sacrebleu)").template, direction="higher", low=0.0, high=100.0),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        target = reference(sample).strip()
        if not target:
            return (unscored(sample, "bleu/corpus"),)
        tokens = tokens_zh if _HAN.search(target) else tokens_13a
        written, wanted = tokens(prediction.generation.text.strip()), tokens(target)
        matched = matched_ngrams(written, wanted, _ORDERS)
        possible = tuple(number_of_ngrams(len(written), order) for order in range(1, _ORDERS + 1))
        return (
            Score(
                sample_id=sample.id,
                metric="bleu/corpus",
                value=_sentence_bleu(matched, possible, len(written), len(wanted)),
                statistics=tuple(float(part) for part in (*matched, *possible, len(written), len(wanted))),
            ),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 10) -> (...). Zero precisions are smoothed as sacrebleu's ``exp`` does: the k-th is 1 / (2^k * n-grams)."""
        import numpy as np

        check_name(name, self.values)
        totals = np.asarray(totals, dtype=np.float64)
        matched, possible = totals[..., :_ORDERS], totals[..., _ORDERS : 2 * _ORDERS]
        written, wanted = totals[..., 2 * _ORDERS], totals[..., 2 * _ORDERS + 1]
        nothing = (matched == 0) & (possible > 0)
        halvings = np.cumsum(nothing, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(nothing, 0.5**halvings, matched) / possible
            brevity = np.where(written < wanted, np.exp(1.0 - wanted / written), 1.0)
            score = 100.0 * brevity * np.exp(np.log(precision).mean(axis=-1))
        # exp(mean(log 1)) can come out a rounding error above 1.
        score = np.minimum(score, 100.0)
        score = np.where(matched.any(axis=-1) & (possible > 0).all(axis=-1), score, 0.0)
        return np.where(wanted > 0, score, np.nan)


def _sentence_bleu(matched: tuple[int, ...], possible: tuple[int, ...], written: int, wanted: int) -> float:
    """sacrebleu's sentence score: only the orders that the sentence is long enough for, zeros smoothed as in the corpus score."""
    if not any(matched):
        return 0.0
    logarithms = []
    halved = 1.0
    for common, of in zip(matched, possible, strict=True):
        if not of:
            break
        if not common:
            halved *= 2
        logarithms.append(math.log(100.0 * common / of if common else 100.0 / (halved * of)))
    brevity = 1.0 if written >= wanted else math.exp(1 - wanted / written)
    return min(brevity * math.exp(sum(logarithms) / len(logarithms)), 100.0)


class ChrF:
    """chrF2 of sacrebleu 2 (Post 2018, arXiv:1804.08771): character n-grams, recall weighs double.

    - ``chrf2`` (0 to 100, higher is better): 100 (1 + 4) p r / (4 p + r), p and r the means over n = 1..6 of common n-grams /
      n-grams of the answers, and of the references, over the n that both sides are long enough for (Popović 2015,
      doi:10.18653/v1/W15-3049).

    Signature: nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no. Statistics: for each order the n-grams of the answer (0 where the
    reference has none), of the reference, and those in common; the run's number is computed from their sums over samples. It needs
    no words, so it serves Chinese as it serves English. A sample with an empty reference is unscored.
    """

    name = "chrf"
    values: tuple[MetricValue, ...] = (
        MetricValue(name="chrf/chrf2", title=msg("chrF2 (corpus, sacrebleu)").template, direction="higher", low=0.0, high=100.0),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        wanted = "".join(reference(sample).split())
        if not wanted:
            return (unscored(sample, "chrf/chrf2"),)
        written = "".join(prediction.generation.text.split())
        matched = matched_ngrams(written, wanted, _CHARACTER_ORDERS)
        statistics: list[float] = []
        for order, common in enumerate(matched, start=1):
            of_reference = number_of_ngrams(len(wanted), order)
            of_answer = number_of_ngrams(len(written), order) if of_reference else 0
            statistics += [float(of_answer), float(of_reference), float(common)]
        return (Score(sample_id=sample.id, metric="chrf/chrf2", value=_chrf(statistics), statistics=tuple(statistics)),)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 18) -> (...)."""
        import numpy as np

        check_name(name, self.values)
        totals = np.asarray(totals, dtype=np.float64)
        counts = totals.reshape((*totals.shape[:-1], _CHARACTER_ORDERS, 3))
        written, wanted, common = np.moveaxis(counts, -1, 0)
        both = (written > 0) & (wanted > 0)
        orders = both.sum(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(both, common / written, 0.0).sum(axis=-1) / orders
            recall = np.where(both, common / wanted, 0.0).sum(axis=-1) / orders
            score = 100.0 * (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)
        score = np.where((orders > 0) & (precision + recall > 0), score, 0.0)
        return np.where(wanted.any(axis=-1), score, np.nan)


_CHARACTER_ORDERS = 6
_BETA = 2


def _chrf(statistics: list[float]) -> float:
    triples = [statistics[start : start + 3] for start in range(0, len(statistics), 3)]
    compared = [(common / written, common / wanted) for written, wanted, common in triples if written and wanted]
    precision = sum(part for part, _ in compared) / len(compared) if compared else 0.0
    recall = sum(part for _, part in compared) / len(compared) if compared else 0.0
    if not precision + recall:
        return 0.0
    return min(100.0 * (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall), 100.0)


class Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L as F1 (Lin 2004, aclanthology.org/W04-1013), the mean over samples.

    - ``rouge-1``, ``rouge-2`` (0 to 1, higher is better): mean of 2 c / (a + r), c common n-grams (each as often as it stands on
      both sides), a those of the answer, r those of the reference (section 2).
    - ``rouge-l`` (0 to 1, higher is better): mean of 2 l / (a + r), l the longest common subsequence of words, a and r the words of
      the two (section 3).

    Over the words of :mod:`.words`, in lower case, without stemming; ROUGE-L takes the whole answer as one sequence. A reference
    shorter than the n-gram has no ROUGE-N, and an empty one no ROUGE at all: unscored. An empty answer is 0.
    """

    name = "rouge"
    values: tuple[MetricValue, ...] = (
        share("rouge/rouge-1", msg("ROUGE-1 F1")),
        share("rouge/rouge-2", msg("ROUGE-2 F1")),
        share("rouge/rouge-l", msg("ROUGE-L F1")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        written, wanted = words(prediction.generation.text), words(reference(sample))
        unigrams, bigrams = (
            (Counter(written) & Counter(wanted)).total(),
            (Counter(pairwise(written)) & Counter(pairwise(wanted))).total(),
        )
        scores = []
        for order, common in ((1, unigrams), (2, bigrams)):
            name = f"rouge/rouge-{order}"
            of_answer, of_reference = (number_of_ngrams(len(side), order) for side in (written, wanted))
            if of_reference:
                scores.append(mean_score(sample, name, _f1(common, of_answer, of_reference)))
            else:
                scores.append(unscored(sample, name))
        if wanted:
            scores.append(mean_score(sample, "rouge/rouge-l", _f1(lcs_length(wanted, written), len(written), len(wanted))))
        else:
            scores.append(unscored(sample, "rouge/rouge-l"))
        return tuple(scores)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


def _f1(common: int, written: int, wanted: int) -> float:
    return 2 * common / (written + wanted)
