"""Rows on their way to the trainer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from medtune.errors import MedtuneError
from medtune.training.data import EncodedRows, RowSampler, StepCollator, encoded_bytes, measure_lengths
from medtune.types import Features
from tiny_training import Setup


def test_a_row_is_encoded_once_when_kept(setup: Setup) -> None:
    opened: list[str] = []

    def image_path(ref: Any) -> Path:
        opened.append(ref.path)
        return setup.image_path(ref)

    rows = EncodedRows(setup.rows, setup.encoder, image_path)
    rows[0], rows[0]
    assert len(opened) == 2
    rows.keep()
    assert rows[1] is rows[1]
    assert len(opened) == 3


def test_lengths_are_those_of_the_encoded_rows(setup: Setup) -> None:
    rows = EncodedRows(setup.rows, setup.encoder, setup.image_path)
    lengths = measure_lengths(setup.rows, setup.encoder)
    encoded = [rows[index] for index in range(len(rows))]
    assert lengths == [len(features.input_ids) for features in encoded if isinstance(features, Features)]
    exact = sum(
        tensor.numel() * tensor.element_size()
        for features in encoded
        if isinstance(features, Features)
        for tensor in (features.input_ids, features.labels, *features.tensors.values())
    )
    assert exact <= encoded_bytes(rows, lengths) <= 3 * exact


def test_a_faulty_row_travels_as_an_error_with_its_sample(setup: Setup, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    Image.new("RGB", (64, 64)).save(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    rows = EncodedRows(setup.rows, setup.encoder, lambda ref: broken if ref.path == "images/1.png" else setup.image_path(ref))
    sound, faulty = rows[0], rows[1]
    assert isinstance(faulty, MedtuneError)
    assert faulty.sample == "row-01"
    assert StepCollator(setup.encoder)([[sound], [sound, faulty]]) == {"error": faulty}


def test_collated_counts(setup: Setup) -> None:
    rows = EncodedRows(setup.rows, setup.encoder, setup.image_path)
    step = StepCollator(setup.encoder)([[rows[0], rows[1]], [rows[2]]])
    first, second = step["micro_batches"]
    assert first["sample_ids"] == ("row-00", "row-01")
    assert second["sample_ids"] == ("row-02",)
    inputs = [first["inputs"], second["inputs"]]
    assert step["num_tokens"] == sum(int(batch["attention_mask"].sum()) for batch in inputs)
    assert step["num_target_tokens"] == sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in inputs)
    assert step["num_target_tokens"] == len(first["targets"]) + len(second["targets"])


def test_a_micro_batch_without_rows_is_a_row_without_loss(setup: Setup) -> None:
    rows = EncodedRows(setup.rows, setup.encoder, setup.image_path)
    step = StepCollator(setup.encoder, packing=True, blank=lambda: rows[0])([[rows[1]], []])
    full, empty = step["micro_batches"]
    assert len(empty["targets"]) == 0
    assert (empty["inputs"]["labels"] == -100).all()
    assert "pixel_values" in empty["inputs"]
    assert step["num_target_tokens"] == len(full["targets"])
    assert step["num_tokens"] == len(rows[1].input_ids)  # type: ignore[union-attr]


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
def test_tokens_that_are_nobodys_are_marked_for_the_routers(setup: Setup, packing: bool) -> None:
    rows = EncodedRows(setup.rows, setup.encoder, setup.image_path)
    blind, other, sight = rows[0], rows[1], rows[2]
    assert isinstance(blind, Features)
    assert isinstance(other, Features)
    blind, other = (
        dataclasses.replace(row, tensors={"mm_token_type_ids": torch.zeros_like(row.input_ids)}) for row in (blind, other)
    )
    collator = StepCollator(
        setup.encoder, packing=packing, multiple=64, blank=lambda: blind, sight=None if packing else lambda: sight, routes=True
    )
    step = collator([[blind, other], []])
    full, empty = (batch["inputs"]["routed"] for batch in step["micro_batches"])
    lengths = [len(blind.input_ids), len(other.input_ids)]
    assert step["num_micro_batches"] == 1
    assert not empty.any()
    shape = step["micro_batches"][0]["inputs"]["input_ids"].shape
    if packing:
        assert shape[1] % 64 == 0
        assert full.tolist() == [True] * sum(lengths) + [False] * (shape[1] - sum(lengths))
    else:
        assert full.reshape(shape).sum(dim=1).tolist() == [*lengths, 0], "the third shows the tower a picture"


def test_an_answer_without_tokens_is_an_error(setup: Setup) -> None:
    class Mute:
        def encode(self, *args: Any, **kwargs: Any) -> Features:
            features = setup.encoder.encode(*args, **kwargs)
            return Features(features.sample_id, features.input_ids, features.labels.fill_(-100))

    faulty = EncodedRows(setup.rows, Mute(), setup.image_path)[0]  # type: ignore[arg-type]
    assert isinstance(faulty, MedtuneError)
    assert "answer is empty" in faulty.render("en")


@pytest.mark.parametrize("group", [0, 4])
def test_the_order_depends_on_seed_and_epoch_alone(group: int) -> None:
    lengths = [(index * 37) % 101 for index in range(150)]
    sampler = RowSampler(lengths, seed=1, group=group)
    first = list(sampler)
    assert sorted(first) == list(range(150))
    assert list(sampler) == first
    sampler.epoch = 1
    second = list(sampler)
    assert second != first
    again = RowSampler(lengths, seed=1, group=group)
    again.epoch = 1
    assert list(again) == second
    assert list(RowSampler(lengths, seed=2, group=group)) != first


def test_grouping_evens_out_the_lengths_of_a_batch() -> None:
    lengths = [(index * 7919) % 1000 for index in range(514)]

    def spread(order: list[int]) -> float:
        groups = [[lengths[row] for row in order[start : start + 8]] for start in range(0, len(order), 8)]
        return sum(max(group) - min(group) for group in groups) / len(groups)

    plain, grouped = list(RowSampler(lengths, seed=0)), list(RowSampler(lengths, seed=0, group=8))
    assert spread(grouped) < spread(plain) / 4
    assert sorted(grouped) == list(range(514))
