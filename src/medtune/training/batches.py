"""How the rows of an optimizer step are spread over devices and over passes through the model."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence

from torch.utils import data

from medtune.training.data import RowSampler

__all__ = ["EvalBatches", "StepSampler", "spread"]

MicroBatch = tuple[int, ...]
"""Row numbers that go through the model at once."""


def spread(rows: Sequence[int], lengths: Sequence[int], *, num_bins: int) -> list[MicroBatch]:
    """Put rows into bins of about equally many tokens: the longest row first, always into the emptiest bin (Graham 1969,
    doi:10.1137/0117039: the fullest bin holds at most 4/3 of the least possible).

    Returns:
        ``num_bins`` bins, the rows of each in their given order; some are empty where there are fewer rows than bins.
    """
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    heap = [(0, number) for number in range(num_bins)]
    for place in sorted(range(len(rows)), key=lambda place: (-lengths[rows[place]], place)):
        tokens, number = heapq.heappop(heap)
        bins[number].append(place)
        heapq.heappush(heap, (tokens + lengths[rows[place]], number))
    return [tuple(rows[place] for place in sorted(places)) for places in bins]


class StepSampler(data.Sampler[list[MicroBatch]]):
    """The micro-batches of this device, optimizer step by optimizer step.

    Which rows a step has depends on the order of the rows alone, not on how they are spread. Every device computes the whole
    plan of a step, so that all of them run the model equally often: under ZeRO-3 and FSDP each pass is a meeting of all.

    Args:
        order: Row numbers, epoch by epoch.
        rows_per_step: Rows of an optimizer step on each device.
        micro_batch_tokens: At most so many tokens in a micro-batch, unless one row alone has more; 0 = ``micro_batch_rows``
            rows each, as they come.
        micro_batch_rows: See there.
        rank: This device's number, of ``num_devices``.
    """

    def __init__(
        self,
        order: RowSampler,
        *,
        rows_per_step: int,
        micro_batch_tokens: int = 0,
        micro_batch_rows: int = 1,
        rank: int = 0,
        num_devices: int = 1,
    ) -> None:
        self.order = order
        self.lengths = order.lengths
        self.rows_per_step = rows_per_step * num_devices
        self.micro_batch_tokens = micro_batch_tokens
        self.micro_batch_rows = micro_batch_rows
        self.rank = rank
        self.num_devices = num_devices

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.rows_per_step)

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        step: list[int] = []
        for row in self.order:
            step.append(row)
            if len(step) == self.rows_per_step:
                yield self.plan(step)[self.rank]
                step = []
        if step:
            yield self.plan(step)[self.rank]

    def plan(self, rows: Sequence[int]) -> list[list[MicroBatch]]:
        """The micro-batches of every device, for the rows of one step."""
        if self.micro_batch_tokens:
            shares = spread(rows, self.lengths, num_bins=self.num_devices)
            most = max(self._num_passes(share) for share in shares)
            return [spread(share, self.lengths, num_bins=most) for share in shares]
        shares = [tuple(rows[device :: self.num_devices]) for device in range(self.num_devices)]
        most = math.ceil(max(map(len, shares)) / self.micro_batch_rows)
        size = self.micro_batch_rows
        return [[share[start * size : (start + 1) * size] for start in range(most)] for share in shares]

    def _num_passes(self, share: Sequence[int]) -> int:
        """The fewest passes in which no bin has more tokens than allowed, where that can be."""
        limit = max([self.micro_batch_tokens, *(self.lengths[row] for row in share)])
        passes = max(1, math.ceil(sum(self.lengths[row] for row in share) / limit))
        while passes < len(share):
            bins = spread(share, self.lengths, num_bins=passes)
            if max(sum(self.lengths[row] for row in part) for part in bins) <= limit:
                break
            passes += 1
        return passes


class EvalBatches(data.Sampler[list[MicroBatch]]):
    """The micro-batches of the validation loss on this device, one at a time; the longest rows come first.

    Every row is on one device only. The last ones may be empty, so that all devices run the model equally often.
    """

    def __init__(
        self, lengths: Sequence[int], *, micro_batch_tokens: int = 0, micro_batch_rows: int = 1, rank: int = 0, num_devices: int = 1
    ) -> None:
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        batches: list[MicroBatch] = []
        current: list[int] = []
        tokens = 0
        for row in order:
            full = tokens + lengths[row] > micro_batch_tokens if micro_batch_tokens else len(current) == micro_batch_rows
            if current and full:
                batches.append(tuple(current))
                current, tokens = [], 0
            current.append(row)
            tokens += lengths[row]
        if current:
            batches.append(tuple(current))
        batches += [()] * (-len(batches) % num_devices)
        self.batches = batches[rank::num_devices]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        for batch in self.batches:
            yield [batch]
