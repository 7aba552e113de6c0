"""Losses, tokens, time and memory of a training, read without waiting for the device."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Meter", "peak_memory_mib"]


class Meter:
    """Adds up losses and tokens without waiting for the device, and reads the clock."""

    WARM_UP_STEPS = 5
    """Not counted in the steady state: layers are compiled, and memory is asked for, in the first of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens = self._epoch_tokens = 0
        self.started = self._since = self._epoch_since = clock()
        self._loss: list[Tensor] = []
        self._targets = 0
        self._finished = (0, 0)
        self._waited = 0.0
        self._steps = self._all_tokens = 0
        self._steady: tuple[float, int, int] | None = None

    def waited(self, seconds: float) -> None:
        """Count time in which the next step's data was not there yet."""
        self._waited += seconds

    def add_tokens(self, num_tokens: int) -> None:
        self._tokens += num_tokens
        self._epoch_tokens += num_tokens
        self._all_tokens += num_tokens

    def add_loss(self, total: Tensor, num_targets: int) -> None:
        self._loss.append(total)
        self._targets += num_targets

    def finish_step(self) -> None:
        """What was added so far is of whole optimizer steps."""
        self._finished = (len(self._loss), self._targets)

    def count_step(self) -> None:
        """An optimizer step is done."""
        self._steps += 1
        if self._steps == self.WARM_UP_STEPS:
            self._steady = (self._clock(), self._steps, self._all_tokens)

    def forget_unfinished(self) -> None:
        """Take out what was added since the last whole step."""
        del self._loss[self._finished[0] :]
        self._targets = self._finished[1]

    def pause(self, seconds: float) -> None:
        """Take time out that was not spent on training."""
        self._since += seconds
        self._epoch_since += seconds
        if self._steady is not None:
            self._steady = (self._steady[0] + seconds, *self._steady[1:])

    @property
    def is_warm(self) -> bool:
        """Whether the first steps are over."""
        return self._steady is not None

    def steady_state(self, num_processes: int) -> tuple[float, float] | None:
        """Seconds of an optimizer step and tokens a second, without the first steps, validation and checkpoints; None after too
        few steps."""
        if self._steady is None or self._steps <= self._steady[1]:
            return None
        since, steps, tokens = self._steady
        elapsed = max(1e-9, self._clock() - since)
        return elapsed / (self._steps - steps), (self._all_tokens - tokens) * num_processes / elapsed

    def read(self, num_processes: int) -> dict[str, float]:
        """Speed since the last reading (this process's tokens, times the processes), time since the start, peak memory."""
        now = self._clock()
        elapsed = max(1e-9, now - self._since)
        tokens_per_second = self._tokens * num_processes / elapsed
        waited = min(1.0, self._waited / elapsed)
        self._tokens, self._since, self._waited = 0, now, 0.0
        return {
            "tokens_per_second": round(tokens_per_second, 1),
            "data_wait_share": round(waited, 4),
            "seconds": round(now - self.started, 2),
            "peak_memory_mib": peak_memory_mib(),
        }

    def epoch_speed(self, num_processes: int) -> float | None:
        """Tokens a second since the last call, without validation and checkpoints; None where nothing was trained on."""
        now = self._clock()
        tokens, elapsed = self._epoch_tokens, max(1e-9, now - self._epoch_since)
        self._epoch_tokens, self._epoch_since = 0, now
        return tokens * num_processes / elapsed if tokens else None

    def epoch_totals(self) -> Tensor:
        """(2,) float64: summed loss and supervised tokens since the last call."""
        if not self._loss:
            return torch.zeros(2, dtype=torch.float64)
        total = torch.stack(self._loss).double().sum()
        totals = torch.stack([total, total.new_tensor(self._targets)])
        self._loss, self._targets, self._finished = [], 0, (0, 0)
        return totals


def peak_memory_mib() -> int:
    """Most memory in use so far: of the GPU's allocator, or of the process where there is no GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    # ru_maxrss is in KiB on Linux and in bytes on macOS (getrusage(2) of each).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
