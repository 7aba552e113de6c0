"""What the processes of a run tell each other besides gradients: how many tokens a step has, who has met an error, who was asked
to stop. All of them learn it at the same place, so none waits in a pass through the model for one that has left.

The numbers lie on the CPU and go through gloo: asking never waits for a GPU, and a process that has died is noticed at once,
because its connections close.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch

from medtune.errors import MedtuneError

__all__ = ["Agreement"]


class Agreement:
    """A channel between all processes of a run. Making one and calling any method is a meeting of all of them.

    Args:
        num_processes: Of the run; with 1, nothing is sent.
        seconds: How long to wait for the others; then the process ends with an error.
    """

    def __init__(self, num_processes: int, *, seconds: float) -> None:
        self._num_processes = num_processes
        self._group: Any = None
        if num_processes > 1:
            self._group = torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=seconds))

    def sum(self, *numbers: float) -> tuple[float, ...]:
        """Each number, added up over all processes; exact for whole numbers below 2**53."""
        if self._group is None:
            return numbers
        totals = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.all_reduce(totals, group=self._group)
        return tuple(totals.tolist())

    def exchange(self, value: Any) -> list[Any]:
        """What every process gave, by rank. It is pickled on the way."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self._num_processes
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values

    def check(self, error: MedtuneError | None, *numbers: float) -> tuple[float, ...]:
        """:meth:`sum`, unless some process has met an error.

        Raises:
            MedtuneError: The error of the first process that has one, in every process.
        """
        *totals, num_errors = self.sum(*numbers, float(error is not None))
        if num_errors:
            raise self._first(error)
        return tuple(totals)

    def _first(self, error: MedtuneError | None) -> MedtuneError:
        if self._group is None:
            assert error is not None
            return error
        # An exception loses its keyword fields when it is pickled: its class and its fields go instead.
        errors = self.exchange(None if error is None else (type(error), error.args, error.__dict__))
        kind, words, fields = next(found for found in errors if found is not None)
        first: MedtuneError = kind.__new__(kind, *words)
        first.args = words
        first.__dict__.update(fields)
        return first
