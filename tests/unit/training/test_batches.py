"""Every row of a step is in one micro-batch of one device, and all devices have equally many."""

from __future__ import annotations

import random
from itertools import chain

import pytest

from medtune.training.batches import EvalBatches, StepSampler, spread
from medtune.training.data import RowSampler

LENGTHS = [random.Random(1).randint(1, 400) for _ in range(53)]


def tokens(rows: tuple[int, ...], lengths: list[int] = LENGTHS) -> int:
    return sum(lengths[row] for row in rows)


def sampler(rank: int = 0, num_devices: int = 1, **options: int) -> StepSampler:
    order = RowSampler(LENGTHS, seed=3)
    return StepSampler(order, rows_per_step=4, rank=rank, num_devices=num_devices, **options)


def test_bins_are_within_a_third_of_the_best() -> None:
    # 3 x 2 bins of exactly 10, which the longest-first rule does not find: 5+3+2 twice is 10, 4+4+2 too.
    lengths = [5, 5, 4, 4, 3, 3, 2, 2, 2]
    bins = spread(range(9), lengths, num_bins=3)
    assert sorted(chain.from_iterable(bins)) == list(range(9))
    assert max(tokens(part, lengths) for part in bins) <= 4 / 3 * 10
    assert all(list(part) == sorted(part) for part in bins), "rows stay in their order"


def test_more_bins_than_rows_leaves_some_empty() -> None:
    assert spread([7, 3], LENGTHS, num_bins=4).count(()) == 2


@pytest.mark.parametrize("num_devices", [1, 2, 3])
@pytest.mark.parametrize("options", [{"micro_batch_tokens": 500}, {"micro_batch_tokens": 1}, {"micro_batch_rows": 3}], ids=str)
def test_each_step_has_its_rows_whatever_it_is_cut_into(num_devices: int, options: dict[str, int]) -> None:
    steps = [list(sampler(rank, num_devices, **options)) for rank in range(num_devices)]
    order = list(RowSampler(LENGTHS, seed=3))
    size = 4 * num_devices
    assert {len(own) for own in steps} == {len(sampler(0, num_devices))}
    for number, of_devices in enumerate(zip(*steps, strict=True)):
        wanted = order[number * size : (number + 1) * size]
        assert sorted(chain.from_iterable(chain.from_iterable(of_devices))) == sorted(wanted)
        assert len({len(micro_batches) for micro_batches in of_devices}) == 1, "a device would wait for the others for ever"


def test_no_micro_batch_has_more_tokens_than_allowed_but_a_long_row_alone() -> None:
    for limit in (10, 300, 500, 900, 10_000):
        for step in sampler(micro_batch_tokens=limit):
            assert all(tokens(part) <= limit or len(part) == 1 or max(LENGTHS[row] for row in part) > limit for part in step)
    assert {len(part) for step in sampler(micro_batch_tokens=10) for part in step} == {1}
    assert {len(step) for step in sampler(micro_batch_tokens=10_000)} == {1}, "no more passes than it takes"


def test_the_work_of_a_step_is_even_over_devices() -> None:
    plans = [sampler(num_devices=2, micro_batch_tokens=400).plan(list(range(start, start + 8))) for start in range(0, 48, 8)]
    for plan in plans:
        work = [sum(map(tokens, own)) for own in plan]
        assert max(work) <= 4 / 3 * sum(work) / 2 + max(LENGTHS) / 6


def test_an_epoch_draws_an_order_of_its_own() -> None:
    own = sampler(micro_batch_tokens=500)
    first = list(own)
    assert list(own) == first
    own.order.epoch = 1
    assert list(own) != first


@pytest.mark.parametrize("options", [{"micro_batch_tokens": 500}, {"micro_batch_rows": 4}], ids=str)
@pytest.mark.parametrize("num_devices", [1, 2, 3])
def test_each_validation_row_is_measured_once(num_devices: int, options: dict[str, int]) -> None:
    batches = [EvalBatches(LENGTHS, rank=rank, num_devices=num_devices, **options) for rank in range(num_devices)]
    assert len({len(own) for own in batches}) == 1
    steps = [step for own in batches for step in own]
    assert all(len(step) == 1 for step in steps)
    rows = [row for (part,) in steps for row in part]
    assert sorted(rows) == list(range(len(LENGTHS)))
    if "micro_batch_tokens" in options:
        assert max(tokens(part) for (part,) in steps) <= 500
    else:
        assert max(len(part) for (part,) in steps) <= 4


def test_fewer_validation_rows_than_devices() -> None:
    assert [list(EvalBatches([5], micro_batch_tokens=9, rank=rank, num_devices=3)) for rank in range(3)] == [
        [[(0,)]],
        [[()]],
        [[()]],
    ]
    assert list(EvalBatches([], micro_batch_tokens=9)) == []
