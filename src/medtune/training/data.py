"""Rows become encoded features when they are needed, in the processes that load the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils import data

from medtune.errors import MedtuneError, TrainingError
from medtune.imaging.read import open_picture
from medtune.language import msg
from medtune.training.loss import target_positions
from medtune.types import AdapterContract, Batch, Features, ImageRef, Sample

__all__ = ["CACHE_LIMIT_BYTES", "Collator", "EncodedRows", "RowEncoder", "RowSampler", "encoded_bytes", "measure_lengths"]

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

    def collate(self, features: Sequence[Features], *, padding: Any = "right") -> Batch: ...

    def count_tokens(self, messages: Any, sizes: Any, *, sample_id: str = "") -> int: ...

    def contract(self) -> AdapterContract: ...


class EncodedRows(data.Dataset[Any]):
    """Encodes row ``index`` on demand; after :meth:`keep` each row only once.

    A fault of the user's data comes back as the error itself, not raised: an exception that crosses the border of a worker
    process loses its fields. :class:`Collator` hands it on, and the trainer raises it.
    """

    def __init__(self, rows: Sequence[Sample], encoder: RowEncoder, picture: Callable[[ImageRef], Path | bytes]) -> None:
        self.rows = rows
        self.encoder = encoder
        self.picture = picture
        self._cache: dict[int, Features] | None = None

    def keep(self) -> None:
        """From now on, encode each row only once."""
        self._cache = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Features | MedtuneError:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        row = self.rows[index]
        try:
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


class Collator:
    """Features -> what the trainer passes on: the model's inputs, and four keys of its own that it takes out again.

    ``sample_ids`` (tuple of B strings), ``num_target_tokens`` (int, labels that carry loss), ``num_tokens`` (int, without
    padding) and ``positions`` (see :func:`medtune.training.loss.target_positions`). Numbers and positions are found here, on
    the CPU, so that nothing has to wait for the GPU. ``{"error": ...}`` alone when a row is at fault.
    """

    def __init__(self, encoder: RowEncoder) -> None:
        self.encoder = encoder

    def __call__(self, features: Sequence[Features | MedtuneError]) -> dict[str, Any]:
        sound: list[Features] = []
        for item in features:
            if isinstance(item, MedtuneError):
                return {"error": item}
            sound.append(item)
        batch = self.encoder.collate(sound, padding="right")
        return {
            **batch.inputs,
            "sample_ids": batch.sample_ids,
            "num_target_tokens": batch.num_target_tokens,
            "positions": target_positions(batch.inputs["labels"]),
            "num_tokens": sum(len(item.input_ids) for item in sound),
        }


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
