"""A tiny random model with a handful of rows and pictures, for tests that train."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

from medtune.models.adapter import add_adapter
from medtune.models.config import FullSettings, LoraSettings, ModelSettings
from medtune.models.encoder import Encoder, load_encoder
from medtune.models.load import load_model
from medtune.runs import Run, now
from medtune.training.config import TrainSettings
from medtune.training.train import train
from medtune.types import Event, ImageRef, Message, RunRecord, Sample
from tiny_models import tiny_model

WORDS = [
    "lesion",
    "in",
    "the",
    "left",
    "hemisphere",
    "hyperdense",
    "region",
    "upper",
    "right",
    "of",
    "the",
    "brain",
    "no",
    "acute",
    "abnormality",
    "findings",
]


@dataclass
class Setup:
    """A model folder, a data folder, and rows."""

    model_folder: Path
    data_folder: Path
    rows: list[Sample]
    encoder: Encoder

    def image_path(self, ref: ImageRef) -> Path:
        return self.data_folder / ref.path

    @property
    def train_rows(self) -> list[Sample]:
        return self.rows[: len(self.rows) * 3 // 4]

    @property
    def validation_rows(self) -> list[Sample]:
        return self.rows[len(self.rows) * 3 // 4 :]

    def model(self, adapter: Any = None) -> Any:
        """A fresh model. The adapter's random start is the same every time."""
        import torch

        model = load_model(ModelSettings(base=str(self.model_folder)), device="cpu")
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return add_adapter(model, adapter or LoraSettings(rank=4), self.encoder.family)

    def run(self, folder: Path) -> Run:
        record = RunRecord(
            name=folder.name,
            status="created",
            created=now(),
            updated=now(),
            recipe="tiny",
            base_model=str(self.model_folder),
            seed=0,
        )
        return Run.create(folder, recipe_text="name: tiny\n", record=record)

    def train(
        self,
        run: Run,
        *,
        adapter: Any = None,
        train_rows: Sequence[Sample] | None = None,
        validation_rows: Sequence[Sample] | None = None,
        listener: Callable[[Event], None] | None = None,
        resume: bool = False,
        model: Any = None,
        plot: bool = False,
        **settings: Any,
    ) -> RunRecord:
        """``plot``: draw the loss curve, which takes longer than the steps do."""
        defaults: dict[str, Any] = {
            "max_steps": 4,
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "log_every": 1,
            "warmup_steps": 1,
        }
        with contextlib.nullcontext() if plot else mock.patch("medtune.training.finish.plot_losses"):
            return train(
                run,
                model=model or self.model(adapter),
                encoder=self.encoder,
                train_rows=self.train_rows if train_rows is None else train_rows,
                validation_rows=self.validation_rows if validation_rows is None else validation_rows,
                picture=self.image_path,
                settings=TrainSettings(**{**defaults, **settings}),
                listener=listener,
                resume=resume,
            )


def losses(run: Run) -> dict[int, float]:
    """Step -> training loss, as logged; a step that was done again counts with its last value."""
    return {event["step"]: event["loss"] for event in run.events() if event["kind"] == "log" and "loss" in event}


def eval_losses(run: Run) -> dict[int, float]:
    return {event["step"]: event["eval_loss"] for event in run.events() if event["kind"] == "log" and "eval_loss" in event}


def make_setup(folder: Path, *, family: str = "qwen3-vl", num_rows: int = 16) -> Setup:
    """Rows with answers of 1 to 60 words, each with a 64 x 64 picture of its own (none for a text family)."""
    model_folder = folder / "model"
    if not model_folder.is_dir():
        tiny_model(model_folder, family)
    draw = random.Random(0)
    rows = []
    (folder / "images").mkdir(exist_ok=True)
    for index in range(num_rows):
        images: tuple[ImageRef, ...] = ()
        if family != "qwen3":
            path = folder / "images" / f"{index}.png"
            if not path.is_file():
                Image.new("RGB", (64, 64), (index * 15 % 256, 255 - index * 15 % 256, 90)).save(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            images = (ImageRef(path=f"images/{index}.png", sha256=digest, width=64, height=64),)
        answer = " ".join(draw.choice(WORDS) for _ in range(1 if index % 4 == 0 else draw.randint(2, 60)))
        messages = (
            Message(role="user", content="<image>" * len(images) + "What does this image show?"),
            Message(role="assistant", content=answer),
        )
        rows.append(
            Sample(
                id=f"row-{index:02d}",
                task="caption",
                images=images,
                messages=messages,
                target=answer,
                group=str(index),
                source="tiny",
            )
        )
    return Setup(model_folder, folder, rows, load_encoder(ModelSettings(base=str(model_folder))))


def with_few_pictures(rows: Sequence[Sample]) -> list[Sample]:
    """Only the first, third and fourth row keep their pictures, so that most micro-batches have none."""
    mixed = []
    for number, row in enumerate(rows):
        if row.images and number not in (0, 2, 3):
            blind = tuple(Message(role=said.role, content=said.content.replace("<image>", "")) for said in row.messages)
            row = row.model_copy(update={"images": (), "messages": blind})
        mixed.append(row)
    return mixed


FULL = FullSettings()
