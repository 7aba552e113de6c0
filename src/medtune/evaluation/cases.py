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
from medtune.evaluation.finding_marks import Fate, FindingMark, finding_marks, known_findings, with_finding_errors
from medtune.evaluation.score_columns import ScoreColumns
from medtune.imaging.boxes import Box as Corners
from medtune.imaging.boxes import from_relative, ordered_box, xywh
from medtune.types import IMAGE_MARK, MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = [
    "PICTURE_BYTES",
    "Answer",
    "Box",
    "Case",
    "Piece",
    "Shown",
    "Side",
    "Tag",
    "choose_cases",
    "compare_words",
    "describe_case",
    "embed_picture",
    "predicted_boxes",
]

Side = Literal["base", "tuned"]
"""Whose answer: the base and the tuned model of a run, or, of two runs, the first and the second."""

Tag = Literal["worst", "to-wrong", "worsened", "to-right", "improved", "best", "finding", "unread", "random"]

QUOTA: dict[Tag, int] = {
    "worst": 12,
    "to-wrong": 8,
    "worsened": 8,
    "to-right": 8,
    "improved": 8,
    "best": 8,
    "finding": 24,
    "unread": 6,
    "random": 10,
}
"""Cases of each kind, 92 at most: as many as somebody reads. A case may be of several kinds."""

PICTURE_BYTES = 10_000_000
"""Of all embedded pictures of a page together, in base64."""

MAX_LETTERS = 3000
"""Of a question, a reference, an answer or a prompt on the page. With this, :data:`QUOTA` and :data:`PICTURE_BYTES` the cases stay
under 32 MB whatever the data set and the answers are. It also bounds the comparison of words, whose time is quadratic."""

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
    """A picture as the page embeds it. ``data`` is None when the file cannot be read, or when it is ``too_large``."""

    data: str | None
    width: int
    height: int
    boxes: tuple[Box, ...]
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model wrote.

    Attributes:
        pieces: The words beside the reference's; of the first :data:`MAX_LETTERS` letters.
        cut: The generation reached the token limit.
        error: Why the task could not read it.
        raw: The text as generated, up to :data:`MAX_LETTERS` letters.
        num_hidden: Letters beyond those.
        num_tokens: Generated, where the generator counts them.
        marks: What became of each finding, where reports are read for findings.
    """

    model: Side
    pieces: tuple[Piece, ...]
    cut: bool
    error: str | None
    raw: str
    num_hidden: int = 0
    num_tokens: int | None = None
    marks: tuple[FindingMark, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One sample on the page.

    Attributes:
        findings: (finding, its fate in the last answer), to filter by; where reports are not read for findings, what the metadata
            names as found, without a fate.
        scores: (metric, base's value, tuned's value).
        prompt: (role, text) of every turn that the model was given, image marks and all.
        pair: Which comparison it belongs to, on a page of several.
    """

    sample_id: str
    task: str
    tags: tuple[Tag, ...]
    pictures: tuple[Shown, ...]
    question: str
    reference: str
    answers: tuple[Answer, ...]
    scores: tuple[tuple[MetricValue, float | None, float | None], ...]
    findings: tuple[tuple[str, Fate | None], ...] = ()
    prompt: tuple[tuple[str, str], ...] = ()
    pair: str = ""


def choose_cases(
    tasks: Mapping[str, str],
    base: ScoreColumns,
    tuned: ScoreColumns,
    metrics: Sequence[MetricValue],
    unread: Iterable[str],
    quota: Mapping[Tag, int] = QUOTA,
) -> dict[str, tuple[Tag, ...]]:
    """Which samples are shown, and why: sample id -> tags. The same input gives the same choice.

    Each task is ranked by the first of ``metrics`` that scored it, and the tasks take turns, so that none crowds out the
    others. ``to-wrong`` and ``to-right`` went from one end of the metric's range to the other; ``finding`` has a finding missed,
    invented or on the wrong side.

    Args:
        tasks: Sample id -> task.
        base: Scores of the base model; empty when there is none.
        tuned: Scores of the tuned (or only) model.
        metrics: Most telling first.
        unread: Samples whose answer could not be read.
    """
    ranked: dict[Tag, list[list[str]]] = {
        "worst": [],
        "to-wrong": [],
        "worsened": [],
        "to-right": [],
        "improved": [],
        "best": [],
        "random": [],
    }
    for task in dict.fromkeys(tasks.values()):
        members = [sample for sample, its_task in tasks.items() if its_task == task]
        ranked["random"].append(sorted(members, key=_lot))
        for metric in metrics:
            if metric.direction == "neither":
                continue
            after = _goodness(tuned, metric, members)
            if after:
                break
        else:
            continue
        order = sorted(after, key=lambda sample: (after[sample], _lot(sample)))
        # Where all score alike, none is above or below the middle: there is no worst and no best.
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
        whole = metric.high - metric.low
        ranked["to-wrong"].append([sample for sample in rising if change[sample] <= -whole])
        ranked["to-right"].append([sample for sample in falling if change[sample] >= whole])
    tags: dict[str, list[Tag]] = {}
    drawn = {tag: _take_turns(lists, quota.get(tag, 0)) for tag, lists in ranked.items()}
    drawn["finding"] = _take_turns([sorted(mine, key=_lot) for mine in with_finding_errors(tuned)], quota.get("finding", 0))
    drawn["unread"] = sorted(unread, key=_lot)[: quota.get("unread", 0)]
    for tag in QUOTA:
        for sample in drawn.get(tag, ()):
            tags.setdefault(sample, []).append(tag)
    return {sample: tuple(found) for sample, found in tags.items()}


