"""Rows become encoded features when they are needed, in the processes that load the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import data

from medtune.errors import MedtuneError, TrainingError
from medtune.imaging.read import open_picture
from medtune.language import msg
from medtune.training.loss import target_positions
from medtune.types import IGNORE_INDEX, AdapterContract, Batch, Features, ImageRef, Sample

__all__ = [
    "CACHE_LIMIT_BYTES",
    "EncodedRows",
    "MicroBatches",
    "RowEncoder",
    "RowSampler",
    "SeenPictures",
    "StepCollator",
    "encoded_bytes",
    "measure_lengths",
]

CACHE_LIMIT_BYTES = 2 * 1024**3
"""Encoded rows that are estimated to need no more than this are kept in memory with ``cache_encoded: auto``."""


class RowEncoder(Protocol):
    """What training needs of :class:`medtune.models.encoder.Encoder`.

    Attributes:
        folder: Holds the base model's small files.
        max_tokens: A row with more cannot be encoded; None = no limit is known.
    """

    folder: Path
    max_tokens: int | None

    def encode(self, messages: Any, images: Any, *, sample_id: str = "") -> Features: ...

    def encode_seen(self, messages: Any, grids: Any, *, sample_id: str = "") -> Features: ...

    def collate(self, features: Sequence[Features], *, padding: Any = "right") -> Batch: ...

    def pack(self, features: Sequence[Features], *, multiple: int = 1) -> Batch: ...

    def count_tokens(self, messages: Any, sizes: Any, *, sample_id: str = "") -> int: ...

    def contract(self) -> AdapterContract: ...


class SeenPictures(Protocol):
    """What training needs of :class:`medtune.training.vision_cache.VisionCache`."""

    def grids(self, images: Sequence[ImageRef]) -> list[Tensor]: ...

    def features(self, images: Sequence[ImageRef]) -> Tensor: ...


class EncodedRows(data.Dataset[Any]):
    """Encodes row ``index`` on demand; after :meth:`keep` each row only once.

    A fault of the user's data comes back as the error itself, not raised: an exception that crosses the border of a worker
    process loses its fields. :class:`StepCollator` hands it on, and the trainer raises it.

    Attributes:
        vision: Where it is set, rows carry what the vision tower makes of their pictures instead of pixels.
    """

    def __init__(self, rows: Sequence[Sample], encoder: RowEncoder, picture: Callable[[ImageRef], Path | bytes]) -> None:
        self.rows = rows
        self.encoder = encoder
        self.picture = picture
        self.vision: SeenPictures | None = None
        self._cache: dict[int, Features] | None = None

    def keep(self) -> None:
        """From now on, encode each row only once."""
        self._cache = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Features | MedtuneError:
        features = self._encoded(index)
        row = self.rows[index]
        if self.vision is not None and row.images and isinstance(features, Features):
            # Not kept with the row: they lie in the cache already.
            features = replace(features, tensors={**features.tensors, "picture_features": self.vision.features(row.images)})
        return features

    def _encoded(self, index: int) -> Features | MedtuneError:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        row = self.rows[index]
        try:
            if self.vision is not None and row.images:
                features = self.encoder.encode_seen(row.messages, self.vision.grids(row.images), sample_id=row.id)
            else:
                pictures = [open_picture(self.picture(ref), name=ref.path) for ref in row.images]
                features = self.encoder.encode(row.messages, pictures, sample_id=row.id)
            if not (features.labels[1:] >= 0).any():
                raise TrainingError(
                    msg("The answer is empty: no token of this row carries loss."),
                    sample=row.id,
                    remedy=msg("`medtune validate` lists such rows; give them an answer or take them out."),
                )
        except MedtuneError as error:
            if error.sample is None:
                error.sample = row.id
            return error
        if self._cache is not None:
            self._cache[index] = features
        return features


class MicroBatches(data.Dataset[Any]):
    """The rows of a micro-batch, for a ``DataLoader`` whose batches are optimizer steps: lists of micro-batches."""

    def __init__(self, rows: EncodedRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: tuple[int, ...]) -> list[Features | MedtuneError]:
        return [self.rows[row] for row in rows]


class StepCollator:
    """Micro-batches of features -> one optimizer step, as the trainer takes it.

    ``micro_batches``: for each, ``inputs`` (what goes to the model, with ``labels``), ``positions`` and ``targets`` (see
    :class:`medtune.training.loss.TokenLoss`) and ``sample_ids``. ``num_target_tokens`` and ``num_tokens`` (without padding) are
    those of the whole step on this device, ``num_micro_batches`` those of its micro-batches that have rows. All is counted here, on
    the CPU, so that nothing has to wait for the GPU.
    ``{"error": ...}`` alone when a row is at fault.

    Args:
        packing: Rows lie one behind the other (:meth:`medtune.models.encoder.Encoder.pack`); else they are padded.
        layout: Of the vision tower, with packing; None where there is no tower.
        longest: No row has more tokens.
        multiple: A packed micro-batch has a multiple of so many tokens.
        pixel_type: Pixels are turned into this; a tower that computes in 16 bits would do it first thing.
        blank: Stands for a micro-batch without rows, with no loss; needed where every device must run the model.
        sight: What is shown, with no loss, in a micro-batch without a picture, where every device must run the vision tower:
            the tensors of a small picture with packing, else a row that has one.
        routes: ``inputs`` get ``routed`` (N,), False for tokens that experts see in vain: padding, and rows that stand in for
            others. See :func:`medtune.models.router_loss.router_loss`.
    """

    def __init__(
        self,
        encoder: RowEncoder,
        *,
        packing: bool = False,
        layout: Callable[[Tensor], dict[str, Any]] | None = None,
        longest: int = 0,
        multiple: int = 1,
        pixel_type: torch.dtype | None = None,
        blank: Callable[[], Features | MedtuneError] | None = None,
        sight: Callable[[], Features | MedtuneError] | dict[str, Tensor] | None = None,
        routes: bool = False,
    ) -> None:
        self.encoder = encoder
        self.packing = packing
        self.layout = layout
        self.longest = longest
        self.multiple = multiple
        self.pixel_type = pixel_type
        self.blank = blank
        self.sight = sight
        self.routes = routes

    def __call__(self, step: Sequence[Sequence[Features | MedtuneError]]) -> dict[str, Any]:
        micro_batches = []
        num_target_tokens = num_tokens = num_micro_batches = 0
        for items in step:
            sound: list[Features] = []
            for item in items or self._stand_in():
                if isinstance(item, MedtuneError):
                    return {"error": item}
                sound.append(item)
            num_rows = len(items)
            num_micro_batches += bool(items)
            if not items:
                sound = [_without_loss(row) for row in sound]
            else:
                num_tokens += sum(len(row.input_ids) for row in sound)
            if callable(self.sight) and not any("pixel_values" in row.tensors for row in sound):
                seen = self.sight()
                if isinstance(seen, MedtuneError):
                    return {"error": seen}
                sound.append(_without_loss(seen))
            batch = self._packed(sound) if self.packing else self.encoder.collate(sound, padding="right")
            if self.routes:
                batch.inputs["routed"] = _routed(batch.inputs, sound, num_rows)
            labels = batch.inputs["labels"]
            positions = target_positions(labels)
            num_target_tokens += len(positions)
            micro_batches.append(
                {
                    "inputs": batch.inputs,
                    "positions": positions,
                    "targets": labels.flatten().index_select(0, positions + 1),
                    "sample_ids": batch.sample_ids,
                }
            )
        return {
            "micro_batches": micro_batches,
            "num_target_tokens": num_target_tokens,
            "num_tokens": num_tokens,
            "num_micro_batches": num_micro_batches,
        }

    def _stand_in(self) -> list[Features | MedtuneError]:
        if self.blank is None:
            raise ValueError("a micro-batch without rows, and nothing to stand for it")
        return [self.blank()]

    def _packed(self, rows: Sequence[Features]) -> Batch:
        batch = self.encoder.pack(rows, multiple=self.multiple)
        inputs: dict[str, Any] = batch.inputs
        inputs["max_length_q"] = max(self.longest, self.multiple, *(len(row.input_ids) for row in rows))
        if isinstance(self.sight, dict) and "pixel_values" not in inputs:
            inputs.update(self.sight)
        if "picture_features" in inputs:
            inputs.pop("image_grid_thw")
        elif self.layout is not None and "image_grid_thw" in inputs:
            inputs["vision"] = self.layout(inputs["image_grid_thw"])
        if self.pixel_type is not None and "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.pixel_type)
        return batch


def _without_loss(row: Features) -> Features:
    return replace(row, sample_id="", labels=torch.full_like(row.labels, IGNORE_INDEX))


def _routed(inputs: dict[str, Any], rows: Sequence[Features], num_rows: int) -> Tensor:
    """(N,) bool, whether each token of a batch belongs to one of the first ``num_rows`` rows."""
    if "attention_mask" in inputs:
        routed: Tensor = inputs["attention_mask"] != 0
        routed[num_rows:] = False
        return routed.flatten()
    routed = torch.zeros(inputs["input_ids"].shape[-1], dtype=torch.bool)
    routed[: sum(len(row.input_ids) for row in rows[:num_rows])] = True
    return routed


class RowSampler(data.Sampler[int]):
    """The order of the rows in ``epoch``: a function of seed and epoch alone, so a resumed run meets the same order.

    Args:
        lengths: Tokens of each row.
        group: Rows of one micro-batch, all devices together. 0 = a plain permutation; else rows of similar length are put
            into one group, within chunks of 16 groups, and the groups of a chunk are shuffled.
    """

    def __init__(self, lengths: Sequence[int], *, seed: int, group: int = 0) -> None:
        self.lengths = lengths
        self.seed = seed
        self.group = group
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = torch.randperm(len(self.lengths), generator=generator).tolist()
        if not self.group:
            yield from order
            return
        for start in range(0, len(order), 16 * self.group):
            chunk = sorted(order[start : start + 16 * self.group], key=lambda row: self.lengths[row])
            groups = [chunk[first : first + self.group] for first in range(0, len(chunk), self.group)]
            # A short group must stay last, or the groups after it would no longer be the batches.
            num_full = len(chunk) // self.group
            for index in torch.randperm(num_full, generator=generator).tolist() + list(range(num_full, len(groups))):
                yield from groups[index]


def measure_lengths(rows: Sequence[Sample], encoder: RowEncoder, *, progress: Callable[[int], None] | None = None) -> list[int]:
    """Tokens of each row, image tokens included, without opening a picture."""
    lengths = []
    for index, row in enumerate(rows):
        sizes = [(image.width, image.height) for image in row.images]
        lengths.append(encoder.count_tokens(row.messages, sizes, sample_id=row.id))
        if progress is not None:
            progress(index + 1)
    return lengths


def encoded_bytes(rows: EncodedRows, lengths: Sequence[int]) -> int:
    """Memory that all rows take once encoded, estimated from the longest and the median one.

    0 when there are no rows or when one of the two cannot be encoded (training will say why).
    """
    if not len(rows):
        return 0
    order = sorted(range(len(rows)), key=lambda index: lengths[index])
    total = 0
    for index in {order[-1], order[len(order) // 2]}:
        features = rows[index]
        if isinstance(features, MedtuneError):
            return 0
        tensors = [features.input_ids, features.labels, *features.tensors.values()]
        bytes_per_token = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / max(1, lengths[index])
        total = max(total, round(bytes_per_token * sum(lengths)))
    return total
