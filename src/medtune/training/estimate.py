"""What a training run needs with given choices: memory and time, put together. Imports nothing heavy.

The model is additive and its terms are physics; the factors between them and a real card are in
:mod:`medtune.training.calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass

from medtune.training.calibration import CALIBRATION, Calibration
from medtune.training.choice import EngineChoice
from medtune.training.devices import Device
from medtune.training.memory import Memory, memory_of, stored_bytes
from medtune.training.passes import Setup
from medtune.training.step_time import StepTime, evaluation_seconds, time_of

__all__ = ["Estimate", "Memory", "Setup", "StepTime", "capacity_of", "estimate"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Attributes:
    memory: Of one device.
    step: Of one step.
    tokens_per_second: All devices together.
    rows_per_second: Likewise.
    startup_seconds: Until the first step: imports, weights, compilation.
    evaluation_seconds: Of all validation losses.
    seconds: Of the whole run.
    capacity: Bytes that a device has for all this.
    """

    memory: Memory
    step: StepTime
    tokens_per_second: float
    rows_per_second: float
    startup_seconds: float
    evaluation_seconds: float
    seconds: float
    capacity: float

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.capacity


def estimate(setup: Setup, choice: EngineChoice, calibration: Calibration = CALIBRATION) -> Estimate:
    """What the run needs with these choices."""
    memory = memory_of(setup, choice, calibration)
    step = time_of(setup, choice, calibration)
    workload, division = setup.workload, setup.division
    per_second = division.num_devices / step.total
    startup = calibration.start_seconds + stored_bytes(setup) / calibration.load_bytes_per_second
    if choice.compile:
        startup += calibration.compile_seconds
    evaluation = evaluation_seconds(setup, step)
    return Estimate(
        memory=memory,
        step=step,
        tokens_per_second=workload.step_tokens * per_second,
        rows_per_second=min(workload.rows_per_step, workload.num_rows) * per_second,
        startup_seconds=startup,
        evaluation_seconds=evaluation,
        seconds=startup + evaluation + step.total * workload.num_steps,
        capacity=capacity_of(setup.device, calibration),
    )


def capacity_of(device: Device, calibration: Calibration = CALIBRATION) -> float:
    """Bytes that torch's allocator may hand out, a margin for fragmentation left free; on a CPU a tenth stays free."""
    outside = calibration.context_bytes if device.is_gpu else 0.0
    return (device.memory - outside) * (1 - calibration.margin)
