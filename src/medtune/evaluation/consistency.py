"""Does a model say the same of the same? Four ways to be caught not doing so, none of which needs a right answer.

``paraphrase`` and ``repeated``: the answers to the same question agree. Agreement of two answers is 1 or 0 where yes or no was
asked or a closed answer is expected, else the F1 of their words (the Dice overlap of the two bags of words, 0 to 1). Of several
draws it is the mean over all pairs.

``mirrored``: the picture is turned left to right, and so are left and right in the question. Yes must stay yes, and an answer that
names a side must name the other one. Letters and markers in a picture are mirrored too and give it away to an attentive reader,
and a mirrored chest has its heart on the right: a low value is a reason to look, not a proof.

``diagnoses``: all plain answers that state a final diagnosis ("diagnosis: ...", an impression, or the answer to a question for the
diagnosis) are gathered by picture. Two agree when they name the same finding of medtune's vocabulary or one a kind of the other's,
or when the words of one hold those of the other.

Ribeiro, Guestrin & Singh (2019, aclanthology.org/P19-1621) measure visual question answering by such consistency; Wang et al.
(2023, arXiv:2203.11171) the agreement of repeated draws.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from medtune.evaluation.bootstrap import cluster_bootstrap
from medtune.evaluation.metrics.additive import mean_of
from medtune.evaluation.metrics.words import answer_words
from medtune.evaluation.predictions import MAX_CHARACTERS
from medtune.evaluation.variants import has_side
from medtune.tasks.asking import question_of
from medtune.tasks.reading.finding import canonical_finding, is_kind_of
from medtune.tasks.reading.yes_no import read_yes_no
from medtune.types import Consistency, ConsistencyName, Prediction, Sample

__all__ = ["MAX_NAMED", "agreement", "diagnosis_of", "mirrored_agreement", "state_consistency"]

MAX_NAMED = 20
"""Samples that a measurement names."""

_OTHER = {"left": "right", "right": "left"}
_LEFT = re.compile(r"(?<![a-z])left(?![a-z])|左(?!右|旋)", re.IGNORECASE)
_RIGHT = re.compile(r"(?<![a-z])right(?![a-z])|(?<!左)右(?!左)", re.IGNORECASE)

_STATED = re.compile(
    r"\b(?:(?:final|likely|primary|probable|working)\s+)?diagnosis\s*(?:is|:|：|of)\s*(?P<en>[^.;\n]+)"
    r"|\bimpression\s*[:：]\s*(?P<impression>[^.;\n]+)"
    r"|(?:诊断(?:结果|意见)?\s*(?:为|是|：|:)|印象\s*[:：])\s*(?P<zh>[^。；;\n]+)",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"\bdiagnos(?:is|es)\b|\b(?:what|which)\s+(?:disease|condition|pathology)\b|诊断|什么病|何种疾病|哪种疾病", re.IGNORECASE
)
_EMPTY = frozenset(
    (
        *("the", "a", "an", "is", "are", "of", "with", "and", "or", "in", "on", "this", "that", "it", "has", "shows", "most"),
        *("likely", "probably", "probable", "possible", "suggests", "suggestive", "consistent", "final", "diagnosis"),
        *("impression", "image", "picture", "scan", "patient"),
    )
)
"""Words of an English diagnosis that name no disease."""


def agreement(one: Prediction, other: Prediction, sample: Sample) -> float | None:
    """How far two answers to the same question agree, 0 to 1; None where one of them cannot be read."""
    if _asks_yes_no(sample):
        question = question_of(sample)
        first, second = (read_yes_no(answer.generation.text, question) for answer in (one, other))
        return None if first is None or second is None else float(first == second)
    left, right = answer_words(one.generation.text), answer_words(other.generation.text)
    if not left or not right:
        return None
    if left == right or sample.task == "closed-vqa":
        return float(left == right)
    return 2 * (Counter(left) & Counter(right)).total() / (len(left) + len(right))


def mirrored_agreement(plain: Prediction, mirrored: Prediction, sample: Sample) -> float | None:
    """1 where the answer to the mirrored picture is the mirrored answer, else 0; None where the plain answer names no side, or
    no yes or no can be read where one was asked."""
    if _asks_yes_no(sample):
        return agreement(plain, mirrored, sample)
    first, second = _sides(plain.generation.text), _sides(mirrored.generation.text)
    return float(second == {_OTHER[side] for side in first}) if first else None


def diagnosis_of(prediction: Prediction, sample: Sample) -> str | None:
    """The final diagnosis that an answer states, in its own words."""
    text = prediction.generation.text[:MAX_CHARACTERS].strip()
    stated = [match.group("en") or match.group("impression") or match.group("zh") for match in _STATED.finditer(text)]
    if stated:
        return str(stated[-1]).strip()
    asked = [turn.content for turn in sample.prompt if turn.role == "user"]
    if asked and _ASKED.search(asked[-1]) and not _asks_yes_no(sample):
        return re.split(r"[.;。；\n]", text, maxsplit=1)[0].strip() or None
    return None


def state_consistency(
    label: str,
    plain: Mapping[str, Prediction],
    again: Mapping[str, Mapping[str, Prediction]],
    samples: Iterable[Sample],
    *,
    num_resamples: int,
    seed: int,
) -> list[Consistency]:
    """What can be said of one model, one entry for each kind that something was asked for.

    Args:
        label: Of the condition with the plain questions.
        plain: Its predictions by sample id. They may stand in a file: one is held at a time.
        again: Variant -> sample id -> prediction.
        samples: Gone through once.
    """
    repeated = {name for predictions in again.values() for name in predictions}
    asked: dict[str, Sample] = {}
    groups: dict[str, str] = {}
    stated: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for sample in samples:
        if sample.id in repeated:
            asked[sample.id] = sample
            groups[sample.id] = sample.group
        prediction = plain.get(sample.id) if sample.images else None
        if prediction is not None and (diagnosis := diagnosis_of(prediction, sample)) is not None:
            pictures = tuple(image.sha256 for image in sample.images)
            stated.setdefault(pictures, []).append((sample.id, diagnosis))
            groups[sample.id] = sample.group

    def state(kind: ConsistencyName, values: Mapping[str, float | None]) -> Consistency:
        return _state(kind, label, values, groups, num_resamples, seed)

    def answer(name: str) -> Prediction | None:
        given = plain.get(name)
        return None if given is None or given.generation.finish_reason == "error" else given

    found: list[Consistency] = []
    pairs: tuple[tuple[ConsistencyName, Callable[[Prediction, Prediction, Sample], float | None]], ...] = (
        ("paraphrase", agreement),
        ("mirrored", mirrored_agreement),
    )
    for kind, agree in pairs:
        if kind in again:
            values = {
                name: agree(given, other, asked[name])
                for name, other in again[kind].items()
                if name in asked and (given := answer(name)) is not None
            }
            found.append(state(kind, values))
    draws = [predictions for variant, predictions in again.items() if variant.startswith("repeated-")]
    if draws:
        drawn = {name: [one[name] for one in draws] for name in draws[0] if name in asked and all(name in one for one in draws)}
        found.append(state("repeated", {name: _mean_agreement(several, asked[name]) for name, several in drawn.items()}))
    # Under the id of the picture's first sample.
    diagnoses = {entries[0][0]: float(_all_same(name for _, name in entries)) for entries in stated.values() if len(entries) > 1}
    if diagnoses:
        found.append(state("diagnoses", diagnoses))
    return found


def _state(
    kind: ConsistencyName,
    label: str,
    values: Mapping[str, float | None],
    group_of: Mapping[str, str],
    num_resamples: int,
    seed: int,
) -> Consistency:
    read = {name: value for name, value in values.items() if value is not None}
    if not read:
        return Consistency(kind=kind, label=label, value=None, num_questions=len(values), num_unread=len(values), num_groups=0)
    groups = [group_of[name] for name in read]
    statistics = np.array([[value, 1.0] for value in read.values()])
    value, low, high = cluster_bootstrap(statistics, groups, mean_of, num_resamples=num_resamples, seed=seed, limits=(0.0, 1.0))
    # The least alike first; a half is where two texts share half of their words.
    apart = sorted((name for name, agreed in read.items() if agreed < 0.5), key=lambda name: (read[name], name))
    return Consistency(
        kind=kind,
        label=label,
        value=value,
        low=low,
        high=high,
        num_questions=len(values),
        num_unread=len(values) - len(read),
        num_groups=len(set(groups)),
        contradicting=tuple(apart[:MAX_NAMED]),
    )


def _asks_yes_no(sample: Sample) -> bool:
    """Whether the reference is nothing but yes or no: "no shift" is a choice with words of its own."""
    target = sample.target.strip()
    return (len(answer_words(target)) == 1 or target in ("是的", "不是", "没有", "存在", "不存在")) and read_yes_no(
        target
    ) is not None


def _sides(text: str) -> set[str]:
    if not has_side(text):
        return set()
    return {side for side, pattern in (("left", _LEFT), ("right", _RIGHT)) if pattern.search(text)}


def _mean_agreement(answers: Sequence[Prediction], sample: Sample) -> float | None:
    found = [agreement(one, other, sample) for one, other in itertools.combinations(answers, 2)]
    read = [value for value in found if value is not None]
    return sum(read) / len(read) if read else None


def _all_same(diagnoses: Iterable[str]) -> bool:
    return all(_same(one, other) for one, other in itertools.combinations(dict.fromkeys(diagnoses), 2))


def _same(one: str, other: str) -> bool:
    first, second = canonical_finding(one), canonical_finding(other)
    if first is not None and second is not None:
        return is_kind_of(first, second) or is_kind_of(second, first)
    left, right = ({word for word in answer_words(text) if word not in _EMPTY} for text in (one, other))
    return left <= right or right <= left
