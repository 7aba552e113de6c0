"""The cases of the page: which samples are worth a look, and what each shows."""

from __future__ import annotations

import base64
import difflib
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from medtune.errors import UnreadableImageError
from medtune.imaging.boxes import Box as Corners
from medtune.imaging.boxes import from_relative, ordered_box, xywh
from medtune.types import IMAGE_MARK, MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["Answer", "Box", "Case", "Piece", "Shown", "choose_cases", "compare_words", "describe_case"]

Tag = Literal["worst", "worsened", "improved", "best", "unread"]

QUOTA: dict[Tag, int] = {"worst": 16, "worsened": 12, "improved": 12, "best": 12, "unread": 8}
"""Cases of each kind, 60 in all: as many as somebody reads, and a page of a few megabytes."""

LARGEST_SIDE = 448
"""Pixels of an embedded picture's longer side; smaller ones stay as they are."""

MAX_PICTURES = 4
"""Embedded pictures of one case."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of an answer: words that the reference has too, words it has not (``extra``), or its words left out."""

    kind: Literal["same", "extra", "missing"]
    text: str


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels of the stored picture."""

    kind: Literal["true", "base", "tuned"]
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as the page embeds it. ``data`` is None when the file cannot be read."""

    data: str | None
    width: int
    height: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    model: Literal["base", "tuned"]
    pieces: tuple[Piece, ...]
    cut: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class Case:
    """One sample on the page. ``scores`` are (metric, base's value, tuned's value)."""

    sample_id: str
    task: str
    tags: tuple[Tag, ...]
    pictures: tuple[Shown, ...]
    question: str
    reference: str
    answers: tuple[Answer, ...]
    scores: tuple[tuple[MetricValue, float | None, float | None], ...]


ByMetric = Mapping[str, Mapping[str, Score]]
"""Metric value -> sample id -> score."""


def choose_cases(
    tasks: Mapping[str, str],
    base: ByMetric,
    tuned: ByMetric,
    metrics: Sequence[MetricValue],
    unread: Iterable[str],
    quota: Mapping[Tag, int] = QUOTA,
) -> dict[str, tuple[Tag, ...]]:
    """Which samples are shown, and why: sample id -> tags. The same input gives the same choice.

    Each task is ranked by the first of ``metrics`` that scored it, and the tasks take turns, so that none crowds out the
    others.

    Args:
        tasks: Sample id -> task.
        base: Scores of the base model; empty when there is none.
        tuned: Scores of the tuned (or only) model.
        metrics: Most telling first.
        unread: Samples whose answer could not be read.
    """
    ranked: dict[Tag, list[list[str]]] = {"worst": [], "worsened": [], "improved": [], "best": []}
    for task in dict.fromkeys(tasks.values()):
        members = {sample for sample, its_task in tasks.items() if its_task == task}
        for metric in metrics:
            after = _goodness(tuned, metric, members)
            if after:
                break
        else:
            continue
        order = sorted(after, key=lambda sample: (after[sample], _lot(sample)))
        if after[order[0]] == after[order[-1]]:
            continue
        middle = (after[order[0]] + after[order[-1]]) / 2
        ranked["worst"].append([sample for sample in order if after[sample] < middle])
        ranked["best"].append(
            [sample for sample in sorted(after, key=lambda name: (-after[name], _lot(name))) if after[sample] > middle]
        )
        before = _goodness(base, metric, members)
        change = {sample: after[sample] - before[sample] for sample in order if sample in before}
        rising = sorted(change, key=lambda sample: (change[sample], _lot(sample)))
        ranked["worsened"].append([sample for sample in rising if change[sample] < 0])
        falling = sorted(change, key=lambda sample: (-change[sample], _lot(sample)))
        ranked["improved"].append([sample for sample in falling if change[sample] > 0])
    tags: dict[str, list[Tag]] = {}
    for tag, lists in ranked.items():
        for sample in _take_turns(lists, quota.get(tag, 0)):
            tags.setdefault(sample, []).append(tag)
    for sample in sorted(unread, key=_lot)[: quota.get("unread", 0)]:
        tags.setdefault(sample, []).append("unread")
    return {sample: tuple(found) for sample, found in tags.items()}


def _lot(sample: str) -> str:
    """Orders samples that rank alike, the same way every time, and not by id: that would show one patient all along."""
    return hashlib.sha256(sample.encode()).hexdigest()


def _goodness(scores: ByMetric, metric: MetricValue, members: set[str]) -> dict[str, float]:
    sign = 1 if metric.direction == "higher" else -1
    return {
        sample: sign * score.value
        for sample, score in scores.get(metric.name, {}).items()
        if score.value is not None and sample in members
    }


