"""JSON records: whether they can be read, whether they have the keys, whether the values agree."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from pydantic import JsonValue

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.evaluation.metrics.words import answer_words
from medtune.language import msg
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["JsonRecordValidity"]


class JsonRecordValidity:
    """JSON records. Conventions of medtune; F1 as in van Rijsbergen 1979, Information Retrieval, chapter 7.

    - ``valid`` (0 to 1, higher is better): answers that hold a JSON object (RFC 8259) / answers.
    - ``key-f1`` (0 to 1, higher is better): 2 c / (a + r), c keys of both, a of the answers, r of the references, summed over
      samples.
    - ``value-match`` (0 to 1, higher is better): keys of the references whose values agree / keys of the references: the same words
      after the VQA normalisation, the same number, the same truth value.
    - ``value-f1`` (0 to 1, higher is better): sum over the references' keys of the F1 of the values' words / keys of the
      references, since a description is seldom repeated word for word.

    Only the outermost object's keys count. An answer that is no JSON object has no keys and no values: 0 everywhere. A sample whose
    reference is no JSON object is unscored.
    """

    name = "json-record"
    values: tuple[MetricValue, ...] = (
        share("json-record/valid", msg("Valid JSON")),
        share("json-record/key-f1", msg("Key F1")),
        share("json-record/value-match", msg("Values that agree")),
        share("json-record/value-f1", msg("Word F1 of values")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        truth = _object(reference(sample))
        if truth is None:
            return tuple(unscored(sample, value.name) for value in self.values)
        answer = prediction.answer if isinstance(prediction.answer, dict) else None
        found: dict[str, JsonValue] = answer or {}
        common = len(truth.keys() & found.keys())
        missing, extra = sorted(truth.keys() - found.keys()), sorted(found.keys() - truth.keys())
        keys = 2.0 * common, float(len(truth) + len(found))
        agreeing = [_agree(truth[key], found[key]) for key in truth if key in found]
        overlaps = [_word_f1(truth[key], found[key]) for key in truth if key in found]
        return (
            mean_score(sample, "json-record/valid", answer is not None, "" if answer is not None else "∅"),
            _ratio(sample, "json-record/key-f1", *keys, " ".join([f"-{key}" for key in missing] + [f"+{key}" for key in extra])),
            _ratio(sample, "json-record/value-match", float(sum(agreeing)), float(len(truth))),
            _ratio(sample, "json-record/value-f1", sum(overlaps), float(len(truth))),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


def _object(text: str) -> dict[str, JsonValue] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value else None


def _ratio(sample: Sample, name: str, part: float, whole: float, explanation: str = "") -> Score:
    return Score(sample_id=sample.id, metric=name, value=part / whole, statistics=(part, whole), explanation=explanation)


def _words(value: JsonValue) -> list[str]:
    return answer_words(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))


def _agree(truth: JsonValue, answer: JsonValue) -> bool:
    # True == 1 in Python, and is not the same record.
    if isinstance(truth, bool) or isinstance(answer, bool):
        return truth is answer
    return truth == answer or _words(truth) == _words(answer)


def _word_f1(truth: JsonValue, answer: JsonValue) -> float:
    wanted, written = _words(truth), _words(answer)
    if not wanted and not written:
        return 1.0
    return 2 * (Counter(wanted) & Counter(written)).total() / (len(wanted) + len(written))
