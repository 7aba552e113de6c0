"""Whether a text uses the profession's terms: against the tables of ``data/terms`` and the names of the findings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Literal

from medtune.data.checks.wording import read_terms, wording
from medtune.evaluation.metrics.additive import check_name, mean_of, reference, share, unscored
from medtune.language import msg
from medtune.tasks.reading.assertions import findings
from medtune.tasks.reading.assertions.tokens import Trie, tokenize
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Terminology"]

_LANGUAGES: tuple[Literal["en", "zh"], ...] = ("en", "zh")
_PARTS = re.compile(r",|\bor\b|\([^)]*\)|、|或|（[^）]*）|，")


class Terminology:
    """Terms of the profession in the answer. Conventions of medtune; the terms have the public sources of ``data/terms`` (RadLex,
    the Fleischner glossary, ...).

    A *term* is a suggestion of the tables in ``data/terms`` or the name of a finding; a *phrase to avoid* is what these tables
    advise against ("differing density", "bright spot"), as ``medtune validate`` reports it.

    - ``share`` (0 to 1, higher is better): terms / (terms + phrases to avoid), occurrences in the answers, summed over samples.
    - ``recall`` (0 to 1, higher is better): different terms of the reference that the answer uses too / different terms of the
      reference, summed over samples.

    They judge how a text is worded, not whether it is right. An answer with neither is unscored in ``share``, a reference without a
    term in ``recall``, and an empty reference in both.
    """

    name = "terminology"
    values: tuple[MetricValue, ...] = (
        share("terminology/share", msg("Professional terms")),
        share("terminology/recall", msg("Terms of the reference used")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        target, text = reference(sample), prediction.generation.text
        if not target.strip():
            return tuple(unscored(sample, value.name) for value in self.values)
        wanted, used = set(_terms(target)), list(_terms(text))
        avoid = [item.phrase for item in wording(text)]
        number, common = len(used) + len(avoid), len(wanted.intersection(used))
        return (
            _ratio(sample, "terminology/share", len(used), number, " ".join(f"+{phrase}" for phrase in dict.fromkeys(avoid))),
            _ratio(sample, "terminology/recall", common, len(wanted)),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


@cache
def _trie() -> Trie[str]:
    return Trie(_entries())


def _entries() -> Iterator[tuple[list[str], str]]:
    suggested = (part.strip() for language in _LANGUAGES for term in read_terms(language) for part in _PARTS.split(term.suggestion))
    named = (name for finding in findings().values() for name in (finding.name, finding.chinese))
    for name in dict.fromkeys((*suggested, *named)):
        tokens = tokenize(name)
        if len(tokens) > 1 or len(name) > 2:
            yield tokens, name


def _terms(text: str) -> Iterator[str]:
    for _, _, _, names in _trie().find(tokenize(text)):
        yield names[0]


def _ratio(sample: Sample, name: str, part: int, whole: int, explanation: str = "") -> Score:
    if not whole:
        return unscored(sample, name)
    return Score(
        sample_id=sample.id, metric=name, value=part / whole, statistics=(float(part), float(whole)), explanation=explanation
    )
