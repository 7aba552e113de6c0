"""What a training run will be fed, counted from the headers of a data set: no picture is opened. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from medtune.models.size import ModelSize
from medtune.training.config import TrainSettings
from medtune.types import IMAGE_MARK, Sample

__all__ = ["Counter", "Workload", "measure_workload"]

_SAMPLED = 128
"""Rows from which the share of supervised tokens is estimated."""


class Counter(Protocol):
    """What is needed of :class:`medtune.models.encoder.Encoder`."""

    pictures: Any
    settings: Any

    def count_tokens(self, messages: Any, sizes: Any, *, sample_id: str = "") -> int: ...


@dataclass(frozen=True, slots=True)
class Workload:
    """Sums over an epoch, all devices together, unless said otherwise.

    Attributes:
        num_rows: Training rows.
        num_tokens: Their tokens, picture tokens included.
        num_squares: Sum of the squares of their lengths: what attention grows with.
        longest: Tokens of the longest row.
        num_targets: Supervised tokens; estimated from some of the rows.
        num_pictures: Pictures shown; one that stands in three rows counts three times.
        num_distinct: Different pictures.
        num_patches: Of all pictures shown.
        num_patch_squares: Sum of the squares of the pictures' patches.
        most_patches: Of one row.
        largest_patches: Of one picture.
        rows_per_step: Rows of an optimizer step on each device; fewer than asked for where all rows are one step.
        num_steps: Optimizer steps of the whole run.
        eval_tokens: Tokens of the validation rows.
        eval_longest: Of the longest validation row.
        eval_distinct: Different pictures of the validation rows that no training row shows.
        num_evaluations: How often the validation loss is measured.
    """

    num_rows: int
    num_tokens: int
    num_squares: int
    longest: int
    num_targets: int
    num_pictures: int
    num_distinct: int
    num_patches: int
    num_patch_squares: int
    most_patches: int
    largest_patches: int
    rows_per_step: int
    num_steps: int
    eval_tokens: int = 0
    eval_longest: int = 0
    eval_distinct: int = 0
    num_evaluations: int = 0

    @property
    def num_kept(self) -> int:
        """Pictures whose features a cache holds: those of the validation rows too."""
        return self.num_distinct + self.eval_distinct

    @property
    def mean_length(self) -> float:
        return self.num_tokens / max(1, self.num_rows)

    @property
    def spread(self) -> float:
        """Standard deviation of the rows' lengths."""
        return math.sqrt(max(0.0, self.num_squares / max(1, self.num_rows) - self.mean_length**2))

    @property
    def step_tokens(self) -> float:
        """Of an optimizer step on each device, on average."""
        return self.mean_length * min(self.rows_per_step, self.num_rows)

    @property
    def most_step_tokens(self) -> float:
        """Of an optimizer step on each device: two standard deviations more than the average (one step in fifty has more)."""
        rows = min(self.rows_per_step, self.num_rows)
        return min(rows * self.longest, self.step_tokens + 2 * self.spread * math.sqrt(rows))

    def on(self, num_devices: int, settings: TrainSettings) -> Workload:
        """The same data with the steps of another number of devices."""
        return replace(
            self,
            rows_per_step=_rows_per_step(self.num_rows, settings, num_devices),
            num_steps=_num_steps(self.num_rows, settings, num_devices),
        )


