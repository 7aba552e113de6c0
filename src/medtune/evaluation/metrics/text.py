"""Overlap of wording: corpus BLEU and ROUGE. What they measure is style and terms, not whether an answer is right."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.evaluation.metrics.lcs import lcs_length
from medtune.evaluation.metrics.words import words
from medtune.language import msg
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CorpusBleu", "Rouge"]

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_ORDERS = 4


@cache
def _sacrebleu(tokenize: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenize, smooth_method="exp", effective_order=True)


class CorpusBleu:
    """Corpus BLEU (Papineni et al. 2002) of sacrebleu 2 (Post 2018, arXiv:1804.08771), 0 to 100.

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
        found = _sacrebleu("zh" if _HAN.search(target) else "13a").sentence_score(prediction.generation.text.strip(), [target])
        statistics = (*found.counts, *found.totals, found.sys_len, found.ref_len)
        return (
            Score(
                sample_id=sample.id,
                metric="bleu/corpus",
                value=min(float(found.score), 100.0),
                statistics=tuple(float(part) for part in statistics),
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


class Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L F1 (Lin 2004), 0 to 1, the mean over samples.

    Over the words of :mod:`.words`, in lower case, without stemming. N-grams are *counted* (a repeated word matches as often as it
    occurs on both sides), precision and recall weigh the same, and ROUGE-L takes the whole answer as one sequence. A reference
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
        scores = []
        for order in (1, 2):
            first, second = (Counter(zip(*(side[start:] for start in range(order)), strict=False)) for side in (written, wanted))
            name = f"rouge/rouge-{order}"
            if second:
                scores.append(mean_score(sample, name, _f1((first & second).total(), first.total(), second.total())))
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
