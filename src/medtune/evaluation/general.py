"""The general probe: did tuning make the model forget what has nothing to do with medicine?

Sixty short text questions and twelve about drawn shapes, half in English and half in Chinese
(:mod:`medtune.evaluation.general_questions`), asked of base and tuned model alike. Fine-tuning on a narrow task is known to cost
general skill (catastrophic forgetting: McCloskey & Cohen 1989, doi:10.1016/S0079-7421(08)60536-8; in language models, Luo et al.
2023, arXiv:2308.08747). The probe is small: it finds a model that has unlearnt to count or to write Chinese, not a loss of two
points on a public benchmark.

An answer is right when it is short enough to be one (:data:`MAX_WORDS` words) and holds a right answer as whole words: for a
number, when it is the only or the last number of the text. Everything else is wrong, an empty text is also counted as unread.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.controls import Presentation
from medtune.evaluation.general_questions import CHINESE, DRAWINGS, ENGLISH
from medtune.evaluation.measure import ScoreTable, difference, measure
from medtune.evaluation.metrics.additive import mean_of
from medtune.evaluation.metrics.words import holds_run, words
from medtune.language import msg
from medtune.types import (
    Forgetting,
    GeneralScore,
    ImageRef,
    Message,
    MetricValue,
    Prediction,
    Sample,
    Score,
)

__all__ = ["GENERAL", "MAX_WORDS", "draw", "general_samples", "is_right", "present_general", "state_forgetting"]

GENERAL = MetricValue(
    name="general/accuracy", title=msg("General questions answered rightly").template, direction="higher", low=0.0, high=1.0
)
MAX_WORDS = 60
"""A longer text is no answer to "answer with one word": somewhere in it the right word will stand."""

SIDE = 224
"""Pixels of a drawing's sides."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SPELT = {
    "1": ("one", "一"),
    "3": ("three", "三"),
    "4": ("four", "四"),
    "5": ("five", "五"),
    "9": ("nine", "九"),
    "12": ("twelve", "十二"),
    "20": ("twenty",),
    "24": ("twenty four",),
}
"""Small numbers in words, for texts without a digit."""
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


class _Right:
    """The share of right answers."""

    name = "general"
    values: tuple[MetricValue, ...] = (GENERAL,)

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        right = float(is_right(prediction.generation.text, tuple(sample.target.split("|"))))
        return (Score(sample_id=sample.id, metric=GENERAL.name, value=right, statistics=(right, 1.0)),)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        if name != GENERAL.name:
            raise ValueError(f"{name!r} is not {GENERAL.name}")
        return mean_of(totals)


def is_right(text: str, accepted: Sequence[str]) -> bool:
    """Whether ``text`` is one of the accepted answers, or says it in few words. Thinking in ``<think>`` tags is not read."""
    text = _THINKING.sub("", text)
    written = words(text)
    if not written or len(written) > MAX_WORDS:
        return False
    for answer in accepted:
        if _NUMBER.fullmatch(answer):
            numbers = _NUMBER.findall(text.replace(",", ""))
            if (
                (float(numbers[-1]) == float(answer))
                if numbers
                else any(holds_run(written, words(name)) for name in _SPELT.get(answer, ()))
            ):
                return True
        elif holds_run(written, words(answer)):
            return True
    return False


def general_samples(*, pictures: bool = True) -> list[Sample]:
    """The questions as samples, each a group of its own. Without ``pictures``, for a model that sees none, the text ones alone."""
    asked = [("en", f"general-en-{place}", question) for place, question in enumerate(ENGLISH, start=1)]
    asked += [("zh", f"general-zh-{place}", question) for place, question in enumerate(CHINESE, start=1)]
    samples = [_sample(name, language, question, accepted) for language, name, (question, accepted) in asked]
    if pictures:
        for name, *questions in DRAWINGS:
            ref = ImageRef(path=f"general/{name}.png", sha256=_digest(draw(name)), width=SIDE, height=SIDE)
            for language, (question, accepted) in zip(("en", "zh"), questions, strict=True):
                samples.append(_sample(f"general-{language}-{name}", language, f"<image>{question}", accepted, ref))
    return samples


