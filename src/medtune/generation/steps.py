"""Decoding steps over a fixed number of rows; on a GPU each step is one CUDA graph."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from medtune.models.decoder import Decoder

__all__ = ["LOOK_EVERY", "SLOT_BUCKET", "Costs", "DecodingSteps", "row_buckets", "whole_buckets"]

_log = logging.getLogger(__name__)

SLOT_BUCKET = 128
"""Slots of the cache are allocated, and looked at, in multiples of this: a graph serves so many steps, and attention never
reads more than this beyond the longest text."""

LOOK_EVERY = 8
"""Steps between two looks at what was generated. A look waits for the GPU, some 0.1 ms; an answer that has ended costs at most
seven steps more of one row."""


def whole_buckets(tokens: int) -> int:
    """``tokens`` rounded up to a multiple of :data:`SLOT_BUCKET`."""
    return -(-tokens // SLOT_BUCKET) * SLOT_BUCKET


def row_buckets(rows: int) -> list[int]:
    """Numbers of rows that steps are run with, the largest first: ``rows`` and the powers of two below it."""
    return [rows] + [2**power for power in reversed(range(rows.bit_length())) if 2**power < rows]


@dataclass(slots=True)
class Costs:
    """What was spent.

    Attributes:
        steps: Decoding steps.
        captures: CUDA graphs made, and the seconds that this took.
    """

    steps: int = 0
    captures: int = 0
    capture_seconds: float = 0.0


class DecodingSteps:
    """Rows of a cache and the token that each is at.

    Args:
        decoder: The model.
        rows: Allocated. Row i is free until it is filled.
        slots: Tokens that a row can hold, prompt and answer.
        draw: (scores (n, vocabulary) of the first n rows, the rows) -> (n,) tokens; None = the most probable, inside the graph.
        ready: Entered while the model's own modules run. A graph holds what they did and needs none of it.

    Raises:
        torch.OutOfMemoryError: The cache does not fit.

    Made and used in ``torch.inference_mode``.
    """

    def __init__(
        self,
        decoder: Decoder,
        rows: int,
        slots: int,
        *,
        ready: Callable[[], AbstractContextManager[None]],
        draw: Callable[[Tensor, Sequence[int]], Tensor] | None = None,
    ) -> None:
        self.rows = rows
        self.slots = whole_buckets(slots)
        self.costs = Costs()
        self._decoder = decoder
        self._ready = ready
        self._draw = draw
        self.cache = decoder.cache(rows, self.slots)
        device = decoder.device
        self._tokens, self._lengths, self._offsets, self._busy = (
            torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(4)
        )
        self._produced = torch.zeros(LOOK_EVERY, rows, dtype=torch.int64, device=device)
        self._scores = None if draw is None else torch.empty(rows, decoder.vocab_size, device=device)
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph | None] = {}
        self._can_capture = True
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def fill(self, rows: Sequence[int], tokens: Tensor, lengths: Sequence[int], offsets: Sequence[int]) -> None:
        """Begin answers.

        Args:
            rows: Free ones; their keys and values of the prompt are in the cache.
            tokens: (n,) the first token of each answer.
            lengths: Tokens of each prompt.
            offsets: By how much the rotary position of a token is ahead of the number of tokens before it.
        """
        where = self._placed(rows)
        self._tokens[where] = tokens
        self._lengths[where] = self._placed(lengths)
        self._offsets[where] = self._placed(offsets)
        self._busy[where] = 1

    def free(self, rows: Sequence[int]) -> None:
        """Stop rows. They are computed on with the others and read nothing but their own first slot."""
        where = self._placed(rows)
        self._busy[where] = 0
        self._lengths[where] = 0

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Move busy rows to free ones."""
        source, target = self._placed(sources), self._placed(targets)
        self.cache.move(source, target)
        for state in (self._tokens, self._lengths, self._offsets, self._busy):
            state[target] = state[source]
        self.free(sources)

    def run(self, rows: int, num_slots: int, steps: int) -> list[list[int]]:
        """``steps`` further tokens of the first ``rows`` rows, looking at the first ``num_slots`` slots: a list for each row.

        Waits for the device.
        """
        if not 0 < steps <= LOOK_EVERY:
            raise ValueError(f"steps must be 1 to {LOOK_EVERY}")
        if not self._decoder.operations.reads_all_slots:
            num_slots = self.slots  # one graph then serves texts of every length
        with self._ready() if self._pool is None else contextlib.nullcontext():
            for number in range(steps):
                self._once(rows, num_slots)
                if self._draw is not None:
                    assert self._scores is not None
                    self._tokens[:rows] = self._draw(self._scores[:rows], range(rows))
                self._produced[number, :rows] = self._tokens[:rows]
        self.costs.steps += steps
        produced: list[list[int]] = self._produced[:steps, :rows].t().tolist()
        return produced

    def _once(self, rows: int, num_slots: int) -> None:
        if self._pool is None:
            self._step(rows, num_slots)
            return
        key = (rows, num_slots)
        graph = self._graphs.get(key)
        if graph is None:
            with self._ready():
                # The first step of a shape runs as it is: libraries choose their kernels and get their workspaces.
                graph = self._capture(rows, num_slots) if key in self._graphs else None
                if graph is None:
                    self._step(rows, num_slots)
                    self._graphs[key] = None
                    return
        graph.replay()

    def _capture(self, rows: int, num_slots: int) -> torch.cuda.CUDAGraph | None:
        """A graph of one step, which is not run by that; None where some module's kernels cannot be captured."""
        if not self._can_capture:
            return None
        started = time.perf_counter()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=_capture_stream(self._decoder.device), capture_error_mode="thread_local"
            ):
                self._step(rows, num_slots)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _log.warning("decoding steps cannot be captured: %s", str(error).splitlines()[0])
            self._can_capture = False
            return None
        self._graphs[rows, num_slots] = graph
        self.costs.captures += 1
        self.costs.capture_seconds += time.perf_counter() - started
        return graph

    def _step(self, rows: int, num_slots: int) -> None:
        tokens, lengths = self._tokens[:rows], self._lengths[:rows]
        scores = self._decoder.step(self.cache, tokens, lengths, lengths + self._offsets[:rows], num_slots)
        if self._scores is None:
            tokens.copy_(scores.argmax(dim=-1))
        else:
            self._scores[:rows] = scores
        lengths.add_(self._busy[:rows])

    def _placed(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.int64, device=self._decoder.device)


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """torch captures on one stream for all GPUs unless told otherwise; what another GPU did would not be in the graph."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
