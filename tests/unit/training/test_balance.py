"""How evenly the tokens of optimizer steps are spread over devices, and that no row is lost or met twice."""

from __future__ import annotations

import random

import pytest

from medtune.training.batches import EvalBatches, StepSampler
from medtune.training.data import RowSampler


def lengths_of(kind: str, num_rows: int) -> list[int]:
    """Tokens of rows as data sets have them: short answers about pictures of one size, free text, or a few long reports."""
    draw = random.Random(1)
    if kind == "pictures":
        return [276 + draw.randint(5, 300) for _ in range(num_rows)]
    if kind == "text":
        return [int(min(2048, draw.lognormvariate(5.3, 0.7)) + 20) for _ in range(num_rows)]
    return [draw.choice([300] * 9 + [2000]) for _ in range(num_rows)]


@pytest.mark.parametrize("num_devices", [2, 3, 8])
@pytest.mark.parametrize(("kind", "most"), [("pictures", 0.02), ("text", 0.03), ("reports", 0.12)])
def test_devices_get_equally_many_tokens(kind: str, most: float, num_devices: int) -> None:
    """The slowest device sets the pace: the mean over the steps of the largest share over the mean share, less one."""
    lengths = lengths_of(kind, 4000)
    sampler = StepSampler(RowSampler(lengths, seed=0), rows_per_step=16, micro_batch_tokens=8192, num_devices=num_devices)
    order = list(sampler.order)
    size = sampler.rows_per_step
    over, plain = [], []
    for start in range(0, len(order) - size + 1, size):
        rows = order[start : start + size]
        shares = [sum(lengths[row] for part in device for row in part) for device in sampler.plan(rows)]
        over.append(max(shares) * num_devices / sum(shares) - 1)
        dealt = [sum(lengths[row] for row in rows[device::num_devices]) for device in range(num_devices)]
        plain.append(max(dealt) * num_devices / sum(dealt) - 1)
    assert sum(over) / len(over) < most
    assert sum(over) < sum(plain) / 3, "dealing rows out in turn would be as even"


@pytest.mark.parametrize("tokens", [0, 700, 4096])
@pytest.mark.parametrize("num_devices", [1, 2, 3])
def test_every_row_of_an_epoch_is_on_one_device_once(num_devices: int, tokens: int) -> None:
    lengths = lengths_of("text", 101)
    seen: list[int] = []
    passes = set()
    for rank in range(num_devices):
        sampler = StepSampler(
            RowSampler(lengths, seed=3),
            rows_per_step=4,
            micro_batch_tokens=tokens,
            micro_batch_rows=2,
            rank=rank,
            num_devices=num_devices,
        )
        steps = list(sampler)
        assert len(steps) == len(sampler)
        passes.add(tuple(len(step) for step in steps))
        seen += [row for step in steps for part in step for row in part]
    assert sorted(seen) == list(range(101))
    assert len(passes) == 1, "devices run the model equally often, in every step"


@pytest.mark.parametrize("num_rows", [1, 2, 7, 50])
def test_every_validation_row_is_on_one_device_once(num_rows: int) -> None:
    lengths = lengths_of("text", num_rows)
    batches = [list(EvalBatches(lengths, micro_batch_tokens=600, rank=rank, num_devices=3)) for rank in range(3)]
    assert len({len(own) for own in batches}) == 1
    assert sorted(row for own in batches for step in own for part in step for row in part) == list(range(num_rows))