def _sample(name: str, language: str, question: str, accepted: Sequence[str], *images: ImageRef) -> Sample:
    target = "|".join(accepted)
    return Sample(
        id=name,
        task="text-qa",
        images=images,
        messages=(Message(role="user", content=question), Message(role="assistant", content=target)),
        target=target,
        group=name,
        source="general",
        metadata={"language": language},
    )


def present_general(samples: Sequence[Sample], folder: Path) -> dict[str, Presentation]:
    """How each question is shown, by id. The drawings are written into ``folder``."""
    shown = {}
    for sample in samples:
        paths = []
        for image in sample.images:
            path = folder / Path(image.path).name
            if not path.exists():
                path.write_bytes(draw(path.stem))
            paths.append(path)
        shown[sample.id] = Presentation(sample.prompt, tuple(paths), tuple(image.sha256 for image in sample.images))
    return shown


def draw(name: str) -> bytes:
    """One of the drawings, as a PNG of :data:`SIDE` by :data:`SIDE` pixels.

    Raises:
        ValueError: There is none of that name.
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(picture)
    match name:
        case "red-circle":
            pen.ellipse((52, 52, 172, 172), fill=(220, 30, 30))
        case "blue-square":
            pen.rectangle((57, 57, 167, 167), fill=(30, 60, 220))
        case "green-triangle":
            pen.polygon([(112, 42), (182, 172), (42, 172)], fill=(20, 150, 50))
        case "three-dots" | "five-dots":
            places = [(56, 56), (168, 60), (108, 116), (60, 170), (166, 172)]
            for x, y in places[:3] if name == "three-dots" else places:
                pen.ellipse((x - 16, y - 16, x + 16, y + 16), fill="black")
        case "dot-above-line":
            pen.rectangle((32, 128, 192, 136), fill="black")
            pen.ellipse((96, 56, 128, 88), fill="black")
        case _:
            raise ValueError(f"no drawing is called {name!r}")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def state_forgetting(
    answers: Mapping[str, Mapping[str, Prediction]], pairs: Sequence[tuple[str, str]], *, num_resamples: int, seed: int
) -> Forgetting | None:
    """What the answers of each model tell; None where nobody was asked.

    Args:
        answers: Label of the condition with the plain questions -> id of the question -> prediction.
        pairs: (base label, tuned label) to be compared, on the questions that both answered.
    """
    if not answers:
        return None
    samples = {sample.id: sample for sample in general_samples()}
    judge = _Right()
    tables, scores = {}, []
    for label, predictions in answers.items():
        known = {name: prediction for name, prediction in predictions.items() if name in samples}
        table = ScoreTable.build(
            [score for name, prediction in known.items() for score in judge.score(prediction, samples[name])],
            {name: str(samples[name].metadata["language"]) for name in known},
            {name: name for name in known},
            {GENERAL.name: judge},
            num_resamples=num_resamples,
            seed=seed,
        )
        tables[label] = table
        for language in (None, "en", "zh"):
            found = measure(table, GENERAL.name, task=language)
            unread = [
                name
                for name, prediction in known.items()
                if not prediction.generation.text.strip() and language in (None, table.tasks[name])
            ]
            scores.append(
                GeneralScore(
                    label=label,
                    language=language,
                    value=found.value,
                    low=found.low,
                    high=found.high,
                    num_questions=found.num_scored,
                    num_unread=len(unread),
                )
            )
    compared = [(one, other) for one, other in pairs if one in tables and other in tables]
    lost = [
        name
        for one, other in compared[:1]
        for name, score in tables[one].scores.get(GENERAL.name, {}).items()
        if score.value == 1.0 and (after := tables[other].scores[GENERAL.name].get(name)) is not None and after.value == 0.0
    ]
    return Forgetting(
        scores=tuple(scores),
        differences=tuple((one, other, difference(tables[one], tables[other], GENERAL.name)) for one, other in compared),
        lost=tuple(lost[:20]),
    )
