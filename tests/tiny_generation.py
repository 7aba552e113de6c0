"""Tiny models that answer, and questions for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medtune.generation.hf import HfGenerator
from medtune.models.config import ModelSettings
from medtune.models.encoder import Encoder, load_encoder
from medtune.models.load import load_model
from medtune.types import Generation, Message, Request, Sampling
from tiny_models import tiny_model

Loaded = tuple[Any, Encoder]


def load_answering(folder: Path, family: str) -> Loaded:
    settings = ModelSettings(base=str(tiny_model(folder, family)))
    model = load_model(settings, device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():  # at initialisation, attention is nearly uniform and pictures hardly show
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model, load_encoder(settings)


def picture(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def requests_for(encoder: Encoder, sampling: Sampling, *, score_tokens: tuple[str, ...] = ()) -> list[Request]:
    """Several pictures, one and none, short and long prompts, two questions about one picture."""
    shared = picture(90, 70, 9)
    shown: list[tuple[str, tuple[Image.Image, ...]]] = [
        ("What is this?", (picture(70, 90, 0),)),
        ("Compare.", (picture(64, 64, 2), picture(130, 100, 3))),
        ("Is there a lesion? Answer yes or no. " * 9, ()),
        ("a", ()),
        ("Describe the findings.", (shared,)),
        ("And the impression?", (shared,)),
        ("no picture, only text", ()),
    ]
    made = []
    for number, (text, pictures) in enumerate(shown):
        if encoder.pictures is None:
            text, pictures = text + f" case {number}", ()
        messages = (Message(role="user", content="<image>" * len(pictures) + text),)
        made.append(Request(f"r{number}", messages, pictures, sampling, score_tokens))
    return made


def answered(generator: HfGenerator, requests: list[Request]) -> dict[str, Generation]:
    found = {answer.id: answer.model_copy(update={"seconds": None}) for answer in generator.generate(requests)}
    assert len(found) == len(requests)
    return found
