"""The passes of an optimizer step through the model: how many there are, and how many tokens each has. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medtune.models.adapter_size import AdapterSize
from medtune.models.size import ModelSize
from medtune.training.choice import EngineChoice
from medtune.training.devices import Device
from medtune.training.division import Division
from medtune.training.workload import Workload

__all__ = ["Setup", "num_passes", "pass_tokens"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What the model and the machine are; the choices come on top.

    Attributes:
        size: Of the base model.
        adapter: What is trained.
        workload: What it is fed.
        device: One of those that train.
        precision: Of the computation.
        weight_bytes: Of one base weight in memory.
        division: Over several devices.
        batch_size: Rows at once where rows are not packed.
        num_workers: Processes that read pictures, per device.
    """

    size: ModelSize
    adapter: AdapterSize
    workload: Workload
    device: Device
    precision: Literal["bf16", "float32"]
    weight_bytes: float
    division: Division
    batch_size: int
    num_workers: int

    @property
    def value_bytes(self) -> int:
        """Of one activation."""
        return 2 if self.precision == "bf16" else 4


def pass_tokens(setup: Setup, choice: EngineChoice, *, at_peak: bool) -> float:
    """Tokens of one pass through the model: the most that occur, or the average, padding included."""
    workload = setup.workload
    if choice.packing and choice.micro_batch_tokens:
        if at_peak:
            return min(max(choice.micro_batch_tokens, workload.longest), max(workload.most_step_tokens, workload.longest))
        return workload.step_tokens / num_passes(setup, choice)
    rows = min(choice.micro_batch_rows or setup.batch_size, workload.rows_per_step, workload.num_rows)
    if at_peak:
        return float(rows * workload.longest)
    # The longest of n rows lies about this many standard deviations above the mean (normal approximation, Blom 1958).
    above = math.sqrt(2 * math.log(rows)) if rows > 1 else 0.0
    return rows * min(workload.longest, workload.mean_length + above * workload.spread)


def num_passes(setup: Setup, choice: EngineChoice) -> int:
    """Passes of an optimizer step on each device."""
    workload = setup.workload
    if choice.packing and choice.micro_batch_tokens:
        limit = max(choice.micro_batch_tokens, workload.longest)
        if limit >= workload.most_step_tokens:
            return 1
        # Rows are whole: so many of average length fit. Rows of different lengths fill a pass up to about half a row.
        rows = min(workload.rows_per_step, workload.num_rows)
        by_rows = math.ceil(rows / max(1, int(limit / max(1.0, workload.mean_length))))
        if workload.spread < 0.05 * workload.mean_length:
            return by_rows
        return min(by_rows, math.ceil(workload.step_tokens / max(1.0, limit - workload.mean_length / 2)))
    return math.ceil(min(workload.rows_per_step, workload.num_rows) / (choice.micro_batch_rows or setup.batch_size))