def measure_workload(
    rows: Sequence[Sample],
    lengths: Sequence[int],
    *,
    eval_rows: Sequence[Sample] = (),
    eval_lengths: Sequence[int] = (),
    encoder: Counter,
    size: ModelSize,
    settings: TrainSettings,
    num_devices: int = 1,
) -> Workload:
    """Count the rows that will be trained on.

    Args:
        rows: Those that fit into ``max_tokens``.
        lengths: Tokens of each, as :func:`medtune.training.data.measure_lengths` says.
        eval_rows: Validation rows.
        eval_lengths: Tokens of each.
    """
    seen: set[str] = set()
    patches_of: dict[tuple[int, int], int] = {}
    num_pictures = num_patches = num_squares = most = 0
    for row in rows:
        in_row = 0
        for image in row.images:
            seen.add(image.sha256)
            side = (image.width, image.height)
            if side not in patches_of:
                patches_of[side] = _patches(*side, encoder, size)
            count = patches_of[side]
            in_row += count
            num_squares += count * count
        num_pictures += len(row.images)
        num_patches += in_row
        most = max(most, in_row)
    num_steps = _num_steps(len(rows), settings, num_devices)
    num_tokens = sum(lengths)
    return Workload(
        num_rows=len(rows),
        num_tokens=num_tokens,
        num_squares=sum(length * length for length in lengths),
        longest=max(lengths, default=0),
        num_targets=min(num_tokens, math.ceil(num_tokens * _supervised_share(rows, lengths, encoder))),
        num_pictures=num_pictures,
        num_distinct=len(seen),
        num_patches=num_patches,
        num_patch_squares=num_squares,
        most_patches=most,
        largest_patches=max(patches_of.values(), default=0),
        rows_per_step=_rows_per_step(len(rows), settings, num_devices),
        num_steps=num_steps,
        eval_tokens=sum(eval_lengths),
        eval_longest=max(eval_lengths, default=0),
        eval_distinct=len({image.sha256 for row in eval_rows for image in row.images} - seen),
        num_evaluations=_num_evaluations(settings, num_steps, len(rows), num_devices) if eval_lengths else 0,
    )


def _patches(width: int, height: int, encoder: Counter, size: ModelSize) -> int:
    if size.vision is None:
        return 0
    if encoder.pictures is not None:
        return int(encoder.pictures.num_tokens(width, height)) * size.vision.merge
    return size.vision.patches_per_picture or 0


def _rows_per_step(num_rows: int, settings: TrainSettings, num_devices: int) -> int:
    return max(1, min(settings.batch_size * settings.gradient_accumulation_steps, math.ceil(num_rows / num_devices)))


def _steps_per_epoch(num_rows: int, settings: TrainSettings, num_devices: int) -> int:
    return math.ceil(num_rows / (settings.batch_size * settings.gradient_accumulation_steps * num_devices))


def _num_steps(num_rows: int, settings: TrainSettings, num_devices: int) -> int:
    return settings.max_steps or math.ceil(settings.epochs * _steps_per_epoch(num_rows, settings, num_devices))


def _num_evaluations(settings: TrainSettings, num_steps: int, num_rows: int, num_devices: int) -> int:
    every = settings.evaluate_every
    if every == "never":
        return 0
    return math.ceil(num_steps / (_steps_per_epoch(num_rows, settings, num_devices) if every == "epoch" else every))


def _supervised_share(rows: Sequence[Sample], lengths: Sequence[int], encoder: Counter) -> float:
    """Supervised tokens over all tokens, in evenly spread rows."""
    if not rows:
        return 0.0
    stride = max(1, len(rows) // _SAMPLED)
    targets = tokens = 0
    for index in range(0, len(rows), stride):
        targets += _targets(rows[index], encoder)
        tokens += lengths[index]
    return targets / max(1, tokens)


def _targets(row: Sample, encoder: Counter) -> int:
    """What each supervised answer adds to the conversation before it: its tokens and its end."""
    sizes = [(image.width, image.height) for image in row.images]
    turns = [place for place, message in enumerate(row.messages) if message.role == "assistant"]
    if getattr(encoder.settings, "supervise", "all") == "last":
        turns = turns[-1:]
    total = 0
    for place in turns:
        shown = sum(message.content.count(IMAGE_MARK) for message in row.messages[: place + 1])
        whole, prompt = (encoder.count_tokens(row.messages[:end], sizes[:shown], sample_id=row.id) for end in (place + 1, place))
        total += whole - prompt
    return total
