"""A task, two metrics, a data set and two models for the evaluation room, small enough to work out by hand.

The question is always how bright the picture is. :class:`Looking` opens the picture and says it; :class:`Guessing` does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medtune.data.dataset import Dataset, file_sha256, write_row
from medtune.types import (
    Generation,
    ImageRef,
    Manifest,
    Message,
    MetricValue,
    Prediction,
    Record,
    Request,
    Sample,
    Score,
    SourceCard,
    SourceRecord,
    SplitName,
)

QUESTION = "<image>Is the picture dark or bright?"


class ToyTask:
    name = "toy"
    metrics = ("closed", "bleu")

    def messages(self, record: Record) -> tuple[Message, ...]:
        return record.messages

    def parse(self, text: str, sample: Sample) -> str:
        if not text.strip():
            raise ValueError(f"nothing was written for {sample.id}")
        return text.strip()


class OtherTask(ToyTask):
    name = "other"
    metrics = ("bleu",)


class ToyAccuracy:
    """Stands in for a metric of what the picture shows: 1 for the reference's word."""

    name = "closed"
    values = (MetricValue(name="closed/accuracy", title="Accuracy", direction="higher", low=0, high=1),)

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        value = float(prediction.answer == sample.target)
        return (Score(sample_id=sample.id, metric="closed/accuracy", value=value),)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        assert name in {value.name for value in self.values}
        return totals[..., 0] / totals[..., 1]


class ToyOwn:
    """A metric of somebody's own: no registered name is in it."""

    name = "mine"
    values = (MetricValue(name="mine/right", title="Right", direction="higher", low=0, high=1),)

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        return (Score(sample_id=sample.id, metric="mine/right", value=float(prediction.answer == sample.target)),)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        assert name == "mine/right"
        return totals[..., 0] / totals[..., 1]


class ToyLength:
    """Stands in for a metric of wording: the root mean square of letters too many or too few. Lower is better."""

    name = "bleu"
    values = (MetricValue(name="bleu/letters", title="Letters off", direction="lower", low=0, high=100, unit="letters"),)

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        if prediction.answer is None:
            return (Score(sample_id=sample.id, metric="bleu/letters", value=None, explanation="not read"),)
        off = float(abs(len(str(prediction.answer)) - len(sample.target)))
        return (Score(sample_id=sample.id, metric="bleu/letters", value=off, statistics=(off**2, 1.0)),)

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        assert name in {value.name for value in self.values}
        return np.sqrt(totals[..., 0] / totals[..., 1])


class Looking:
    """Answers from the picture. ``asked`` keeps every request it was given."""

    batch_size = 4

    def __init__(self, fail_after: int | None = None) -> None:
        self.asked: list[Request] = []
        self.closed = False
        self.fail_after = fail_after

    def answer(self, request: Request) -> str:
        if not request.images:
            return "grey"
        picture = request.images[0]
        assert isinstance(picture, Path)
        with Image.open(picture) as image:
            grey = int(np.asarray(image.convert("L")).mean())
        return "grey" if grey == 128 else "bright" if grey > 128 else "dark"

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        # From the back: a generator may answer in any order.
        for number, request in enumerate(reversed(requests)):
            if self.fail_after is not None and number >= self.fail_after:
                raise KeyboardInterrupt
            self.asked.append(request)
            yield Generation(id=request.id, text=self.answer(request), finish_reason="stop", seconds=0.5)

    def stream(self, request: Request) -> Iterator[str]:
        yield self.answer(request)

    def close(self) -> None:
        self.closed = True


class Guessing(Looking):
    """Answers ``bright`` whatever it is shown."""

    def answer(self, request: Request) -> str:
        assert request.messages
        return "bright"


def make_dataset(
    folder: Path,
    *,
    num_groups: int = 8,
    per_group: int = 2,
    group_kind: str = "patient",
    synthetic: bool = False,
    local_only: bool = False,
    train: int = 0,
    change: Callable[[dict[str, object]], None] | None = None,
) -> Dataset:
    """A data set folder with ``num_groups`` test groups of ``per_group`` samples, half dark and half bright.

    The first ``train`` groups stand in the training split as well. ``change`` may alter a row before it is written.
    """
    folder.mkdir(parents=True)
    images, rows = [], []
    for group in range(num_groups):
        for number in range(per_group):
            bright = group % 2 == 1
            level = (200 if bright else 40) + number
            path = folder / "images" / f"{group}-{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (24, 16), (level, level, group)).save(path)
            ref = ImageRef(path=f"images/{path.name}", sha256=file_sha256(path), width=24, height=16, modality="CT")
            images.append(ref)
            row: dict[str, object] = {
                "id": f"s{group}-{number}",
                "task": "toy",
                "images": (ref,),
                "messages": (
                    Message(role="user", content=QUESTION),
                    Message(role="assistant", content="bright" if bright else "dark"),
                ),
                "target": "bright" if bright else "dark",
                "group": f"g{group}",
                "source": "toy",
                "metadata": {"box": [4, 2, 12, 10], "kind": "even" if number % 2 == 0 else "odd", "area_percent": float(group)},
            }
            if change is not None:
                change(row)
            rows.append(Sample.model_validate(row))
    (folder / "images.jsonl").write_text("".join(ref.model_dump_json() + "\n" for ref in images), encoding="utf-8")
    splits: dict[SplitName, list[Sample]] = {"test": rows, "train": rows[: train * per_group]}
    for split, samples in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(write_row(sample) + "\n" for sample in samples), encoding="utf-8")
    card = SourceCard(name="toy", title="Toy", licence="CC0-1.0", citation="-", group_kind=group_kind, synthetic=synthetic)  # type: ignore[arg-type]
    manifest = Manifest(
        name="toy",
        medtune_version="0",
        sources=(SourceRecord(card=card, num_samples=len(rows)),),
        split={"kind": "group-hash", "seed": 0},
        num_samples={split: len(samples) for split, samples in splits.items()},
        num_groups={"test": num_groups},
        num_images=len(images),
        tasks={"toy": len(rows)},
        group_kind=group_kind,  # type: ignore[arg-type]
        synthetic=synthetic,
        local_only=local_only,
        files={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("test.jsonl", "train.jsonl")},
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return Dataset.open(folder)
