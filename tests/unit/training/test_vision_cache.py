"""Features of a frozen tower: the same as computed each time, once for each picture, found again after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from medtune.errors import MedtuneError, TrainingError
from medtune.models.config import LoraSettings
from medtune.models.packed_forward import picture_features
from medtune.training.vision_cache import FEATURES_FILE, VisionCache, can_keep, distinct_pictures
from medtune.types import Event, Message
from tiny_training import Setup, losses, make_setup

FAMILIES = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3-vl-moe")
STEPS: dict[str, Any] = {"max_steps": 3, "learning_rate": 5e-3, "warmup_steps": 0, "evaluate_every": 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_losses_are_those_of_a_tower_that_is_run_each_time(family: str, tmp_path: Path) -> None:
    setup = make_setup(tmp_path, family=family, num_rows=8)
    runs = {kind: setup.run(tmp_path / kind) for kind in ("none", "memory", "disk")}
    for kind, run in runs.items():
        setup.train(run, vision_cache=kind, **STEPS)
    expected = losses(runs["none"])
    assert len({round(loss, 4) for loss in expected.values()}) == 3, "nothing was learned, so nothing was compared"
    for kind in ("memory", "disk"):
        assert losses(runs[kind]) == pytest.approx(expected, abs=1e-5)
        assert runs[kind].record.eval_loss == pytest.approx(runs["none"].record.eval_loss, abs=1e-5)
        told = [event for event in runs[kind].events() if event.get("num_pictures")]
        assert told[0]["num_pictures"] == 8
        assert told[0]["num_bytes"] > 0
    assert not list(runs["disk"].folder.glob(f"{FEATURES_FILE}*")), "the run has ended"


def counting(cache: VisionCache, setup: Setup, seen: list[int], *, stop_after: int = 10**9) -> None:
    def encode(pixels: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        if len(seen) >= stop_after:
            raise KeyboardInterrupt
        seen.append(len(grids))
        tokens = int(grids.prod(dim=1).sum()) // 4
        return pixels.mean(dim=1).view(tokens, 4).mean(dim=1)[:, None, None].expand(tokens, 2, 8)

    cache.fill(encode, setup.image_path)


def a_cache(setup: Setup, file: Path | None, *, key: str = "") -> VisionCache:
    assert setup.encoder.pictures is not None
    return VisionCache(
        distinct_pictures(setup.rows * 2),
        setup.encoder.pictures,
        num_levels=2,
        hidden_size=8,
        dtype=torch.float32,
        file=file,
        key=key,
    )


def test_a_killed_run_finds_what_it_had_computed(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtune.training.vision_cache.PATCHES_AT_ONCE", 64)  # four pictures
    file = tmp_path / FEATURES_FILE
    whole, seen = a_cache(setup, None), []
    counting(whole, setup, seen)
    assert seen == [4, 4, 4, 4], "each picture once, though each is in two rows"

    first, seen = a_cache(setup, file), []
    monkeypatch.setattr("medtune.training.vision_cache.INDEX_EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        counting(first, setup, seen, stop_after=2)
    second, seen = a_cache(setup, file), []
    counting(second, setup, seen)
    assert seen == [4, 4]
    for row in setup.rows:
        assert torch.equal(second.features(row.images), whole.features(row.images))
        assert [grid.tolist() for grid in second.grids(row.images)] == [[1, 4, 4]]

    other, seen = a_cache(setup, file, key="another model"), []
    counting(other, setup, seen)
    assert sum(seen) == 16, "features of another model are not used"


def test_a_damaged_index_is_computed_again(setup: Setup, tmp_path: Path) -> None:
    file = tmp_path / FEATURES_FILE
    counting(a_cache(setup, file), setup, [])
    for path in tmp_path.glob("*.json"):
        path.write_text(json.dumps({"key": "?"})[:-3])
    seen: list[int] = []
    counting(a_cache(setup, file), setup, seen)
    assert sum(seen) == 16


def test_a_picture_that_cannot_be_read_names_its_row(setup: Setup, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    Image.new("RGB", (64, 64)).save(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    cache = a_cache(setup, None)
    with pytest.raises(MedtuneError) as caught:
        cache.fill(lambda *tensors: tensors[0], lambda ref: broken if ref.path == "images/3.png" else setup.image_path(ref))
    assert caught.value.sample == "row-03"


def test_only_a_frozen_tower_is_kept(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, num_rows=4)
    assert can_keep(setup.model())
    assert not can_keep(setup.model(LoraSettings(rank=2, targets=("language", "projector"))))
    assert not can_keep(make_setup(tmp_path / "text", family="qwen3", num_rows=4).model())


def test_rows_that_are_padded_keep_their_pictures(setup: Setup, tmp_path: Path) -> None:
    """Features go in through the packed forward pass alone: kept without it, the rows would be trained on blind."""
    runs = {kind: setup.run(tmp_path / kind) for kind in ("none", "memory")}
    for kind, run in runs.items():
        setup.train(run, packing=False, vision_cache=kind, **STEPS)
        assert run.record.engine["chosen"]["vision_cache"] == "none"
    assert losses(runs["memory"]) == losses(runs["none"])


def test_keeping_features_changes_nothing_that_is_drawn(setup: Setup, tmp_path: Path) -> None:
    runs = {kind: setup.run(tmp_path / kind) for kind in ("none", "memory")}
    for kind, run in runs.items():
        setup.train(run, adapter=LoraSettings(rank=4, dropout=0.3), vision_cache=kind, **STEPS)
    assert losses(runs["memory"]) == pytest.approx(losses(runs["none"]), abs=1e-5)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_rows_without_pictures_have_nothing_to_keep(setup: Setup, tmp_path: Path, kind: str) -> None:
    run = setup.run(tmp_path / "run")
    rows = [
        row.model_copy(update={"images": (), "messages": (Message(role="user", content="And?"), row.messages[1])})
        for row in setup.rows
    ]
    setup.train(run, train_rows=rows[:4], validation_rows=rows[4:6], vision_cache=kind, **STEPS)
    assert run.record.status == "trained"
    assert not [event for event in run.events() if "num_pictures" in event]


def test_a_picture_of_another_size_than_the_data_set_says_is_named(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, num_rows=8)
    # Together as many tokens as before: only picture by picture does it show.
    Image.new("RGB", (96, 64)).save(tmp_path / "images" / "2.png")
    Image.new("RGB", (32, 64)).save(tmp_path / "images" / "3.png")
    with pytest.raises(TrainingError, match="The picture has 6 tokens") as caught:
        setup.train(setup.run(tmp_path / "run"), vision_cache="memory", **STEPS)
    assert (caught.value.sample, caught.value.file) == ("row-02", "images/2.png")


def test_memory_that_runs_out_in_the_tower_says_what_to_write(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("medtune.training.vision_cache.picture_features", full)
    with pytest.raises(TrainingError, match="CUDA out of memory") as caught:
        setup.train(setup.run(tmp_path / "run"), vision_cache="memory", **STEPS)
    assert caught.value.key == "train.vision_cache"


@pytest.mark.parametrize(("kind", "computed_again"), [("memory", True), ("disk", False)])
def test_a_run_that_was_stopped_goes_on_with_its_features(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, computed_again: bool
) -> None:
    passes: list[int] = []
    features = picture_features

    def counted(*arguments: Any) -> torch.Tensor:
        passes.append(1)
        return features(*arguments)

    monkeypatch.setattr("medtune.training.vision_cache.picture_features", counted)
    settings: dict[str, Any] = {**STEPS, "adapter": LoraSettings(rank=4, dropout=0.3), "gradient_checkpointing": "all"}
    straight, stopped = setup.run(tmp_path / "straight"), setup.run(tmp_path / "stopped")
    setup.train(straight, **settings)

    def stop(event: Event) -> None:
        if event.kind == "progress" and (event.done, event.total) == (2, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setup.train(stopped, vision_cache=kind, listener=stop, **settings)
    assert passes
    passes.clear()
    setup.train(stopped, vision_cache=kind, resume=True, **settings)
    assert bool(passes) == computed_again
    assert losses(stopped) == pytest.approx(losses(straight), abs=1e-5)
    assert not list(stopped.folder.glob(f"{FEATURES_FILE}*"))


def test_memory_that_runs_out_in_training_does_not_cost_the_features(setup: Setup, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**STEPS, "vision_cache": "memory"}
    plain, smaller = setup.run(tmp_path / "plain"), setup.run(tmp_path / "smaller")
    setup.train(plain, **settings)
    model = setup.model()
    refused: list[int] = []

    def refuse(module: Any, inputs: Any, output: torch.Tensor) -> None:  # noqa: ARG001
        if torch.is_grad_enabled() and not refused:
            refused.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    model.get_input_embeddings().register_forward_hook(refuse)
    setup.train(smaller, model=model, **settings)
    assert losses(smaller) == pytest.approx(losses(plain), abs=1e-5)
    assert len([event for event in smaller.events() if event.get("num_pictures")]) == 1, "they are computed once"
