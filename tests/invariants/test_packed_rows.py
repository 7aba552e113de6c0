"""Rows that lie one behind the other lose, and learn, what the same rows lose side by side; none of them sees another."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from medtune.models.config import FullSettings, LoraSettings
from medtune.models.vision_layout import vision_layout
from medtune.training.choice import Checkpointing, EngineChoice
from medtune.training.data import EncodedRows, StepCollator
from medtune.training.engine import engine
from medtune.training.loss import TokenLoss
from medtune.types import Features, ImageRef, Message, Sample
from tiny_training import Setup, make_setup

FAMILIES = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3-vl-moe", "qwen3")

SIZES = ((64, 64), (150, 70), (33, 200), (97, 161))
"""Squares, a landscape, a portrait, and odd numbers of patches along both sides: no two have the same grid."""

ADAPTERS = {
    "lora": LoraSettings(rank=4),
    "rslora": LoraSettings(rank=4, rslora=True),
    "dora": LoraSettings(rank=4, dora=True),
    "tower and projector": LoraSettings(rank=4, targets=("language", "vision", "projector")),
    "full": FullSettings(freeze=()),
    "full, frozen tower": FullSettings(),
}


@dataclass
class Rows:
    """Rows of every kind that packing has to keep apart."""

    setup: Setup
    features: list[Features]


def a_row(setup: Setup, name: str, sizes: Sequence[tuple[int, int]], turns: Sequence[tuple[str, str]]) -> Sample:
    images = []
    for number, (width, height) in enumerate(sizes):
        path = setup.data_folder / f"{name}-{number}.png"
        gradient = Image.linear_gradient("L").resize((width, height)).rotate(90 * number)
        Image.merge("RGB", (gradient, gradient.point(lambda value: 255 - value), gradient)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        images.append(ImageRef(path=path.name, sha256=digest, width=width, height=height))
    messages = tuple(
        message
        for asked, answered in turns
        for message in (Message(role="user", content=asked), Message(role="assistant", content=answered))
    )
    return Sample(id=name, task="caption", images=tuple(images), messages=messages, target=turns[-1][1], group=name, source="tiny")


def make_rows(folder: Path, family: str) -> Rows:
    setup = make_setup(folder, family=family, num_rows=2)
    mark = "" if family == "qwen3" else "<image>"

    def sizes(*wanted: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        return wanted if mark else ()

    rows = [
        a_row(setup, "one", sizes(SIZES[1]), [(f"{mark}What does this image show?", "a hyperdense region in the left hemisphere")]),
        a_row(setup, "text", (), [("Is there a lesion?", "no")]),
        a_row(setup, "two", sizes(SIZES[2], SIZES[0]), [(f"{mark}Before, and {mark} after: what changed?", "nothing")]),
        a_row(setup, "after", sizes(SIZES[3]), [(f"Describe the findings of this: {mark}", "no acute abnormality")]),
        a_row(
            setup,
            "turns",
            sizes(SIZES[3], SIZES[1]),
            [(f"{mark}Is there a lesion?", "yes"), (f"And in {mark} this one?", "no lesion in the right hemisphere")],
        ),
    ]
    encoded = EncodedRows(rows, setup.encoder, setup.image_path)
    features = []
    for index in range(len(rows)):
        found = encoded[index]
        assert isinstance(found, Features), found
        features.append(found)
    return Rows(setup, features)


@pytest.fixture(scope="module", params=FAMILIES)
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return make_rows(tmp_path_factory.mktemp("rows"), request.param)


def model_with(setup: Setup, adapter: Any) -> Any:
    model = setup.model(adapter)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at the start, which would hide all that goes through the adapter
                torch.nn.init.normal_(parameter.data, std=0.05)
    return model


def collator(setup: Setup, model: Any, *, packing: bool, multiple: int = 1) -> StepCollator:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    tower = getattr(base.model, "visual", None)
    return StepCollator(
        setup.encoder,
        packing=packing,
        layout=vision_layout(tower) if packing and tower is not None else None,
        longest=512,
        multiple=multiple,
    )


def losses_of(setup: Setup, model: Any, features: Sequence[Features], *, packing: bool, multiple: int = 1) -> Tensor:
    """(N,), with gradient. With packing the model has to be in the engine."""
    (batch,) = collator(setup, model, packing=packing, multiple=multiple)([features])["micro_batches"]
    with contextlib.closing(TokenLoss(model)) as token_loss:
        losses, _ = token_loss(model, batch["inputs"], batch["positions"], batch["targets"])
    return losses


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


@contextlib.contextmanager
def in_engine(model: Any, **choice: Any) -> Iterator[None]:
    model.train()
    with engine(model, EngineChoice(packing=True, **choice)):
        yield


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_packed_rows_lose_and_learn_what_padded_rows_do(rows: Rows, adapter: str) -> None:
    if adapter == "tower and projector" and rows.setup.encoder.pictures is None:
        return  # this family has neither
    model = model_with(rows.setup, ADAPTERS[adapter]).train()
    padded = losses_of(rows.setup, model, rows.features, packing=False)
    # Unlike weights make a loss that stands in the wrong place show in the gradient.
    weights = torch.linspace(0.1, 2.0, len(padded))
    (padded * weights).sum().backward()
    expected = gradients(model)

    with in_engine(model):
        packed = losses_of(rows.setup, model, rows.features, packing=True, multiple=64)
        (packed * weights).sum().backward()
    found = gradients(model)

    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = max(1e-3, float(gradient.abs().max()))
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name
    torch.testing.assert_close(losses_of(rows.setup, model, rows.features, packing=False), padded)


def test_no_row_sees_another(rows: Rows) -> None:
    """To the last bit: with the text before it changed, a row's losses are what they were."""
    model = model_with(rows.setup, LoraSettings(rank=4))
    first, second = rows.features[0], rows.features[2]
    plain = first.input_ids.clone()
    words = first.labels >= 0
    plain[words] = plain[words].flip(0)
    changed = Features(first.sample_id, plain, first.labels, first.tensors)
    own = int((second.labels[1:] >= 0).sum())
    with in_engine(model), torch.no_grad():
        before = losses_of(rows.setup, model, [first, second], packing=True)
        after = losses_of(rows.setup, model, [changed, second], packing=True)
        alone = losses_of(rows.setup, model, [second], packing=True)
    assert not torch.equal(before[:-own], after[:-own]), "nothing was changed, so nothing was compared"
    assert torch.equal(before[-own:], after[-own:])
    torch.testing.assert_close(after[-own:], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "checkpointing", [Checkpointing(every=1), Checkpointing(every=2), Checkpointing(every=1, offload=True)], ids=str
)
def test_activations_computed_again_are_the_same_under_dropout(rows: Rows, checkpointing: Checkpointing) -> None:
    model = model_with(rows.setup, LoraSettings(rank=4, dropout=0.3))
    found = []
    for again in (Checkpointing(), checkpointing):
        with in_engine(model, checkpointing=again):
            torch.manual_seed(5)
            losses_of(rows.setup, model, rows.features, packing=True).sum().backward()
        found.append(gradients(model))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6)


def test_the_layout_is_what_the_tower_works_out_itself(rows: Rows) -> None:
    pictures = [row for row in rows.features if "pixel_values" in row.tensors]
    model = rows.setup.model()
    tower = getattr(model.get_base_model().model, "visual", None)
    if tower is None:
        assert not pictures
        return
    pixels = torch.cat([row.tensors["pixel_values"] for row in pictures])
    grids = torch.cat([row.tensors["image_grid_thw"] for row in pictures])
    assert len({tuple(grid) for grid in grids.tolist()}) == len(SIZES)
    with torch.no_grad():
        own = tower(pixels, grid_thw=grids)
        given = tower(pixels, grid_thw=grids, **vision_layout(tower)(grids))
        alone = [tower(row.tensors["pixel_values"], grid_thw=row.tensors["image_grid_thw"]).pooler_output for row in pictures]
    assert torch.equal(own.pooler_output, given.pooler_output)
    for first, second in zip(
        getattr(own, "deepstack_features", None) or (), getattr(given, "deepstack_features", None) or (), strict=True
    ):
        assert torch.equal(first, second)
    torch.testing.assert_close(given.pooler_output, torch.cat(alone), rtol=1e-5, atol=1e-5)