def _lot(sample: str) -> str:
    """Orders samples that rank alike, the same way every time, and not by id: that would show one patient all along."""
    return hashlib.sha256(sample.encode()).hexdigest()


def _goodness(scores: ScoreColumns, metric: MetricValue, members: Sequence[str]) -> dict[str, float]:
    sign = 1 if metric.direction == "higher" else -1
    if (column := scores.get(metric.name)) is None:
        return {}
    return {
        sample: sign * value for sample, value in zip(members, column.values_of(members).tolist(), strict=True) if value == value
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
    predictions: Mapping[Side, Prediction | None],
    scores: Sequence[tuple[MetricValue, float | None, float | None]],
    outcomes: Mapping[Side, Score | None] | None = None,
    picture_bytes: int = PICTURE_BYTES,
) -> Case:
    """Everything the page shows of one sample. A picture that cannot be read becomes a note in its place.

    Args:
        outcomes: Scores on ``findings/macro-f1``, where the texts were read for findings.
        picture_bytes: For all pictures of this case, in base64; one that does not fit becomes a note too.
    """
    boxes = [Box("true", *corners) for corners in _true_boxes(sample.metadata.get("box"))]
    answers = []
    for model, prediction in predictions.items():
        if prediction is None:
            continue
        generation = prediction.generation
        text = generation.text.strip()[:MAX_LETTERS]
        answers.append(
            Answer(
                model,
                compare_words(sample.target.strip()[:MAX_LETTERS], text) if text else (),
                generation.finish_reason == "length",
                prediction.error,
                raw=generation.text[:MAX_LETTERS],
                num_hidden=max(len(generation.text) - MAX_LETTERS, 0),
                num_tokens=generation.num_generated_tokens,
                marks=finding_marks(sample, generation.text, (outcomes or {}).get(model)),
            )
        )
        if sample.images:
            width, height = sample.images[0].width, sample.images[0].height
            boxes += [Box(model, *corners) for corners in predicted_boxes(prediction.answer, width, height)]
    pictures = []
    for place, image in enumerate(sample.images[:MAX_PICTURES]):
        try:
            data: str | None = embed_picture(dataset, sample, place)
        except UnreadableImageError:
            data = None
        too_large = data is not None and len(data) > picture_bytes
        if data is not None:
            picture_bytes -= 0 if too_large else len(data)
        pictures.append(
            Shown(None if too_large else data, image.width, image.height, tuple(boxes) if place == 0 else (), too_large)
        )
    turns = [message.content.replace(IMAGE_MARK, "").strip() for message in sample.prompt if message.role != "system"]
    return Case(
        sample.id,
        sample.task,
        tags,
        tuple(pictures),
        "\n\n".join(filter(None, turns))[:MAX_LETTERS],
        sample.target[:MAX_LETTERS],
        tuple(answers),
        tuple(scores),
        _findings(sample, answers),
        _prompt(sample),
    )


def _prompt(sample: Sample) -> tuple[tuple[str, str], ...]:
    """The first :data:`MAX_LETTERS` letters of the conversation, turn by turn."""
    turns, left = [], MAX_LETTERS
    for message in sample.prompt:
        if left <= 0:
            turns.append((message.role, "…"))
            break
        turns.append((message.role, message.content[:left]))
        left -= len(message.content)
    return tuple(turns)


def _findings(sample: Sample, answers: Sequence[Answer]) -> tuple[tuple[str, Fate | None], ...]:
    if answers and answers[-1].marks:
        return tuple((mark.finding, mark.fate) for mark in answers[-1].marks)
    # ``findings``, a list of words, else ``kind``, one word.
    value = sample.metadata.get("findings", sample.metadata.get("kind"))
    words = value if isinstance(value, list) else [value]
    named = [name for word in words if isinstance(word, str) and word for name in known_findings(word) or (word,)]
    return tuple((name, None) for name in dict.fromkeys(named))


def embed_picture(dataset: Dataset, sample: Sample, place: int, *, largest_side: int = LARGEST_SIDE, quality: int = 85) -> str:
    """Picture ``place`` of a sample as a ``data:`` address of a JPEG, its longer side at most ``largest_side`` pixels.

    Raises:
        UnreadableImageError: The file is gone or damaged.
    """
    from PIL import Image

    from medtune.imaging.read import open_picture

    image = sample.images[place]
    picture = open_picture(dataset.picture(image), name=image.path)
    picture.thumbnail((largest_side, largest_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _true_boxes(value: JsonValue) -> list[tuple[float, float, float, float]]:
    """(x, y, width, height) of metadata's ``box``: [x1, y1, x2, y2] in pixels, or a list of such."""
    if not isinstance(value, list):
        return []
    boxes = value if value and isinstance(value[0], list) else [value]
    return [_corner_and_size(box) for box in map(_box, boxes) if box is not None]


def predicted_boxes(answer: JsonValue, width: int, height: int) -> list[tuple[float, float, float, float]]:
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