def _take_turns(lists: Sequence[Sequence[str]], count: int) -> list[str]:
    longest = max((len(entries) for entries in lists), default=0)
    turns = (entries[place] for place in range(longest) for entries in lists if place < len(entries))
    return list(dict.fromkeys(turns))[:count]


# The blanks before it, and a word with what joins it (3.5, T2-weighted), one CJK character, or any other sign.
_WORD = re.compile(r"(\s*)([^\W\u3400-\u9fff]+(?:[.\-'][^\W\u3400-\u9fff]+)*|\S)", re.DOTALL)


def compare_words(reference: str, answer: str) -> tuple[Piece, ...]:
    """The answer's words beside the reference's, ignoring case and blanks.

    Joining the ``same`` and ``extra`` pieces gives the answer, but for blanks at its end.
    """
    left, right = _WORD.findall(reference), _WORD.findall(answer)
    matcher = difflib.SequenceMatcher(None, [word.lower() for _, word in left], [word.lower() for _, word in right], autojunk=False)
    pieces: list[Piece] = []
    for kind, left_start, left_end, right_start, right_end in matcher.get_opcodes():
        theirs, ours = left[left_start:left_end], right[right_start:right_end]
        if kind != "equal" and theirs:
            pieces.append(Piece("missing", _join(theirs).strip()))
        if ours and kind == "equal":
            pieces.append(Piece("same", _join(ours)))
        elif ours:
            blank, first = ours[0]
            if blank:
                pieces.append(Piece("same", blank))
            pieces.append(Piece("extra", _join([("", first), *ours[1:]])))
    return tuple(pieces)


def _join(words: Sequence[tuple[str, str]]) -> str:
    return "".join(blank + word for blank, word in words)


def describe_case(
    sample: Sample,
    tags: tuple[Tag, ...],
    *,
    dataset: Dataset,
    predictions: Mapping[Literal["base", "tuned"], Prediction | None],
    scores: Sequence[tuple[MetricValue, float | None, float | None]],
) -> Case:
    """Everything the page shows of one sample. A picture that cannot be read becomes a note in its place."""
    boxes = [Box("true", *corners) for corners in _true_boxes(sample.metadata.get("box"))]
    answers = []
    for model, prediction in predictions.items():
        if prediction is None:
            continue
        text = prediction.generation.text.strip()
        cut = prediction.generation.finish_reason == "length"
        answers.append(Answer(model, compare_words(sample.target.strip(), text) if text else (), cut, prediction.error))
        if sample.images:
            width, height = sample.images[0].width, sample.images[0].height
            boxes += [Box(model, *corners) for corners in _predicted_boxes(prediction.answer, width, height)]
    pictures = []
    for place, image in enumerate(sample.images[:MAX_PICTURES]):
        try:
            data = _embed(dataset, sample, place)
        except UnreadableImageError:
            data = None
        pictures.append(Shown(data, image.width, image.height, tuple(boxes) if place == 0 else ()))
    turns = [message.content.replace(IMAGE_MARK, "").strip() for message in sample.prompt if message.role != "system"]
    return Case(
        sample.id,
        sample.task,
        tags,
        tuple(pictures),
        "\n\n".join(filter(None, turns)),
        sample.target,
        tuple(answers),
        tuple(scores),
    )


def _embed(dataset: Dataset, sample: Sample, place: int) -> str:
    from PIL import Image

    from medtune.imaging.read import open_picture

    image = sample.images[place]
    picture = open_picture(dataset.picture(image), name=image.path)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _true_boxes(value: JsonValue) -> list[tuple[float, float, float, float]]:
    """(x, y, width, height) of metadata's ``box``: [x1, y1, x2, y2] in pixels, or a list of such."""
    if not isinstance(value, list):
        return []
    boxes = value if value and isinstance(value[0], list) else [value]
    return [_corner_and_size(box) for box in map(_box, boxes) if box is not None]


def _predicted_boxes(answer: JsonValue, width: int, height: int) -> list[tuple[float, float, float, float]]:
    """(x, y, width, height) in pixels of an answer's ``boxes``, which are in thousandths of the picture's sides."""
    boxes = answer.get("boxes") if isinstance(answer, dict) else None
    if not isinstance(boxes, list):
        return []
    return [_corner_and_size(from_relative(box, width, height)) for box in map(_box, boxes) if box is not None]


def _box(value: JsonValue) -> Corners | None:
    try:
        return ordered_box(value) if isinstance(value, list) else None
    except ValueError:
        return None


def _corner_and_size(box: Corners) -> tuple[float, float, float, float]:
    x, y, width, height = xywh(box)
    return round(x, 1), round(y, 1), round(width, 1), round(height, 1)
